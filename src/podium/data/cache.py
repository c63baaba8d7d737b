"""Images decoded once, in parallel, into memory-mapped arrays that every run opens at once."""

import hashlib
import json
import multiprocessing
import os
import shutil
import struct
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.lib.format import open_memmap

from podium.config.keys import Competition, read_competition
from podium.data.archives import ZIP_FAULTS, Files, Memory
from podium.data.digits import SIGNATURE
from podium.data.images import bombs_are_faults, decode
from podium.data.listing import Listing
from podium.data.locate import Found, Progress
from podium.data.scan import data_faults, find, quiet, scan
from podium.errors import DataError
from podium.files import atomic_write, cache_lock
from podium.plan.paths import Paths, Project

# Raised when the same files would decode to other pixels, ids or order.
CACHE_VERSION = 1
# What NumPy raises on files that are damaged or cut.
CACHE_FAULTS = (*ZIP_FAULTS, LookupError, AttributeError, struct.error)
ROWS_A_TASK = 256
# A process takes half a second to start; fewer images than this are decoded sooner without.
FEW_ROWS = 1000


@dataclass(frozen=True)
class Dataset:
    """A competition's images at one size: n labelled ones sorted by id, m others in submission order."""

    classes: tuple[str, ...]
    train_ids: np.ndarray  # (n,) str
    train_images: np.memmap  # (n, pixels, pixels, 3) uint8, read-only
    train_labels: np.ndarray  # (n,) int64
    test_ids: np.ndarray  # (m,) str
    test_images: np.memmap  # (m, pixels, pixels, 3) uint8, read-only
    fingerprint: str
    groups: np.ndarray | None = None  # (n,) str
    notes: tuple[str, ...] = ()  # what was left out without being a fault


def open_dataset(
    project: Project,
    name: str,
    *,
    pixels: int,
    shape: str,
    data: str | None = None,
    progress: Progress = quiet,
) -> Dataset:
    """Open a competition's images at a side of `pixels`, decoding them where that was not done before.

    `shape` is how other shapes become square (`podium.data.images.decode`), `data` what DATA= says. Processes
    that ask at once wait for the one that decodes. Raises DataError, with all faults of the data at once.
    """
    competition = read_competition(project.competition_folder(name))
    found = find(competition, name, project=project, data=data, progress=progress)
    folder = project.cache_folder(name) / _cache_key(competition, found)
    dataset = _load(folder, pixels, shape)
    if dataset is None:
        with cache_lock(folder / "lock"):
            dataset = _load(folder, pixels, shape)
            if dataset is None:
                _decode_listing(scan(competition, found), folder, pixels, shape=shape, name=name, progress=progress)
                dataset = _load(folder, pixels, shape)
    assert dataset is not None
    return dataset


def cached_dataset(paths: Paths, *, fingerprint: str) -> Dataset | None:
    """The images with this fingerprint at the largest side that is decoded here; None where none are."""
    found = []
    for file in paths.cache.glob("*/train-*-*.npy"):
        _, pixels, *shape = file.stem.split("-")
        if pixels.isdecimal() and len(shape) == 1:
            found.append((int(pixels), shape[0], file.parent))
    for pixels, shape, folder in sorted(found, reverse=True):
        dataset = _load(folder, pixels, shape)
        if dataset is not None and dataset.fingerprint == fingerprint:
            return dataset
    return None


def fingerprint(listing: Listing, train_digests: Sequence[bytes], test_digests: Sequence[bytes]) -> str:
    """SHA-256 over ids, labels and image bytes: the same in every layout of the same images."""
    labels = [listing.classes[label] for label in listing.train_labels]
    train = zip(listing.train_ids, labels, train_digests, strict=True)
    lines = [f"train\0{one}\0{label}\0{digest.hex()}" for one, label, digest in train]
    lines += [f"test\0{one}\0{d.hex()}" for one, d in zip(listing.test_ids, test_digests, strict=True)]
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


def _cache_key(competition: Competition, found: Found | None) -> str:
    data = asdict(competition.data)
    del data["fingerprint"], data["download"]
    content = [
        CACHE_VERSION,
        data,
        asdict(competition.submission),  # names are judged by it before they are decoded
        found.signature() if found else SIGNATURE,
    ]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def _array_files(folder: Path, pixels: int, shape: str) -> tuple[Path, Path]:
    return folder / f"train-{pixels}-{shape}.npy", folder / f"test-{pixels}-{shape}.npy"


def _load(folder: Path, pixels: int, shape: str) -> Dataset | None:
    train_file, test_file = _array_files(folder, pixels, shape)
    index_file = folder / "index.npz"
    if not (index_file.is_file() and train_file.is_file() and test_file.is_file()):
        return None
    try:
        with np.load(index_file, allow_pickle=False) as index:
            return Dataset(
                classes=tuple(index["classes"].tolist()),
                train_ids=index["train_ids"],
                train_images=np.load(train_file, mmap_mode="r"),
                train_labels=index["train_labels"],
                test_ids=index["test_ids"],
                test_images=np.load(test_file, mmap_mode="r"),
                fingerprint=str(index["fingerprint"]),
                groups=index.get("groups"),
                notes=tuple(index["notes"].tolist()) if "notes" in index else (),
            )
    except CACHE_FAULTS:
        return None  # what is damaged is decoded again


