"""The CSV: its content, the faults that are found in a file, and its values."""

from dataclasses import replace

import numpy as np
import pytest

from podium.config.keys import Submission
from podium.errors import ConfigError
from podium.lock import Lock
from podium.submission import check_submission, read_probabilities, submission_text


def lock_of(classes=("bird", "cat", "dog"), test_ids=("3", "1", "2")):
    """The lock of a competition with these classes and test rows."""
    nothing = np.array([], dtype=np.int64)
    return Lock("data", classes, nothing.astype(str), nothing, nothing, np.array(test_ids))


LABELS = Submission()
PROBABILITY = Submission(kind="probability", label_column="has_cactus")
PROBABILITIES = Submission(kind="probabilities", id_column="image")
ROWS = np.array([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8], [0.25, 0.5, 0.25]])
GOOD_LABELS = "id,label\n3,bird\n1,dog\n2,cat\n"
GOOD_PROBABILITIES = "image,bird,cat,dog\n3,0.7,0.2,0.1\n1,0.1,0.1,0.8\n2,0.25,0.5,0.25\n"


def write_submission(file, probabilities, **competition):
    """Write what `make ensemble` writes."""
    file.write_text(submission_text(probabilities, **competition), newline="")


def check(tmp_path, text, settings=LABELS, lock=None):
    """Faults of a file with this text or these bytes."""
    file = tmp_path / "some.csv"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return check_submission(file, lock=lock or lock_of(), settings=settings)


@pytest.mark.parametrize(("settings", "text"), [(LABELS, GOOD_LABELS), (PROBABILITIES, GOOD_PROBABILITIES)])
def test_a_written_submission_has_the_format_of_the_sample_and_passes_the_check(settings, text, tmp_path):
    file, lock = tmp_path / "some.csv", lock_of()
    write_submission(file, ROWS, lock=lock, settings=settings)
    assert file.read_bytes() == text.encode()
    assert check_submission(file, lock=lock, settings=settings) == []


def test_a_ranking_has_the_most_probable_names_first_and_is_checked(tmp_path):
    settings, file, lock = Submission(kind="ranking", most=2), tmp_path / "some.csv", lock_of()
    write_submission(file, ROWS, lock=lock, settings=settings)
    assert file.read_text() == "id,label\n3,bird cat\n1,dog bird\n2,cat bird\n"
    assert check_submission(file, lock=lock, settings=settings) == []
    rows = read_probabilities(file, lock=lock, settings=settings)
    assert rows.tolist() == [[1, 0, 0], [0, 0, 1], [0, 1, 0]], "the first names"
    assert check(tmp_path, "id,label\n3,bird cat dog\n1,\n2,cat cow\n", settings) == [
        "2 cells do not have 1 to 2 class names: line 2: 'bird cat dog'; line 3: ''",
        "1 class names are unknown (the classes are bird, cat, dog): line 4: 'cow'",
    ]


def test_probabilities_that_are_not_finite_are_never_written(tmp_path):
    rows = ROWS.copy()
    rows[1, 2] = np.nan
    for settings in (LABELS, PROBABILITIES):
        with pytest.raises(AssertionError):
            write_submission(tmp_path / "some.csv", rows, lock=lock_of(), settings=settings)
    assert list(tmp_path.iterdir()) == []


def test_names_with_commas_quotes_and_letters_beyond_ascii_are_valid(tmp_path):
    lock = lock_of(classes=("a,b", 'say "no"', "Übel"), test_ids=("x,1", "ü", "-"))
    for settings in (LABELS, PROBABILITIES):
        file = tmp_path / "some.csv"
        write_submission(file, ROWS, lock=lock, settings=settings)
        assert check_submission(file, lock=lock, settings=settings) == []


def test_tiny_probabilities_are_not_rounded_to_zero(tmp_path):
    file = tmp_path / "some.csv"
    rows = np.array([[1 - 1e-12, 1e-12, 0.0]])
    write_submission(file, rows, lock=lock_of(test_ids=("1",)), settings=PROBABILITIES)
    assert file.read_text().splitlines()[1] == "1,1,1e-12,0"


