"""What files, ids and classes may be called, so that the CSV and the lock can hold it."""

import re
from collections.abc import Iterable

from podium.config import Submission

# What lies beside images without anybody having meant it to be one.
HARMLESS_NAMES = {"thumbs.db", "desktop.ini"}
HARMLESS_SUFFIXES = (".txt", ".md", ".csv", ".tsv", ".json", ".xml", ".html")

CONTROL_CHARACTER = re.compile(r"[\x00-\x1f\x7f-\x9f]")
# Python's stand-ins for the bytes of a file name that are not UTF-8.
NOT_UTF8 = re.compile(r"[\ud800-\udfff]")


def is_harmless(name: str) -> bool:
    """Whether a file that is no image was never meant to be one."""
    base = name.rsplit("/", 1)[-1].lower()
    return base in HARMLESS_NAMES or base.endswith(HARMLESS_SUFFIXES)


def name_faults(where: str, what: str, names: Iterable[str]) -> list[str]:
    """Faults of the names that would come back from a text file as others, or not at all."""
    told = ((name, name_fault(name)) for name in names)
    return [f"{where}: the {what} {name!r} {reason}" for name, reason in told if reason]


def name_fault(name: str) -> str:
    """What is wrong with one name, as the end of a sentence; nothing if it is fine."""
    if not name.strip():
        return "is blank"
    if NOT_UTF8.search(name):
        return "is not UTF-8"
    if CONTROL_CHARACTER.search(name):
        return "has a control character in it"
    return "begins or ends with a blank" if name != name.strip() else ""


def column_faults(submission: Submission, classes: Iterable[str], test_ids: Iterable[str]) -> list[str]:
    """Faults of ids and classes that a submission could not tell from the names of its columns."""
    column, faults = submission.id_column, []
    if submission.kind == "labels" and column == submission.label_column:
        faults.append(f"[submission] id_column and label_column are both {column!r}")
    if submission.kind == "probabilities" and column in classes:
        faults.append(f"the class {column!r} is called like the submission's id column")
    if column in test_ids:
        faults.append(f"the test id {column!r} is called like the submission's id column")
    return faults


def printable(text: str) -> str:
    """The text with everything escaped that a terminal cannot show, such as halves of characters."""
    return text if text.isprintable() else "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)
