"""Decoded images in memory-mapped arrays: decoded once in parallel, opened by every run."""

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

from podium.config.keys import Competition
from podium.data.archives import ZIP_FAULTS, Files, Memory
from podium.data.digits import SIGNATURE
from podium.data.images import bombs_are_faults, decode
from podium.data.listing import Listing
from podium.data.locate import Progress, Source
from podium.data.scan import data_faults, scan
from podium.errors import DataError
from podium.files import atomic_write, cache_lock
from podium.lock import Lock
from podium.plan.paths import Paths

# Increase it when the same files would decode to other pixels, ids or order.
CACHE_VERSION = 1
# What NumPy raises on damaged or truncated files.
CACHE_FAULTS = (*ZIP_FAULTS, LookupError, AttributeError, struct.error)
ROWS_PER_JOB = 256
# A process takes half a second to start: fewer images are decoded faster without.
FEW_ROWS = 1000


@dataclass(frozen=True)
class Dataset:
    """A competition's images at one size: n labelled images sorted by id, m test images in submission order."""

    classes: tuple[str, ...]
    train_ids: np.ndarray  # (n,) str
    train_images: np.memmap  # (n, pixels, pixels, 3) uint8, read-only
    train_labels: np.ndarray  # (n,) int64
    test_ids: np.ndarray  # (m,) str
    test_images: np.memmap  # (m, pixels, pixels, 3) uint8, read-only
    fingerprint: str
    groups: np.ndarray | None = None  # (n,) str
    notes: tuple[str, ...] = ()  # files that were ignored but are no fault

    def matches(self, lock: Lock) -> bool:
        """Whether these are the images of the lock, in the lock's order."""
        return (
            self.fingerprint == lock.fingerprint
            and np.array_equal(self.train_ids, lock.train_ids)
            and np.array_equal(self.test_ids, lock.test_ids)
        )


def open_images(paths: Paths, lock: Lock, *, pixels: int, shape: str) -> Dataset:
    """Open the decoded images that `lock` describes, with sides of `pixels`; the original files are not needed.

    The fingerprint does not depend on the order of the test ids, so the ids are compared too. Raises DataError
    where `podium prepare` has not decoded the images at this size.
    """
    for folder in sorted(paths.cache.glob("*/")):
        dataset = _load(folder, pixels, shape)
        if dataset is not None and dataset.matches(lock):
            return dataset
    raise DataError(
        "The images are not decoded yet.",
        file=paths.cache,
        expected=f"images of {pixels} x {pixels} pixels (shape {shape}) with the fingerprint {lock.fingerprint}",
        fix=f"make prepare COMPETITION={paths.name}",
    )


def open_largest_images(paths: Paths, lock: Lock) -> Dataset | None:
    """Open the images that `lock` describes at the largest size that is decoded; None where there is none."""
    sizes = []
    for file in paths.cache.glob("*/train-*-*.npy"):
        _, pixels, shape = file.stem.split("-")
        sizes.append((int(pixels), shape))
    for pixels, shape in sorted(set(sizes), reverse=True):
        try:
            return open_images(paths, lock, pixels=pixels, shape=shape)
        except DataError:
            continue
    return None


def decode_images(
    competition: Competition,
    source: Source | None,
    paths: Paths,
    *,
    pixels: int,
    shape: str,
    progress: Progress,
) -> Dataset:
    """Open the images of `source` (None: the bundled digits) with sides of `pixels`; decode them if necessary.

    `shape` says how another shape becomes square (`podium.data.images.decode`). Another process that decodes the
    same images is waited for. Raises DataError with all faults of the data at once.
    """
    folder = paths.cache / _cache_key(competition, source)
    dataset = _load(folder, pixels, shape)
    if dataset is None:
        with cache_lock(folder / "lock"):
            dataset = _load(folder, pixels, shape)
            if dataset is None:
                listing = scan(competition, source)
                _decode_listing(listing, folder, pixels, shape=shape, name=paths.name, progress=progress)
                dataset = _load(folder, pixels, shape)
    assert dataset is not None
    return dataset


def fingerprint(listing: Listing, train_digests: Sequence[bytes], test_digests: Sequence[bytes]) -> str:
    """SHA-256 over ids, labels and image bytes: the same for every arrangement of the same images."""
    labels = [listing.classes[label] for label in listing.train_labels]
    train = zip(listing.train_ids, labels, train_digests, strict=True)
    lines = [f"train\0{train_id}\0{label}\0{digest.hex()}" for train_id, label, digest in train]
    test = zip(listing.test_ids, test_digests, strict=True)
    lines += [f"test\0{test_id}\0{digest.hex()}" for test_id, digest in test]
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


