"""The command line: what it prints, what it refuses, and how it ends."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.main import get_command
from typer.testing import CliRunner

import layout_toys as layouts
from podium.cli.app import app
from podium.lock import read_lock

ROOT = Path(__file__).parents[2]


def environment():
    """The environment of a subprocess: that of the test, whose TMPDIR has the tests' own locks on cores."""
    return os.environ | {"PYTHONPATH": str(ROOT / "src"), "COMPETITION": "digits"}


def test_every_step_from_toml_to_a_scored_csv(project, podium):
    (project / "competitions" / "digits" / "fast.toml").unlink()
    (project / "competitions" / "digits" / "data.lock").unlink()
    for arguments, expected in [
        (["prepare"], "1,297 labelled images"),
        (["estimate"], "1 runs to train"),
        (["plan-cost", "runs=[3]", "devices=[1,64]"], "s per run and device; 1,797 images of 16 pixels"),
        (["train"], "validation accuracy"),
        (["train"], "tiny.s1: up to date"),
        (["ensemble"], "cross-fitted on 297 validation rows"),
        (["ensemble", "--strategy", "greedy", "--out", "try2"], "wrote submissions/digits/try2.csv"),
        (["suggest"], "next: seeds = [1, 2] in tiny.toml"),
        (["check", "submissions/digits/ensemble.csv"], "a valid submission of digits, 500 rows"),
        (["score", "submissions/digits/ensemble.csv"], "on 500 withheld test images"),
        (["runs"], "up to date"),
        (["report"], "wrote reports/digits/index.html"),
        (["rehearse"], "Its scores are meaningless."),
    ]:
        done = podium(project, *arguments, "--competition", "digits")
        assert done.returncode == 0 and expected in done.stdout, (arguments, done.stdout, done.stderr)
        assert "\r" not in done.stdout and not done.stderr


def test_a_competition_with_only_imported_runs_is_prepared_and_blended(without_recipes, podium):
    assert podium(without_recipes, "prepare").returncode == 0
    lock = read_lock(without_recipes / "competitions" / "digits" / "data.lock")
    for name, ids in [("oof", lock.train_ids[lock.folds >= 0]), ("test", lock.test_ids)]:
        logits = np.random.default_rng(len(ids)).normal(scale=9, size=(len(ids), 10))
        np.savez(without_recipes / f"{name}.npz", id=ids, **dict(zip(lock.classes, logits.T, strict=True)))
    for arguments in [
        ["import", "colleague.s1", "--oof", "oof.npz", "--test", "test.npz"],
        ["ensemble", "--threshold", "0"],
        ["check", "submissions/digits/ensemble.csv"],
        ["runs"],
        ["compact"],
        ["report"],
    ]:
        done = podium(without_recipes, *arguments)
        assert done.returncode == 0, (arguments, done.stderr)


def test_sigterm_keeps_what_was_finished_and_leaves_no_partial_file(project):
    """As Ctrl-C does: see the tests of `tune` and of `submit`."""
    file = project / "competitions" / "digits" / "tiny.toml"
    file.write_text(file.read_text().replace("epochs = 1", "epochs = 500"))
    command = [sys.executable, "-m", "podium", "train", "tiny"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=project, env=environment(), **pipes) as run:
        while "1/500" not in run.stdout.readline():
            assert run.poll() is None
        run.terminate()
        _, stderr = run.communicate(timeout=60)
    assert run.returncode == 128 + signal.SIGTERM and stderr.strip() == "Stopped. What was finished is kept."
    assert not list(project.glob("oof/**/*.npz")) and not list(project.glob("oof/**/.*"))


def test_a_file_name_that_is_not_text_is_printed(project):
    lock = read_lock(project / "competitions" / "digits" / "data.lock")
    file = project / os.fsdecode(b"caf\xe9.csv")
    file.write_text("id,label\n" + "".join(f"{id_},0\n" for id_ in lock.test_ids))
    command = [sys.executable, "-m", "podium", "check", file.name]
    done = subprocess.run(command, cwd=project, env=environment(), capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "") and r"caf\udce9.csv: a valid submission" in done.stdout


COMMANDS = list(get_command(app).commands)