def test_windows_line_ends_and_a_missing_last_line_end_are_valid(tmp_path):
    assert check(tmp_path, GOOD_LABELS.replace("\n", "\r\n")) == []
    assert check(tmp_path, GOOD_LABELS.rstrip()) == []


# One column of probabilities

TWO_CLASSES = lock_of(classes=("0", "1"))
TWO_ROWS = np.array([[0.75, 0.25], [0.25, 0.75], [0.5, 0.5]])
GOOD_PROBABILITY = "id,has_cactus\n3,0.25\n1,0.75\n2,0.5\n"


@pytest.mark.parametrize(
    ("positive", "text"),
    [
        ("", GOOD_PROBABILITY),
        ("1", GOOD_PROBABILITY),
        ("0", "id,has_cactus\n3,0.75\n1,0.25\n2,0.5\n"),
    ],
)
def test_one_column_has_the_probability_of_the_positive_class_by_default_of_the_second(tmp_path, positive, text):
    file, settings = tmp_path / "some.csv", replace(PROBABILITY, positive_class=positive)
    write_submission(file, TWO_ROWS, lock=TWO_CLASSES, settings=settings)
    assert file.read_text() == text and check(tmp_path, text, settings, TWO_CLASSES) == []
    assert read_probabilities(file, lock=TWO_CLASSES, settings=settings).tolist() == TWO_ROWS.tolist()


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("0.25", "1.25", "1 probabilities are not between 0 and 1: line 2: '1.25' for has_cactus"),
        ("0.25", "yes", "1 cells are not finite numbers: line 2: 'yes' for has_cactus"),
        ("has_cactus", "label", "line 1: expected the header id,has_cactus, found id,label"),
    ],
)
def test_a_fault_in_one_column_of_probabilities_is_reported(tmp_path, old, new, expected):
    (fault,) = check(tmp_path, GOOD_PROBABILITY.replace(old, new, 1), PROBABILITY, TWO_CLASSES)
    assert fault.startswith(expected)


def test_one_column_of_probabilities_for_three_classes_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="needs two classes") as error:
        check(tmp_path, "id,has_cactus\n", PROBABILITY)
    assert error.value.found == "3 classes: bird, cat, dog"
    file = tmp_path / "new.csv"
    with pytest.raises(ConfigError, match="needs two classes"):
        write_submission(file, ROWS, lock=lock_of(), settings=PROBABILITY)
    assert not file.exists()


def test_a_positive_class_that_is_no_class_is_refused(tmp_path):
    with pytest.raises(ConfigError) as error:
        check(tmp_path, GOOD_PROBABILITY, replace(PROBABILITY, positive_class="cactus"), TWO_CLASSES)
    expected, found = "2 classes, one of them positive_class = 'cactus'", "2 classes: 0, 1"
    assert (error.value.expected, error.value.found) == (expected, found)


