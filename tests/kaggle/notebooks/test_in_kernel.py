"""The script that runs on Kaggle's machine, piece by piece; as a whole it runs in test_kernel."""

import hashlib
import json
import subprocess
import time

import pytest

from podium.kaggle.notebooks import in_kernel
from podium.kaggle.notebooks.in_kernel import Output, attached, gpus, install, is_met, lay_out, main, work


@pytest.fixture
def machine(tmp_path, monkeypatch):
    for name in ("input", "working", "project"):
        monkeypatch.setattr(in_kernel, name.upper(), tmp_path / name)
    (tmp_path / "input").mkdir()
    return tmp_path


def dataset(machine, files, *, where="input/datasets/me/some-files"):
    """A dataset with a listing, as it is mounted."""
    folder = machine / where
    folder.mkdir(parents=True)
    listed = []
    for name, (place, content) in files.items():
        (folder / name).write_bytes(content)
        listed.append({"name": name, "place": place, "sha256": hashlib.sha256(content).hexdigest(), "bytes": 1})
    (folder / "files-1.json").write_text(json.dumps(listed))
    return folder


@pytest.mark.parametrize("where", ["input/datasets/me/some-files", "input/some-files"])
def test_a_dataset_is_found_in_both_places_where_kaggle_mounts_it(machine, where):
    folder = dataset(machine, {}, where=where)
    assert attached("me/some-files", "datasets", holding="files-1.json") == folder


def test_what_is_not_attached_is_told_with_what_is(machine):
    (machine / "input" / "other").mkdir()
    with pytest.raises(SystemExit, match=r"dogs is not attached.*\['other'\]"):
        attached("dogs", "competitions")


def test_another_version_of_the_dataset_is_refused(machine):
    dataset(machine, {})
    with pytest.raises(SystemExit, match="another version than this kernel was made for"):
        attached("me/some-files", "datasets", holding="files-2.json")


def test_files_go_to_their_places_and_a_damaged_one_is_refused(machine):
    folder = dataset(machine, {"a.toml": ("competitions/x/a.toml", b"1"), "b.whl": ("", b"2")})
    lay_out(folder, "files-1.json", machine / "project")
    assert [file.name for file in (machine / "project").rglob("*.*")] == ["a.toml"]
    (folder / "b.whl").write_bytes(b"3")
    with pytest.raises(SystemExit, match=r"not as it was sent: b\.whl"):
        lay_out(folder, "files-1.json", machine / "project")


@pytest.mark.parametrize(
    ("need", "met"), [("pytest", True), ("pytest>=1.0", True), ("pytest>=999.0", False), ("no-such-thing", False)]
)
def test_a_need_is_met_by_what_is_installed_and_new_enough(need, met):
    assert is_met(need) is met


class Commands:
    """Stands in for subprocess.run: exit codes by a word of the command."""

    def __init__(self, monkeypatch, **codes):
        self.codes, self.ran = codes, []
        monkeypatch.setattr(in_kernel.subprocess, "run", self.run)

    def run(self, command, **options):
        self.ran.append((command, options))
        if command[0] == "nvidia-smi" and "nvidia" not in self.codes:
            raise FileNotFoundError
        code = next((code for word, code in self.codes.items() if word in command), 0)
        told = "GPU 0: T4\nGPU 1: T4\n" if command[0] == "nvidia-smi" else ""
        if "train" in command and code == 0:
            run = command[4]
            for name in (f"oof/x/{run}.npz", f"reports/x/history/{run}.csv"):
                file = in_kernel.PROJECT / name
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(run)
        return subprocess.CompletedProcess(command, code, told, "")


def test_only_what_the_image_lacks_is_installed_with_all_of_its_row(machine, monkeypatch):
    folder, commands = dataset(machine, {"podium-1-py3-none-any.whl": ("", b"")}), Commands(monkeypatch)
    install(folder, {"pytest": ["pytest"], "old>=2": ["old", "companion"]})
    (command, _) = commands.ran[0]
    assert command[-3:] == [str(folder / "podium-1-py3-none-any.whl"), "old", "companion"]
    assert {"--no-index", "--no-deps"} <= set(command)


