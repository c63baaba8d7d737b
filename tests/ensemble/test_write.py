"""From predictions on disk to a checked CSV and its JSON."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from podium.ensemble import write as write_module
from podium.ensemble.write import write_ensemble
from podium.errors import ConfigError, PredictionsError, SubmissionError
from podium.files import file_lock
from podium.plan.runs import read_plan
from podium.plan.stamp import ensemble_is_fresh, file_sha256
from podium.predictions.artefact import save_predictions
from toy_runs import SETTINGS, lock_for, make_project, random_run, save, shuffled

RUNS = ("resnet34.s1", "resnet34.s2", "vgg19.s1")


def is_fresh(workspace, out="ensemble"):
    """Whether `make` would leave the ensemble as it is."""
    plan = read_plan("toy", workspace.paths.root)
    return ensemble_is_fresh(plan.paths, plan.competition, out)


def three_runs():
    """Three runs over the same rows."""
    return [random_run(name, seed=seed) for seed, name in enumerate(RUNS)]


def test_the_csv_has_the_order_of_the_lock_and_the_json_records_how_it_was_made(tmp_path):
    workspace = make_project(tmp_path, three_runs())
    written = write_ensemble(workspace)
    lines = written.csv_file.read_text().splitlines()
    assert lines[0] == "id,label"
    assert [line.split(",")[0] for line in lines[1:]] == [str(row) for row in range(1, 31)]
    record = json.loads(written.json_file.read_text())
    assert written.json_file.read_text().startswith('{\n  "competition": "toy",\n')
    assert write_module._rounded({"a": (1 / 3, np.nan)}) == {"a": [0.33333333, None]}
    assert record["inputs"] == {run: file_sha256(workspace.paths.predictions_file(run)) for run in RUNS}
    assert record["csv_sha256"] == file_sha256(written.csv_file)
    assert [run["run"] for run in record["runs"]] == list(RUNS)
    assert sum(run["weight"] for run in record["runs"]) == pytest.approx(1)
    assert record["honest_score"]["score"] == pytest.approx(written.result.score.score)
    assert record["honest_score"]["scored"].startswith("cross-fitted")
    assert record["in_sample"]["scores"] == pytest.approx(written.result.used.in_sample)
    assert {score["strategy"] for score in record["strategies"]} >= {"best", "uniform", "stack"}
    assert len(record["contributions"]) == len(record["error_correlation"]) == 3
    with np.load(written.csv_file.with_suffix(".probabilities.npz"), allow_pickle=False) as beside:
        assert beside["ids"].tolist() == [str(row) for row in range(1, 31)]
        named = beside["classes"][beside["probabilities"].argmax(axis=1)].tolist()
    assert named == [line.split(",")[1] for line in lines[1:]]


def test_each_row_has_the_most_probable_class_of_its_id(tmp_path):
    written = write_ensemble(make_project(tmp_path, three_runs()))
    aligned, probabilities = written.result.aligned, written.result.test_probabilities
    expected = {id_: aligned.classes[row.argmax()] for id_, row in zip(aligned.test_ids, probabilities, strict=True)}
    assert dict(line.split(",") for line in written.csv_file.read_text().splitlines()[1:]) == expected


def test_the_order_of_any_runs_rows_leaves_the_csv_byte_identical(tmp_path):
    runs = three_runs()
    settings = SETTINGS + '[submission]\nkind = "probabilities"\n'
    straight = write_ensemble(make_project(tmp_path / "straight", runs, settings=settings))
    for index in range(len(runs)):
        mixed = [shuffled(run, seed=index) if place == index else run for place, run in enumerate(runs)]
        folder = tmp_path / f"mixed{index}"
        written = write_ensemble(make_project(folder, mixed, settings=settings))
        assert written.csv_file.read_bytes() == straight.csv_file.read_bytes()
        records = [json.loads(result.json_file.read_text()) for result in (written, straight)]
        differ = {key for key in records[0] if records[0][key] != records[1][key]}
        assert differ == {"stamp", "inputs", "content_sha256"}


def test_equal_inputs_give_equal_bytes_under_another_name(tmp_path):
    workspace = make_project(tmp_path, three_runs())
    first, second = write_ensemble(workspace), write_ensemble(workspace, out="try2")
    assert first.csv_file.name == "ensemble.csv"
    assert second.csv_file.read_bytes() == first.csv_file.read_bytes()
    assert second.json_file.read_bytes() == first.json_file.read_bytes()


def test_an_ensemble_is_fresh_until_one_of_its_inputs_changes(tmp_path):
    runs = three_runs()
    workspace = make_project(tmp_path, runs)
    assert not is_fresh(workspace)
    written = write_ensemble(workspace)
    assert is_fresh(workspace)
    assert not is_fresh(workspace, "try2")

    text = written.csv_file.read_text()
    written.csv_file.write_text(text + " ")
    assert not is_fresh(workspace)
    written.csv_file.write_text(text)
    assert is_fresh(workspace)

    make_project(tmp_path, runs, settings=SETTINGS.replace("0.7", "0.8"))
    assert not is_fresh(workspace)
    make_project(tmp_path, runs)
    assert is_fresh(workspace)

    save(workspace, random_run("vgg19.s1", seed=9))
    assert not is_fresh(workspace)


def test_an_edited_score_or_weight_and_a_cut_or_missing_file_are_not_fresh(tmp_path):
    workspace = make_project(tmp_path, three_runs())
    written = write_ensemble(workspace)
    probabilities = written.csv_file.with_suffix(".probabilities.npz")
    record = json.loads(written.json_file.read_text())
    record["honest_score"]["score"] += 0.01
    score = json.dumps(record).encode()
    record = json.loads(written.json_file.read_text())
    record["runs"][0]["weight"] = 0.9
    weight = json.dumps(record).encode()
    for file, contents in ((written.json_file, [score, weight]), (probabilities, [probabilities.read_bytes()[:-50]])):
        original = file.read_bytes()
        for content in contents:
            file.write_bytes(content)
            assert not is_fresh(workspace)
        file.write_bytes(original)
        assert is_fresh(workspace)
    for file in (probabilities, written.csv_file):
        original = file.read_bytes()
        file.unlink()
        assert not is_fresh(workspace)
        file.write_bytes(original)


def test_a_json_that_the_system_cannot_read_is_an_error(tmp_path, monkeypatch):
    workspace = make_project(tmp_path, three_runs())
    write_ensemble(workspace)
    original = Path.read_bytes

    def refuse(file, *arguments, **options):
        if file.name == "ensemble.json":
            raise PermissionError(13, "Permission denied", str(file))
        return original(file, *arguments, **options)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(PermissionError):
        is_fresh(workspace)


def test_a_csv_with_a_fault_is_never_left_with_a_record(tmp_path, monkeypatch):
    """The written CSV is read again and checked."""
    workspace = make_project(tmp_path, three_runs())
    original = write_module.submission_text

    def without_a_row(probabilities, *, lock, settings):
        fewer = replace(lock, test_ids=lock.test_ids[:-1])
        return original(probabilities[:-1], lock=fewer, settings=settings)

    monkeypatch.setattr(write_module, "submission_text", without_a_row)
    with pytest.raises(AssertionError, match="1 ids are missing"):
        write_ensemble(workspace)
    assert not is_fresh(workspace) and not (workspace.paths.submissions / "ensemble.json").exists()


def test_two_commands_do_not_mix_their_files(tmp_path, monkeypatch):
    """The second one waits until all files of the first one are written."""
    workspace, original = make_project(tmp_path, three_runs()), write_module.submission_text

    def check_lock(*arguments, **keys):
        lock = workspace.paths.submissions / ".ensemble.lock"
        with pytest.raises(BlockingIOError), file_lock(lock, refusal=BlockingIOError()):
            pass
        return original(*arguments, **keys)

    monkeypatch.setattr(write_module, "submission_text", check_lock)
    write_ensemble(workspace)
    assert not list(workspace.paths.submissions.glob(".*"))


def test_a_strategy_and_a_threshold_override_the_settings_for_one_command(tmp_path):
    workspace = make_project(tmp_path, three_runs())
    tried = write_ensemble(workspace, strategy="greedy", threshold=0.1, out="try2")
    record = json.loads(tried.json_file.read_text())
    assert tried.csv_file.name == "try2.csv"
    assert (record["settings"]["strategy"], record["settings"]["threshold"]) == ("greedy", 0.1)
    assert [score["strategy"] for score in record["strategies"]] == ["best", "uniform", "greedy"]
    write_ensemble(workspace, strategy="uniform")
    assert not is_fresh(workspace)  # `make` would write what the TOML says
    with_all = make_project(tmp_path / "all", three_runs(), settings=SETTINGS + 'select = "all"\n')
    tried = write_ensemble(with_all, threshold=0.1)
    settings = tried.result.pool.settings
    assert (settings.select, settings.threshold) == ("rule", 0.1)
    for keys in ({"strategy": "gredy"}, {"threshold": 1.5}):
        with pytest.raises(ConfigError, match=r"greedy|0 to 1"):
            write_ensemble(workspace, **keys)


def test_groups_of_the_lock_stay_together(tmp_path, monkeypatch):
    groups_seen = {}
    original = write_module.build_ensemble

    def spy(aligned, settings, **options):
        groups_seen.update(zip(aligned.oof_ids.tolist(), aligned.groups.tolist(), strict=True))
        return original(aligned, settings, **options)

    monkeypatch.setattr(write_module, "build_ensemble", spy)
    lock = lock_for(random_run("any.s1"))
    order = np.argsort(lock.train_ids)
    groups = np.array([f"g{id_[-1]}" for id_ in lock.train_ids])
    grouped = replace(
        lock,
        train_ids=lock.train_ids[order],
        train_labels=lock.train_labels[order],
        folds=lock.folds[order],
        groups=groups[order],
    )
    workspace = make_project(tmp_path, [], lock=grouped)
    for run in three_runs():
        about = run.about | {"fold_sha256": grouped.fold_sha256}
        save_predictions(workspace.paths.predictions_file(run.run), replace(run, about=about))
    write_ensemble(workspace)
    assert len(groups_seen) == 40 and all(group == f"g{id_[-1]}" for id_, group in groups_seen.items())


@pytest.mark.parametrize("content", ["", "[]", "{", "null", "[" * 100_000])
def test_a_damaged_json_is_not_fresh(content, tmp_path):
    workspace = make_project(tmp_path, three_runs())
    write_ensemble(workspace).json_file.write_text(content)
    assert not is_fresh(workspace)


def test_without_predictions_the_error_names_the_command_that_makes_them(tmp_path):
    with pytest.raises(SubmissionError, match="make train COMPETITION=toy"):
        write_ensemble(make_project(tmp_path, []))


def test_a_single_run_makes_a_submission(tmp_path):
    written = write_ensemble(make_project(tmp_path, three_runs()[:1]))
    assert [run.weight for run in written.result.runs] == [1.0]


def test_a_name_that_is_a_path_is_refused(tmp_path):
    for out in ("../up", "a/b", "", "."):
        with pytest.raises(SubmissionError, match="name"):
            write_ensemble(make_project(tmp_path, three_runs()), out=out)


OTHER_DATA = {
    "fingerprint": ({"fingerprint": "new data"}, "fingerprint: expected new data, found data"),
    "classes": ({"classes": ("cat", "bird", "dog")}, "classes: expected cat, bird, dog, found bird, cat, dog"),
    "labels": ({"train_labels": np.zeros(42, dtype=int)}, r"other labels in \d+ rows"),
    "folds": ({"folds": np.array([0] * 41 + [-1])}, r"1 validation ids are missing \(w1\)"),
    "folds over the same rows": ({"folds": np.array([1] * 40 + [-1] * 2)}, "fold_sha256: expected .*, found "),
    "test": ({"test_ids": np.arange(2, 32).astype(str)}, r"1 test ids are missing \(31\)"),
}


@pytest.mark.parametrize("case", OTHER_DATA)
def test_predictions_of_other_data_than_the_lock_are_refused(case, tmp_path):
    changes, message = OTHER_DATA[case]
    runs = three_runs()
    workspace = make_project(tmp_path, runs, lock=replace(lock_for(runs[0]), **changes))
    with pytest.raises(PredictionsError, match=message):
        write_ensemble(workspace)
    assert not workspace.paths.submissions.exists()


def test_a_damaged_run_is_named_and_the_last_submission_stays(tmp_path):
    workspace = make_project(tmp_path, three_runs())
    before = write_ensemble(workspace).csv_file.read_bytes()
    file = workspace.paths.predictions_file("vgg19.s1")
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(PredictionsError, match=r"vgg19\.s1\.npz"):
        write_ensemble(workspace)
    assert (workspace.paths.submissions / "ensemble.csv").read_bytes() == before


OTHER_CPUS = ("X86_V3 X86_V4 AVX512_ICL AVX512_SPR", "X86_V4 AVX512_ICL AVX512_SPR", "")


def test_cpus_with_other_instructions_write_the_same_json(tmp_path):
    """NumPy and OpenBLAS compute the last bits otherwise where a CPU lacks AVX2 or AVX-512."""
    runs = [
        random_run(f"{name}.s1", rows=1000, seed=seed, classes=tuple("abcdefghij")) for seed, name in enumerate("xyz")
    ]
    workspace = make_project(tmp_path, [], lock=lock_for(runs[0]))
    for run in runs:
        about = run.about | {"fold_sha256": lock_for(run).fold_sha256}
        save_predictions(workspace.paths.predictions_file(run.run), replace(run, about=about))
    code = (
        "import sys; from podium.ensemble.write import write_ensemble; from podium.workspace import open_workspace;"
        "sys.stdout.write(write_ensemble(open_workspace('toy', sys.argv[1])).json_file.read_text())"
    )
    texts = set()
    for disabled, core in zip(OTHER_CPUS, ("Nehalem", "Haswell", ""), strict=True):
        other = {"PYTHONPATH": str(Path(__file__).parents[2] / "src"), "NPY_DISABLE_CPU_FEATURES": disabled}
        environment = os.environ | other | ({"OPENBLAS_CORETYPE": core} if core else {})
        done = subprocess.run([sys.executable, "-c", code, tmp_path], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        texts.add(done.stdout)
    assert len(texts) == 1


def test_the_process_that_writes_an_ensemble_loads_no_heavy_library(tmp_path):
    make_project(tmp_path, three_runs())
    code = (
        "import sys; from podium.ensemble.write import write_ensemble; from podium.workspace import open_workspace;"
        "write_ensemble(open_workspace('toy', sys.argv[1]));"
        "print([name for name in ('torch', 'torchvision', 'fastai', 'timm', 'sklearn', 'pandas', 'PIL')"
        " if name in sys.modules])"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    done = subprocess.run([sys.executable, "-c", code, tmp_path], env=environment, capture_output=True, text=True)
    assert (done.stdout.strip(), done.returncode) == ("[]", 0), done.stderr


def strong_and_weak():
    """A strong run and three weak ones, whose equal weights are worse than the strong run alone."""
    weak = [random_run(f"{name}.s1", rows=400, seed=seed, noise=6.0) for seed, name in enumerate("bcd")]
    return [random_run("a.s1", rows=400, seed=5, noise=0.7), *weak]


def test_a_blend_that_is_worse_than_the_best_run_is_written_only_if_it_is_asked_for(tmp_path):
    runs = strong_and_weak()
    settings = (
        SETTINGS.replace("rows = 40", "rows = 400")
        + 'select = "all"\nstrategy = "uniform"\nrun_temperatures = "never"\n'
    )
    workspace = make_project(tmp_path, [], lock=lock_for(runs[0]), settings=settings)
    for run in runs:
        about = run.about | {"fold_sha256": lock_for(run).fold_sha256}
        save_predictions(workspace.paths.predictions_file(run.run), replace(run, about=about))
    with pytest.raises(SubmissionError) as refused:
        write_ensemble(workspace)
    message = str(refused.value)
    assert all(part in message for part in ("a.s1", 'strategy = "auto"', "make ensemble STRATEGY=uniform"))
    assert not list(workspace.paths.submissions.glob("*"))
    write_ensemble(workspace, rehearsed=True, out="rehearsal")  # its scores mean nothing
    asked = write_ensemble(workspace, strategy="uniform")
    assert asked.result.comparisons[0].gain < 0 and is_fresh(workspace)
    assert write_ensemble(workspace, strategy="auto", out="try2").result.comparisons[0].gain >= 0


def test_the_json_has_no_pairs_of_very_many_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(write_module, "MOST_RUNS_IN_PAIRS", 2)
    record = json.loads(write_ensemble(make_project(tmp_path, three_runs())).json_file.read_text())
    assert record["error_correlation"] is record["disagreement"] is None and len(record["contributions"]) == 3


def test_a_threshold_for_log_loss_is_refused(tmp_path):
    settings = 'metric = "log_loss"\n' + SETTINGS.split("[ensemble]")[0] + '[submission]\nkind = "probabilities"\n'
    workspace = make_project(tmp_path, three_runs(), settings=settings)
    with pytest.raises(ConfigError, match="a threshold has no effect"):
        write_ensemble(workspace, threshold=0.9)
