"""Find a competition's images: in a given place, in the data folders, or by downloading them."""

import os
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from podium.config.keys import Competition, Data
from podium.data.archives import (
    ARCHIVE_SUFFIXES,
    UNREADABLE,
    Files,
    Folder,
    open_files,
    status_signature,
    without_archive_suffix,
)
from podium.errors import DataError
from podium.files import atomic_write, file_lock, os_error_as
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

    @os_error_as(DataError, UNREADABLE)
    def signature(self, *other_parts: str) -> str:
        """Identifies the content of all files, also of parts beside train and test, without reading them."""
        data, beside, parts = self.data, Folder(self.path.parent), [self.path]
        if self.path.is_dir():
            folder = self.open()
            names = (data.train, data.test, data.labels, data.sample_submission, *other_parts)
            parts = [folder.root / part for name in names if name and (part := find_part(folder, name))]
            parts += [] if data.train else [folder.root]
        parts += [beside.root / part for name in data.extra if (part := find_part(beside, name))]
        return "\n".join(
            f"{part.resolve()}\0{Folder(part).signature()}" if part.is_dir() else status_signature(part)
            for part in parts
        )

    def open(self) -> Files:
        """The files beside the train folder; a single wrapping folder is skipped."""
        return _unwrapped(open_files(self.path, self.cache), self.data.train)

    def open_extra(self, files: Files, name: str) -> Files:
        """The files of an extra folder or archive, beside train or beside the competition's; raises DataError."""
        is_inside = self.data.train and find_part(files, name)
        return self.open_part(files if is_inside else Folder(self.path.parent), name)

    def open_part(self, files: Files, name: str) -> Files:
        """The files of the train or test folder or archive called `name`; raises DataError."""
        if not name:
            return files
        part = find_part(files, name)
        if part is None:
            raise DataError(
                f"The competition's '{name}' is missing.",
                file=files.where(),
                expected=f"a folder {name}/ or an archive of that name ({', '.join(ARCHIVE_SUFFIXES)})",
                found=", ".join([f"{folder}/" for folder in files.folders()][:20]) or "no folder",
            )
        if files.has_folder(part):
            return files.below(part)
        inside = open_files(files.local_file(part, self.cache), self.cache)
        stem = without_archive_suffix(part).rsplit("/", 1)[-1]
        return inside.below(stem) if inside.folders() == [stem] else inside


def find_part(files: Files, name: str) -> str | None:
    """The folder or archive in `files` that matches `name`, with or without its suffix; else None.

    Raises DataError where several archives match.
    """
    stem = without_archive_suffix(name)
    if stem and files.has_folder(stem):
        return stem
    return _only_archive(name, [other for other in _spellings(name) if files.has_file(other)], files.where())


def _only_archive(name: str, archives: Sequence[str], place: str) -> str | None:
    """The archive called `name`, else the only one, else None; raises DataError where there are several."""
    if len(archives) > 1 and name not in archives:
        raise DataError(
            f"Several archives may be '{name}'.",
            file=place,
            found=", ".join(archives),
            fix="keep one of them, or write its whole name into competition.toml",
        )
    return name if name in archives else next(iter(archives), None)


def _unwrapped(files: Files, train: str) -> Files:
    """The files in the only folder, as in archives of repositories, unless `train` is beside it."""
    folders = files.folders()
    return files.below(folders[0]) if len(folders) == 1 and find_part(files, train) is None else files


@os_error_as(DataError, "The images cannot be searched.")
def find_source(competition: Competition, paths: Paths, *, data: str | None) -> Source | None:
    """The competition's archive or folder of images; None where it is in none of the places.

    If `data` (DATA=) names a place, only that place is searched. Raises DataError where a named place does not
    exist or does not hold the images.
    """
    if data_folder := os.environ.get("PODIUM_DATA"):
        named_place("PODIUM_DATA", data_folder)
    places = [named_place("DATA", data)] if data else paths.image_places()
    for place in places:
        path = _in_place(
            place, competition.data.archive or paths.name, competition.data.train, named_by_user=bool(data)
        )
        if path:
            return Source(path, competition.data, paths.cache)
    if data:
        raise _not_found(competition, paths, places)
    return None


def _in_place(place: Path, archive: str, train: str, *, named_by_user: bool) -> Path | None:
    """The archive, or the folder with the part `train`, in one place."""
    if place.is_file():
        return place
    names = [*_spellings(archive), without_archive_suffix(archive)]
    if file := _only_archive(archive, [name for name in names if (place / name).is_file()], str(place)):
        return place / file
    folders = [*(place / name for name in names), place]
    if not train and place.name in names:  # a class folder may have the name of the archive
        folders.reverse()
    for folder in filter(Path.is_dir, folders):
        # The only folder in a search place may be another competition, so it is used only in a place the user named.
        files = Folder(folder) if folder == place and not named_by_user else _unwrapped(Folder(folder), train)
        if find_part(files, train) or (not train and (folder != place or named_by_user)):
            return folder
    return None


def _spellings(name: str) -> list[str]:
    """The file name, and the names of the same archive of another kind."""
    return list(dict.fromkeys([name, *(without_archive_suffix(name) + suffix for suffix in ARCHIVE_SUFFIXES)]))


@os_error_as(DataError, "The images cannot be downloaded.")
def download_source(competition: Competition, paths: Paths, *, progress: Progress) -> Source:
    """Download the archive into `data/` unless it is there; raises DataError where the settings have no address."""
    if not competition.data.download:
        raise _not_found(competition, paths, paths.image_places())
    target = paths.root / "data" / (competition.data.archive or paths.name)
    with file_lock(target.with_name(f".{target.name}.lock")):
        if not target.exists():
            download(competition.data.download, target, progress=progress)
    return Source(target, competition.data, paths.cache)


def _not_found(competition: Competition, paths: Paths, places: Sequence[Path]) -> DataError:
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
        raise DataError(
            f"{variable}= names a file or folder that does not exist.",
            file=value,
            expected="an archive, or a folder with the images",
            fix=f"correct {variable}=",
        )
    return place
