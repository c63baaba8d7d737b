"""`podium init`: a folder of one's own in which make does everything; and the settings of the demo."""

import shlex
import sys
from importlib.resources import files
from pathlib import Path

from podium.errors import ConfigError
from podium.files import write_file
from podium.plan.paths import Paths

TEMPLATES = files("podium.scaffold") / "folder"
DEMO = "digits"
# What every Makefile with Podium's rules has.
INCLUDES_RULES = "podium.RULES"


def init_folder(folder: Path) -> list[Path]:
    """Write a Makefile, .gitignore, empty folders, and the Python to use, where they are missing; returns the files.

    A folder that has them is given the present Python. Raises ConfigError where there is another Makefile.
    """
    makefile, ignored = folder / "Makefile", folder / ".gitignore"
    if makefile.exists() and INCLUDES_RULES not in makefile.read_text(errors="replace"):
        raise ConfigError(
            "There is a Makefile already, which does not include Podium's rules.",
            file=makefile,
            fix="podium init <another folder>",
        )
    for name in ("competitions", "oof", "submissions"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    lines = ignored.read_text(errors="replace").splitlines() if ignored.exists() else []
    missing = [line for line in (TEMPLATES / "gitignore").read_text().splitlines() if line not in lines]
    python = shlex.quote(sys.executable).replace("$", "$$").replace("#", r"\#")
    contents = {
        makefile: "" if makefile.exists() else (TEMPLATES / "Makefile").read_text(),
        ignored: "\n".join([*lines, *missing, ""]) if missing else "",
        folder / ".podium" / "python.mk": f"PYTHON ?= {python}\n",
    }
    written = {file: text for file, text in contents.items() if text}
    for file, text in written.items():
        write_file(file, text.encode())
    return list(written)


def write_demo(paths: Paths) -> list[Path]:
    """Write the settings and recipes of the demo into the folder of a competition; returns the files."""
    for source in (files("podium.scaffold") / DEMO).iterdir():
        write_file(paths.folder / source.name, source.read_bytes())
    return sorted(paths.folder.iterdir())
