"""Runs are joined by id with the rows of the lock; all runs of a competition are read."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from podium.ensemble import blend as blend_module
from podium.ensemble import cross_fit as cross_fit_module
from podium.ensemble.write import write_ensemble
from podium.errors import PredictionsError, SubmissionError
from podium.predictions import align as align_module
from podium.predictions.align import PoolSize, align, load_runs, pool_size
from podium.predictions.artefact import save_predictions
from toy_runs import SETTINGS, join, lock_for, make_project, random_run, run_of, shuffled


def test_runs_are_joined_by_id_in_any_order_of_their_rows():
    runs = [random_run(name, seed=seed) for seed, name in enumerate(("a.s1", "a.s2", "b.s1"))]
    ordered = join(runs)
    mixed = join([shuffled(run, seed=seed) for seed, run in enumerate(reversed(runs))])
    assert ordered.runs == mixed.runs == ("a.s1", "a.s2", "b.s1")
    for name in ("oof_ids", "oof_logits", "oof_labels", "test_ids", "test_logits"):
        np.testing.assert_array_equal(getattr(ordered, name), getattr(mixed, name))
    row = list(ordered.test_ids).index("17")
    np.testing.assert_array_equal(ordered.test_logits[1, row], runs[1].test_logits[16])


def test_a_single_run_is_aligned():
    aligned = join([run_of()])
    assert aligned.oof_logits.shape == (1, 4, 3)
    assert aligned.oof_ids.tolist() == ["v0", "v1", "v2", "v3"]


DIFFERENT = {
    "labels": ({"oof_labels": np.array([0, 1, 1, 0])}, r"other labels in 1 rows \(ids v2\)"),
    "unknown labels": ({"oof_labels": np.array([0, 9, 2, -1])}, r"other labels in 2 rows \(ids v1, v3\)"),
    "an id twice": ({"test_ids": np.array(["t1", "t1", "t2"])}, r"1 test ids are repeated \(t1\)"),
    "a class twice": ({"classes": ("bird", "cat", "bird")}, "expected bird, cat, dog, found bird, cat, bird"),
    "test ids": ({"test_ids": np.array(["t0", "t1", "t9"])}, r"1 test ids are missing \(t2\)"),
    "other test ids": ({"test_ids": np.array(["t0", "t1", "t9"])}, r"1 test ids are unknown \(t9\)"),
    "validation ids": ({"oof_ids": np.array(["v0", "v1", "v2", "x"])}, r"1 validation ids are missing \(v3\)"),
    "class order": ({"classes": ("cat", "bird", "dog")}, "classes: expected bird, cat, dog, found cat, bird, dog"),
}


@pytest.mark.parametrize("case", DIFFERENT)
def test_only_the_run_that_differs_from_the_lock_is_named(case):
    changes, message = DIFFERENT[case]
    other = replace(run_of("vgg19.s1"), **changes)
    with pytest.raises(PredictionsError, match=r"vgg19\.s1 .*" + message) as error:
        join([run_of("resnet34.s1"), other])
    assert "resnet34" not in str(error.value)


@pytest.mark.parametrize("key", ["fold_sha256", "fingerprint"])
def test_runs_of_other_folds_or_data_are_refused(key):
    with pytest.raises(PredictionsError, match=rf"b\.s1 .*: {key}: expected .*, found other"):
        join([run_of("a.s1"), run_of("b.s1", **{key: "other"})])


def test_runs_are_judged_by_the_lock_and_not_by_the_first_run():
    lock = lock_for(run_of())
    good = [run_of(name, fold_sha256=lock.fold_sha256) for name in ("b.s1", "c.s1", "d.s1")]
    bad = run_of("a.s1", fold_sha256="other")
    with pytest.raises(PredictionsError) as error:
        align([bad, *good], lock)
    assert [fault.split()[0] for fault in error.value.faults] == ["a.s1"]


def test_two_files_of_one_run_are_refused():
    with pytest.raises(PredictionsError, match=r"a\.s1 .*: the same run is in memory"):
        join([run_of("a.s1"), run_of("a.s1")])


def test_all_runs_that_differ_are_reported_at_once():
    with pytest.raises(PredictionsError) as error:
        join(
            [
                run_of("a.s1"),
                run_of("b.s1", fold_sha256="x"),
                run_of("c.s1", fold_sha256="y", labels=(0, 1, 1, 0)),
            ]
        )
    assert [fault.split()[0] for fault in error.value.faults] == ["b.s1", "c.s1", "c.s1"]


@pytest.mark.parametrize(
    ("strategy", "runs", "rows", "classes"),
    [("log-loss", 60, 300, 20), ("accuracy", 3, 200, 600), ("auto", 3, 200, 60)],
)
def test_an_ensemble_needs_no_more_memory_than_it_says(strategy, runs, rows, classes, tmp_path, monkeypatch):
    monkeypatch.setattr(cross_fit_module, "MANY_LOGITS", 1)
    monkeypatch.setattr(blend_module, "VALUES_AT_A_TIME", 20_000)
    names = tuple(f"c{place}" for place in range(classes))
    pool = [random_run(f"a{run}.s1", rows=rows, tests=rows, classes=names, seed=run) for run in range(runs)]
    lock = lock_for(pool[0])
    workspace = make_project(tmp_path, [], lock=lock, settings=SETTINGS.replace("rows = 40", f"rows = {rows}"))
    for run in pool:
        about = run.about | {"fold_sha256": lock.fold_sha256}
        save_predictions(workspace.paths.predictions_file(run.run), replace(run, about=about))
    del pool
    tracemalloc.start()
    try:
        write_ensemble(workspace, strategy=strategy)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert 0.2 < peak / pool_size(workspace).memory_bytes < 1


def test_ids_of_many_runs_are_not_in_memory_together(tmp_path, monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {0, 1})
    runs, tests = 40, 2000
    long_ids = np.array([f"{row:0200d}" for row in range(tests)])
    pool = [replace(random_run(f"a.s{seed}", tests=tests), test_ids=long_ids) for seed in range(runs)]
    workspace = make_project(tmp_path, pool, lock=lock_for(pool[0]))
    assert len(workspace.lock.test_ids) == tests
    tracemalloc.start()
    try:
        load_runs(workspace)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < runs * long_ids.nbytes / 2


def test_rehearsed_runs_have_some_of_the_validation_rows_and_trained_ones_all(tmp_path):
    lock = lock_for(random_run("any.s1"))
    workspace = make_project(tmp_path, [random_run(f"{name}.s1", rows=25) for name in "ba"], lock=lock)
    aligned = load_runs(workspace, rehearsed=True)
    assert aligned.runs == ("a.s1", "b.s1") and len(aligned.oof_ids) == 25
    with pytest.raises(PredictionsError, match="15 validation ids are missing"):
        load_runs(workspace)


def test_without_predictions_the_command_that_makes_them_is_named(tmp_path):
    with pytest.raises(SubmissionError, match=r"fix: +make train COMPETITION=toy"):
        load_runs(make_project(tmp_path, []))


def test_the_size_is_that_of_the_runs_and_the_lock(tmp_path):
    workspace = make_project(tmp_path, [random_run(f"a.s{seed}", seed=seed) for seed in (1, 2)])
    assert pool_size(workspace) == PoolSize(runs=2, rows=40, tests=30, values=3)


def test_runs_that_need_more_memory_than_there_is_are_refused_before_they_are_read(tmp_path, monkeypatch):
    workspace = make_project(tmp_path, [random_run("a.s1")])
    assert len(load_runs(workspace).runs) == 1
    monkeypatch.setattr(align_module, "MEMORY_FILE", tmp_path / "meminfo")
    load_runs(workspace)  # a system that has no such file
    (tmp_path / "meminfo").write_text("MemTotal:  8000 kB\nMemAvailable:    9000 kB\n")
    load_runs(workspace)
    (tmp_path / "meminfo").write_text("MemTotal:  8000 kB\nMemAvailable:      30 kB\n")
    workspace.paths.predictions_file("a.s1").write_bytes(b"never opened")
    with pytest.raises(PredictionsError, match=r"expected: 0.0 GB of available memory"):
        load_runs(workspace)
