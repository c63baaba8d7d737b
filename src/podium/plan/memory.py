"""What earlier commands named: the last competition, and the place of each competition's images.

It is kept in `.podium/last.json`, which is not committed, so that nobody types COMPETITION= and DATA= each time.
"""

import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from podium.files import read_json, write_file
from podium.plan.paths import competition_names, find_competition

MEMORY_FILE = Path(".podium", "last.json")


def pick_competition(root: Path, *, default: str = "", note: Callable[[str], object] = str) -> str:
    """The competition of a command that names none: the one that an earlier command named, which `note` receives.

    Else it is the `default`, if there is such a competition, or the only one. Raises ConfigError without any of them.
    """
    names = competition_names(root)
    last = _read(root)["competition"]
    if last in names:
        note(f"COMPETITION={last}, as in an earlier command")
        return last
    if default in names or len(names) == 1:
        return default if default in names else names[0]
    return find_competition("", root).name  # raises ConfigError


def remember(root: Path, name: str, *, data: str | None = None) -> None:
    """Remember the competition of a command and where it found the images, DATA=.

    A folder that cannot be written stays as it is: the command itself may need no file.
    """
    known = _read(root)
    places = known["data"] | ({name: os.path.abspath(os.path.expanduser(data))} if data else {})
    if (known["competition"], known["data"]) != (name, places):
        with suppress(OSError):
            write_file(root / MEMORY_FILE, json.dumps({"competition": name, "data": places}, indent=2).encode())


def remembered_place(root: Path, name: str) -> Path | None:
    """The archive or folder of a competition's images that an earlier command named, if it is still there."""
    place = _read(root)["data"].get(name)
    return Path(place) if isinstance(place, str) and os.path.exists(place) else None


def _read(root: Path) -> dict[str, Any]:
    content = read_json(root / MEMORY_FILE)
    content = content if isinstance(content, dict) else {}
    name, data = content.get("competition"), content.get("data")
    return {"competition": name if isinstance(name, str) else "", "data": data if isinstance(data, dict) else {}}
