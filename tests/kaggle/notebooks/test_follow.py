"""Every way from stale runs to a kernel and back, by the real kaggle CLI against a server on loopback."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fake.kernels import Ran
from fake.server import TOKEN, FakeServer
from fake.state import Fault, State

import podium as package
from kernel_bench import KERNEL, KernelHouse, log_of
from podium.errors import ConfigError, KaggleError
from podium.kaggle.notebooks.follow import Push
from podium.kaggle.rehearse_kernel import here, rehearse
from podium.kaggle.session import Patience, only_one
from podium.plan.runs import list_runs
from podium.predictions.artefact import save_predictions

PUSH, STATUS, OUTPUT = "SaveKernel", "GetKernelSessionStatus", "ListKernelSessionOutput"
DATASET = f"{KERNEL}-files"


@pytest.fixture
def house(tmp_path, monkeypatch):
    with FakeServer(State("", lambda _: None)) as server:
        made = KernelHouse(tmp_path, server)
        for name in [name for name in os.environ if name.startswith("KAGGLE_")]:
            monkeypatch.delenv(name)
        for name, value in made.environment.items():  # also what forgets to say where to reaches nobody
            monkeypatch.setenv(name, value)
        yield made


@pytest.fixture
def pushed(house):
    """A house whose kernel was pushed, and will end as `ran` says."""

    def push(ran, *, arrived=True, text="abc123"):
        house.state.ran[KERNEL] = ran
        house.state.pushes.append({"slug": KERNEL, "text": text})
        note = {"push": "abc123", "kernel": KERNEL, "time": "2026-01-01T00:00:00Z", "runs": ["net.s1", "net.s2"]}
        house.bench().push_file.parent.mkdir(parents=True)
        house.bench().push_file.write_text(json.dumps(note | {"arrived": arrived}))

    house.push = push
    return house


def complete(house, **options):
    return Ran("COMPLETE", "", house.output("abc123", **options), log_of("trained\n"))


def test_stale_runs_are_trained_in_a_kernel_and_are_then_up_to_date(house):
    house.state.statuses = ["NOT_YET_PERSISTED", "BLOBS_RECEIVED"]
    taken = house.train()
    assert taken.taken == ("net.s1", "net.s2") and house.oof == ["net.s1", "net.s2"]
    assert not any(one.stale for one in list_runs(house.project, "tiny"))
    assert house.project.history_file("tiny", "net.s2").read_text() == "epoch\n1\n"
    (push,) = house.state.pushes
    assert push["datasetDataSources"] == [DATASET] and not push["enableInternet"] and push["isPrivate"]
    assert push["enableGpu"] and push["machineShape"] == "NvidiaTeslaT4" and TOKEN not in push["text"]
    told = "\n".join(house.told)
    assert "podium-0.1.0-py3-none-any.whl" in told and "blobs received" in told and not house.bench().push_file.exists()
    asked = len(house.asked)
    assert house.train() is None and len(house.asked) == asked


def test_a_dataset_that_is_at_kaggle_is_sent_again_only_where_it_differs(house):
    house.changes = {"runs": ("net.s1",), "left": ("net.s2",)}
    assert house.train().left == ("net.s2",)
    house.changes = {"runs": ("net.s2",)}
    assert house.train().taken == ("net.s2",)
    assert house.asked.count("CreateDataset") == 1 and "CreateDatasetVersion" not in house.asked
    (house.folder / "competitions" / "tiny" / "net.toml").write_text(
        (house.folder / "competitions" / "tiny" / "net.toml").read_text().replace("0.01", "0.02")
    )
    house.changes = {}
    assert house.train().taken == ("net.s1", "net.s2") and house.asked.count("CreateDatasetVersion") == 1
    assert b"0.02" in house.state.datasets[DATASET]["net.toml"]


@pytest.mark.parametrize("how", ["refused", "lost"])
def test_a_dataset_that_lost_a_file_on_the_way_is_not_trained_with(house, how):
    if how == "refused":
        house.server.state.script["net.toml"] = [Fault(403)]  # the CLI leaves it out, and says nothing
    else:
        house.state.lost = {"net.toml"}
    with pytest.raises(KaggleError, match="not whole and ready at Kaggle") as refusal:
        house.train()
    assert refusal.value.faults == ("net.toml: missing",) and house.state.pushes == []
    house.state.lost = set()
    assert house.train().taken == ("net.s1", "net.s2") and house.asked.count("CreateDatasetVersion") == 1


def test_sizes_that_kaggle_lists_otherwise_are_told_and_left_to_the_kernel_s_own_check(house):
    house.state.odd_bytes = 1
    assert house.train().taken == ("net.s1", "net.s2")
    assert "Kaggle lists other sizes of competition.toml, data.lock, net.toml" in "\n".join(house.told)


def test_a_dataset_that_is_never_ready_is_told(house):
    house.state.statuses = ["BLOBS_RECEIVED"] * 99
    with pytest.raises(KaggleError, match="not whole and ready") as refusal:
        house.train(dataset_patience=Patience(0.05, 0.05, 0.1, 0))
    assert refusal.value.found == "status blobs_received" and house.state.pushes == []
    house.state.statuses = ["FAILED"]
    with pytest.raises(KaggleError, match="not whole and ready") as refusal:
        house.train()
    assert refusal.value.found == "status failed"


def test_no_credentials(house):
    house.environment.pop("KAGGLE_API_TOKEN")
    with pytest.raises(KaggleError, match="no Kaggle credentials here") as refusal:
        house.train()
    assert "export KAGGLE_API_TOKEN" in refusal.value.fix and house.state.datasets == {}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"refusal": "Maximum weekly GPU quota of 30.00 hours reached."}, "GPU quota of 30.00 hours reached"),
        ({"invalid": {"invalidDatasetSources": [DATASET]}}, "not valid dataset sources"),
        ({"invalid": {"invalidCompetitionSources": ["dogs"]}}, "not valid competition sources"),
    ],
)
def test_a_push_with_exit_code_0_that_kaggle_did_not_take_whole_is_told_and_not_followed(house, change, told):
    for name, value in change.items():
        setattr(house.state, name, value)
    with pytest.raises(KaggleError, match=r"Kaggle (did not take|took) the kernel") as refusal:
        house.train()
    assert told in refusal.value.found and not house.bench().push_file.exists()


def test_a_kernel_that_fails_shows_the_end_of_its_log_and_what_ended_before_it_is_taken_in(pushed):
    files = pushed.output("abc123", runs=("net.s1",))
    log = log_of(*(f"line {line}\n" for line in range(40)), "RuntimeError: CUDA out of memory\n")
    pushed.push(Ran("ERROR", "Your notebook was stopped", files, log))
    with pytest.raises(KaggleError, match="The kernel failed at Kaggle") as refusal:
        pushed.train()
    error = refusal.value
    assert error.faults[-1] == "RuntimeError: CUDA out of memory" and len(error.faults) == 15
    assert error.found == "Your notebook was stopped; taken in before it: net.s1" and pushed.oof == ["net.s1"]
    assert "kaggle.com/code/rehearsal/podium-tiny" in error.fix and not pushed.bench().push_file.exists()


@pytest.mark.parametrize("fault", [Fault(503, times=99), Fault(cut=True, times=99), Fault(stall_seconds=0, times=99)])
@pytest.mark.parametrize("file", ["net.s1.npz", "podium-output.json"])
def test_a_kernel_that_failed_is_followed_until_what_ended_before_it_has_arrived(pushed, fault, file):
    pushed.push(Ran("ERROR", "Your notebook was stopped", pushed.output("abc123", runs=("net.s1",)), log_of("x\n")))
    pushed.server.state.script[file] = [fault]
    with pytest.raises(KaggleError, match="did not arrive whole"):
        pushed.train()
    assert pushed.oof == [] and pushed.bench().push_file.exists()
    assert "podium-tiny failed: Your notebook was stopped; FORCE=1 would forget it" in "\n".join(pushed.told)
    pushed.server.state.script.clear()
    with pytest.raises(KaggleError, match="The kernel failed at Kaggle") as refusal:
        pushed.train()
    assert refusal.value.found.endswith("taken in before it: net.s1") and pushed.oof == ["net.s1"]
    assert PUSH not in pushed.asked and not pushed.bench().push_file.exists()


def test_a_run_that_ended_before_the_kernel_failed_and_is_refused_is_named(pushed):
    files = pushed.output("abc123", runs=("net.s1",), stamp="of another recipe")
    pushed.push(Ran("ERROR", "Your notebook was stopped", files, log_of("the end\n")))
    with pytest.raises(KaggleError, match="The kernel failed at Kaggle") as refusal:
        pushed.train()
    assert refusal.value.faults[0].startswith("net.s1: its recipe, its seed or the data are not today's")
    assert refusal.value.faults[1:] == ("the end",) and pushed.oof == []


def test_a_run_that_was_trained_here_while_the_kernel_ran_is_left_and_named(pushed):
    here = pushed.project.predictions_file("tiny", "net.s1")
    save_predictions(here, pushed.predictions("net.s1", trained="here"))
    before = here.read_bytes()
    pushed.push(complete(pushed))
    taken = pushed.train()
    assert (taken.taken, taken.kept, here.read_bytes()) == (("net.s2",), ("net.s1",), before)
    assert "left as they are here, where they are up to date by now: net.s1" in pushed.told
    assert not pushed.project.history_file("tiny", "net.s1").exists()


def test_a_kernel_that_was_cancelled_is_told_even_where_its_log_is_no_json(pushed):
    pushed.push(Ran("CANCEL_ACKNOWLEDGED", "", {}, "plain words\n\n"))
    with pytest.raises(KaggleError, match="The kernel failed") as refusal:
        pushed.train()
    assert refusal.value.found == "status CANCEL_ACKNOWLEDGED" and refusal.value.faults == ("plain words",)


def test_a_file_that_arrives_cut_is_fetched_again(pushed):
    pushed.push(complete(pushed))
    pushed.server.state.script["net.s2.npz"] = [Fault(cut=True)]
    pushed.server.state.script["podium-output.json"] = [Fault(cut=True)]
    assert pushed.train().taken == ("net.s1", "net.s2")
    told = "\n".join(pushed.told)
    assert "attempt 2: The kernel's output has no manifest" in told
    assert pushed.asked.count(OUTPUT) == 2


def test_an_answer_that_breaks_off_is_asked_for_again(pushed):
    pushed.push(complete(pushed))
    pushed.server.state.script["net.s2.npz"] = [Fault(stall_seconds=0, times=1)]
    assert pushed.train().taken == ("net.s1", "net.s2")


def test_an_output_that_never_arrives_whole_is_not_taken_and_can_be_fetched_again(pushed):
    pushed.push(complete(pushed))
    pushed.server.state.script["net.s2.npz"] = [Fault(cut=True, times=9)]
    with pytest.raises(KaggleError, match="did not arrive whole") as refusal:
        pushed.train()
    assert refusal.value.faults == ("oof/tiny/net.s2.npz: not as the kernel wrote it",) and pushed.oof == []
    pushed.server.state.script.clear()
    assert pushed.train().taken == ("net.s1", "net.s2") and PUSH not in pushed.asked


def test_a_run_of_another_recipe_is_refused_by_name_and_the_others_are_taken_in(pushed):
    ran = complete(pushed, runs=("net.s1",))
    other = pushed.output("abc123", runs=("net.s1", "net.s2"), stamp="of another recipe")
    files = other | {name: content for name, content in ran.files.items() if "s1" in name}
    manifest = json.loads(other["podium-output.json"])
    manifest["files"] |= json.loads(ran.files["podium-output.json"])["files"]
    ran.files = files | {"podium-output.json": json.dumps(manifest).encode()}
    pushed.push(ran)
    with pytest.raises(KaggleError, match="Not every run of the kernel could be taken in") as refusal:
        pushed.train()
    assert refusal.value.faults == (
        "net.s2: its recipe, its seed or the data are not today's: they changed since the push",
    )
    assert pushed.oof == ["net.s1"] and refusal.value.found == "1 taken in: net.s1"


def test_a_run_that_failed_in_the_kernel_is_named_with_the_end_of_the_log(pushed):
    pushed.push(complete(pushed, runs=("net.s1",), failed=("net.s2",)))
    with pytest.raises(KaggleError, match="Not every run") as refusal:
        pushed.train()
    assert refusal.value.faults == ("net.s2: its training failed", "trained") and pushed.oof == ["net.s1"]


def test_a_run_of_which_the_kernel_says_nothing_has_failed(pushed):
    pushed.push(complete(pushed, runs=("net.s1",)))
    with pytest.raises(KaggleError, match="Not every run") as refusal:
        pushed.train()
    assert refusal.value.faults[0] == "net.s2: its training failed" and pushed.oof == ["net.s1"]


def test_the_output_of_another_push_is_not_taken(pushed):
    pushed.push(Ran("COMPLETE", "", pushed.output("another"), ""), text="# another")
    with pytest.raises(KaggleError, match="of another push"):
        pushed.train()
    assert pushed.oof == [] and not pushed.bench().push_file.exists()


def test_the_output_of_the_push_before_does_not_forget_this_one(pushed):
    pushed.push(Ran("COMPLETE", "", pushed.output("of before"), ""))
    with pytest.raises(KaggleError, match="of the push before"):
        pushed.train()
    assert pushed.oof == [] and pushed.bench().push_file.exists()
    pushed.state.ran[KERNEL] = complete(pushed)
    assert pushed.train().taken == ("net.s1", "net.s2") and PUSH not in pushed.asked


@pytest.mark.parametrize("arrived", [True, False])
def test_a_push_that_was_cut_off_is_made_again_only_if_it_never_arrived(pushed, arrived):
    pushed.push(complete(pushed), arrived=False, text="# abc123" if arrived else "# of before")
    assert pushed.train().taken == ("net.s1", "net.s2")
    assert pushed.asked.count(PUSH) == (0 if arrived else 1)


def test_a_push_that_kaggle_does_not_show_yet_is_waited_for(pushed, monkeypatch):
    pushed.push(complete(pushed), arrived=False, text="# of before")
    shown = pushed.state.pushes[0]
    ages = iter([0, 30])

    def age(push):
        seconds = next(ages, 61)
        shown["text"] = "# of before" if seconds < 60 else "# abc123"
        return seconds

    monkeypatch.setattr(Push, "age_seconds", age)
    assert pushed.train(patience=Patience(0.01, 0.01, 20, 60)).taken == ("net.s1", "net.s2")
    assert pushed.asked.count("GetKernel") == 3 and PUSH not in pushed.asked
    assert "is not at Kaggle yet" in "\n".join(pushed.told)


@pytest.mark.parametrize("fault", [Fault(500), Fault(cut=True)])
def test_a_push_after_which_kaggle_is_silent_is_looked_for_by_the_next_command(house, fault):
    house.server.state.script[PUSH] = [fault]
    with pytest.raises(KaggleError, match=r"Kaggle (failed|refused)"):
        house.train()
    assert not json.loads(house.bench().push_file.read_text())["arrived"]
    assert house.train().taken == ("net.s1", "net.s2") and house.asked.count("GetKernel") == 1


def test_force_forgets_a_kernel_and_pushes_anew(pushed):
    pushed.push(Ran("RUNNING"))
    with pytest.raises(KaggleError, match="has not ended yet") as refusal:
        pushed.train(patience=Patience(0.05, 0.05, 0.1, 0))
    assert "make kernel COMPETITION=tiny follows it" in refusal.value.fix
    assert pushed.train(force=True).taken == ("net.s1", "net.s2") and pushed.asked.count(PUSH) == 1
    pushed.project.predictions_file("tiny", "net.s1").unlink()
    pushed.changes = {"runs": ("net.s1",)}
    assert pushed.train(force=True).taken == ("net.s1",) and pushed.asked.count("CreateDatasetVersion") == 1


def test_a_note_that_is_none_is_refused(pushed):
    pushed.push(Ran())
    pushed.bench().push_file.write_text('{"push": 1}')
    with pytest.raises(KaggleError, match="Not a note of a push"):
        pushed.train()


def test_a_server_that_fails_now_and_then_ends_nothing(pushed):
    pushed.push(complete(pushed))
    pushed.server.state.script[STATUS] = [Fault(503, times=3)]
    assert pushed.train().taken == ("net.s1", "net.s2") and "silent (kaggle failed.), not done yet" in "\n".join(
        pushed.told
    )


def test_a_server_that_never_answers_again_is_given_up(pushed, monkeypatch):
    monkeypatch.setattr("podium.kaggle.notebooks.follow.MOST_SILENT_ANSWERS", 1)
    pushed.push(complete(pushed))
    pushed.server.state.script[STATUS] = [Fault(503, times=9)]
    with pytest.raises(KaggleError, match="Kaggle failed"):
        pushed.train()
    assert pushed.bench().push_file.exists()


def test_the_answer_just_after_a_push_may_be_about_the_kernel_before_it(pushed, monkeypatch):
    ages = iter([0, 30, 30, 61])
    monkeypatch.setattr(Push, "age_seconds", lambda _: next(ages, 61))
    pushed.push(complete(pushed))
    assert pushed.train(patience=Patience(0.01, 0.01, 20, 60)).taken and pushed.asked.count(STATUS) == 3


def podium(house, *words, command="kernel"):
    environment = house.environment | {"PYTHONPATH": str(Path(package.__file__).parents[1])}
    command = [sys.executable, "-c", "from podium.cli.app import main; main()", command, *words, "-c", "tiny"]
    command += ["--wheels", "none"]
    return subprocess.Popen(
        command, cwd=house.folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_after_ctrl_c_the_same_command_follows_the_kernel_that_goes_on(house, monkeypatch):
    house.state.run = lambda push, datasets: Ran("RUNNING")
    with podium(house, "net.s1") as run:
        while STATUS not in house.asked:
            assert run.poll() is None, run.communicate()
            time.sleep(0.02)
        with pytest.raises(KaggleError, match="Another command follows"):
            house.train()
        run.send_signal(signal.SIGINT)
        _, said = run.communicate(timeout=20)
    assert run.returncode == 130 and "Stopped" in said and "Traceback" not in said
    house.state.ran[KERNEL] = house.ran(house.state.pushes[0], runs=("net.s1",))
    assert house.train().taken == ("net.s1",)  # the bench is in a hurry, where the command waits a minute
    assert len(house.state.pushes) == 1


def test_the_command_says_what_was_taken_in_and_what_is_next(pushed):
    pushed.push(complete(pushed, runs=("net.s1",), left=("net.s2",)))
    with podium(pushed) as run:
        said, warned = run.communicate(timeout=60)
    assert (run.returncode, warned) == (0, "")
    assert "taken in: net.s1; next: make ensemble COMPETITION=tiny" in said and "too short for net.s2" in said
    with podium(pushed, "net.s1") as run:
        said, warned = run.communicate(timeout=60)
    assert (run.returncode, warned, said) == (0, "", "tiny: the runs are up to date.\n")


def test_what_is_pushed_runs_here_offline_in_a_scratch_folder(house):
    with podium(house, command="rehearse-kernel") as run:
        said, warned = run.communicate(timeout=600)
    assert run.returncode == 0, said + warned
    assert "taken in: net.s1; next: make kernel" in said and "nothing left this machine" in said and house.oof == []
    file = house.folder / ".rehearsal" / "oof" / "tiny" / "net.s1.npz"
    target = house.project.predictions_file("tiny", "net.s1")
    target.parent.mkdir(parents=True)
    file.rename(target)
    assert [one.stale for one in list_runs(house.project, "tiny")] == [False, True]
    assert house.asked == []  # another Kaggle than this one


def test_images_that_are_here_are_attached_as_the_competition_s_would_be(house, monkeypatch):
    (house.folder / "data" / "pets" / "train").mkdir(parents=True)
    (house.folder / "competitions" / "tiny" / "competition.toml").write_text(
        'title = "d"\n[data]\nsource = "folders"\narchive = "pets"\n[validation]\nrows = 9\n'
        '[kaggle]\ncompetition = "pets"\n'
    )
    attached = []
    monkeypatch.setattr("podium.kaggle.rehearse_kernel.here", lambda folder, images: attached.append(images))
    monkeypatch.setattr(
        "podium.kaggle.rehearse_kernel.train_in_kernel", lambda bench, runs, force: [one.run for one in runs]
    )
    rehearsed = rehearse(house.project, "tiny", ["net"], wheels="none", data=None, publish=None, tell=print)
    assert rehearsed == ["net.s1", "net.s2"] and attached == [house.folder / "data" / "pets"]


def test_a_rehearsal_does_not_take_the_lock_of_another_away(house):
    lock = house.folder / ".rehearsal" / ".kernel" / "tiny" / ".lock"
    with only_one(lock, "Another rehearsal runs."), pytest.raises(KaggleError, match="Another command follows"):
        rehearse(house.project, "tiny", [], wheels="none", data=None, publish=None, tell=print)


def test_what_runs_here_reaches_no_server(house):
    address = f"http://localhost:{house.server._server.server_port}/"
    text = f"from urllib.request import getproxies, urlopen\nprint(sorted(getproxies()))\nurlopen('{address}')"
    ran = here(house.folder)({"text": text, "datasetDataSources": []}, {})
    assert ran.status == "ERROR" and "refused" in ran.log and "'http', 'https'" in ran.log and house.asked == []


def test_a_kernel_that_nothing_can_run_has_failed(house):
    def broken(push, datasets):
        raise OSError("no space left")

    house.state.run = broken
    with pytest.raises(KaggleError, match="The kernel failed") as refusal:
        house.train()
    assert refusal.value.found == "what runs kernels here failed: no space left"


def test_a_script_that_fails_here_leaves_its_words(tmp_path):
    push = {"text": "print('no good'); raise SystemExit(3)", "datasetDataSources": ["a/b"]}
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "1.png").write_bytes(b"")
    push |= {"competitionDataSources": ["dogs"]}
    ran = here(tmp_path, tmp_path / "images")(push, {"a/b": {"one.txt": b"1"}})
    assert (ran.status, ran.failure, ran.files) == ("ERROR", "exit code 3", {}) and "no good" in ran.log
    (machine,) = tmp_path.glob("machine-*")
    assert (machine / "input" / "datasets" / "a" / "b" / "one.txt").read_text() == "1"
    assert (machine / "input" / "competitions" / "dogs" / "1.png").is_file()


def test_a_competition_whose_images_a_kernel_would_not_have_is_refused(house):
    (house.folder / "competitions" / "tiny" / "competition.toml").write_text(
        'title = "d"\n[data]\nsource = "folders"\n[validation]\nrows = 297\n'
    )
    with pytest.raises(ConfigError, match="would have no images") as refusal:
        house.train()
    assert "[kaggle]" in refusal.value.expected and house.asked == []
