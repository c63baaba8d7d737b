"""What the operating system refuses, told like any other fault of the data."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from podium.errors import DataError
from podium.files import file_lock


@contextmanager
def refusals_told(what: str, *, mend: str | None = None) -> Iterator[None]:
    """Turn an OSError within into a DataError that says `what`, the file, and the system's own words."""
    try:
        yield
    except OSError as error:
        found = error.strerror or str(error)
        raise DataError(what, file=error.filename, found=found, mend=mend) from None


@contextmanager
def cache_lock(file: Path) -> Iterator[None]:
    """Hold a lock file of the cache; raises DataError where the cache cannot be written."""
    # Tried beforehand: what fails while the lock is held has nothing to do with the lock.
    with refusals_told("The cache cannot be written.", mend="set PODIUM_CACHE to a folder that can be written"):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.open("ab").close()
    with file_lock(file):
        yield
