"""Find a competition's images: in a given place, in the data folders, or by downloading them."""

import difflib
import os
import shlex
import urllib.request
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from podium.config.keys import Competition, Data
from podium.data.archives import (
    ARCHIVE_SUFFIXES,
    file_digest,
    folder_names,
    open_folder,
    signature,
    without_archive_suffix,
)
from podium.data.digits import digits_archive
from podium.errors import DataError
from podium.files import atomic_write, file_lock, os_error_as
from podium.plan.memory import remembered_place
from podium.plan.paths import Paths

Progress = Callable[[str, int, int | None], None]
"""Called with a description of the work, the amount that is done, and the total (None: unknown)."""

TIMEOUT_SECONDS = 30


def quiet(what: str, done: int, total: int | None) -> None:
    """Ignore progress."""


@dataclass(frozen=True)
class Source:
    """A competition's images: `path` is the archive, or the folder with the files that `data` names."""

    path: Path
    data: Data
    cache: Path

    def signature(self, *other_parts: str) -> str:
        """Identifies the content of all files, also of parts beside train and test, without reading them."""
        return "\n".join(map(signature, self._parts(other_parts)))

    def file_digests(self) -> dict[str, str]:
        """Name -> digest of each archive and table, below the folder that the archive is in; raises DataError."""
        files = [part for part in self._parts() if part.is_file() and self.data.source != "digits"]
        return {os.path.relpath(file, self.path.parent): file_digest(file) for file in files}

    def _parts(self, other_parts: Iterable[str] = ()) -> list[Path]:
        """The archive, or the folders and files of the folder that `data` names; and external data."""
        data, parts = self.data, [self.path]
        if self.path.is_dir():
            root, names = self.open(), (data.train, data.test, data.labels, data.sample_submission, *other_parts)
            parts = [part for name in names if name and (part := find_part(root, name))] + [root] * (not data.train)
        return parts + [part for name in data.extra if (part := find_part(self.path.parent, name))]

    def open(self) -> Path:
        """The folder with the files beside the train folder; a single wrapping folder is skipped."""
        return _unwrapped(open_folder(self.path, self.cache), self.data.train)

    def open_extra(self, folder: Path, name: str) -> Path:
        """The folder of external data, beside train in `folder` or beside the competition's; raises DataError."""
        is_inside = self.data.train and find_part(folder, name)
        return self.open_part(folder if is_inside else self.path.parent, name)

    def open_part(self, folder: Path, name: str) -> Path:
        """The folder of the part called `name`, a folder or an archive in `folder`; raises DataError."""
        if not name:
            return folder
        part = find_part(folder, name)
        if part is None:
            raise DataError(
                f"The competition's '{name}' is missing.",
                file=folder,
                expected=f"a folder {name}/ or an archive of that name ({', '.join(ARCHIVE_SUFFIXES)})",
                found=", ".join([f"{other}/" for other in folder_names(folder)][:20]) or "no folder",
            )
        inside, stem = open_folder(part, self.cache), without_archive_suffix(part.name)
        return inside / stem if inside != part and folder_names(inside) == [stem] else inside


def find_part(folder: Path, name: str) -> Path | None:
    """The folder or archive in `folder` that matches `name`, with or without its suffix; else None.

    Raises DataError where several archives match.
    """
    stem = without_archive_suffix(name)
    return folder / stem if stem and (folder / stem).is_dir() else _find_archive(folder, name)


def _find_archive(folder: Path, name: str) -> Path | None:
    """The file `name` in a folder, else the only one of another kind of archive; raises DataError where several are."""
    spellings = dict.fromkeys([name, *(without_archive_suffix(name) + suffix for suffix in ARCHIVE_SUFFIXES)])
    archives = [spelling for spelling in spellings if (folder / spelling).is_file()]
    if len(archives) > 1 and name not in archives:
        raise DataError(
            f"Several archives may be '{name}'.",
            file=folder,
            found=", ".join(archives),
            fix="keep one of them, or write its whole name into competition.toml",
        )
    return folder / archives[0] if archives else None


def _unwrapped(folder: Path, train: str) -> Path:
    """The only folder in a folder, as in archives of repositories, unless `train` is beside it."""
    folders = folder_names(folder)
    return folder / folders[0] if len(folders) == 1 and find_part(folder, train) is None else folder


