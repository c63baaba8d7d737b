"""The script that runs on Kaggle's machine, function by function; test_rehearse runs the whole script."""

import errno
import hashlib
import json
import os
import subprocess
import time
import zipfile
from pathlib import Path

import pytest

from podium.kaggle.notebooks import script
from podium.kaggle.notebooks.script import (
    Output,
    attached_folder,
    check_image,
    image_folder,
    list_gpus,
    main,
    train_runs,
    unpack,
)


@pytest.fixture
def machine(tmp_path, monkeypatch):
    for name in ("input", "working", "project"):
        monkeypatch.setattr(script, name.upper(), tmp_path / name)
        (tmp_path / name).mkdir()
    return tmp_path


def write_dataset(machine, *, folder="input/datasets/me/some-files"):
    """An attached dataset; returns its archive."""
    file = machine / folder / "archive"
    file.parent.mkdir(parents=True)
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("src/podium/__init__.py", "")
        archive.writestr("competitions/x/a.toml", "1")
    return file.rename(file.with_name(f"podium-{hashlib.sha256(file.read_bytes()).hexdigest()[:12]}.pyz"))


@pytest.mark.parametrize("folder", ["input/datasets/me/some-files", "input/some-files"])
def test_a_dataset_is_found_in_both_places_where_kaggle_mounts_it(machine, folder):
    archive = write_dataset(machine, folder=folder)
    assert attached_folder("me/some-files", "datasets") == archive.parent


def test_a_competition_that_is_not_attached_is_named_with_what_is(machine):
    (machine / "input" / "other").mkdir()
    with pytest.raises(SystemExit, match=r"dogs is not attached.*\['other'\]"):
        attached_folder("dogs", "competitions")


def test_the_archive_is_unpacked_and_a_damaged_archive_is_refused(machine):
    archive = write_dataset(machine)
    unpack(archive)
    assert (machine / "project/competitions/x/a.toml").read_bytes() == b"1"
    assert (machine / "project/src/podium/__init__.py").is_file()
    with pytest.raises(SystemExit, match=rf"expected podium-2\.pyz, found \['{archive.name}'\]"):
        unpack(archive.with_name("podium-2.pyz"))
    archive.write_bytes(archive.read_bytes()[:-1])
    with pytest.raises(SystemExit, match=r"is damaged; FORCE=1"):
        unpack(archive)


def test_an_image_that_is_too_old_is_refused_with_every_fault_at_once():
    check_image({"python": "3.11", "pytest": "1.0"})
    with pytest.raises(SystemExit) as refusal:
        check_image({"python": "99.0", "pytest": "999.0", "no-such-package": "1.0", "numpy": "1.0"})
    lines = str(refusal.value).splitlines()
    assert lines[0] == "Kaggle's image is too old for Podium." and len(lines) == 5
    assert "pytest: expected >= 999.0, found " in lines[2]
    assert lines[3] == "  no-such-package: expected >= 1.0, found no such package" and "fix:" in lines[4]


@pytest.mark.parametrize("inner", ["/train", ""])
def test_a_7z_archive_becomes_a_folder_where_the_image_has_no_py7zr(machine, monkeypatch, inner):
    write_archives(machine, monkeypatch, f'out="${{4#-o}}{inner}"; mkdir -p "$out"; echo 1 > "$out/1.png"')
    folder = image_folder("dogs")
    assert sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*.*") if file.is_file()) == [
        "labels.csv",
        "train/1.png",
    ]


def test_a_7z_archive_that_cannot_be_unpacked_is_refused(machine, monkeypatch):
    write_archives(machine, monkeypatch, "exit 2")
    with pytest.raises(SystemExit, match=r"train\.7z cannot be unpacked"):
        image_folder("dogs")


def test_archives_are_left_to_podium_where_the_image_has_py7zr(machine, monkeypatch):
    folder = write_archives(machine, monkeypatch, "exit 2", has_py7zr=True)
    assert image_folder("dogs") == folder


def write_archives(machine, monkeypatch, command, *, has_py7zr=False):
    """An attached competition with a .7z archive; `7z` runs the shell command."""
    folder = machine / "input" / "competitions" / "dogs"
    folder.mkdir(parents=True)
    (folder / "train.7z").write_bytes(b"7z")
    (folder / "labels.csv").write_text("id,label")
    monkeypatch.setattr(script, "find_spec", lambda name: has_py7zr)
    (machine / "bin").mkdir()
    (machine / "bin" / "7z").write_text(f"#!/bin/sh\n{command}\n")
    (machine / "bin" / "7z").chmod(0o755)
    monkeypatch.setenv("PATH", f"{machine / 'bin'}{os.pathsep}{os.environ['PATH']}")
    return folder


class Commands:
    """Stands in for subprocess.run: exit codes by a word of the command."""

    def __init__(self, monkeypatch, **exit_codes):
        self.exit_codes, self.calls = exit_codes, []
        monkeypatch.setattr(script.subprocess, "run", self.run)

    def run(self, command, **options):
        self.calls.append((command, options))
        if command[0] == "nvidia-smi" and "nvidia" not in self.exit_codes:
            raise FileNotFoundError
        exit_code = next((code for word, code in self.exit_codes.items() if word in command), 0)
        text = "GPU 0: T4\nGPU 1: T4\n" if command[0] == "nvidia-smi" else ""
        if "train" in command and exit_code == 0:
            run = command[4]
            for name in (f"oof/x/{run}.npz", f"reports/x/history/{run}.csv", f"models/x/{run}.safetensors"):
                file = script.PROJECT / name
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(run)
        return subprocess.CompletedProcess(command, exit_code, text, "")


