"""The notebook of a code competition: packed, pushed, run, and submitted once, by the real kaggle CLI."""

import ast
import hashlib
import json
import os
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from fake.kernels import Ran
from fake.server import FakeServer
from fake.state import Fault, Graded, State
from safetensors.numpy import save

from command_toys import run_podium
from digits_toys import RECIPE, digits_workspace
from notebook_toys import SHORT, log_text
from podium.ensemble.write import write_ensemble
from podium.errors import ConfigError, KaggleError, SubmissionError
from podium.files import write_file
from podium.kaggle.account import Account
from podium.kaggle.ledger import read_ledger
from podium.kaggle.notebooks import rehearse
from podium.kaggle.notebooks.blend import run_blend_notebook
from podium.kaggle.notebooks.package import pack_notebook
from podium.kaggle.notebooks.rehearse import rehearse_blend
from podium.kaggle.notebooks.script import MANIFEST
from podium.kaggle.session import Session
from podium.kaggle.submit import submit
from podium.kaggle.waiting import Patience
from podium.predictions.artefact import Predictions, save_predictions
from podium.workspace import open_workspace

SLUG, NOTEBOOK, PUSH = "dogs", "rehearsal/submit-digits", "SaveKernel"
VALIDATION = 'rows = 297\n[kaggle]\ncompetition = "dogs"\n'


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with digits, the predictions of one run, a matrix in place of its parameters, and its ensemble."""
    folder = tmp_path_factory.mktemp("blend")
    workspace = digits_workspace(folder, validation=VALIDATION)
    lock, draw = workspace.lock, np.random.default_rng(0)
    judged, answers = np.flatnonzero(lock.folds >= 0), draw.integers(10, size=len(lock.test_ids))
    about = {"run": "tiny.s1", "architecture": "tiny", "fingerprint": lock.fingerprint, "fold_sha256": lock.fold_sha256}
    predictions = Predictions(
        oof_ids=lock.train_ids[judged],
        oof_logits=np.eye(10, dtype=np.float32)[lock.train_labels[judged]],
        oof_labels=lock.train_labels[judged],
        test_ids=lock.test_ids,
        test_logits=np.eye(10, dtype=np.float32)[answers],
        classes=lock.classes,
        about=about,
    )
    save_predictions(workspace.paths.predictions_file("tiny.s1"), predictions)
    write_file(workspace.paths.parameters_file("tiny.s1"), save({"0.weight": np.ones((99, 99), np.float32)}))
    write_ensemble(workspace)
    return folder


class Toy:
    """Sessions at the local Kaggle, whose notebooks write `csv`; by default that of the ensemble."""

    def __init__(self, folder, server):
        self.server, self.state, self.messages = server, server.state.kernels, []
        self.workspace = open_workspace("digits", folder)
        self.environment = server.environment(os.environ, folder / "home")
        self.csv = (self.workspace.paths.submissions / "ensemble.csv").read_bytes()
        self.state.run = lambda push, datasets: self.ran(push)
        account = Account(SLUG, self.environment, 20, (0.05,))
        self.session = Session(self.workspace, account, self.messages.append, SHORT, "notebook")
        self.submissions = Session(self.workspace, account, self.messages.append, SHORT)

    def ran(self, push):
        settings = settings_of(push["text"])
        manifest = {"push": settings["push"], "trained": [], "failed": [], "left": []}
        files = {"submission.csv": self.csv} if self.csv else {}
        manifest["files"] = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
        return Ran("COMPLETE", "", files | {MANIFEST: json.dumps(manifest).encode()}, log_text("written\n"))

    def run(self, **options):
        return run_blend_notebook(self.session, **options)

    def submit(self, *, session=None, **options):
        push, file = self.run()
        options |= {"notebook": push.notebook, "version": push.version}
        return submit(session or self.submissions, file, "first", **options)


def settings_of(text):
    (value,) = (
        line.value for line in ast.parse(text).body if isinstance(line, ast.AnnAssign) and line.target.id == "SETTINGS"
    )
    return ast.literal_eval(value)


@pytest.fixture
def toy(folder, monkeypatch):
    with FakeServer(State(SLUG, lambda content: Graded("0.9", ""))) as server:
        toy = Toy(folder, server)
        for name in [name for name in os.environ if name.startswith("KAGGLE_")]:
            monkeypatch.delenv(name)
        for name, value in toy.environment.items():  # no process of these tests can reach Kaggle
            monkeypatch.setenv(name, value)
        yield toy
        for file in (toy.session.push_file, toy.submissions.ledger):
            file.unlink(missing_ok=True)


def test_a_notebook_is_pushed_run_and_its_version_submitted_once(toy):
    push, _ = toy.run()
    assert (push.notebook, push.version) == (NOTEBOOK, 1)
    (request,) = toy.state.pushes
    assert request["competitionDataSources"] == [SLUG] and not request["enableInternet"] and request["isPrivate"]
    assert settings_of(request["text"])["runs"] == []
    assert "equal to ensemble.csv, byte for byte" in "\n".join(toy.messages)
    entry = toy.submit()
    assert (entry.state, entry.public, entry.file) == ("scored", 0.9, f"{NOTEBOOK} version 1/submission.csv")
    assert entry.cross_fitted and (toy.submissions.ledger.parent / entry.ensemble).is_file()
    (submission,) = toy.server.state.submissions
    assert submission["fileName"] == "submission.csv" and submission["description"] == f"{entry.tag} first"
    with pytest.raises(SubmissionError, match=r"(?s)has this file already.*version 1.*FORCE=1"):
        toy.submit()
    assert toy.server.state.asked.count(PUSH) == 1 and toy.server.state.asked.count("CreateCodeSubmission") == 1


def test_the_dataset_has_what_the_prediction_needs_and_no_labels_but_the_lock(toy):
    toy.run()
    (archive,) = (file for file in (toy.session.folder / "files").iterdir() if file.suffix == ".pyz")
    names = [name for name in zipfile.ZipFile(archive).namelist() if not name.startswith("src/")]
    assert names == [
        "competitions/digits/competition.toml",
        "competitions/digits/data.lock",
        "models/digits/tiny.s1.safetensors",
        "submissions/digits/ensemble.json",
    ]


def test_another_ensemble_is_another_version(toy):
    toy.run()
    other = toy.workspace.paths.submissions / "ensemble.json"
    content = other.read_bytes()
    try:
        write_ensemble(toy.workspace, strategy="best")
        assert toy.run()[0].version == 2
    finally:
        other.write_bytes(content)
    assert toy.run(force=True)[0].version == 3


def test_another_version_is_another_submission_although_its_visible_csv_is_the_same(toy):
    assert toy.submit().ref == 1000
    push, file = toy.run(force=True)
    entry = submit(toy.submissions, file, "again", notebook=push.notebook, version=push.version)
    assert (push.version, entry.ref) == (2, 1001)


def test_a_submission_that_is_not_scored_yet_is_waited_for_by_the_next_command(toy):
    toy.server.state.polls_before_score = 10**6
    short = Session(toy.workspace, toy.submissions.kaggle, print, Patience(0.05, 0.1, 0.2, 0))
    with pytest.raises(KaggleError, match=r"(?s)has not scored the submission yet.*is pending"):
        toy.submit(session=short)
    toy.server.state.polls_before_score = 0
    assert toy.submit().public == 0.9 and len(toy.server.state.submissions) == 1
    assert [entry.state for entry in read_ledger(toy.submissions.ledger)] == ["scored"]


def test_a_push_without_an_answer_is_found_with_its_version(toy):
    toy.server.state.script[PUSH] = [Fault(before=lambda: None, cut=True)]
    with pytest.raises(KaggleError):
        toy.run()
    toy.state.pushes.append({"slug": NOTEBOOK, "text": (toy.session.folder / "kernel.py").read_text()})
    toy.state.versions[NOTEBOOK], toy.state.ran[NOTEBOOK] = [7], toy.ran(toy.state.pushes[0])
    assert toy.run()[0].version == 7 and toy.server.state.asked.count(PUSH) == 1


def test_a_notebook_that_fails_on_the_hidden_images_is_named_with_the_reason_of_kaggle(toy):
    toy.server.state.grade = lambda content: Graded(error="Notebook Timeout")
    with pytest.raises(KaggleError, match="could not score") as refusal:
        toy.submit()
    error = refusal.value
    assert (error.file, error.found) == (f"{NOTEBOOK} version 1/submission.csv", "submission 1000: Notebook Timeout")
    assert "hidden test images" in error.expected and "make rehearse-notebook COMPETITION=digits" in error.fix


def test_a_notebook_of_an_account_that_has_not_accepted_the_rules_is_no_submission(toy):
    toy.server.state.entered = False
    toy.server.state.script["CreateCodeSubmission"] = [Fault(403, "You must accept the rules", times=9)]
    with pytest.raises(KaggleError, match=r"(?s)denied access.*You must accept the rules.*dogs/rules"):
        toy.submit()
    assert toy.server.state.submissions == []


@pytest.mark.parametrize("status", [400, 500])
def test_a_version_that_kaggle_does_not_accept_is_no_submission(toy, status):
    toy.server.state.script["CreateCodeSubmission"] = [Fault(status, "Notebook still running", times=9)]
    with pytest.raises(KaggleError, match=r"(?s)was not made.*Notebook still running"):
        toy.submit()
    toy.server.state.script.clear()
    assert toy.submit().state == "scored" and len(toy.server.state.submissions) == 1


def test_a_notebook_that_fails_shows_its_log(toy):
    toy.state.run = lambda push, datasets: Ran("ERROR", "", {}, log_text("CUDA out of memory\n"))
    with pytest.raises(
        KaggleError, match=r"(?s)failed at Kaggle.*CUDA out of memory.*make notebook COMPETITION=digits"
    ):
        toy.run()
    assert not toy.session.push_file.exists()


def test_a_csv_that_is_no_submission_is_not_submitted_and_one_that_differs_is_compared(toy):
    toy.csv = toy.csv[:100]
    with pytest.raises(KaggleError, match=r"CSV is no submission\.\n  file: .*\n  - \d+ ids are missing"):
        toy.run()
    toy.csv = None
    with pytest.raises(KaggleError, match=r"(?s)CSV is no submission.*No such file"):
        toy.run()
    rows = (toy.workspace.paths.submissions / "ensemble.csv").read_text().splitlines()
    id_, label = rows[5].split(",")
    rows[5] = f"{id_},{(int(label) + 1) % 10}"
    toy.csv = ("\n".join(rows) + "\n").encode()
    toy.run()
    assert "1 of 500 rows differ from ensemble.csv" in "\n".join(toy.messages)


def test_members_without_parameters_are_named_before_anything_is_uploaded(toy):
    file = toy.workspace.paths.parameters_file("tiny.s1")
    file.rename(file.with_suffix(".away"))
    try:
        with pytest.raises(ConfigError, match=r"(?s)no trained parameters here.*podium train tiny\.s1 --again"):
            toy.run()
    finally:
        file.with_suffix(".away").rename(file)
    assert toy.state.datasets == {}


def test_the_command_prints_where_the_notebook_is_and_with_a_message_the_score(toy):
    toy.run()
    record = json.loads(toy.session.push_file.read_text())
    toy.session.push_file.write_text(json.dumps(record | {"time": "2026-01-01T00:00:00Z"}))  # no minute of waiting
    toy.server.state.polls_before_score = 0
    command = toy.workspace.paths.root, "notebook", "--competition", "digits"
    done = run_podium(*command, "--message", " ")  # as without one
    assert (done.returncode, done.stderr) == (0, "") and "MESSAGE=" in done.stdout
    assert "version 1 has run: https://www.kaggle.com/code/rehearsal/submit-digits" in done.stdout
    done = run_podium(*command, "--message", "first")
    assert f"{NOTEBOOK} version 1/submission.csv: submission 1000, public score 0.9" in done.stdout, done


def test_a_competition_without_a_name_at_kaggle_or_test_images_is_refused_before_a_push(tmp_path):
    workspace = digits_workspace(tmp_path)
    done = run_podium(tmp_path, "notebook", "--competition", "digits", "--message", "first")
    assert done.returncode == 2 and "does not say which competition on Kaggle 'digits' is" in done.stderr
    alone = workspace.with_lock(replace(workspace.lock, test_ids=workspace.lock.test_ids[:0]))
    with pytest.raises(SubmissionError, match="no test images"):
        pack_notebook(alone, tmp_path / "packed", user="me")


@pytest.mark.parametrize("is_equal", [True, False])
def test_parameters_are_packed_as_float16_if_a_rehearsal_with_them_wrote_the_same_labels(toy, monkeypatch, is_equal):
    sizes, images = [], toy.workspace.paths.root / "attached"

    def run_script(script, root):
        """Writes the CSV of the ensemble, but another one with float16, unless it `is_equal`."""
        (attached,) = root.glob("kaggle/input/datasets/rehearsal/*")
        sizes.append(next(attached.glob("*.pyz")).stat().st_size)
        file = root / "kaggle" / "working" / "submission.csv"
        rows = toy.csv.decode().splitlines(keepends=True)
        rows[1] = rows[1] if is_equal or len(sizes) > 1 else f"{rows[1].split(',')[0]},{(int(rows[1][-2]) + 1) % 10}\n"
        write_file(file, "".join(rows).encode())
        return 0

    monkeypatch.setattr(rehearse, "run_script", run_script)
    images.mkdir(exist_ok=True)
    result = rehearse_blend(toy.workspace, images=images)
    toy.run()
    (archive,) = (toy.session.folder / "files").glob("*.pyz")
    assert archive.stat().st_size == sizes[-1] and len(sizes) == (1 if is_equal else 2)
    precision = "float16" if is_equal else "float32"
    assert f"the members' parameters are packed as {precision}" in toy.messages
    assert result.endswith(f"{precision}, {sizes[-1] / 1e6:.1f} MB to upload, equal to ensemble.csv, byte for byte")
    assert is_equal or (sizes[1] - sizes[0] == 99 * 99 * 2 and "1 of 500 rows differ" in result)


def test_the_pushed_script_writes_the_csv_of_the_ensemble_here_offline(tmp_path):
    workspace = digits_workspace(tmp_path, validation=VALIDATION, recipe=RECIPE.replace("epochs = 2", "epochs = 1"))
    from podium.training.run import train_run  # only this test needs torch

    train_run(workspace, workspace.runs[0])
    write_ensemble(workspace)
    images = tmp_path / "attached"
    images.mkdir()
    result = rehearse_blend(workspace, images=images)
    assert result.endswith("to upload, equal to ensemble.csv, byte for byte")
