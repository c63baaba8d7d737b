"""Decode the images of a competition into a memory-mapped array: once for each size, in parallel."""

import hashlib
import json
import os
import re
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.lib.format import open_memmap, write_array_header_1_0

from podium.config.keys import Competition
from podium.config.pixels import Pixels, height_and_width
from podium.config.schema import changed_keys
from podium.data.archives import read_file
from podium.data.cache import LISTING_FILE, ROWS_PER_BLOCK, Dataset, load_dataset, size_name
from podium.data.folds import ALWAYS_TRAINS
from podium.data.images import bombs_are_faults, decode_with_sides
from podium.data.jpeg_file import LEAST_SHARE, content_of, encode_jpeg, offsets_of
from podium.data.listing import Listing, base_name
from podium.data.locate import Progress, Source
from podium.data.scan import scan
from podium.errors import DataError, examples
from podium.files import LARGER_CACHE, atomic_write, cache_lock, require_free_space, write_file
from podium.lock import EXTRA, Lock, write_lock
from podium.plan.paths import Paths
from podium.processes import worker_pool
from podium.targets.target import Target

# Increase it when a change of the code gives other pixels, ids or order, or another format of the cache.
CACHE_VERSION = 3
# A process takes half a second to start, so fewer images are decoded faster in one process.
FEW_ROWS = 2000
# So many equal files are probably placeholders; an image with such a side, or so much longer than wide, shows nothing.
MANY_COPIES, FEW_PIXELS, LONG = 5, 2, 20
SMALLER_FORMAT = ', or set stored_format = "jpeg" in the recipes: JPEGs of photos are a sixth of their pixels'
PLACEHOLDER = re.compile(r"not[ _-]?found|place[ _-]?holder", re.IGNORECASE)


class DecodedRows(NamedTuple):
    """What is known of decoded rows."""

    digests: list[bytes]  # SHA-256 of each whole image's file
    sides: list[tuple[int, int]]  # width and height of each whole image
    faults: list[str]  # of the other files
    checksums: list[int]  # CRC-32 of each block of rows
    lengths: list[int]  # of the JPEGs, where rows are stored as these
    jpegs: list[bytes]  # the JPEGs of a block, until they are written


def decode_images(
    competition: Competition,
    source: Source,
    paths: Paths,
    *,
    pixels: Pixels,
    shape: str,
    stored_format: str = "pixels",
    progress: Progress,
    note: Callable[[str], object] = lambda text: None,
) -> Dataset:
    """Open the images of `source` of the size `pixels`; decode them if necessary.

    `shape` says how other shapes get this size (`podium.data.images.decode`). Another process that decodes the
    same images is waited for. `note` receives what is strange in images that are decoded now. Raises DataError with all
    faults of the data at once.
    """
    file = paths.cache / _cache_key(competition, source) / f"images-{size_name(pixels, shape, stored_format)}.npy"
    with cache_lock(file.with_name("lock")):
        dataset = load_dataset(file)
        if dataset is None:
            listing = scan(competition, source)
            options = {"pixels": pixels, "shape": shape, "as_jpeg": stored_format == "jpeg"}
            rows = _decode_listing(listing, file, **options, name=paths.name, progress=progress)
            for text in _strange_images(listing, rows):
                note(text)
            dataset = load_dataset(file)
    assert dataset is not None
    return dataset


def _cache_key(competition: Competition, source: Source) -> str:
    data, folder = replace(competition.data, fingerprint="", download="", metadata=()), competition.validation.folder
    # scan() compares ids and classes with the submission's columns
    content = [CACHE_VERSION, changed_keys(data), changed_keys(competition.submission), folder]
    content.append(source.signature(folder, *data.extra))
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def _decode_listing(
    listing: Listing, file: Path, *, pixels: Pixels, shape: str, as_jpeg: bool, name: str, progress: Progress
) -> DecodedRows:
    """Decode all images of a listing into `file`; raises DataError with the faults of all of them."""
    images = [*(row.file for row in listing.rows), *listing.test_images.values()]
    height, width = height_and_width(pixels)
    # Check the free space first: writing to a mapped file on a full disk kills the process.
    needed, fix = len(images) * height * width * 3, LARGER_CACHE if as_jpeg else LARGER_CACHE + SMALLER_FORMAT
    needed = round(needed * LEAST_SHARE) if as_jpeg else needed
    require_free_space(file.parent, needed, what="The decoded images", fix=fix)
    with atomic_write(file) as stream:
        array_file = None if as_jpeg else Path(stream.name)
        if as_jpeg:
            _write_header(stream, 0)
        else:
            open_memmap(stream.name, mode="w+", dtype=np.uint8, shape=(max(len(images), 1), height, width, 3))
        decode_block = partial(decode_rows, array_file=array_file, pixels=pixels, shape=shape)
        rows = _run_in_blocks(decode_block, images, stream, progress)
        if as_jpeg:
            size = sum(rows.lengths) + stream.write(offsets_of(rows.lengths))
            stream.seek(0)
            _write_header(stream, size)
        if faults := [*listing.faults, *(rows.faults or _repeated_files(listing, rows.digests))]:
            what = f"The data of '{name}' have {len(faults)} fault(s)."
            raise DataError(what, faults=faults, fix="fix or remove these")
        write_lock(file.with_name(LISTING_FILE), _lock_without_folds(listing, rows.digests))
        write_file(file.with_suffix(".json"), json.dumps(rows.checksums).encode())
    return rows