SETTINGS = {
    "push": "abc",
    "competition": "x",
    "runs": ["a.s1", "b.s1", "c.s1"],
    "dataset": "me/some-files",
    "source": "",
    "hours": 8.5,
    "parameters": True,
}


def read_manifest(machine):
    return json.loads((machine / "working" / "podium-output.json").read_text())


def test_every_run_is_trained_and_a_run_that_fails_stops_no_other(machine, monkeypatch):
    archive = write_dataset(machine)
    images = machine / "input" / "competitions" / "dogs"
    images.mkdir(parents=True)
    commands = Commands(monkeypatch, **{"b.s1": 2, "nvidia": 0})
    assert main(SETTINGS | {"archive": archive.name, "source": "dogs"}) == 0
    manifest = read_manifest(machine)
    assert (sorted(manifest["trained"]), manifest["failed"], manifest["left"]) == (["a.s1", "c.s1"], ["b.s1"], [])
    assert manifest["push"] == "abc" and len(manifest["files"]) == 6
    for name, sha256 in manifest["files"].items():
        assert hashlib.sha256((machine / "working" / name).read_bytes()).hexdigest() == sha256
    (prepare,) = (command for command, _ in commands.calls if "prepare" in command)
    assert prepare[-2:] == ["--data", str(images)]
    environments = [options["env"] for command, options in commands.calls if "train" in command]
    assert {environment["PODIUM_NO_TRACKERS"] for environment in environments} == {"1"}
    assert {environment["CUDA_VISIBLE_DEVICES"] for environment in environments} <= {"0", "1"}


def test_a_notebook_where_every_run_failed_fails(machine, monkeypatch):
    archive = write_dataset(machine)
    Commands(monkeypatch, train=2)
    assert main(SETTINGS | {"archive": archive.name}) == 1
    assert read_manifest(machine)["failed"] == ["a.s1", "b.s1", "c.s1"]


def test_a_full_disk_fails_the_notebook(machine, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    archive = write_dataset(machine)
    Commands(monkeypatch)
    monkeypatch.setattr(script.shutil, "copyfile", full)
    with pytest.raises(OSError, match="No space left"):
        main(SETTINGS | {"archive": archive.name})


def test_images_that_cannot_be_prepared_end_the_notebook(machine, monkeypatch):
    archive = write_dataset(machine)
    Commands(monkeypatch, prepare=2)
    with pytest.raises(SystemExit, match="cannot be prepared"):
        main(SETTINGS | {"archive": archive.name})


def test_runs_that_would_outlast_the_session_are_left_for_the_next_session(machine, monkeypatch):
    Commands(monkeypatch)
    output = Output(SETTINGS | {"hours": 1})
    output.longest_seconds = 600
    train_runs(output, "", time.monotonic() - 3600 + 500)
    assert output.trained == [] and list(output.waiting) == ["a.s1", "b.s1", "c.s1"]
    output = Output(SETTINGS | {"hours": 1})
    train_runs(output, "", time.monotonic() - 3600 + 500)  # no run has ended, so no duration is known
    assert output.trained == ["a.s1", "b.s1", "c.s1"] and read_manifest(machine)["left"] == []


@pytest.mark.parametrize(("change", "most", "kept"), [({}, 10**9, 3), ({}, 12, 1), ({"parameters": False}, 10**9, 0)])
def test_parameters_are_kept_as_far_as_kaggle_keeps_output(machine, monkeypatch, change, most, kept):
    Commands(monkeypatch)
    monkeypatch.setattr(script, "MOST_BYTES", most)  # each file has four bytes
    output = Output(SETTINGS | change)
    train_runs(output, "", time.monotonic())
    names = read_manifest(machine)["files"]
    assert output.trained == ["a.s1", "b.s1", "c.s1"] and sum("models/" in name for name in names) == kept


def test_without_runs_the_submission_of_the_attached_images_is_written(machine, monkeypatch):
    archive = write_dataset(machine)
    (machine / "input" / "competitions" / "dogs").mkdir(parents=True)
    (machine / "working" / "submission.csv").write_text("id,label\n")
    settings = SETTINGS | {"archive": archive.name, "source": "dogs", "runs": []}
    commands = Commands(monkeypatch)
    assert main(settings) == 0 and list(read_manifest(machine)["files"]) == ["submission.csv"]
    (command,) = (command for command, _ in commands.calls if "predict" in command)
    images, csv = machine / "input" / "competitions" / "dogs", machine / "working" / "submission.csv"
    assert command[3:] == ["predict", "--ensemble", str(images), "--submission", str(csv), "--competition", "x"]
    (options,) = (options for command, options in commands.calls if "predict" in command)
    assert Path(options["env"]["PODIUM_WEIGHTS"]).is_dir()
    Commands(monkeypatch, predict=2)
    assert main(settings) == 2 and read_manifest(machine)["files"] == {}


def test_a_machine_without_a_gpu_has_one_worker(monkeypatch):
    Commands(monkeypatch)
    assert list_gpus() == [""]
    Commands(monkeypatch, nvidia=0)
    assert list_gpus() == ["0", "1"]