BAD_LABELS = {
    "nothing": ("", ["the file is empty"]),
    "header only": ("id,label\n", ["3 ids are missing: '3'; '1'; '2'"]),
    "a mark": ("\ufeff" + GOOD_LABELS, ["line 1: begins with a byte order mark; save as UTF-8 without BOM"]),
    "not UTF-8": (
        GOOD_LABELS.replace("cat", "\xe7at").encode("latin-1"),
        ["not UTF-8 text: byte 0xe7 at offset 24"],
    ),
    "semicolons": (
        GOOD_LABELS.replace(",", ";"),
        ["line 1: expected the header id,label, found id;label; missing: id, label; unknown: id;label"],
    ),
    "open quote": ('id,label\n3,"bird\n1,dog\n2,cat\n', ["not CSV from here on"]),
    "no header": (
        GOOD_LABELS.removeprefix("id,label\n"),
        ["line 1: expected the header id,label, found 3,bird"],
    ),
    "misnamed": (
        GOOD_LABELS.replace("label", "Label"),
        ["line 1: expected the header id,label, found id,Label; missing: label; unknown: Label"],
    ),
    "extra column": (
        "id,label,sure\n3,bird,1\n1,dog,1\n2,cat,1\n",
        ["line 1: expected the header id,label, found id,label,sure; unknown: sure"],
    ),
    "missing column": ("id\n3\n1\n2\n", ["line 1: expected the header id,label, found id; missing: label"]),
    "column twice": (
        "id,label,label\n3,bird,bird\n1,dog,dog\n2,cat,cat\n",
        ["found id,label,label; the order or number differs"],
    ),
    "columns in another order": (
        "label,id\nbird,3\ndog,1\ncat,2\n",
        ["line 1: expected the header id,label, found label,id; the order or number differs"],
    ),
    "too many cells": (
        "id,label\n3,bird\n1,dog,cat\n2,cat\n",
        ["1 rows do not have 2 cells: line 3: 3 cells", "1 ids are missing: '1'"],
    ),
    "an empty line": (GOOD_LABELS + "\n", ["1 rows do not have 2 cells: line 5: 0 cells"]),
    "an empty cell": ("id,label\n3,bird\n1,\n2,cat\n", ["1 class names are unknown (the classes are "]),
    "row missing": ("id,label\n3,bird\n2,cat\n", ["1 ids are missing: '1'"]),
    "row repeated": (GOOD_LABELS + "1,cat\n", ["1 ids are repeated: line 5: '1' as in line 3"]),
    "row unknown": (GOOD_LABELS + "4,cat\n", ["1 ids are unknown: line 5: '4'"]),
    "file names as ids": (
        "id,label\n3.png,bird\n1,dog\n2,cat\n",
        ["1 ids are unknown: line 2: '3.png'", "1 ids are missing: '3'"],
    ),
    "numbers as floats": (
        "id,label\n3.0,bird\n1,dog\n2,cat\n",
        ["1 ids are unknown: line 2: '3.0'", "1 ids are missing: '3'"],
    ),
    "another order": (
        "id,label\n3,bird\n2,cat\n1,dog\n",
        ["2 rows are in another order than the sample: line 3: id '2', expected '1'; line 4: id '1', expected '2'"],
    ),
    "unknown class": (
        "id,label\n3,bird\n1,Dog\n2,Dog\n",
        ["1 class names are unknown (the classes are bird, cat, dog): line 3: 'Dog'"],
    ),
    "labels as numbers": (
        "id,label\n3,0\n1,2\n2,1\n",
        ["3 class names are unknown (the classes are bird, cat, dog): line 2: '0'; line 3: '2'; line 4: '1'"],
    ),
}


@pytest.mark.parametrize("case", BAD_LABELS)
def test_each_fault_is_reported_once_with_its_line(case, tmp_path):
    text, expected = BAD_LABELS[case]
    faults = check(tmp_path, text)
    assert len(faults) == len(expected), faults
    for fault, message in zip(faults, expected, strict=True):
        assert message in fault


BAD_PROBABILITIES = {
    "a word": ("0.7", "often", "1 cells are not finite numbers: line 2: 'often' for bird"),
    "NaN": ("0.7", "nan", "1 cells are not finite numbers: line 2: 'nan' for bird"),
    "infinity": ("0.7", "inf", "1 cells are not finite numbers: line 2: 'inf' for bird"),
    "Python's spelling": ("0.7", "0_0.7", "1 cells are not finite numbers: line 2: '0_0.7' for bird"),
    "sum": ("0.7", "0.6", "1 rows do not sum to 1: line 2: 0.9"),
    "empty": ("0.7", "", "1 cells are not finite numbers: line 2: '' for bird"),
}


