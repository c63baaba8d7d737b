"""One screen, whatever a file is called."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from podium.errors import DataError, pasteable


def test_a_screen_names_the_file_what_was_expected_and_found_and_what_to_type():
    error = DataError("Wrong.", file="a.png", expected="this", found="that", fix="fix it", faults=["one", "two"])
    told = [
        "Wrong.",
        "  file:     a.png",
        "  expected: this",
        "  found:    that",
        "  - one",
        "  - two",
        "  fix:      fix it",
    ]
    assert str(error).splitlines() == told


def test_a_file_name_that_is_no_text_can_be_printed():
    name = b"caf\xe9.png".decode(errors="surrogateescape")
    str(DataError("Wrong.", file=name)).encode()


def test_many_faults_are_counted_and_not_all_shown():
    lines = str(DataError("Wrong.", faults=[f"fault {one}" for one in range(100)])).splitlines()
    assert len(lines) == 23 and lines[-2] == "  ... and 80 more"


def test_a_screen_stays_one_whatever_a_file_contains():
    error = DataError("a\nb", file="c\x1b[2Jd", found="e" * 10**6 + "f", fix="one\ntwo")
    first, file, found, *fix = str(error).splitlines()
    assert (first, file, fix) == (r"a\nb", r"  file:     c\x1b[2Jd", ["  fix:      one", "two"])
    assert len(found) < 1600 and found.endswith("ef")


def test_an_error_without_a_command_that_fixes_it_says_what_to_do():
    assert str(DataError("Wrong.")).splitlines()[-1] == "  fix:      correct this, then repeat the command"


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ({}, []),
        ({"PYTHON": "python3"}, ["PYTHON=python3"]),
        (
            {"PYTHON": "/my env/python", "DATA": "/it's $$1 \\ here", "RUN": "a.s1"},
            ["PYTHON=/my env/python", "DATA=/it's $$1 \\ here"],
        ),
    ],
)
def test_a_printed_command_repeats_what_was_typed_and_can_be_pasted(tmp_path, typed, expected):
    (tmp_path / "Makefile").write_text("all:\n\t@printf '%s' \"$$MAKEFLAGS\" > flags\n")
    words = [f"{name}={value}" for name, value in typed.items()]
    subprocess.run(["make", "-s", "-j2", *words], cwd=tmp_path, check=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MAKEFLAGS", (tmp_path / "flags").read_text())
        told = pasteable("rm a.npz && make lite0.s1 COMPETITION=pets")
        assert shlex.split(told) == ["rm", "a.npz", "&&", "make", *expected, "lite0.s1", "COMPETITION=pets"]
        assert pasteable("make prepare DATA=/x").count("DATA=") == 1
        unchanged = "free space, or make data/ a link; make -j1; remake it"
        assert pasteable(unchanged) == unchanged
        fix = str(DataError("Wrong.", fix="make all")).split("fix:")[1]
        assert shlex.split(fix) == ["make", *expected, "all"]


def test_a_printed_podium_is_a_command_that_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)  # a command in a folder below this one would be told by its place from here
    told = pasteable("restore it, or podium prepare --accept-data; see docs/podium it")
    assert told == f"restore it, or {sys.executable} -m podium prepare --accept-data; see docs/podium it"
    monkeypatch.chdir(Path(sys.executable).parents[1])
    assert pasteable("podium runs") == "bin/python -m podium runs"
    command = tmp_path / "podium"
    command.touch(0o755)
    assert pasteable("podium runs") != "podium runs"  # that of another Python
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    assert pasteable("podium runs") == "podium runs"
