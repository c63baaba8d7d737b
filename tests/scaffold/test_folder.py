"""`podium init`: a folder of one's own, and the demo in it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from podium.errors import ConfigError
from podium.plan.paths import Paths
from podium.scaffold.folder import init_folder, write_demo

ROOT = Path(__file__).parents[2]


def make(folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess:
    """Run make in a folder, where Python finds Podium."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "COVERAGE_"))}
    environment = {**kept, "PYTHONPATH": str(ROOT / "src"), **environment}
    return subprocess.run(["make", *words], cwd=folder, env=environment, capture_output=True, text=True, timeout=60)


def test_a_new_folder_has_what_make_needs_and_make_uses_the_python_that_made_it(tmp_path):
    folder = tmp_path / "my" / "dogs"
    written = init_folder(folder)
    assert {file.name for file in written} == {"Makefile", ".gitignore", "python.mk"}
    assert {file.name for file in folder.iterdir() if file.is_dir()} == {
        "competitions",
        "oof",
        "submissions",
        ".podium",
    }
    done = make(folder)
    assert done.returncode == 0 and "warning" not in done.stderr, done.stderr
    assert f"{sys.executable} -m podium --help" in done.stdout and "chaos" not in done.stdout
    done = make(folder, "runs")
    assert done.returncode == 2 and "There is no competition here." in done.stderr and "make new" in done.stderr
    done = make(folder, "runs", "competition=dogs")
    assert done.returncode == 2 and "make does not know competition=; expected: COMPETITION." in done.stderr


def test_a_python_with_a_blank_in_its_path_is_used(tmp_path, monkeypatch):
    python = tmp_path / "my env" / "python"
    python.parent.mkdir()
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    init_folder(tmp_path)
    done = make(tmp_path, "-n", "demo")
    assert f"'{python}' -m podium new --competition digits --demo" in done.stdout, done.stderr
    write_demo(Paths("digits", tmp_path, tmp_path))
    assert "vgg19.s1" in make(tmp_path, "runs").stdout


def test_a_python_without_podium_is_named_with_what_to_type(tmp_path):
    init_folder(tmp_path)
    done = make(tmp_path, "PYTHON=false", "all")
    assert done.returncode == 2 and "false does not have podium; type `podium init .`" in done.stderr


def test_init_once_more_changes_only_the_python_and_keeps_own_lines(tmp_path):
    (tmp_path / ".gitignore").write_text("my-notes/\n/models/\n")
    init_folder(tmp_path)
    lines = (tmp_path / ".gitignore").read_text().splitlines()
    assert lines[:2] == ["my-notes/", "/models/"] and ".podium/" in lines and lines.count("/models/") == 1
    makefile = tmp_path / "Makefile"
    makefile.write_text(makefile.read_text() + "\nmine:\n")
    before = makefile.read_text()
    assert [file.name for file in init_folder(tmp_path)] == ["python.mk"]
    assert makefile.read_text() == before


def test_another_makefile_is_not_replaced(tmp_path):
    (tmp_path / "Makefile").write_text("all:\n")
    with pytest.raises(ConfigError, match=r"(?s)Makefile already.*podium init <another folder>"):
        init_folder(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["Makefile"]


def test_the_demo_in_the_package_is_that_of_the_repository(tmp_path):
    committed = ROOT / "competitions" / "digits"
    files = write_demo(Paths("digits", tmp_path, tmp_path))
    assert {file.name for file in files} == {file.name for file in committed.glob("*.toml")}
    assert all(file.read_bytes() == (committed / file.name).read_bytes() for file in files)
