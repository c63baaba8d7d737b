"""The chain of a submission: every change of one byte is named, at the link where it is."""

import json
import platform
import shutil
from dataclasses import asdict

import numpy as np
import pytest

from digits_toys import RECIPE, digits_workspace
from podium.ensemble.chain import read_chain, remake_differences
from podium.ensemble.write import write_ensemble
from podium.errors import SubmissionError
from podium.plan.stamp import file_sha256, weights_sha256, with_hashes
from podium.predictions.artefact import Predictions, save_predictions
from podium.workspace import open_workspace

WEIGHTS = "start.safetensors"
SETTINGS = """rows = 297
[ensemble]
threshold = 0.3
[submission]
id_column = "id"
"""


def made(workspace, name, **others):
    """Write predictions of a run, as if it had been trained."""
    lock, (run,) = workspace.lock, workspace.runs
    rows, random = np.flatnonzero(lock.folds >= 0), np.random.default_rng(len(name))
    about = {"run": name, "architecture": name, "fingerprint": lock.fingerprint, "fold_sha256": lock.fold_sha256}
    trained = {
        "recipe_name": "tiny",
        "recipe": asdict(run.recipe),
        "seed": 1,
        "stamp": run.stamp,
        "weights_sha256": weights_sha256(run.recipe, workspace.paths.root),
        "versions": {"python": platform.python_version()},
        "device": "cpu",
        "git_commit": "0123456789abcdef",
    }
    predictions = Predictions(
        oof_ids=lock.train_ids[rows],
        oof_logits=(np.eye(10)[lock.train_labels[rows]] + random.normal(size=(len(rows), 10))).astype(np.float32),
        oof_labels=lock.train_labels[rows],
        test_ids=lock.test_ids,
        test_logits=random.normal(size=(len(lock.test_ids), 10)).astype(np.float32),
        classes=lock.classes,
        about=about | ({} if "imported" in others else trained) | others,
    )
    save_predictions(workspace.paths.predictions_file(name), predictions)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A prepared competition with a trained run, an imported one, and their ensemble."""
    folder = tmp_path_factory.mktemp("chain")
    (folder / WEIGHTS).write_bytes(b"weights")
    recipe = RECIPE + f'pretrained = "{WEIGHTS}"\n'
    workspace = digits_workspace(folder, validation=SETTINGS, recipe=recipe)
    made(workspace, "tiny.s1")
    made(workspace, "other.s1", imported=True, came_as="logits")
    write_ensemble(workspace)
    return folder


@pytest.fixture
def workspace(written, tmp_path):
    """A copy of it."""
    return open_workspace("digits", shutil.copytree(written, tmp_path / "copy"))


def csv_of(workspace):
    return workspace.paths.submissions / "ensemble.csv"


def links(workspace, file=None):
    """State and text of each link, as they are now."""
    workspace = open_workspace("digits", workspace.paths.root)
    chain = read_chain(workspace, file or csv_of(workspace), reads_images=True)
    return [(link.state, line) for link, line in chain.lines()]


def changed(workspace, file=None):
    return [line for state, line in links(workspace, file) if state == "changed"]


def test_an_unchanged_chain_holds_from_the_csv_to_the_images(workspace):
    states, lines = zip(*links(workspace), strict=True)
    assert set(states) == {"ok"} and remake_differences(workspace, csv_of(workspace)) == []
    expected = [
        *((0, "ensemble.csv"), (1, "ensemble.json"), (1, "ensemble.probabilities.npz"), (1, "settings: strategy auto")),
        *((1, "other.s1.npz, weight 0."), (2, "imported, logits"), (1, "tiny.s1.npz, weight 0.")),
        *((2, "tiny.toml, seed 1"), (2, f"weights {WEIGHTS}"), (2, "commit, cpu, python"), (1, "data.lock")),
        (2, "1,297 + 500 images"),
    ]
    depths = [(len(line[24:]) - len(line[24:].lstrip())) // 2 for line in lines]
    assert depths == [depth for depth, _ in expected]
    assert all(name in line for line, (_, name) in zip(lines, expected, strict=True)), lines
    root = csv_of(workspace)
    assert f"ok        {file_sha256(root)[:12]}  {root}" == lines[0]


def flip(file, old, new):
    """Change one byte: the first place where `old` is, or the middle of the file."""
    content = file.read_bytes()
    place = content.index(old) if old else len(content) // 2
    other = new or bytes([content[place] ^ 1])
    assert len(old) == len(new)
    file.write_bytes(content[:place] + other + content[place + len(other) :])


SETTINGS_FILE, LOCK = "competitions/digits/competition.toml", "competitions/digits/data.lock"
# Link -> the file, what is changed in it, and what the line of the link has.
BYTES = {
    "CSV": ("submissions/digits/ensemble.csv", b"", b"", ["ensemble.csv: now "]),
    "record": ("submissions/digits/ensemble.json", b'"score": 0.', b'"score": 1.', ["ensemble.json: now "]),
    "key in the record": ("submissions/digits/ensemble.json", b'"run": ', b'"ran": ', ["ensemble.json: now "]),
    "not JSON": ("submissions/digits/ensemble.json", b"{", b"[", ["ensemble.json, which says what made it"]),
    "not a record": ("submissions/digits/ensemble.json", b"inputs", b"imputs", ["ensemble.json, which says"]),
    "probabilities": ("submissions/digits/ensemble.probabilities.npz", b"", b"", ["probabilities.npz: now "]),
    "predictions": ("oof/digits/tiny.s1.npz", b"", b"", ["tiny.s1.npz", "predictions, data.lock"]),
    "imported": ("oof/digits/other.s1.npz", b"", b"", ["other.s1.npz"]),
    "recipe": ("competitions/digits/tiny.toml", b"epochs = 2", b"epochs = 3", ["seed 1: epochs = 2, now 3"]),
    "settings": (SETTINGS_FILE, b"threshold = 0.3", b"threshold = 0.4", ["threshold = 0.3, now 0.4"]),
    "[submission]": (SETTINGS_FILE, b'"id"', b'"ix"', ["[submission]"]),
    "[validation]": (SETTINGS_FILE, b"rows = 297", b"rows = 298", ["tiny.toml, seed 1: ", "[validation]"]),
    "row of the lock": (LOCK, b",0,0\n", b",1,0\n", ["data.lock: now ", "images: Not a data.lock"]),
    "head of the lock": (LOCK, b'"seed": 0', b'"seed": 1', ["data.lock: now "]),
    "weights": (WEIGHTS, b"weights", b"weighty", [f"weights {WEIGHTS}: now "]),
}


@pytest.mark.parametrize("link", BYTES)
def test_a_changed_byte_is_named(link, workspace):
    name, old, new, parts = BYTES[link]
    flip(workspace.paths.root / name, old, new)
    lines = changed(workspace)
    assert all(any(part in line for line in lines) for part in parts), lines
    if link in ("record", "key in the record", "probabilities", "weights", "recipe", "settings", "imported"):
        assert len(lines) <= 2, lines


def test_a_changed_pixel_is_named_where_the_images_are_read(workspace):
    (file,) = workspace.paths.cache.rglob("images-*.npy")
    flip(file, b"", b"")
    (line,) = changed(workspace)
    assert "images: The decoded images are damaged." in line
    assert all(link.state == "ok" for link, _ in read_chain(workspace, csv_of(workspace)).lines())


def test_what_is_not_here_is_no_change_unless_the_ensemble_was_made_from_it(workspace):
    shutil.rmtree(workspace.paths.cache)
    (workspace.paths.root / WEIGHTS).unlink()
    csv_of(workspace).with_suffix(".probabilities.npz").unlink()
    absent = [line for state, line in links(workspace) if state == "not here"]
    assert len(absent) == 3 and not changed(workspace)
    workspace.paths.predictions_file("other.s1").unlink()
    assert "predictions, data.lock" in changed(workspace)[0]


def test_a_run_that_was_added_later_or_has_no_recipe_is_named(workspace):
    made(workspace, "tiny.s2")
    assert any("tiny.s2.npz, weight 0.0000: not in the ensemble" in line for line in changed(workspace))
    write_ensemble(workspace)
    assert [line.split(": ")[1] for line in changed(workspace)] == ["there is no such recipe"]


def test_other_versions_of_packages_are_no_change(workspace):
    made(workspace, "tiny.s1", versions={"python": "3.0.1", "no-such-package": "1.0"})
    write_ensemble(workspace)
    (line,) = [line for state, line in links(workspace) if state == "other"]
    assert f"no-such-package = 1.0, now none; python = 3.0.1, now {platform.python_version()}" in line


def test_a_strategy_that_the_command_gave_is_no_change(workspace):
    written = write_ensemble(workspace, strategy="uniform", threshold=0.1, out="try2")
    assert not changed(workspace, written.csv_file) and not remake_differences(workspace, written.csv_file)


def test_a_csv_is_known_by_its_hash_wherever_it_lies(workspace, tmp_path):
    copy = shutil.copy(csv_of(workspace), tmp_path / "old.csv")
    assert any("ensemble.json" in line for _, line in links(workspace, copy)) and not changed(workspace, copy)
    copy.write_text("id,label\n")
    assert changed(workspace, copy) == [
        f"changed   {file_sha256(copy)[:12]}  {copy}: old.json, which says what made it, is missing or damaged"
    ]
    with pytest.raises(SubmissionError, match="make ensemble COMPETITION=digits"):
        links(workspace, tmp_path / "none.csv")
    csv_of(workspace).unlink()
    with pytest.raises(SubmissionError, match="make ensemble COMPETITION=digits"):
        links(workspace)


def test_a_submission_of_another_competition_is_refused(workspace):
    folder = workspace.paths.folder
    shutil.copytree(folder, folder.with_name("other"))
    with pytest.raises(SubmissionError, match="COMPETITION=digits"):
        read_chain(open_workspace("other", workspace.paths.root), csv_of(workspace))


@pytest.mark.parametrize("key", ["score", "label"])
def test_a_forged_file_with_right_hashes_differs_when_the_ensemble_is_made_again(key, workspace):
    csv_file = csv_of(workspace)
    file = csv_file.with_suffix(".json")
    record = json.loads(file.read_text())
    if key == "score":
        record["honest_score"]["score"] += 0.01
    else:
        rows = csv_file.read_text().splitlines()
        rows[1] = f"{rows[1].split(',')[0]},{9 - int(rows[1].split(',')[1])}"
        csv_file.write_text("\n".join(rows) + "\n")
    file.write_text(json.dumps(with_hashes(record, csv_file.with_suffix(""))))
    assert not changed(workspace)
    assert remake_differences(workspace, csv_file) == [{"score": "honest_score", "label": "csv_sha256"}[key]]


def test_making_the_ensemble_again_leaves_every_file_as_it_is(workspace):
    files = {file: file.read_bytes() for file in workspace.paths.root.rglob("*") if file.is_file()}
    remake_differences(workspace, csv_of(workspace))
    assert {file: file.read_bytes() for file in workspace.paths.root.rglob("*") if file.is_file()} == files