def test_help_lists_the_commands_in_the_order_of_their_use():
    order = ["new", "prepare", "train", "show", "tune", "ensemble", "submit", "kernel"]
    assert [name for name in COMMANDS if name in order] == order
    text = CliRunner().invoke(app, ["--help"]).stdout
    assert all(f"\n  {name} " in text for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name):
    assert CliRunner().invoke(app, [name, "--help"]).exit_code == 0


def test_without_a_competition_the_last_one_is_used_and_named_or_the_only_one(project, podium):
    listed = podium(project, "runs", COMPETITION="")
    assert listed.returncode == 0 and not listed.stderr
    shutil.copytree(project / "competitions/digits", project / "competitions/other")
    asked = podium(project, "runs", COMPETITION="")
    assert asked.returncode == 2 and "Which competition?" in asked.stderr
    assert podium(project, "runs", "-c", "other").returncode == 0
    listed = podium(project, "runs", COMPETITION="")
    assert (listed.returncode, listed.stderr) == (0, "COMPETITION=other, as in an earlier command\n")


def test_images_that_a_command_named_are_found_by_the_next_one(tmp_path, podium):
    for number in range(24):
        layouts.image(tmp_path, f"my photos/train/{'cat' if number % 2 else 'dog'}/{number}.png")
    layouts.image(tmp_path, "my photos/test/100.png")
    (tmp_path / "project").mkdir()
    done = podium(tmp_path / "project", "new", "-c", "pets", "--data", "../my photos")
    assert "type make rehearse COMPETITION=pets DATA='../my photos'" in done.stdout, done.stderr
    assert podium(tmp_path / "project", "prepare", COMPETITION="").returncode == 0


def test_subprocesses_have_the_tests_own_locks_on_cores(tmp_path_factory):
    code = "import tempfile; print(tempfile.gettempdir())"
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True)
    assert Path(done.stdout.strip()).is_relative_to(tmp_path_factory.getbasetemp())


HEAVY = ("torch", "fastai", "numpy", "sklearn", "pandas")


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("ru", {"runs"}),
        ("runs -c ", {"digits", "other"}),
        ("train -c digits ti", {"tiny", "tiny.s1"}),
        ("tune -c digits ", {"fast", "tiny"}),
        ("train -c broken ", set()),
    ],
)
def test_a_shell_gets_the_names_of_commands_competitions_runs_and_recipes(typed, expected, project):
    (project / "competitions/other").mkdir()
    (project / "competitions/other/competition.toml").touch()
    code = (
        "import sys; sys.argv = ['podium']; from podium.cli.app import main\n"
        f"try: main()\nfinally: print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)"
    )
    words = f"podium {typed}"
    protocol = {"_PODIUM_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=project, env=environment() | protocol, capture_output=True, text=True)
    assert (set(done.stdout.split()), done.stderr.strip()) == (expected, "[]")


def test_importing_the_command_line_imports_nothing_heavy():
    code = f"import sys, podium.cli.app; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.parametrize(("place", "fault"), {".": "no trained parameters here", "nothing": "no images"}.items())
def test_a_prediction_that_cannot_be_made_is_refused_before_the_import_of_torch(place, fault, project):
    code = (
        "import sys; from podium.cli.app import app; from podium.errors import PodiumError\n"
        f"try: app(['predict', 'tiny.s1', {place!r}])\n"
        "except PodiumError as error: print(error.what, 'torch' in sys.modules)"
    )
    Image.new("RGB", (4, 4)).save(project / "photo.png")
    done = subprocess.run([sys.executable, "-c", code], cwd=project, env=environment(), capture_output=True, text=True)
    assert fault in done.stdout and done.stdout.endswith("False\n"), done.stderr


def test_the_ensemble_limits_numpy_to_one_thread_before_its_import(tmp_path, monkeypatch):
    code = (
        "import os, sys; from podium.cli.app import app; from podium.errors import PodiumError\n"
        "try: app(['ensemble', '-c', 'none'])\n"
        "except PodiumError: print('numpy' in sys.modules, os.environ['OPENBLAS_NUM_THREADS'])"
    )
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment(), capture_output=True, text=True)
    assert done.stdout.strip() == "True 1", done.stderr