@pytest.mark.parametrize("case", BAD_PROBABILITIES)
def test_an_invalid_probability_is_reported_with_its_line(case, tmp_path):
    old, new, expected = BAD_PROBABILITIES[case]
    assert check(tmp_path, GOOD_PROBABILITIES.replace(old, new, 1), PROBABILITIES) == [expected]


def test_probabilities_outside_0_and_1_are_reported_even_if_rows_sum_to_1(tmp_path):
    text = GOOD_PROBABILITIES.replace("0.7,0.2,0.1", "1.2,-0.3,0.1")
    expected = "2 probabilities are not between 0 and 1: line 2: '1.2' for bird; line 2: '-0.3' for cat"
    assert check(tmp_path, text, PROBABILITIES) == [expected]


def test_logits_instead_of_probabilities_are_reported(tmp_path):
    faults = check(tmp_path, GOOD_PROBABILITIES.replace("0.7,0.2", "7.5,-2"), PROBABILITIES)
    assert ["between 0 and 1" in faults[0], "sum to 1" in faults[1]] == [True, True]


def test_rounded_probabilities_are_valid(tmp_path):
    text = GOOD_PROBABILITIES.replace("0.7,0.2,0.1", "0.3333,0.3333,0.3333")
    assert check(tmp_path, text, PROBABILITIES) == []


def test_class_columns_in_another_order_are_a_fault(tmp_path):
    faults = check(tmp_path, "image,cat,bird,dog\n3,0.2,0.7,0.1\n1,0.1,0.1,0.8\n2,0.5,0.25,0.25\n", PROBABILITIES)
    assert [fault[:75] for fault in faults] == [
        "line 1: expected the header image,bird,cat,dog, found image,cat,bird,dog; t"
    ]


def test_a_missing_class_column_is_reported_without_the_sums(tmp_path):
    faults = check(tmp_path, "image,bird,cat\n3,0.7,0.2\n1,0.1,0.1\n2,0.25,0.5\n", PROBABILITIES)
    assert len(faults) == 1 and "missing: dog" in faults[0]


def test_all_faults_of_the_rows_are_reported_at_once(tmp_path):
    report = "\n".join(check(tmp_path, "id,label\n3,brid\n3,dog\n9,\n1,cat,dog\n"))
    for message in ("unknown: line 4: '9'", "repeated", "missing", "'brid'", "do not have 2 cells"):
        assert message in report


def test_the_list_of_faults_stays_short_if_every_row_is_wrong(tmp_path):
    lock = lock_of(test_ids=tuple(str(row) for row in range(5000)))
    text = "id,label\n" + "".join(f"{'x' * 300}{row},{'y' * 300}{row}\n" for row in range(5000))
    faults = check(tmp_path, text, lock=lock)
    assert [fault.split()[0] for fault in faults] == ["5000", "5000", "5000"]
    assert max(map(len, faults)) < 500


@pytest.mark.parametrize("rows", [4, 5])
def test_four_examples_of_a_fault_are_listed(tmp_path, rows):
    text = GOOD_LABELS + "".join(f"x{row},cat\n" for row in range(rows))
    (fault,) = check(tmp_path, text)
    assert fault.startswith(f"{rows} ids are unknown: line 5: 'x0'; ") and "line 8: 'x3'" in fault
    assert fault.endswith("; ...") == (rows == 5) and "'x4'" not in fault


def test_random_bytes_are_reported_as_faults(tmp_path):
    draw = np.random.default_rng(0)
    for length in range(0, 200, 7):
        assert check(tmp_path, draw.bytes(length))
        assert check(tmp_path, bytes(draw.choice(list(b'id,label\n3"\r;\0'), size=length)))


def test_a_missing_file_and_a_folder_are_reported(tmp_path):
    assert check_submission(tmp_path / "no.csv", lock=lock_of(), settings=LABELS) == [
        "cannot be read: No such file or directory"
    ]
    assert check_submission(tmp_path, lock=lock_of(), settings=LABELS) == ["cannot be read: Is a directory"]