def test_an_image_that_is_too_old_or_without_a_wheel_is_told(machine, monkeypatch):
    folder = dataset(machine, {"podium-1-py3-none-any.whl": ("", b"")})
    Commands(monkeypatch, pip=1)
    with pytest.raises(SystemExit, match=r"it lacks torch>=999"):
        install(folder, {"torch>=999": []})
    with pytest.raises(SystemExit, match="in no wheel of the dataset"):
        install(folder, {"pytest": []})


SETTINGS = {
    "push": "abc",
    "competition": "x",
    "runs": ["a.s1", "b.s1", "c.s1"],
    "dataset": "me/some-files",
    "listing": "files-1.json",
    "source": "dogs",
    "needs": {},
    "hours": 8.5,
}


def manifest(machine):
    return json.loads((machine / "working" / "podium-output.json").read_text())


def test_every_run_is_trained_and_what_failed_is_named_and_costs_no_other(machine, monkeypatch):
    dataset(machine, {"podium-1-py3-none-any.whl": ("", b"")})
    (machine / "input" / "competitions" / "dogs").mkdir(parents=True)
    commands = Commands(monkeypatch, **{"b.s1": 2, "nvidia": 0})
    assert main(SETTINGS) == 0
    told = manifest(machine)
    assert (sorted(told["trained"]), told["failed"], told["left"]) == (["a.s1", "c.s1"], ["b.s1"], [])
    assert told["push"] == "abc" and len(told["files"]) == 4
    for name, sha256 in told["files"].items():
        assert hashlib.sha256((machine / "working" / name).read_bytes()).hexdigest() == sha256
    trainings = [(command, options) for command, options in commands.ran if "train" in command]
    assert all(command[-2:] == ["--data", str(machine / "input/competitions/dogs")] for command, _ in trainings)
    assert {options["env"]["WANDB_MODE"] for _, options in trainings} == {"disabled"}
    assert {options["env"]["CUDA_VISIBLE_DEVICES"] for _, options in trainings} <= {"0", "1"}


def test_a_kernel_where_everything_failed_fails(machine, monkeypatch):
    dataset(machine, {"podium-1-py3-none-any.whl": ("", b"")})
    Commands(monkeypatch, train=2)
    assert main(SETTINGS | {"source": ""}) == 1
    assert manifest(machine)["failed"] == ["a.s1", "b.s1", "c.s1"]


def test_a_disk_that_is_full_fails_the_kernel(machine, monkeypatch):
    dataset(machine, {"podium-1-py3-none-any.whl": ("", b"")})
    Commands(monkeypatch)
    monkeypatch.setattr(in_kernel.Output, "files", lambda *_: ["nothing.npz"])
    monkeypatch.setattr("threading.excepthook", lambda _: None)
    assert main(SETTINGS | {"source": ""}) == 1 and manifest(machine)["trained"] == []


def test_images_that_cannot_be_prepared_end_the_kernel(machine, monkeypatch):
    dataset(machine, {"podium-1-py3-none-any.whl": ("", b"")})
    Commands(monkeypatch, prepare=2)
    with pytest.raises(SystemExit, match="cannot be prepared"):
        main(SETTINGS | {"source": ""})


def test_runs_that_would_outlast_the_session_are_left_for_another_kernel(machine, monkeypatch):
    Commands(monkeypatch)
    output = Output(SETTINGS | {"hours": 1})
    output.longest = 600
    work(output, [], "", time.monotonic() - 3600 + 500)
    assert (output.trained, output.left) == ([], ["a.s1", "b.s1", "c.s1"])
    output = Output(SETTINGS | {"hours": 1})
    work(output, [], "", time.monotonic() - 3600 + 500)  # nothing is known yet of how long they take
    assert output.trained == ["a.s1", "b.s1", "c.s1"]


def test_a_machine_without_a_gpu_has_one_worker(monkeypatch):
    Commands(monkeypatch)
    assert gpus() == [""]
    Commands(monkeypatch, nvidia=0)
    assert gpus() == ["0", "1"]
