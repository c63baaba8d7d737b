"""Progress output never fails, and a run is trained once."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = str(Path(__file__).parents[2] / "src")
PRINT = """
import sys
from podium.cli.printing import RunPrinter, TaskPrinter, print_line
for _ in range(3):
    print_line("x" * 100_000)
    RunPrinter("tiny.s1").note("3 epochs")
    TaskPrinter()("decoded", 1, 2)
print("the end", file=sys.stderr)
"""


@pytest.fixture
def environment() -> dict[str, str]:
    """Made late: conftest sets a TMPDIR, so that no test waits for cores that other trainings hold."""
    return os.environ | {"PYTHONPATH": SOURCE, "COMPETITION": "digits"}


@pytest.mark.parametrize("place", ["closed pipe", "full disk", "closed"])
def test_progress_that_cannot_be_printed_is_discarded(place, environment):
    command, reader, writer = [sys.executable, "-c", PRINT], *os.pipe()
    os.close(reader)
    if place == "closed":
        command = ["sh", "-c", 'exec "$@" >&-', "sh", *command]
    with open("/dev/full", "w") as full:
        stdout = full if place == "full disk" else writer
        done = subprocess.run(command, env=environment, stdout=stdout, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "the end\n")


@pytest.mark.parametrize("place", ["closed pipe", "full disk"])
def test_json_that_cannot_be_printed_is_no_success_and_no_traceback(place, environment):
    code, (reader, writer) = "from podium.cli.printing import json_results\nwith json_results(): pass", os.pipe()
    os.close(reader)
    with open("/dev/full", "w") as full:
        stdout = full if place == "full disk" else writer
        done = subprocess.run([sys.executable, "-c", code], env=environment, stdout=stdout, stderr=subprocess.PIPE)
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, b"")


def test_a_reader_that_goes_away_does_not_end_a_training(project, environment):
    command = [sys.executable, "-m", "podium", "train", "tiny"]
    with subprocess.Popen(command, cwd=project, env=environment, stdout=subprocess.PIPE, text=True) as training:
        training.stdout.readline()
        training.stdout.close()
        assert training.wait(timeout=300) == 0
    assert (project / "oof" / "digits" / "tiny.s1.npz").is_file()


def test_two_trainings_of_a_run_at_once_train_it_once(project, environment):
    command = [sys.executable, "-m", "podium", "train", "tiny"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    trainings = [subprocess.Popen(command, cwd=project, env=environment, **pipes) for _ in range(2)]
    outputs = [training.communicate(timeout=300)[0] for training in trainings]
    assert [training.returncode for training in trainings] == [0, 0], outputs
    assert sum("1 epochs of 1,000 images" in output for output in outputs) == 1, outputs
    assert sum("another process has trained it" in output for output in outputs) == 1, outputs


def test_a_checkpoint_that_a_kill_after_the_results_has_left_is_removed(project, podium):
    assert podium(project, "train", "tiny").returncode == 0
    folder = project / ".cache" / "digits" / "checkpoints"
    for name in ("tiny.s1.fold0.pt", "fast.s1.fold0.pt", "gone.s1.fold0.pt"):
        (folder / name).touch()
    assert "tiny.s1: up to date" in podium(project, "train", "tiny").stdout
    assert [file.name for file in folder.iterdir()] == ["fast.s1.fold0.pt"]


def test_the_faults_of_all_recipes_come_before_the_first_is_trained(project, podium):
    folder = project / "competitions" / "digits"
    for name in ("a-name", "z-name"):
        (folder / f"{name}.toml").write_text((folder / "tiny.toml").read_text().replace("timm:test_resnet", "resnet18"))
    for command in ("train", "rehearse", "check-recipes", "estimate"):
        done = podium(project, command)
        assert done.returncode == 2 and "Several recipes cannot be trained." in done.stderr, (command, done.stderr)
        assert done.stderr.count("one of timm:resnet18,") == 2 and "epochs of" not in done.stdout
    for name in ("a-name", "z-name"):
        (folder / f"{name}.toml").unlink()
    assert "digits: 2 recipe(s) can be trained" in podium(project, "check-recipes").stdout
    assert "digits: 1 recipe(s) can be trained" in podium(project, "check-recipes", "tiny").stdout


def test_more_threads_than_cores_are_refused_instead_of_waited_for(project, podium):
    file = project / "competitions" / "digits" / "tiny.toml"
    file.write_text(f"threads = 256\n{file.read_text()}")
    cores = len(os.sched_getaffinity(0))
    for words in (["train", "tiny"], ["check-recipes", "tiny"], ["train", "tiny", "--fit", "fold0"]):
        done = podium(project, *words)
        assert done.returncode == 2 and "waits for" not in done.stdout
        for text in ("tiny.toml", "expected: 256 cores, for threads = 256", f"fix:      threads = {cores}"):
            assert text in done.stderr, words


def test_the_fits_of_one_run_have_names_of_their_own(project, podium, monkeypatch):
    names = []
    monkeypatch.setattr("podium.training.run.train_fit", lambda *_, listener: names.append(listener.name))
    assert podium(project, "train", "tiny", "--fit", "fold0").returncode == 0
    assert names == ["tiny.s1 fold0"]