@os_error_as(DataError, "The images cannot be searched.")
def find_source(competition: Competition, paths: Paths, *, data: str | None) -> Source | None:
    """The competition's archive or folder of images; None where it is in none of the places.

    If `data` (DATA=) names a place, only that place is searched. Raises DataError where a named place does not
    exist or does not hold the images.
    """
    settings = competition.data
    if settings.source == "digits":
        return Source(digits_archive(paths.cache), settings, paths.cache)
    places = _image_places(paths, data)
    for place, is_named in places.items():
        if path := _in_place(place, settings.archive or paths.name, settings.train, named_by_user=is_named):
            return Source(path, settings, paths.cache)
    if data:
        raise _not_found(competition, paths, places)
    return None


def _image_places(paths: Paths, data: str | None) -> dict[Path, bool]:
    """Where the images are looked for, in order -> whether the user named the place, now or in an earlier command."""
    if data:
        return {named_place("DATA", data): True}
    data_folder, place = os.environ.get("PODIUM_DATA"), remembered_place(paths.root, paths.name)
    places = {named_place("PODIUM_DATA", data_folder): False} if data_folder else {}
    places |= {place: True} if place else {}
    return places | {paths.root / "data": False, paths.root.resolve().parent / "shared" / "data": False}


def _in_place(place: Path, archive: str, train: str, *, named_by_user: bool) -> Path | None:
    """The archive, or the folder with the part `train`, in one place."""
    if place.is_file():
        return place
    if file := _find_archive(place, archive):
        return file
    names = (archive, without_archive_suffix(archive))
    folders = [*(place / name for name in names), place]
    if not train and place.name in names:  # a class folder may have the name of the archive
        folders.reverse()
    for folder in filter(Path.is_dir, folders):
        # The only folder in a search place may be another competition, so it is used only in a place the user named.
        root = folder if folder == place and not named_by_user else _unwrapped(folder, train)
        if find_part(root, train) or (not train and (folder != place or named_by_user)):
            return folder
    return None


@os_error_as(DataError, "The images cannot be downloaded.")
def download_source(competition: Competition, paths: Paths, *, progress: Progress) -> Source:
    """Download the archive into `data/` unless it is there; raises DataError where the settings have no address."""
    if not competition.data.download:
        raise _not_found(competition, paths, _image_places(paths, data=None))
    target = paths.root / "data" / (competition.data.archive or paths.name)
    with file_lock(target.with_name(f".{target.name}.lock")):
        if not target.exists():
            download(competition.data.download, target, progress=progress)
    return Source(target, competition.data, paths.cache)


def _not_found(competition: Competition, paths: Paths, places: Iterable[Path]) -> DataError:
    train = competition.data.train or "the class folders"
    return DataError(
        f"The images of '{paths.name}' were not found.",
        expected=f"{competition.data.archive or paths.name}, or a folder that holds {train}",
        faults=[f"looked in {place}" for place in places],
        fix=f"make prepare COMPETITION={paths.name} DATA=<folder or archive>",
    )


def download(address: str, target: Path, *, progress: Progress) -> None:
    """Download `address` as `target`, which is created completely or not at all. Raises DataError."""
    try:
        with urllib.request.urlopen(address, timeout=TIMEOUT_SECONDS) as response, atomic_write(target) as stream:
            length = response.headers.get("Content-Length")
            total, done = int(length) if length else None, 0
            while block := response.read(1 << 18):
                stream.write(block)
                done += len(block)
                progress(f"download {target.name}", done, total)
            if total is not None and done != total:
                raise OSError(f"the connection ended after {done:,} of {total:,} bytes")
    except (OSError, ValueError) as error:
        raise DataError(
            "The images cannot be downloaded.",
            file=address,
            found=str(getattr(error, "reason", None) or error),
            fix=f"download it yourself and put it at {target}, or pass DATA=<folder or archive>",
        ) from None


def named_place(variable: str, value: str) -> Path:
    """The archive or folder that a variable such as DATA= names; raises DataError if it does not exist."""
    place = Path(os.path.expanduser(value))
    if not place.exists():
        beside = os.listdir(place.parent) if place.parent.is_dir() else ()
        nearest = [place.parent / name for name in difflib.get_close_matches(place.name, beside, n=1)]
        raise DataError(
            f"{variable}= names a file or folder that does not exist.",
            file=value,
            expected="an archive, or a folder with the images",
            found=f"nothing in {os.path.abspath(place.parent)} with this name",
            fix=f"{variable}={shlex.quote(str(nearest[0]))}" if nearest else f"correct {variable}=",
        )
    return place
