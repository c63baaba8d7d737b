"""Readers of files, on content that nobody wrote by hand: it is read, or refused on one screen."""

import csv
import io
import json
import os
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from podium.config.keys import Competition, Recipe, Submission
from podium.config.recipe import recipe_of
from podium.config.schema import flat_keys, settings_of
from podium.errors import PodiumError
from podium.lock import lock_text, read_lock, write_lock
from podium.predictions.align import rows_of_ids
from podium.predictions.artefact import ARRAYS, load_predictions, save_predictions
from podium.submission import check_submission, submission_text
from reader_toys import IMAGES, LOCK, READERS, RUN, VALID, npy, with_members
from toy_runs import run_of

# The same examples in every run, more of them with EXAMPLES=1000; benchmarks/fuzz.py runs for as long as it may. The
# folder of a test is used by all of its examples.
QUICK = settings(
    derandomize=True,
    deadline=None,
    database=None,
    max_examples=int(os.environ.get("EXAMPLES", 20)),
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
NAMES = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Zl", "Zp", "Zs"]), min_size=1, max_size=20)
NUMBERS = st.integers(-(10**400), 10**400) | st.floats() | st.integers(-3, 99)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=6,
)
FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)


def is_read_or_refused(read, *arguments) -> bool:
    """Whether content is read; False where it is refused on one screen."""
    try:
        read(*arguments)
        return True
    except PodiumError as error:
        lines = str(error).splitlines()
        assert len(lines) < 30 and max(map(len, lines)) <= 1600 and all(line.isprintable() for line in lines)
        return False


@st.composite
def changed(draw, contents: tuple[bytes, ...]):
    """One of the contents with some bytes removed, inserted, and repeated."""
    content = draw(st.sampled_from(contents))
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(content)))
        removed = draw(st.sampled_from([0, 0, 1, 2, 8, len(content)]))
        inserted = draw(st.sampled_from([b"", b"\0", b'"', b"\n", b",", b"\xff\xff\xff\xff"]) | st.binary(max_size=8))
        content = content[:place] + inserted * draw(st.sampled_from([1, 1, 1, 300])) + content[place + removed :]
    return content


@pytest.mark.parametrize("name", READERS)
def test_changed_content_is_read_or_refused(tmp_path, name):
    assert is_read_or_refused(READERS[name], tmp_path, VALID[name])

    @QUICK
    @given(changed(IMAGES if name == "image" else (VALID[name],)) | st.binary(max_size=200))
    def check(content):
        is_read_or_refused(READERS[name], tmp_path, content)

    check()


@QUICK
@given(st.dictionaries(st.sampled_from(list(flat_keys(Recipe))), VALUES, max_size=8))
def test_a_recipe_of_any_values_is_read_or_refused(values):
    table = {"architecture": "fastnet", "epochs": 1, "learning_rate": 0.1}
    for name, value in values.items():
        inner, _, key = name.rpartition(".")
        (table.setdefault(inner, {}) if inner else table)[key] = value
    is_read_or_refused(recipe_of, table, Path("net.toml"))
    is_read_or_refused(settings_of, Competition, {"title": "any", "data": {"source": "csv"}} | table, Path("c.toml"))


def as_csv(rows) -> bytes:
    stream = io.StringIO(newline="")
    csv.writer(stream).writerows(rows)
    return stream.getvalue().encode(errors="replace")


@pytest.mark.parametrize("name", [name for name in READERS if name.startswith("csv ")])
def test_a_table_of_any_cells_is_read_or_refused(tmp_path, name):
    rows = list(csv.reader(io.StringIO(VALID[name].decode())))

    @QUICK
    @given(st.lists(st.tuples(st.integers(0, len(rows) - 1), st.integers(0, 2), st.text(max_size=30)), max_size=6))
    def check(cells):
        table = [list(row) for row in rows]
        for row, column, cell in cells:
            table[row][min(column, len(table[row]) - 1)] = cell
        is_read_or_refused(READERS[name], tmp_path, as_csv(table))

    check()


SHAPES = st.sampled_from([(), (0,), (1,), (3,), (6,), (6, 3), (3, 3), (3, 1), (6, 3, 1)])
KINDS = st.sampled_from(["<f4", "<f2", ">f8", "<i8", "<U3", "S2", "?", "<c8", "O", "<M8[s]", "<f4,<i4"])
ABOUT = st.dictionaries(st.sampled_from(["run", "target", "scores", "seconds", "crc32", "recipe"]), VALUES)


