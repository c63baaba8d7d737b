"""Decode the images of a competition into memory-mapped arrays: once for each size, in parallel."""

import hashlib
import json
import os
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.lib.format import open_memmap

from podium.config.keys import Competition
from podium.config.pixels import Pixels, height_and_width
from podium.config.schema import stamped_keys
from podium.data.cache import LISTING_FILE, ROWS_PER_BLOCK, Dataset, beside, load_dataset, size_name
from podium.data.digits import SIGNATURE
from podium.data.folds import ALWAYS_TRAINS
from podium.data.images import bombs_are_faults, decode_with_sides
from podium.data.listing import ImageFiles, Listing
from podium.data.locate import Progress, Source
from podium.data.scan import data_faults, scan
from podium.errors import DataError, examples
from podium.files import cache_lock, require_free_space, write_file
from podium.lock import EXTRA, Lock, write_lock
from podium.plan.paths import Paths
from podium.processes import worker_pool
from podium.targets.table import target_of

# Increase it when a change of the code gives other pixels, ids or order, or another format of the cache.
CACHE_VERSION = 2
# A process takes half a second to start, so fewer images are decoded faster in one process.
FEW_ROWS = 2000
# So many equal files are probably placeholders; an image with such a side shows nothing.
MANY_COPIES, FEW_PIXELS = 5, 2


def decode_images(
    competition: Competition,
    source: Source | None,
    paths: Paths,
    *,
    pixels: Pixels,
    shape: str,
    progress: Progress,
    note: Callable[[str], object] = lambda text: None,
) -> Dataset:
    """Open the images of `source` (None: the bundled digits) of the size `pixels`; decode them if necessary.

    `shape` says how other shapes get this size (`podium.data.images.decode`). Another process that decodes the
    same images is waited for. `note` receives what is strange in images that are decoded now. Raises DataError with all
    faults of the data at once.
    """
    train_file = paths.cache / _cache_key(competition, source) / f"train-{size_name(pixels, shape)}.npy"
    with cache_lock(train_file.with_name("lock")):
        dataset = load_dataset(train_file)
        if dataset is None:
            listing = scan(competition, source)
            notes = _decode_listing(listing, train_file, pixels, shape=shape, name=paths.name, progress=progress)
            for text in notes:
                note(text)
            dataset = load_dataset(train_file)
    assert dataset is not None
    return dataset


def fingerprint(listing: Listing, digests: Sequence[bytes]) -> str:
    """SHA-256 over ids, labels and file digests; their order and place do not change it."""
    train = zip(listing.rows, digests[: len(listing.rows)], strict=True)
    lines = [f"train\0{row.id}\0{row.label}\0{digest.hex()}" for row, digest in train]
    test = zip(listing.test_images, digests[len(listing.rows) :], strict=True)
    lines += [f"test\0{test_id}\0{digest.hex()}" for test_id, digest in test]
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


def _cache_key(competition: Competition, source: Source | None) -> str:
    data = stamped_keys(competition.data)
    del data["fingerprint"], data["download"]
    content = [
        CACHE_VERSION,
        data,
        # scan() compares ids and classes with the submission's columns; without empty keys, as ensemble_stamp has them
        {name: value for name, value in asdict(competition.submission).items() if value},
        source.signature(competition.validation.folder, *competition.data.extra) if source else SIGNATURE,
        *filter(None, [competition.validation.folder]),
    ]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def _decode_listing(
    listing: Listing, train_file: Path, pixels: Pixels, *, shape: str, name: str, progress: Progress
) -> list[str]:
    """Decode all images of a listing, and return what is strange; raises DataError with the faults of all of them."""
    targets = (train_file, beside(train_file, "test"))
    temporaries = [target.with_suffix(".tmp") for target in targets]
    parts = [(listing.train, [row.file for row in listing.rows]), (listing.test, list(listing.test_images.values()))]
    rows, (height, width) = sum(len(names) for _, names in parts), height_and_width(pixels)
    # Check the free space first: writing to a mapped file on a full disk kills the process.
    require_free_space(train_file.parent, rows * height * width * 3, what="The decoded images")
    jobs = []
    try:
        for (files, names), temporary in zip(parts, temporaries, strict=True):
            # At least one row, because an empty file cannot be mapped.
            open_memmap(temporary, mode="w+", dtype=np.uint8, shape=(max(len(names), 1), height, width, 3))
            jobs += [
                DecodeJob(files, names[start : start + ROWS_PER_BLOCK], temporary, start, pixels, shape)
                for start in range(0, len(names), ROWS_PER_BLOCK)
            ]
        results = _run_jobs(jobs, rows, progress)
        digests = [digest for rows in results for digest in rows.digests]
        damages = [fault for rows in results for fault in rows.faults]
        faults = [*listing.faults, *damages, *([] if damages else _repeated_files(listing, digests))]
        if faults:
            raise data_faults(name, faults)
        write_lock(train_file.with_name(LISTING_FILE), _lock_without_folds(listing, digests))
        write_file(beside(train_file, "checksums"), json.dumps([rows.checksum for rows in results]).encode())
        for temporary, target in zip(temporaries, targets, strict=True):
            with temporary.open("rb") as stream:
                os.fsync(stream.fileno())
            os.replace(temporary, target)
        return _strange_images(listing, digests, [text for rows in results for text in rows.thin])
    finally:
        for temporary in temporaries:
            temporary.unlink(missing_ok=True)


