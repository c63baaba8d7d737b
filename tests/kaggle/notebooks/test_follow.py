"""From stale runs to a notebook and back, by the real kaggle CLI against a local server."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fake.kernels import Ran
from fake.server import TOKEN
from fake.state import Fault

import podium as package
from command_toys import run_podium
from notebook_toys import NOTEBOOK, log_text
from podium.errors import ConfigError, KaggleError
from podium.kaggle.answers import ServerError
from podium.kaggle.client import Kaggle
from podium.kaggle.notebooks import follow as follow_module
from podium.kaggle.waiting import Patience
from podium.predictions.artefact import save_predictions

PUSH, STATUS, OUTPUT = "SaveKernel", "GetKernelSessionStatus", "ListKernelSessionOutput"
DATASET = f"{NOTEBOOK}-files"
BOTH = ("net.s1", "net.s2")


@pytest.fixture
def pushed(toy):
    """A toy whose notebook was pushed, and ends as `ran` says; `text` is the newest script at Kaggle."""

    def push(ran, *, text="# abc123"):
        toy.state.ran[NOTEBOOK] = ran
        toy.state.pushes.append({"slug": NOTEBOOK, "text": text})
        record = {"push": "abc123", "notebook": NOTEBOOK, "time": "2026-01-01T00:00:00Z", "runs": BOTH}
        toy.push_file.parent.mkdir(parents=True)
        toy.push_file.write_text(json.dumps(record))

    toy.push = push
    return toy


def complete(toy, **options):
    return Ran("COMPLETE", "", toy.output("abc123", **options), log_text("trained\n"))


def stopped(toy, *pieces, **options):
    return Ran("ERROR", "Your notebook was stopped", toy.output("abc123", **options), log_text(*pieces))


def test_stale_runs_are_trained_in_a_notebook_and_are_then_up_to_date(toy):
    toy.state.statuses = ["NOT_YET_PERSISTED", "BLOBS_RECEIVED"]
    assert toy.train().imported == BOTH and tuple(toy.oof) == BOTH and not toy.workspace.stale_runs
    assert toy.workspace.paths.history_file("net.s2").read_text() == "epoch\n1\n"
    assert toy.workspace.paths.parameters_file("net.s2").read_bytes() == b"parameters"
    (push,) = toy.state.pushes
    assert push["datasetDataSources"] == [DATASET] and not push["enableInternet"] and push["isPrivate"]
    assert push["enableGpu"] and push["machineShape"] == "NvidiaTeslaT4" and TOKEN not in push["text"]
    messages = "\n".join(toy.messages)
    assert "podium-" in messages and "blobs received" in messages and not toy.push_file.exists()
    requests = len(toy.requests)
    assert toy.train() is None and len(toy.requests) == requests


def test_a_dataset_is_uploaded_again_only_if_it_changed(toy):
    toy.changes = {"runs": ("net.s1",), "left": ("net.s2",)}
    assert toy.train().left == ("net.s2",)
    toy.changes = {"runs": ("net.s2",)}
    assert toy.train().imported == ("net.s2",)
    assert toy.requests.count("CreateDataset") == 1 and "CreateDatasetVersion" not in toy.requests
    recipe = toy.home / "net.toml"
    recipe.write_text(recipe.read_text().replace("0.01", "0.02"))
    toy.changes = {}
    assert toy.train().imported == BOTH and toy.requests.count("CreateDatasetVersion") == 1
    (archive,) = toy.state.datasets[DATASET].values()
    assert b"learning_rate = 0.02" in archive


@pytest.mark.parametrize("reason", ["refused", "lost"])
def test_no_notebook_is_pushed_where_the_archive_did_not_arrive(toy, reason):
    if reason == "refused":
        toy.server.state.script[".pyz"] = [Fault(403)]  # before 2.2.5 the package skips the file without an error
    else:
        toy.state.loses_files = True
    with pytest.raises(KaggleError, match=r"not ready at Kaggle|Upload unsuccessful") as refusal:
        toy.train(patience=Patience(0.05, 0.05, 0.1, 0))
    is_created = refusal.value.found == "status READY, with no file"
    assert (is_created or reason == "refused") and toy.state.pushes == []
    toy.state.loses_files = False
    assert toy.train().imported == BOTH and toy.requests.count("CreateDatasetVersion") == is_created


def test_no_notebook_is_pushed_where_the_dataset_is_never_ready(toy, monkeypatch):
    toy.state.statuses = ["BLOBS_RECEIVED"] * 999
    with pytest.raises(KaggleError, match="not ready at Kaggle") as refusal:
        toy.train(patience=Patience(0.05, 0.05, 0.1, 0))
    assert refusal.value.found == "status BLOBS_RECEIVED, with no file" and toy.state.pushes == []
    monkeypatch.setattr(follow_module, "DATASET_SECONDS", 0.1)  # less than the patience with a notebook
    with pytest.raises(KaggleError, match="not ready at Kaggle"):
        toy.train(patience=Patience(0.05, 0.05, 3600, 0))
    toy.state.statuses = ["FAILED"]
    with pytest.raises(KaggleError, match="not ready at Kaggle") as refusal:
        toy.train()
    assert refusal.value.found == "status FAILED, with no file"


def test_missing_credentials_are_refused_before_anything_is_uploaded(toy):
    toy.environment.pop("KAGGLE_API_TOKEN")
    with pytest.raises(KaggleError, match="No Kaggle credentials were found") as refusal:
        toy.train()
    assert "export KAGGLE_API_TOKEN" in refusal.value.fix and toy.state.datasets == {}


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"refusal": "Maximum weekly GPU quota of 30.00 hours reached."}, "GPU quota of 30.00 hours reached"),
        ({"refusal": "Maximum batch GPU session count of 2 reached."}, "session count of 2 reached"),
        (
            {"invalid": {"invalidDatasetSources": [DATASET]}},
            f"not attached: {DATASET}",
        ),
        ({"invalid": {"invalidCompetitionSources": ["dogs"]}}, "not attached: dogs"),
    ],
)
def test_a_push_that_kaggle_refused_is_not_followed(toy, change, found):
    for name, value in change.items():
        setattr(toy.state, name, value)
    with pytest.raises(KaggleError, match=r"Kaggle (did not accept|accepted) the notebook") as refusal:
        toy.train()
    assert found in refusal.value.found and not toy.push_file.exists()
    assert "wait until" in refusal.value.fix


def test_a_notebook_that_fails_shows_its_log_and_runs_that_ended_before_are_imported(pushed):
    lines = [f"line {line}\n" for line in range(40)]
    pushed.push(stopped(pushed, *lines, "RuntimeError: CUDA out of memory\n", runs=("net.s1",)))
    with pytest.raises(KaggleError, match="The notebook failed at Kaggle") as refusal:
        pushed.train()
    error = refusal.value
    assert error.faults[-1] == "RuntimeError: CUDA out of memory" and len(error.faults) == 15
    assert error.found == "Your notebook was stopped; 1 runs imported: net.s1" and pushed.oof == ["net.s1"]
    assert "kaggle.com/code/rehearsal/podium-tiny" in error.fix and not pushed.push_file.exists()


@pytest.mark.parametrize("fault", [Fault(503, times=99), Fault(cut=True, times=99), Fault(stall_seconds=0, times=99)])
@pytest.mark.parametrize("file", ["net.s1.npz", "podium-output.json"])
def test_a_failed_notebook_is_followed_until_the_runs_that_ended_before_have_arrived(pushed, fault, file):
    pushed.push(stopped(pushed, "x\n", runs=("net.s1",)))
    pushed.server.state.script[file] = [fault]
    with pytest.raises(KaggleError, match="did not arrive complete"):
        pushed.train()
    assert pushed.oof == [] and pushed.push_file.exists()
    assert "podium-tiny failed: Your notebook was stopped; FORCE=1 would forget it" in "\n".join(pushed.messages)
    pushed.server.state.script.clear()
    with pytest.raises(KaggleError, match="The notebook failed at Kaggle") as refusal:
        pushed.train()
    assert refusal.value.found.endswith("1 runs imported: net.s1") and pushed.oof == ["net.s1"]
    assert PUSH not in pushed.requests and not pushed.push_file.exists()


def test_a_run_that_ended_before_the_failure_and_is_refused_is_named(pushed):
    pushed.push(stopped(pushed, "the end\n", runs=("net.s1",), stamp="of another recipe"))
    with pytest.raises(KaggleError, match="The notebook failed at Kaggle") as refusal:
        pushed.train()
    assert refusal.value.faults == (
        "net.s1: its recipe, seed, weights or data changed since the push",
        "the end",
    )
    assert pushed.oof == []


def test_a_run_that_was_trained_here_meanwhile_is_kept(pushed):
    file = pushed.workspace.paths.predictions_file("net.s1")
    save_predictions(file, pushed.predictions("net.s1", trained="here"))
    before = file.read_bytes()
    pushed.push(complete(pushed))
    result = pushed.train()
    assert (result.imported, result.refused, file.read_bytes()) == (("net.s2",), {}, before)
    assert not pushed.workspace.paths.history_file("net.s1").exists()


def test_a_log_that_is_not_json_is_shown_as_it_is(pushed):
    pushed.push(Ran("CANCEL_ACKNOWLEDGED", "", {}, "plain words\n\n"))
    with pytest.raises(KaggleError, match="The notebook failed") as refusal:
        pushed.train()
    assert refusal.value.found == "status CANCEL_ACKNOWLEDGED; 0 runs imported: none"
    assert refusal.value.faults == ("plain words",)


def test_a_file_that_arrives_incomplete_is_downloaded_again(pushed):
    pushed.push(complete(pushed))
    pushed.server.state.script["net.s2.npz"] = [Fault(cut=True)]
    pushed.server.state.script["podium-output.json"] = [Fault(cut=True)]
    assert pushed.train().imported == BOTH and pushed.requests.count(OUTPUT) == 2
    assert "attempt 2: the output has no manifest" in "\n".join(pushed.messages)


def test_a_download_that_breaks_off_is_started_again(pushed):
    pushed.push(complete(pushed))
    pushed.server.state.script["net.s2.npz"] = [Fault(stall_seconds=0, times=1)]
    assert pushed.train().imported == BOTH


def test_an_output_that_never_arrives_complete_is_not_imported_and_can_be_downloaded_later(pushed):
    pushed.push(complete(pushed))
    pushed.server.state.script["net.s2.npz"] = [Fault(cut=True, times=9)]
    with pytest.raises(KaggleError, match="did not arrive complete") as refusal:
        pushed.train()
    assert refusal.value.faults == ("oof/tiny/net.s2.npz: not as the notebook wrote it",) and pushed.oof == []
    pushed.server.state.script.clear()
    assert pushed.train().imported == BOTH and PUSH not in pushed.requests


def test_a_run_of_another_recipe_is_refused_by_name_and_the_others_are_imported(pushed):
    ran = complete(pushed, runs=("net.s1",))
    other = pushed.output("abc123", stamp="of another recipe")
    manifest = json.loads(other["podium-output.json"])
    manifest["files"] |= json.loads(ran.files["podium-output.json"])["files"]
    files = other | {name: content for name, content in ran.files.items() if "s1" in name}
    ran.files = files | {"podium-output.json": json.dumps(manifest).encode()}
    pushed.push(ran)
    with pytest.raises(KaggleError, match="Not every run of the notebook was imported") as refusal:
        pushed.train()
    assert refusal.value.faults == ("net.s2: its recipe, seed, weights or data changed since the push",)
    assert pushed.oof == ["net.s1"] and refusal.value.found == "1 runs imported: net.s1"


@pytest.mark.parametrize("failed", [("net.s2",), ()])
def test_a_run_that_failed_or_is_missing_in_the_output_is_named_with_the_log(pushed, failed):
    pushed.push(complete(pushed, runs=("net.s1",), failed=failed))
    with pytest.raises(KaggleError, match="Not every run") as refusal:
        pushed.train()
    assert refusal.value.faults == ("net.s2: its training failed", "trained") and pushed.oof == ["net.s1"]


def test_the_output_of_another_push_is_not_imported_and_this_push_is_still_followed(pushed):
    pushed.push(Ran("COMPLETE", "", pushed.output("before"), ""))
    with pytest.raises(KaggleError, match="did not arrive complete") as refusal:
        pushed.train()
    assert refusal.value.faults == ("Kaggle gives the output of another push: before, not abc123",)
    assert pushed.oof == [] and pushed.push_file.exists()
    pushed.state.ran[NOTEBOOK] = complete(pushed)
    assert pushed.train().imported == BOTH and PUSH not in pushed.requests


@pytest.mark.parametrize("arrived", [True, False])
def test_a_push_is_made_again_only_if_it_is_not_at_kaggle(pushed, arrived):
    pushed.push(complete(pushed), text="# abc123" if arrived else "# before")
    assert pushed.train().imported == BOTH
    assert pushed.requests.count(PUSH) == (0 if arrived else 1)


def test_a_push_that_kaggle_does_not_show_yet_is_waited_for(pushed, monkeypatch):
    pushed.push(complete(pushed), text="# before")
    seconds_left = iter([60, 30])

    def grace_left(patience, sent):
        seconds = next(seconds_left, 0)
        if seconds == 30:
            pushed.state.pushes[0]["text"] = "# abc123"
        return seconds

    monkeypatch.setattr(Patience, "grace_left", grace_left)
    assert pushed.train(patience=Patience(0.01, 0.01, 20, 60)).imported == BOTH
    assert pushed.requests.count("GetKernel") == 3 and PUSH not in pushed.requests
    assert "is not at Kaggle yet" in "\n".join(pushed.messages)


@pytest.mark.parametrize("fault", [Fault(500), Fault(cut=True)])
def test_after_a_push_without_an_answer_the_next_command_asks_whether_it_arrived(toy, fault):
    toy.server.state.script[PUSH] = [fault]
    with pytest.raises(ServerError, match=r"server failed|cannot be reached"):
        toy.train()
    assert toy.push_file.exists() and toy.requests.count(PUSH) == 1
    assert toy.train().imported == BOTH and toy.requests.count("GetKernel") == 1


def test_force_forgets_a_notebook_and_pushes_again(pushed):
    pushed.push(Ran("RUNNING"))
    with pytest.raises(KaggleError, match="has not ended yet") as refusal:
        pushed.train(patience=Patience(0.05, 0.05, 0.1, 0))
    assert "make kernel COMPETITION=tiny follows it" in refusal.value.fix
    assert pushed.train(force=True).imported == BOTH and pushed.requests.count(PUSH) == 1
    pushed.workspace.paths.predictions_file("net.s1").unlink()
    pushed.changes = {"runs": ("net.s1",)}
    assert pushed.train(force=True).imported == ("net.s1",) and pushed.requests.count("CreateDatasetVersion") == 1


def test_a_damaged_record_of_a_push_is_refused(pushed):
    pushed.push(Ran())
    pushed.push_file.write_text('{"push": 1}')
    with pytest.raises(KaggleError, match="Not a record of a push"):
        pushed.train()


@pytest.mark.parametrize(
    ("fault", "what"),
    [(Fault(503, times=3), "kaggle's server failed."), (Fault(cut=True, times=3), "kaggle cannot be reached.")],
)
def test_a_server_or_a_network_that_fails_for_a_while_is_waited_for(pushed, fault, what):
    pushed.push(complete(pushed))
    pushed.server.state.script[STATUS] = [fault]
    assert pushed.train().imported == BOTH
    assert f"unknown ({what}), not done yet" in "\n".join(pushed.messages)


def test_an_upload_that_the_network_always_cuts_pushes_nothing_and_is_made_again_by_the_next_command(toy, monkeypatch):
    toy.server.state.script[".pyz"] = [Fault(cut=True, times=99)]
    with monkeypatch.context() as patch, pytest.raises(ServerError, match="did not answer in time") as refusal:
        patch.setattr(Kaggle, "upload_seconds", lambda kaggle, size: 2)  # the kaggle command tries again for minutes
        toy.train()
    assert "check the connection" in refusal.value.fix and toy.state.pushes == [] and not toy.push_file.exists()
    toy.server.state.script.clear()
    assert toy.train().imported == BOTH


def shown_log(toy):
    """The lines of notebooks among the messages, which are then forgotten."""
    lines = [line.strip() for line in toy.messages if line.startswith("  ")]
    toy.messages.clear()
    return lines


def test_the_log_is_shown_once_while_the_notebook_runs(pushed):
    log = log_text("epoch 1\n", "\n", "epoch 2\nepoch 3")
    pushed.push(Ran("RUNNING", log=log))
    with pytest.raises(KaggleError, match="has not ended yet"):
        pushed.train(patience=Patience(0.01, 0.01, 0.5, 0))
    assert pushed.requests.count(STATUS) > 1 and shown_log(pushed) == ["epoch 1", "epoch 2", "epoch 3"]
    ran = complete(pushed)
    ran.log = log_text("epoch 1\n", "\n", "epoch 2\nepoch 3", "epoch 4\n", "the end\n")
    end = Fault(before=lambda: pushed.state.ran.update({NOTEBOOK: ran}))
    pushed.server.state.script[STATUS] = [Fault(), end]
    assert pushed.train().imported == BOTH
    assert shown_log(pushed) == ["epoch 1", "epoch 2", "epoch 3", "epoch 4", "the end"]


def test_a_log_that_kaggle_does_not_stream_is_shown_at_the_end(pushed):
    pushed.push(Ran("RUNNING", log=log_text("epoch 1\n")))
    pushed.server.state.script["podium-tiny"] = [Fault(404, times=99)]
    with pytest.raises(KaggleError, match="has not ended yet"):
        pushed.train(patience=Patience(0.01, 0.01, 0.1, 0))
    assert shown_log(pushed) == []
    pushed.state.ran[NOTEBOOK] = complete(pushed)
    assert pushed.train().imported == BOTH and shown_log(pushed) == ["trained"]


def test_a_status_just_after_the_push_may_be_of_the_version_before(pushed, monkeypatch):
    seconds_left = iter([30, 30])
    monkeypatch.setattr(Patience, "grace_left", lambda patience, sent: next(seconds_left, 0))
    pushed.push(complete(pushed))
    assert pushed.train(patience=Patience(0.01, 0.01, 20, 60)).imported and pushed.requests.count(STATUS) == 3


def test_the_end_of_the_version_that_ran_during_a_push_is_not_taken_for_the_end_of_the_new_one(pushed, monkeypatch):
    seconds_left = iter([30, 30])
    monkeypatch.setattr(Patience, "grace_left", lambda patience, sent: next(seconds_left, 0))
    pushed.push(Ran("RUNNING"))

    def end(ran):
        return Fault(before=lambda: pushed.state.ran.update({NOTEBOOK: ran}))

    earlier = end(Ran("CANCEL_ACKNOWLEDGED", "", {}, ""))
    pushed.server.state.script[STATUS] = [Fault(), earlier, end(complete(pushed))]
    assert pushed.train(patience=Patience(0.01, 0.01, 20, 60)).imported == BOTH


def start_command(toy, *arguments):
    """`podium kernel` in a process of its own, which runs the kaggle CLI as users do."""
    environment = toy.environment | {"PYTHONPATH": str(Path(package.__file__).parents[1])}
    command = [sys.executable, "-m", "podium", "kernel", *arguments, "-c", "tiny"]
    return subprocess.Popen(
        command, cwd=toy.folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_after_ctrl_c_the_same_command_follows_the_notebook_that_runs_on(toy):
    toy.state.run = lambda push, datasets: Ran("RUNNING")
    with start_command(toy, "net.s1") as process:
        while STATUS not in toy.requests:
            assert process.poll() is None, process.communicate()
            time.sleep(0.02)
        with pytest.raises(KaggleError, match="Another command follows"):
            toy.train()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
    assert process.returncode == 130 and "Stopped" in errors and "Traceback" not in errors
    toy.state.ran[NOTEBOOK] = toy.ran(toy.state.pushes[0], runs=("net.s1",))
    assert toy.train().imported == ("net.s1",)  # a session here, because the command waits a minute after a push
    assert len(toy.state.pushes) == 1


def test_the_command_prints_what_was_imported_and_what_is_next(pushed):
    pushed.push(complete(pushed, runs=("net.s1",), left=("net.s2",)))
    done = run_podium(pushed.folder, "kernel", "-c", "tiny")
    assert (done.returncode, done.stderr) == (0, "") and "too short for net.s2" in done.stdout
    assert "imported: net.s1; next: make ensemble COMPETITION=tiny" in done.stdout
    done = run_podium(pushed.folder, "kernel", "net.s1", "-c", "tiny")
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "tiny: the runs are up to date.\n")


def test_a_competition_whose_images_kaggle_cannot_attach_is_refused(toy):
    (toy.home / "competition.toml").write_text('title = "d"\n[data]\nsource = "folders"\n[validation]\nrows = 297\n')
    with pytest.raises(ConfigError, match="would have no images") as refusal:
        toy.train()
    assert "[kaggle]" in refusal.value.expected and toy.requests == []
