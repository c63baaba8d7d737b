"""Readers of files that anybody may have written: each reads its content as a command does, and valid content for each.

A reader returns, or raises PodiumError; another exception is a fault of Podium. The tests and `benchmarks/fuzz.py` feed
them with changed content.
"""

import io
import json
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import py7zr
from PIL import Image

from podium.config.competition import read_competition
from podium.config.keys import COMPETITION_FILE, Recipe
from podium.config.recipe import read_recipe
from podium.config.search import read_search
from podium.data.archives import file_names, open_folder
from podium.data.folds import assign_folds
from podium.data.images import bombs_are_faults, decode, image_sides
from podium.data.labels import read_pseudo_labels
from podium.data.locate import Source
from podium.data.scan import scan
from podium.kaggle.ledger import COLUMNS, read_ledger
from podium.lock import lock_text, read_lock
from podium.plan.stamp import read_about
from podium.predictions.align import align
from podium.predictions.artefact import load_predictions, save_predictions
from podium.predictions.importing import import_predictions
from podium.scaffold.variant import parse_assignments
from podium.submission import check_submission
from podium.targets.target import Target
from toy_runs import SETTINGS, lock_for, make_project, random_run

Reader = Callable[[Path, bytes], object]
"""Reads content that it writes into a folder of its own."""

LOCK = lock_for(random_run("any.s1", rows=6, tests=3))
RUN = random_run("any.s1", rows=6, tests=3)
RUN.about["fold_sha256"] = LOCK.fold_sha256
IDS = tuple(map(str, range(1, 13)))
COMPETITION = """title = "Table"
metric = "{metric}"
[data]
source = "csv"
target = "{target}"
sample_submission = "sample.csv"
{keys}
[validation]
kind = "k-fold"
folds = 2
[submission]
kind = "{kind}"
"""
TABLES = {  # kind of labels -> the keys of the competition, and a label for each id
    "class": ({"metric": "accuracy", "target": "class", "kind": "labels", "keys": ""}, ("cat", "dog")),
    "names": (
        {"metric": "macro_f1", "target": "multi-label", "kind": "labels", "keys": 'label_separator = "|"'},
        ("cat|dog", ""),
    ),
    "grades": ({"metric": "qwk", "target": "ordinal", "kind": "labels", "keys": ""}, ("0", "1", "2")),
    "numbers": ({"metric": "rmse", "target": "number", "kind": "number", "keys": ""}, ("0.5", "2e3")),
}


def _written(folder: Path, name: str, content: bytes) -> Path:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    return file


def read_predictions_file(folder: Path, content: bytes) -> object:
    """The runs of an ensemble."""
    file = _written(folder, "any.s1.npz", content)
    read_about(file)
    return align([load_predictions(file)], LOCK)


def read_settings(folder: Path, content: bytes) -> object:
    """competition.toml."""
    return read_competition(_written(folder, COMPETITION_FILE, content).parent)


def read_recipe_file(folder: Path, content: bytes) -> object:
    """A recipe with its search ranges."""
    file = _written(folder, "net.toml", content)
    return read_search(file, read_recipe(file))


def read_assignments(_: Path, content: bytes) -> object:
    """The text of SET=."""
    return parse_assignments(content.decode(errors="replace"), Recipe)


def read_labels_table(folder: Path, content: bytes, *, labels: str, name: str = "train.csv") -> object:
    """The table of labels, or the sample submission, of a competition whose images are not opened."""
    if not (folder / "data/train").is_dir():
        _written(folder, COMPETITION_FILE, COMPETITION.format(**TABLES[labels][0]).encode())
        for place in (*(f"train/{id_}.png" for id_ in IDS), "test/a.png", "test/b.png"):
            _written(folder / "data", place, b"")
    _written(folder / "data", "train.csv", VALID[f"csv {labels}"])
    _written(folder / "data", "sample.csv", VALID["csv sample"])
    _written(folder / "data", name, content)
    competition = read_competition(folder)
    listing = scan(competition, Source(folder / "data", competition.data, folder / "cache"))
    if not listing.faults:
        target = Target(listing.target, len(listing.classes))
        labels = target.read_names([row.label for row in listing.rows], listing.classes)
        assign_folds(labels, None, competition.validation, target=target)
    return listing


def read_project(folder: Path, content: bytes, *, name: str) -> object:
    """A file that a command reads in a competition with a lock."""
    workspace = make_project(folder, [], lock=LOCK)
    file = _written(folder, name, content)
    if name == "submission.csv":
        return check_submission(file, lock=LOCK, settings=workspace.competition.submission)
    if name == "pseudo.csv":
        return read_pseudo_labels(folder, name, workspace.competition, LOCK)
    if name == "ledger.csv":
        return read_ledger(file)
    if name == "data.lock":
        return lock_text(read_lock(file))
    test = _written(folder, "test.csv", rows("id,bird,cat,dog", (f"{id_},0.2,0.3,0.5" for id_ in LOCK.test_ids)))
    return import_predictions(workspace, "friend.s1", oof=file, test=test)


def read_image(_: Path, content: bytes) -> object:
    """An image, as `make new` measures it and `make prepare` decodes it."""
    with bombs_are_faults():
        image_sides(content)
        return [decode(content, pixels, shape=shape) for pixels, shape in ((8, "crop"), ((4, 9), "pad"))]