def _strange_images(listing: Listing, digests: Sequence[bytes], thin: Sequence[str]) -> list[str]:
    """What is strange in whole images: many with the same bytes, sides of a few pixels, or held out and trained on."""
    images, counts = [*(row.file for row in listing.rows), *listing.test_images.values()], Counter(digests)
    copies = [name for name, digest in zip(images, digests, strict=True) if counts[digest] >= MANY_COPIES]
    notes = [f"{len(thin):,} images have a side of {FEW_PIXELS} pixels or less: {examples(thin)}"] if thin else []
    if copies:
        text = f"{len(copies):,} images have the same bytes as {MANY_COPIES - 1} others or more"
        notes.append(f"{text}; placeholders of missing images? {examples(copies)}")
    rows = list(zip(listing.rows, digests, strict=False))  # the digests of test images are after them
    trained = {digest for row, digest in rows if not row.is_held_out}
    if both := [row.file for row, digest in rows if row.is_held_out and digest in trained]:
        text = f"{len(both):,} held-out images are training images too, so scores will be too good"
        notes.append(f"{text}: {examples(both)}")
    return notes


def _repeated_files(listing: Listing, digests: Sequence[bytes]) -> list[str]:
    """Faults of extra images that are also images of the competition: a score on these would be too good."""
    ids = [*(row.id for row in listing.rows), *listing.test_images]
    own = {digest: id_ for id_, digest in zip(ids, digests, strict=True) if not id_.startswith(EXTRA)}
    rows = zip(listing.rows, digests, strict=False)
    repeated = ((row.file, own[digest]) for row, digest in rows if row.id.startswith(EXTRA) and digest in own)
    return [f"{listing.train.where(file)}: the same file as {id_!r} of the competition" for file, id_ in repeated]


def _lock_without_folds(listing: Listing, digests: Sequence[bytes]) -> Lock:
    classes, groups = listing.classes, [row.group for row in listing.rows]
    names = [row.label for row in listing.rows]
    return Lock(
        fingerprint=fingerprint(listing, digests),
        classes=classes,
        train_ids=np.array([row.id for row in listing.rows]),
        train_labels=target_of(listing.target, classes).read_names(names, classes),
        folds=np.array([0 if row.is_held_out else ALWAYS_TRAINS for row in listing.rows], np.int64),
        test_ids=np.array(list(listing.test_images), str),
        groups=np.array(groups) if any(groups) else None,
        target_name=listing.target,
    )


@dataclass(frozen=True)
class DecodeJob:
    """Consecutive rows of one array that one process decodes."""

    files: ImageFiles
    names: Sequence[str]
    array_file: Path
    first_row: int
    pixels: Pixels
    shape: str


class DecodedRows(NamedTuple):
    """What is known of the rows of a job."""

    digests: list[bytes]  # SHA-256 of each file
    faults: list[str]  # of damaged files
    thin: list[str]  # images with a side of few pixels
    checksum: int  # CRC-32 of the decoded rows


def decode_rows(job: DecodeJob) -> DecodedRows:
    """Decode a job's images into their rows."""
    array = open_memmap(job.array_file, mode="r+")
    digests, faults, thin = [], [], []
    with bombs_are_faults():
        for row, name in enumerate(job.names, job.first_row):
            try:
                content = job.files.read(name)
                digests.append(hashlib.sha256(content).digest())
                array[row], sides = decode_with_sides(content, job.pixels, shape=job.shape)
                if min(sides) <= FEW_PIXELS:
                    thin.append(f"{name} ({sides[0]} x {sides[1]})")
            except DataError as error:
                reason = f"{error.what} {error.found or ''}".strip()
                faults.append(f"{job.files.where(name)}: {reason}")
    checksum = zlib.crc32(array[job.first_row : job.first_row + len(job.names)])
    return DecodedRows(digests, faults, thin, checksum)


def _run_jobs(jobs: Sequence[DecodeJob], rows: int, progress: Progress) -> list[DecodedRows]:
    """The results in the order of the jobs."""
    results, done = [], 0
    killed = DataError("A process that decodes images was killed.", fix="free memory and try again")
    # Processes, not threads, because Pillow holds the GIL for small images.
    workers = worker_pool(min(len(os.sched_getaffinity(0)), len(jobs)), killed=killed)
    with workers if rows >= FEW_ROWS else nullcontext() as pool:
        for job, result in zip(jobs, (pool.map if pool else map)(decode_rows, jobs), strict=True):
            results.append(result)
            done += len(job.names)
            progress("decode images", done, rows)
    return results