def _decode_listing(listing: Listing, folder: Path, pixels: int, *, shape: str, name: str, progress: Progress) -> None:
    """Decode all images of a listing into `folder`; raises DataError with its faults and theirs."""
    targets = _array_files(folder, pixels, shape)
    parts = [(listing.train, listing.train_names), (listing.test, listing.test_names)]
    temporaries = [target.with_suffix(".tmp") for target in targets]
    _make_arrays(temporaries, [len(names) for _, names in parts], pixels)
    try:
        tasks = [
            Task(files, names[start : start + ROWS_A_TASK], file, start, pixels, shape)
            for (files, names), file in zip(parts, temporaries, strict=True)
            for start in range(0, len(names), ROWS_A_TASK)
        ]
        results = _run(tasks, progress)
        faults = [*listing.faults, *(fault for result in results for fault in result.faults)]
        if faults:
            raise data_faults(name, faults)
        digests = [digest for result in results for digest in result.digests]
        _write_index(folder / "index.npz", listing, digests)
        for temporary, target in zip(temporaries, targets, strict=True):
            _sync(temporary)
            os.replace(temporary, target)
    finally:
        for temporary in temporaries:
            temporary.unlink(missing_ok=True)


@dataclass(frozen=True)
class Task:
    """Rows of one array that one process decodes."""

    files: Files
    names: Sequence[str]
    array_file: Path
    start: int
    pixels: int
    shape: str


@dataclass(frozen=True)
class Result:
    """SHA-256 of each file's bytes, in order, and what was wrong with some."""

    digests: list[bytes]
    faults: list[str]


def decode_rows(task: Task) -> Result:
    """Decode a task's images into their rows of the array; damaged ones are faults, not errors."""
    array = open_memmap(task.array_file, mode="r+")
    result = Result([], [])
    with bombs_are_faults():
        for row, name in enumerate(task.names, task.start):
            try:
                content = task.files.read(name)
                result.digests.append(hashlib.sha256(content).digest())
                array[row] = decode(content, task.pixels, shape=task.shape)
            except DataError as error:
                reason = f"{error.what} {error.found or ''}".strip()
                result.faults.append(f"{task.files.where(name)}: {reason}")
    return result


def _run(tasks: Sequence[Task], progress: Progress) -> list[Result]:
    total = sum(len(task.names) for task in tasks)
    results, done = {}, 0
    for i, result in _results(tasks, total):
        results[i] = result
        done += len(tasks[i].names)
        progress("decode images", done, total)
    return [results[i] for i in range(len(tasks))]


def _results(tasks: Sequence[Task], total: int) -> Iterator[tuple[int, Result]]:
    """Results as they come. Processes, because Pillow's small images spend their time in Python."""
    if total < FEW_ROWS or any(isinstance(task.files, Memory) for task in tasks):
        yield from ((i, decode_rows(task)) for i, task in enumerate(tasks))
        return
    # Spawned, not forked: a parent that has started torch's threads cannot be forked safely.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(len(os.sched_getaffinity(0)), len(tasks)), mp_context=context)
    try:
        futures = {pool.submit(decode_rows, task): i for i, task in enumerate(tasks)}
        yield from ((futures[future], future.result()) for future in as_completed(futures))
    except BrokenProcessPool:
        raise DataError("A process that decodes images was killed.", fix="free memory and try again") from None
    finally:
        pool.shutdown(cancel_futures=True)


def _make_arrays(files: Sequence[Path], rows: Sequence[int], pixels: int) -> None:
    folder = files[0].parent
    folder.mkdir(parents=True, exist_ok=True)
    needed_bytes, free_bytes = sum(rows) * pixels * pixels * 3, shutil.disk_usage(folder).free
    if needed_bytes > free_bytes:  # a mapped array on a full disk would kill the process
        raise DataError(
            "The decoded images do not fit on the disk.",
            file=folder,
            expected=f"{needed_bytes:,} bytes free",
            found=f"{free_bytes:,}",
            fix="free space, or set PODIUM_CACHE to a folder on a larger disk",
        )
    for file, count in zip(files, rows, strict=True):
        # One row at least: an empty file cannot be mapped, and its fault is told with the others.
        open_memmap(file, mode="w+", dtype=np.uint8, shape=(max(count, 1), pixels, pixels, 3))


def _write_index(file: Path, listing: Listing, digests: Sequence[bytes]) -> None:
    count = len(listing.train_ids)
    arrays = {
        "classes": np.array(listing.classes),
        "train_ids": np.array(listing.train_ids),
        "train_labels": listing.train_labels,
        "test_ids": np.array(listing.test_ids),
        "fingerprint": np.array(fingerprint(listing, digests[:count], digests[count:])),
    }
    if listing.notes:
        arrays["notes"] = np.array(listing.notes)
    if listing.groups is not None:
        arrays["groups"] = np.array(listing.groups)
    with atomic_write(file) as stream:
        np.savez(stream, **arrays)


def _sync(file: Path) -> None:
    with file.open("rb") as stream:
        os.fsync(stream.fileno())
