"""What every test gets."""

import base64
import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(autouse=True, scope="session")
def compiled_sources():
    """Processes of these tests keep the bytecode of the sources, which each would compile again."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
        yield


@pytest.fixture(autouse=True, scope="session")
def not_started_by_make():
    """What a command prints and remembers depends on the words of the make that started it."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS"):
            patch.delenv(name, raising=False)
        yield


@pytest.fixture(autouse=True, scope="session")
def own_cores(tmp_path_factory):
    """Locks on cores of these tests' own: a training beside them must not keep them waiting."""
    folder = str(tmp_path_factory.mktemp("cores"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(os.environ, "TMPDIR", folder)
        patch.setattr(tempfile, "tempdir", folder)
        yield


@pytest.fixture
def install_package(tmp_path, monkeypatch) -> Callable[[str, dict[str, bytes]], Path]:
    """A function that installs a package with these files and a RECORD of them, and returns where it is installed."""
    folder = tmp_path / "site-packages"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)

    def install(name: str, files: dict[str, bytes]) -> Path:
        record = folder / f"{name.replace('-', '_')}-1.0.dist-info" / "RECORD"
        lines = [f"{record.relative_to(folder)},,\n"]
        for place, content in files.items():
            (folder / place).parent.mkdir(parents=True, exist_ok=True)
            (folder / place).write_bytes(content)
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")
            lines.append(f"{place},sha256={digest},{len(content)}\n")
        record.parent.mkdir(exist_ok=True)
        record.write_text("".join(lines))
        return folder

    return install
