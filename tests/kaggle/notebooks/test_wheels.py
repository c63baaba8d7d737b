"""Podium as a wheel, and the wheels of what Kaggle's image lacks; pip is a stand-in, there is no network here."""

import base64
import hashlib
import subprocess
import tomllib
import zipfile
from pathlib import Path

import pytest

from podium.errors import KaggleError
from podium.kaggle.notebooks import wheels
from podium.kaggle.notebooks.wheels import PYTHONS, brought, fetch_wheels, podium_wheel

ROOT = Path(__file__).parents[3]
NEEDS = {"fastai>=2.8.3": ("fastcore",), "py7zr>=1.0": ("brotli",), "timm>=1": ("nothing-of-that-name",)}
HERE = {"fastai": "2.9", "fastcore": "2.2", "py7zr": "1.1", "brotli": "1.2", "timm": "1.5"}


def test_the_same_sources_are_the_same_wheel_and_its_record_is_true(tmp_path):
    (tmp_path / "two").mkdir()
    first, second = podium_wheel(tmp_path), podium_wheel(tmp_path / "two")
    assert first.name == "podium-0.1.0-py3-none-any.whl" and first.read_bytes() == second.read_bytes()
    with zipfile.ZipFile(first) as archive:
        record = archive.read("podium-0.1.0.dist-info/RECORD").decode().splitlines()
        names = [line.split(",")[0] for line in record]
        assert sorted(names) == sorted(archive.namelist()) and "podium/kaggle/notebooks/in_kernel.py" in names
        for line in record[:-1]:
            name, told, size = line.rsplit(",", 2)
            content = archive.read(name)
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")
            assert (told, int(size)) == (f"sha256={digest}", len(content))


def test_what_a_kernel_needs_is_bounded_as_in_pyproject():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    bounded = [need for need in brought() if ">=" in need]
    assert bounded and set(bounded) <= set(project["dependencies"])


class Pip:
    """Writes down what it is asked for, and leaves wheels as an index would."""

    def __init__(self, monkeypatch, *, fails=""):
        self.asked, self.fails = [], fails
        monkeypatch.setattr(wheels, "NEEDS", NEEDS)
        monkeypatch.setattr(wheels, "_version_here", HERE.get)
        monkeypatch.setattr(wheels.subprocess, "run", self.run)

    def run(self, command, *, timeout, **_):
        self.asked.append(command)
        if self.fails == "silent":
            raise subprocess.TimeoutExpired(command, timeout)
        if self.fails:
            return subprocess.CompletedProcess(command, 1, "", f"WARNING: x\nERROR: {self.fails}\n")
        folder, python = Path(command[command.index("--dest") + 1]), command[command.index("--python-version") + 1]
        for one in [word for word in command if "==" in word]:
            name, version = one.split("==")
            tag = f"cp{python.replace('.', '')}"
            tags = f"{tag}-{tag}-manylinux2014_x86_64" if name == "brotli" else "py3-none-any"
            (folder / f"{name}-{version}-{tags}.whl").write_bytes(b"wheel")
        return subprocess.CompletedProcess(command, 0, "", "")


def test_wheels_are_fetched_once_for_every_python_and_in_the_versions_that_are_here(tmp_path, monkeypatch):
    pip, told = Pip(monkeypatch), []
    found = [file.name for file in fetch_wheels(tmp_path / "wheels", tell=told.append)]
    pure = ["fastai-2.9-py3-none-any.whl", "fastcore-2.2-py3-none-any.whl", "py7zr-1.1-py3-none-any.whl"]
    built = [f"brotli-1.2-{tag}-{tag}-manylinux2014_x86_64.whl" for tag in ("cp311", "cp312", "cp313")]
    assert found == [*built, *pure, "timm-1.5-py3-none-any.whl"]
    assert len(pip.asked) == len(PYTHONS) and "fetching 5 wheels for Python 3.11" in told
    assert [word for word in pip.asked[1] if "==" in word] == ["brotli==1.2"]
    assert all("--no-deps" in command and "--only-binary=:all:" in command for command in pip.asked)
    assert [file.name for file in fetch_wheels(tmp_path / "wheels", tell=told.append)] == found
    assert len(pip.asked) == len(PYTHONS)


@pytest.mark.parametrize(
    ("fails", "told"), [("No matching distribution found", "No matching"), ("silent", "no answer in 900 s")]
)
def test_an_index_that_cannot_be_reached_is_told_with_the_ways_around_it(tmp_path, monkeypatch, fails, told):
    Pip(monkeypatch, fails=fails)
    with pytest.raises(KaggleError, match="cannot be fetched") as refusal:
        fetch_wheels(tmp_path, tell=lambda _: None)
    assert told in refusal.value.found and "WHEELS=none" in refusal.value.fix


def test_a_wheel_that_pip_leaves_out_or_that_does_not_fit_is_told(tmp_path, monkeypatch):
    pip = Pip(monkeypatch)
    run = pip.run
    monkeypatch.setattr(wheels.subprocess, "run", lambda command, **rest: run(command[:-1], **rest))
    with pytest.raises(KaggleError, match="cannot be fetched") as refusal:
        fetch_wheels(tmp_path, tell=lambda _: None)
    assert refusal.value.expected == "timm==1.5" and "no wheel of them that Python 3.11" in refusal.value.found


def test_what_is_not_installed_here_has_no_version():
    assert wheels._version_here("nothing-of-that-name") is None and wheels._version_here("pytest")