def _cache_key(competition: Competition, source: Source | None) -> str:
    data = asdict(competition.data)
    del data["fingerprint"], data["download"]
    content = [
        CACHE_VERSION,
        data,
        asdict(competition.submission),  # scan() compares ids and classes with the submission's columns
        source.signature() if source else SIGNATURE,
    ]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def _array_files(folder: Path, pixels: int, shape: str) -> tuple[Path, Path]:
    return folder / f"train-{pixels}-{shape}.npy", folder / f"test-{pixels}-{shape}.npy"


def _load(folder: Path, pixels: int, shape: str) -> Dataset | None:
    """The images in a folder of the cache; None where they are missing or damaged, and so have to be decoded."""
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
        return None


def _decode_listing(listing: Listing, folder: Path, pixels: int, *, shape: str, name: str, progress: Progress) -> None:
    """Decode all images of a listing into `folder`; raises DataError with the faults of listing and images."""
    targets = _array_files(folder, pixels, shape)
    parts = [(listing.train, listing.train_names), (listing.test, listing.test_names)]
    temporaries = [target.with_suffix(".tmp") for target in targets]
    _make_arrays(temporaries, [len(names) for _, names in parts], pixels)
    try:
        jobs = [
            DecodeJob(files, names[start : start + ROWS_PER_JOB], file, start, pixels, shape)
            for (files, names), file in zip(parts, temporaries, strict=True)
            for start in range(0, len(names), ROWS_PER_JOB)
        ]
        results = _run_jobs(jobs, progress)
        faults = [*listing.faults, *(fault for _, job_faults in results for fault in job_faults)]
        if faults:
            raise data_faults(name, faults)
        digests = [digest for job_digests, _ in results for digest in job_digests]
        _write_index(folder / "index.npz", listing, digests)
        for temporary, target in zip(temporaries, targets, strict=True):
            _sync(temporary)
            os.replace(temporary, target)
    finally:
        for temporary in temporaries:
            temporary.unlink(missing_ok=True)


@dataclass(frozen=True)
class DecodeJob:
    """Consecutive rows of one array that one process decodes."""

    files: Files
    names: Sequence[str]
    array_file: Path
    first_row: int
    pixels: int
    shape: str


def decode_rows(job: DecodeJob) -> tuple[list[bytes], list[str]]:
    """Decode a job's images into their rows; returns the SHA-256 digest of each file and the faults of damaged ones."""
    array = open_memmap(job.array_file, mode="r+")
    digests, faults = [], []
    with bombs_are_faults():
        for row, name in enumerate(job.names, job.first_row):
            try:
                content = job.files.read(name)
                digests.append(hashlib.sha256(content).digest())
                array[row] = decode(content, job.pixels, shape=job.shape)
            except DataError as error:
                reason = f"{error.what} {error.found or ''}".strip()
                faults.append(f"{job.files.where(name)}: {reason}")
    return digests, faults


def _run_jobs(jobs: Sequence[DecodeJob], progress: Progress) -> list[tuple[list[bytes], list[str]]]:
    """The results in the order of the jobs."""
    total = sum(len(job.names) for job in jobs)
    results, done = {}, 0
    for i, result in _completed_jobs(jobs, total):
        results[i] = result
        done += len(jobs[i].names)
        progress("decode images", done, total)
    return [results[i] for i in range(len(jobs))]


def _completed_jobs(jobs: Sequence[DecodeJob], total: int) -> Iterator[tuple[int, tuple[list[bytes], list[str]]]]:
    """Yield (index, result) of each job as it completes; processes, because Pillow holds the GIL for small images."""
    if total < FEW_ROWS or any(isinstance(job.files, Memory) for job in jobs):
        yield from ((i, decode_rows(job)) for i, job in enumerate(jobs))
        return
    # Spawned, not forked: a parent that has started torch's threads cannot be forked safely.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(len(os.sched_getaffinity(0)), len(jobs)), mp_context=context)
    try:
        futures = {pool.submit(decode_rows, job): i for i, job in enumerate(jobs)}
        yield from ((futures[future], future.result()) for future in as_completed(futures))
    except BrokenProcessPool:
        raise DataError("A process that decodes images was killed.", fix="free memory and try again") from None
    finally:
        pool.shutdown(cancel_futures=True)


def _make_arrays(files: Sequence[Path], rows: Sequence[int], pixels: int) -> None:
    folder = files[0].parent
    folder.mkdir(parents=True, exist_ok=True)
    needed_bytes, free_bytes = sum(rows) * pixels * pixels * 3, shutil.disk_usage(folder).free
    if needed_bytes > free_bytes:  # writing to a mapped array on a full disk kills the process
        raise DataError(
            "The decoded images do not fit on the disk.",
            file=folder,
            expected=f"{needed_bytes:,} bytes free",
            found=f"{free_bytes:,}",
            fix="free space, or set PODIUM_CACHE to a folder on a larger disk",
        )
    for file, count in zip(files, rows, strict=True):
        # At least one row: an empty file cannot be mapped. That there is no image is a fault of the listing.
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
