"""The ledger: what is written is read back, and what is no ledger is refused."""

from dataclasses import replace

import pytest

from podium.errors import KaggleError
from podium.kaggle.client import ListedSubmission
from podium.kaggle.ledger import COLUMNS, Entry, find_submission, read_ledger, write_ledger

ENTRY = Entry(
    time="2026-01-01T00:00:00Z", state="uploading", file="a.csv", sha256="ab" * 32, after=7, message='a, "b"\nc'
)


def row(ref, message=f"x {ENTRY.tag}", status="COMPLETE"):
    return ListedSubmission(ref, "2026-01-01", message, status, 0.9, None)


def test_what_is_written_is_read_back(tmp_path):
    file = tmp_path / "ledger.csv"
    assert read_ledger(file) == []
    write_ledger(file, [ENTRY, replace(ENTRY, state="scored")])
    assert read_ledger(file) == [ENTRY, replace(ENTRY, state="scored")]
    assert file.read_text().splitlines()[0] == ",".join(COLUMNS)


@pytest.mark.parametrize(
    ("before", "after", "fault"),
    [
        ("uploading", "somewhere", "after 0 rows: state 'somewhere'"),
        ("time,", "when,", "after 0 rows: other columns"),
        ("a.csv,", "", "after 0 rows: 12 cells"),
        ("2026-01-01T", "yesterday", "after 0 rows: time data"),
        (",7,", ",seven,", "after 0 rows: invalid literal"),
        (",,,", ",much,,", "after 0 rows: could not convert"),
    ],
)
def test_a_damaged_ledger_is_refused_by_line(tmp_path, before, after, fault):
    file = tmp_path / "ledger.csv"
    write_ledger(file, [ENTRY])
    file.write_text(file.read_text().replace(before, after))
    with pytest.raises(KaggleError, match=fault):
        read_ledger(file)


def test_an_upload_is_found_by_its_tag_among_later_rows_that_are_nobody_else_s():
    rows = [row(9, "x"), row(8), row(7), row(6)]
    assert find_submission(ENTRY, rows) == row(8)
    assert find_submission(ENTRY, rows, other_refs={8}) is None
    assert find_submission(replace(ENTRY, ref=6), rows, other_refs={6}) == row(6)


def test_what_kaggle_says_goes_into_the_entry():
    known = ENTRY.updated(row(8))
    assert (known.state, known.ref, known.public, known.private) == ("scored", 8, 0.9, None)
    assert ENTRY.updated(row(8, status="PENDING")).state == "pending"
    assert ENTRY.updated(row(8, status="ERROR")).state == "failed"


def test_a_message_that_kaggle_cut_is_known_by_its_beginning():
    cut = row(8, f"{ENTRY.tag} {'m' * 300}"[:100])
    assert find_submission(replace(ENTRY, message="m" * 300), [cut]) == cut