def _write_header(stream: BinaryIO, size: int) -> None:
    """The header of an array (size,) uint8; it is equally long for each size."""
    write_array_header_1_0(stream, {"descr": "|u1", "fortran_order": False, "shape": (size,)})


def _strange_images(listing: Listing, rows: DecodedRows) -> list[str]:
    """What is strange in whole images, a line each: their sides, names, frames, and many with the same bytes."""
    counts, ids_by_text = Counter(rows.digests), defaultdict(list)
    files = [*(row.file for row in listing.rows), *listing.test_images.values()]
    of_images = (_ids(listing), files, rows.digests, rows.sides)
    for id_, file, digest, (width, height) in zip(*of_images, strict=True):
        short, long = sorted((width, height))
        copies = f"have the same bytes as {MANY_COPIES - 1} others or more; placeholders of missing images?"
        strange = {
            f"have a side of {FEW_PIXELS} pixels or less:": short <= FEW_PIXELS,
            f"are more than {LONG} times as long as wide:": short > FEW_PIXELS and long > LONG * short,
            copies: counts[digest] >= MANY_COPIES,
            "have a name of placeholders of missing images:": PLACEHOLDER.search(base_name(file)),
        }
        for text in (text for text, is_strange in strange.items() if is_strange):
            ids_by_text[text].append(f"{id_} ({width} x {height})" if " long " in text or " side " in text else id_)
    return [f"{len(ids):,} images {text} {examples(ids)}" for text, ids in ids_by_text.items()]


def _repeated_files(listing: Listing, digests: Sequence[bytes]) -> list[str]:
    """Faults of extra images that are also images of the competition: a score on these would be too good."""
    own = {digest: id_ for id_, digest in zip(_ids(listing), digests, strict=True) if not id_.startswith(EXTRA)}
    rows = [(row, digest) for row, digest in zip(listing.rows, digests, strict=False) if row.id.startswith(EXTRA)]
    return [f"{row.file}: the same file as {own[digest]!r} of the competition" for row, digest in rows if digest in own]


def _ids(listing: Listing) -> list[str]:
    return [*(row.id for row in listing.rows), *listing.test_images]


def _lock_without_folds(listing: Listing, digests: Sequence[bytes]) -> Lock:
    rows, classes = listing.rows, listing.classes
    # The fingerprint: ids, labels and files decide it, and not their order and place.
    lines = [*(f"train\0{row.id}\0{row.label}" for row in rows), *(f"test\0{id_}" for id_ in listing.test_images)]
    lines = sorted(f"{line}\0{digest.hex()}" for line, digest in zip(lines, digests, strict=True))
    return Lock(
        fingerprint=hashlib.sha256("\n".join(lines).encode()).hexdigest(),
        classes=classes,
        train_ids=np.array([row.id for row in rows]),
        train_labels=Target(listing.target, len(classes)).read_names([row.label for row in rows], classes),
        folds=np.array([0 if row.is_held_out else ALWAYS_TRAINS for row in rows], np.int64),
        test_ids=np.array(list(listing.test_images), str),
        groups=np.array([row.group for row in rows]) if any(row.group for row in rows) else None,
        target_name=listing.target,
    )


def decode_rows(
    files: Sequence[str], first: int, *, array_file: Path | None, pixels: Pixels, shape: str
) -> DecodedRows:
    """Decode files into consecutive rows of the array in `array_file`, from the row `first`; without it, to JPEGs."""
    array = open_memmap(array_file, mode="r+")[first : first + len(files)] if array_file else None
    digests, sides, faults, jpegs = [], [], [], []
    with bombs_are_faults():
        for row, file in enumerate(files):
            try:
                content = read_file(file)
                image, size = decode_with_sides(content, pixels, shape=shape)
                if array is None:
                    jpegs.append(encode_jpeg(image))
                else:
                    array[row] = image
                digests.append(hashlib.sha256(content).digest())
                sides.append(size)
            except DataError as error:
                faults.append(f"{file}: {error.what} {error.found or ''}".rstrip())
    lengths = list(map(len, jpegs))
    checksum = zlib.crc32(content_of(b"".join(jpegs), lengths) if array is None else array)
    return DecodedRows(digests, sides, faults, [checksum], lengths, jpegs)


def _run_in_blocks(
    decode_block: Callable[[Sequence[str], int], DecodedRows],
    files: Sequence[str],
    stream: BinaryIO,
    progress: Progress,
) -> DecodedRows:
    """The results of all blocks, joined; their JPEGs are written to the stream."""
    blocks = [files[row : row + ROWS_PER_BLOCK] for row in range(0, len(files), ROWS_PER_BLOCK)]
    rows = DecodedRows([], [], [], [], [], [])
    killed = DataError("A process that decodes images was killed.", fix="free memory and try again")
    # Processes, not threads, because Pillow holds the GIL for small images.
    workers = worker_pool(min(len(os.sched_getaffinity(0)), len(blocks)), killed=killed)
    with workers if len(files) >= FEW_ROWS else nullcontext() as pool:
        for block in (pool.map if pool else map)(decode_block, blocks, count(step=ROWS_PER_BLOCK)):
            for all_values, values in zip(rows, block, strict=True):
                all_values += values
            stream.writelines(rows.jpegs)
            rows.jpegs.clear()
            progress("decode images", len(rows.digests) + len(rows.faults), len(files))
    return rows