@QUICK
@given(st.dictionaries(st.sampled_from(list(ARRAYS)), st.tuples(SHAPES, KINDS), max_size=3), ABOUT)
def test_predictions_of_any_arrays_and_description_are_read_or_refused(tmp_path_factory, arrays, about):
    stream = io.BytesIO()
    content = {name: np.asarray(getattr(RUN, name)) for name in ARRAYS}
    np.savez(stream, **content | {name: np.zeros(*shape_and_kind) for name, shape_and_kind in arrays.items()})
    with zipfile.ZipFile(stream, "a") as archive:
        archive.writestr("about.json", json.dumps(RUN.about | about))
    is_read_or_refused(READERS["predictions"], tmp_path_factory.getbasetemp(), stream.getvalue())


HEADERS = [
    "{'descr': (",  # tokenize.TokenError
    "{[]: 1}",  # TypeError
    "  a\n b",  # IndentationError
    "{'descr': 'f4,,', 'fortran_order': False, 'shape': (3,)}",  # SyntaxError
    "{'descr': (), 'fortran_order': False, 'shape': (3,)}",  # IndexError
    "-" * 5000 + "1",  # RecursionError
    "{'descr': '<U0', 'fortran_order': False, 'shape': (1000000000000,)}",  # no bytes, and more rows than memory
    "{'descr': '<U4', 'fortran_order': False, 'shape': (-1, -1)}",
]


@pytest.mark.parametrize("header", HEADERS)
@pytest.mark.parametrize("member", ["classes", "oof_logits"])
def test_an_array_with_a_malformed_header_is_refused(tmp_path, header, member):
    content = with_members(VALID["predictions"], {member: npy(f"{header}{' ' * (-len(header) % 64)}\n")})
    assert not is_read_or_refused(READERS["predictions"], tmp_path, content)


CRASHES = sorted((Path(__file__).parent / "crashes").glob("*/*"))


@pytest.mark.parametrize("file", CRASHES, ids=[f"{file.parent.name}/{file.name}" for file in CRASHES])
def test_what_crashed_a_reader_once_is_read_or_refused(tmp_path, file):
    is_read_or_refused(READERS[file.parent.name.replace("_", " ")], tmp_path, file.read_bytes())


@QUICK
@given(st.lists(NAMES, min_size=4, max_size=4, unique=True), st.lists(FINITE, min_size=12, max_size=12))
def test_saved_predictions_are_loaded_exactly(tmp_path_factory, ids, logits):
    file = tmp_path_factory.getbasetemp() / "run.npz"
    saved = replace(run_of(), oof_ids=np.array(ids), oof_logits=np.array(logits, np.float32).reshape(4, 3))
    save_predictions(file, saved)
    loaded = load_predictions(file)
    assert loaded.oof_ids.tolist() == ids
    np.testing.assert_array_equal(loaded.oof_logits, saved.oof_logits)


@QUICK
@given(st.lists(NAMES, min_size=2, max_size=2, unique=True), st.lists(NAMES, min_size=9, max_size=9, unique=True))
def test_a_written_lock_and_submission_are_read_as_they_were_written(tmp_path_factory, classes, ids):
    folder = tmp_path_factory.getbasetemp()
    order = np.array(sorted(ids[:6]))
    lock = replace(LOCK, classes=tuple(classes), train_ids=order, test_ids=np.array(ids[6:]))
    lock = replace(lock, train_labels=np.arange(6) % 2, folds=np.arange(6) % 3 - 1)
    write_lock(folder / "data.lock", lock)
    assert lock_text(read_lock(folder / "data.lock")) == lock_text(lock)
    settings = Submission(kind="labels", id_column="\N{GREEK SMALL LETTER ALPHA}")
    (folder / "a.csv").write_text(submission_text(np.eye(2)[[0, 1, 1]], lock=lock, settings=settings))
    assert not check_submission(folder / "a.csv", lock=lock, settings=settings)


@QUICK
@given(
    st.lists(NAMES, min_size=1, max_size=9, unique=True).flatmap(
        lambda ids: st.tuples(st.just(ids), st.permutations(ids))
    )
)
def test_rows_are_joined_by_id_in_any_order(ids):
    expected, found = map(np.array, ids)
    rows, faults = rows_of_ids(found, expected)
    assert not faults and found[rows].tolist() == expected.tolist()
    rows, faults = rows_of_ids(found[1:], expected)
    assert faults and "missing" in faults[0]
