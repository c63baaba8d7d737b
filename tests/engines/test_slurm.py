"""Fits trained by an array job; here submitit starts its tasks as processes of this machine."""

import shutil
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from digits_toys import digits_workspace
from engine_toys import in_sequence, results_of
from podium.cli.app import app
from podium.engines import slurm
from podium.engines import train as train_module
from podium.engines.slurm import SharedTask
from podium.engines.tasks import Task, TaskFailedError
from podium.engines.train import failure, train_elsewhere
from podium.errors import ConfigError, DataError
from podium.plan.paths import Paths
from podium.training.run import train_run
from podium.training.session import unfinished_fits

pytestmark = pytest.mark.skipif(not find_spec("submitit"), reason="needs the extra `slurm`")
K_FOLD = {"validation": 'kind = "k-fold"\nfolds = 2'}


def test_an_array_job_gives_the_bytes_of_a_training_in_sequence_where_another_run_fails(tmp_path):
    workspace, lines = digits_workspace(tmp_path / "project", **K_FOLD), []
    (run,) = workspace.runs
    gone = replace(run, run="gone.s1")
    failed = train_elsewhere(workspace, [run, gone], engine="slurm", address="local", note=lines.append)
    assert lines[0] == "digits: 4 fits to train with slurm" and lines[-1].endswith("(2 done, 2 failed)")
    assert list(failed) == ["gone.s1"] and "There is no run or recipe 'gone.s1'" in str(failure(failed))
    assert unfinished_fits(workspace, run) == []
    train_run(workspace, run)
    assert results_of(workspace) == results_of(in_sequence(tmp_path / "sequence", **K_FOLD))


@pytest.mark.parametrize(("address", "options"), [("slurm", []), ("local", ["no_such_parameter=1"])])
def test_an_array_job_that_cannot_be_submitted_is_one_screen(tmp_path, monkeypatch, address, options):
    monkeypatch.setenv("PATH", str(tmp_path))  # no sbatch
    workspace = digits_workspace(tmp_path)
    with pytest.raises(ConfigError, match=r"(?s)could not be submitted.*ADDRESS=local"):
        train_elsewhere(workspace, workspace.runs, engine="slurm", address=address, options=options)


def test_a_task_that_slurm_ends_early_is_queued_again(tmp_path):
    task = Task("digits", "tiny.s1", "fold0", cores=1)
    shared = SharedTask(tmp_path, tmp_path)
    again = shared.checkpoint(task)
    assert again.function is shared and again.args == (task,)


def test_a_training_that_slurm_interrupts_is_no_failure_until_slurm_kills_its_task(tmp_path, monkeypatch):
    waits = []
    monkeypatch.setattr("time.sleep", waits.append)
    task = Task("digits", "tiny.s1", "fold0", cores=1)
    for code, seconds in ((143, [slurm.KILL_SECONDS]), (1, [])):
        (tmp_path / "podium.py").write_text(f"raise SystemExit({code})")
        monkeypatch.setattr(slurm, "python_path", lambda: str(tmp_path))
        with pytest.raises(TaskFailedError):
            SharedTask(tmp_path, tmp_path)(task)
        assert waits == seconds
        waits.clear()


def test_an_unknown_scheduler_is_refused_before_anything_is_trained(tmp_path, monkeypatch):
    digits_workspace(tmp_path)
    monkeypatch.chdir(tmp_path)
    answer = CliRunner().invoke(app, ["train", "--competition", "digits", "--engine", "rya"])
    assert answer.exit_code == 2 and "neither ray nor slurm" in answer.output
    for options in (["--address", "here:1"], ["--engine", "ray", "--options", "a=1"], ["--engine", "ray", "--again"]):
        answer = CliRunner().invoke(app, ["train", "--competition", "digits", *options])
        assert answer.exit_code == 2 and "no effect" in answer.output


def test_images_that_are_not_decoded_are_one_screen_before_anything_is_submitted(tmp_path):
    workspace = digits_workspace(tmp_path)
    shutil.rmtree(workspace.paths.cache)
    with pytest.raises(DataError, match=r"(?s)not decoded yet.*make prepare COMPETITION=digits"):
        train_elsewhere(workspace, workspace.runs, engine="slurm", address="local")


def test_fits_that_do_not_come_back_as_planned_are_a_failure_and_not_trained_here(tmp_path, monkeypatch):
    monkeypatch.setattr(train_module, "train_with_slurm", lambda *_, **__: {})
    workspace = digits_workspace(tmp_path, **K_FOLD)
    failed = train_elsewhere(workspace, workspace.runs, engine="slurm")
    assert failed == {"tiny.s1": ["tiny.s1: fold0, fold1 did not come back as this folder's settings ask for"]}


def test_ctrl_c_cancels_the_jobs_that_are_left(monkeypatch):
    class Job:
        cancelled = False

        def done(self):
            raise KeyboardInterrupt

        def cancel(self):
            self.cancelled = True

    job, task = Job(), Task("digits", "tiny.s1", "fold0", cores=1)
    executor = SimpleNamespace(update_parameters=lambda **_: None, map_array=lambda *_: [job])
    job.job_id = "7_0"
    monkeypatch.setattr("submitit.AutoExecutor", lambda **_: executor)
    with pytest.raises(KeyboardInterrupt):
        slurm.train_with_slurm(
            [task], Paths("digits", Path("."), Path(".")), cluster="slurm", options=[], note=lambda _: None
        )
    assert job.cancelled