def unpack_archive(folder: Path, content: bytes, *, suffix: str) -> object:
    """The names of the files in an archive; nothing may be written beside its folder."""
    file = _written(folder / "data", f"a{suffix}", content)
    try:
        return file_names(open_folder(file, folder / "cache"))
    finally:
        shutil.rmtree(folder / "cache", ignore_errors=True)
        assert [path.name for path in (*folder.iterdir(), *file.parent.iterdir())] == ["data", file.name]


READERS: dict[str, Reader] = {
    "predictions": read_predictions_file,
    "toml competition": read_settings,
    "toml recipe": read_recipe_file,
    "toml assignments": read_assignments,
    **{f"csv {labels}": partial(read_labels_table, labels=labels) for labels in TABLES},
    "csv sample": partial(read_labels_table, labels="class", name="sample.csv"),
    "csv submission": partial(read_project, name="submission.csv"),
    "csv pseudo": partial(read_project, name="pseudo.csv"),
    "csv ledger": partial(read_project, name="ledger.csv"),
    "csv lock": partial(read_project, name="data.lock"),
    "csv import": partial(read_project, name="import.csv"),
    "predictions import": partial(read_project, name="import.npz"),
    "image": read_image,
    **{f"archive {suffix}": partial(unpack_archive, suffix=suffix) for suffix in (".zip", ".7z", ".tar", ".tgz")},
}


def _predictions() -> bytes:
    with TemporaryDirectory() as folder:
        save_predictions(file := Path(folder, "any.s1.npz"), RUN)
        return file.read_bytes()


def _npz(**columns: object) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **columns)
    return stream.getvalue()


def _image(kind: str) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (6, 5, 3), np.uint8)).save(stream, kind)
    return stream.getvalue()


def _archive(suffix: str) -> bytes:
    stream, files = io.BytesIO(), {"train/1.png": b"one", "labels.csv": b"id,label"}
    if suffix == ".zip":
        return zipped(files)
    if suffix == ".7z":
        with py7zr.SevenZipFile(stream, "w") as archive:
            for name, content in files.items():
                archive.writestr(content, name)
    else:
        with tarfile.open(fileobj=stream, mode="w:gz" if suffix == ".tgz" else "w") as archive:
            for name, content in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def zipped(files: Mapping[str, bytes], **attributes: int) -> bytes:
    """Files as the bytes of a zip, whose entries have these attributes of `ZipInfo`."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in files.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            for key, value in attributes.items():
                setattr(info, key, value)
            archive.writestr(info, content)
    return stream.getvalue()


def rows(header: str, rows: Iterable[str]) -> bytes:
    """A table as the bytes of a CSV."""
    return "".join(f"{row}\n" for row in (header, *rows)).encode()


def npy(header: str) -> bytes:
    """A .npy with this header and nothing else."""
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode()


def with_members(content: bytes, changed: Mapping[str, bytes | Callable[[bytes], bytes]]) -> bytes:
    """Predictions with other members (oof_logits, about), without the checksums that would notice it."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    about = json.loads(members["about.json"])
    del about["crc32"]
    members["about.json"] = json.dumps(about).encode()
    for name, value in changed.items():
        name = "about.json" if name == "about" else f"{name}.npy"
        members[name] = value(members[name]) if callable(value) else value
    return zipped(members)


RECIPE = 'architecture = "fastnet"\nepochs = 2\nlearning_rate = 0.1\n[augment]\nflip = "horizontal"\n[search]\n'
VALID: dict[str, bytes] = {
    "predictions": _predictions(),
    "toml competition": SETTINGS.encode(),
    "toml recipe": f"{RECIPE}dropout = {{ low = 0, high = 0.5 }}\n".encode(),
    "toml assignments": b"epochs=5 augment.shift_pixels=4 stored_pixels=[32, 64]",
    **{
        f"csv {name}": rows("id,label", (f"{id_},{labels[k % len(labels)]}" for k, id_ in enumerate(IDS)))
        for name, (_, labels) in TABLES.items()
    },
    "csv sample": b"id,label\na,cat\nb,dog\n",
    "csv submission": rows("id,label", (f"{id_},cat" for id_ in LOCK.test_ids)),
    "csv pseudo": rows("id,label", (f"{id_},cat" for id_ in LOCK.test_ids)),
    "csv ledger": rows(",".join(COLUMNS), [f"2026-01-02T03:04:05Z,scored,a.csv,{'0' * 64},,,,0.5,,7,0,,first"]),
    "csv lock": lock_text(LOCK).encode(),
    "csv import": rows("id,bird,cat,dog", (f"v{row},0.2,0.3,0.5" for row in range(6))),
    "predictions import": _npz(id=LOCK.train_ids[:6], **dict.fromkeys(RUN.classes, np.full(6, 1 / 3))),
    "image": _image("PNG"),
    **{f"archive {suffix}": _archive(suffix) for suffix in (".zip", ".7z", ".tar", ".tgz")},
}
IMAGES = tuple(map(_image, ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "TGA", "ICO", "JPEG2000")))
