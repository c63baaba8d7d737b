"""A project with a competition for each kind of command, and changes that make its files bad."""

import hashlib
import io
import shutil
import struct
import zlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from layout_toys import image
from podium.lock import write_lock
from reader_toys import rows, with_members, zipped
from toy_runs import lock_for, make_project, random_run

Change = Callable[[bytes], bytes]
Content = str | bytes | Change | None
"""What a file gets: this content, its old content changed, or None where it is removed; a folder is FOLDER."""

FOLDER = "a folder"
TOY = 'title = "toy"\n[data]\nsource = "folders"\n[validation]\nrows = 40\n'
DATA = 'title = "images"\n[data]\nsource = "{}"\narchive = "{}"\n{}[validation]\nrows = 2\n'
COMPETITIONS = {
    "pets": DATA.format("csv", "pets", 'sample_submission = "sample.csv"\n'),  # a table of labels; not prepared
    "cats": DATA.format("folders", "cats.zip", ""),  # class folders in an archive; not prepared
    "toy": f'{TOY}[kaggle]\ncompetition = "toys"\n',  # with predictions
    "alone": TOY.replace("[validation]", 'test = ""\n[validation]'),  # without test images
}


def make_bad_input_project(prepared: Path, folder: Path) -> Path:
    """A copy of the prepared digits in `folder`, with COMPETITIONS."""
    shutil.copytree(prepared, folder)
    for name, text in COMPETITIONS.items():
        (folder / "competitions" / name).mkdir()
        (folder / "competitions" / name / "competition.toml").write_text(text)
    for number in range(12):
        image(folder / "data/pets", f"train/{number}.png")
    for name in ("pets/test/a.png", "pets/test/b.png", "zip/test/1.png"):
        image(folder / "data", name)
    for number in range(4):
        image(folder / "data/zip", f"train/cat/{number}.png")
        image(folder / "data/zip", f"train/dog/{number}.png")
    names = {file.relative_to(folder / "data/zip"): file for file in sorted((folder / "data/zip").rglob("*.png"))}
    content = zipped({name.as_posix(): file.read_bytes() for name, file in names.items()})
    (folder / "data/cats.zip").write_bytes(content)
    shutil.rmtree(folder / "data/zip")
    labels = (f"{number},{'dog' if number % 2 else 'cat'}" for number in range(12))
    (folder / "data/pets/train.csv").write_bytes(rows("id,label", labels))
    (folder / "data/pets/sample.csv").write_text("id,label\na,cat\nb,dog\n")
    make_project(folder, [random_run("net.s1"), random_run("other.s1", seed=1)], settings=COMPETITIONS["toy"])
    lock = replace(lock_for(random_run("any.s1")), test_ids=np.array([], str))
    write_lock(folder / "competitions/alone/data.lock", lock)
    return folder


def arrange(folder: Path, files: Mapping[str, Content]) -> None:
    """Change files of the project."""
    for name, content in files.items():
        file = folder / name
        new = content(file.read_bytes()) if callable(content) else content
        if file.is_dir():
            shutil.rmtree(file)
        file.unlink(missing_ok=True)
        if content == FOLDER:
            file.mkdir(parents=True)
        elif new is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(new.encode() if isinstance(new, str) else new)


def hashes(folder: Path) -> dict[str, str]:
    """File -> SHA-256 of its content."""
    files = {str(file.relative_to(folder)): file for file in folder.rglob("*") if file.is_file()}
    return {name: hashlib.sha256(file.read_bytes()).hexdigest() for name, file in files.items()}


def edit(old: str, new: str) -> Change:
    """Replace one text."""

    def change(content: bytes) -> bytes:
        assert content.count(old.encode()) == 1, (old, content)
        return content.replace(old.encode(), new.encode())

    return change


def add(text: str) -> Change:
    """Add text at the end."""
    return lambda content: content + text.encode()


def cut(content: bytes) -> bytes:
    """The first half."""
    return content[: len(content) // 2]


def overwrite(place: int, value: bytes, *, after: bytes = b"") -> Change:
    """Change the bytes at a place after the first occurrence of others."""

    def change(content: bytes) -> bytes:
        start = content.index(after) + place
        return content[:start] + value + content[start + len(value) :]

    return change


def member(name: str, value: bytes | Change) -> Change:
    """Change a member of predictions."""
    return lambda content: with_members(content, {name: value})


def stored(array: object) -> bytes:
    """An array as the bytes of a .npy."""
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


def changed_array(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Change:
    """Change an array of predictions."""
    return member(name, lambda content: stored(change(np.load(io.BytesIO(content)))))


def npz(**columns: object) -> bytes:
    """Columns as the bytes of an .npz."""
    stream = io.BytesIO()
    np.savez(stream, **columns)
    return stream.getvalue()


def png(side: int, pixels: bytes) -> bytes:
    """A PNG whose header claims a square of this side."""
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)), (b"IDAT", pixels), (b"IEND", b"")]
    ends = [struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks]
    parts = [struct.pack(">I", len(data)) + kind + data + end for (kind, data), end in zip(chunks, ends, strict=True)]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def tiff(mode: str, grey: float) -> bytes:
    """A flat TIFF."""
    stream = io.BytesIO()
    Image.new(mode, (8, 8), grey).save(stream, "TIFF")
    return stream.getvalue()


def torch_file(content: object) -> bytes:
    """What torch.save writes."""
    stream = io.BytesIO()
    torch.save(content, stream)
    return stream.getvalue()


class RunsCode:
    """An object whose unpickling would run code."""

    def __reduce__(self) -> tuple:
        return print, ("code was run",)
