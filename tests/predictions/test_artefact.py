"""Predictions: checked loading, atomic and repeatable saving."""

import dataclasses
import errno
import io
import json
import tracemalloc
import zipfile

import numpy as np
import pytest

from podium.errors import PredictionsError
from podium.plan.stamp import is_stale, read_about
from podium.predictions import artefact
from podium.predictions.artefact import load_predictions, save_predictions
from toy_runs import random_run, run_of


def arrays_of(file):
    with np.load(file) as archive:
        return {name: archive[name] for name in archive.files if name != "about.json"}


def changed(file, predictions, **changes):
    """Write `predictions` with some arrays replaced, without the checks of save_predictions."""
    save_predictions(file, predictions)
    about = changes.pop("about", json.dumps(predictions.about))
    np.savez(file, **(arrays_of(file) | changes))
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("about.json", about)
    return file


def test_loaded_predictions_equal_the_saved_ones(tmp_path):
    file = tmp_path / "resnet34.s1.npz"
    saved = run_of(test=(2, 1, 0), scores={"accuracy": 1.0})
    save_predictions(file, saved)
    loaded = load_predictions(file)
    for name in ("oof_ids", "oof_logits", "oof_labels", "test_ids", "test_logits"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(saved, name))
    assert (loaded.classes, loaded.about, loaded.file, loaded.run) == (
        saved.classes,
        saved.about,
        file,
        "resnet34.s1",
    )


def test_predictions_of_two_classes_are_loaded(tmp_path):
    save_predictions(tmp_path / "run.npz", run_of(labels=(0, 1), test=(1,), classes=("no", "yes")))
    assert load_predictions(tmp_path / "run.npz").classes == ("no", "yes")


def test_constant_logits_of_many_rows_are_loaded(tmp_path):
    run = run_of(labels=(0,) * 10_000, sure=0.0)
    run = dataclasses.replace(run, oof_ids=np.array([f"{row:05}" for row in range(10_000)]))
    save_predictions(tmp_path / "run.npz", run)  # logits of 120 kB are compressed to 150 bytes
    assert not load_predictions(tmp_path / "run.npz").oof_logits.any()


def test_about_is_read_without_numpy_even_with_letters_beyond_ascii(tmp_path):
    file = tmp_path / "run.npz"
    save_predictions(file, run_of(recipe_name="Ünïcode 🐸"))
    assert read_about(file)["recipe_name"] == "Ünïcode 🐸"
    assert read_about(file) == load_predictions(file).about


def test_older_files_whose_description_is_an_array_are_read(tmp_path):
    file, run = tmp_path / "run.npz", run_of(recipe_name="Ünïcode 🐸")
    save_predictions(file, run)
    np.savez(file, **arrays_of(file), about=np.array(json.dumps(run.about)))
    assert read_about(file) == load_predictions(file).about == run.about


def test_equal_predictions_give_equal_bytes_at_another_time(tmp_path, monkeypatch):
    first, second = tmp_path / "first.npz", tmp_path / "second.npz"
    save_predictions(first, random_run("a.s1"))
    monkeypatch.setattr("time.time", lambda: 2_000_000_000.0)
    save_predictions(second, random_run("a.s1"))
    assert first.read_bytes() == second.read_bytes()
    with zipfile.ZipFile(first) as archive:
        assert {member.date_time for member in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_half_precision_logits_are_widened_and_doubles_are_kept(tmp_path):
    run = run_of()
    for given, expected in ((np.float16, np.float32), (np.float32, np.float32), (np.float64, np.float64)):
        file = changed(tmp_path / "run.npz", run, oof_logits=run.oof_logits.astype(given))
        loaded = load_predictions(file)
        assert loaded.oof_logits.dtype == expected
        np.testing.assert_array_equal(loaded.oof_logits, run.oof_logits)


def test_saving_refuses_invalid_predictions_and_leaves_no_file(tmp_path):
    run = run_of()
    run.test_logits[1, 0] = np.nan
    with pytest.raises(PredictionsError, match=r"test_logits: NaN or infinity in 1 rows \(ids t1\)"):
        save_predictions(tmp_path / "run.npz", run)
    assert list(tmp_path.iterdir()) == []


NAN_ROW = np.array([[0, 0, 0], [0, 0, 0], [0, np.inf, 0], [0, 0, 0]], dtype=np.float32)
BAD_ARRAYS = {
    "one row too few": (
        {"oof_logits": NAN_ROW[:2]},
        r"oof_logits: expected floats of shape \(4, 3\), found float32 of shape \(2, 3\)",
    ),
    "one class too few": (
        {"test_logits": np.zeros((3, 2))},
        r"test_logits: expected floats of shape \(3, 3\), found float64 of shape \(3, 2\)",
    ),
    "infinity": ({"oof_logits": NAN_ROW}, r"oof_logits: NaN or infinity in 1 rows \(ids v2\)"),
    "labels in a column": (
        {"oof_labels": np.zeros((4, 1))},
        r"oof_labels: expected numbers of shape \(4,\), found float64 of shape \(4, 1\)",
    ),
    "labels too few": (
        {"oof_labels": np.zeros(3, int)},
        r"oof_labels: expected numbers of shape \(4,\), found int64 of shape \(3,\)",
    ),
    "ids as numbers": ({"test_ids": np.arange(3)}, r"test_ids: expected text of shape \(3,\), found int64"),
    "logits as integers": (
        {"test_logits": np.ones((3, 3), int)},
        "test_logits: expected floats of shape",
    ),
    "object array": ({"oof_ids": np.array(["v1", None], dtype=object)}, "is damaged"),
    "about is not JSON": ({"about": "{run:"}, "is damaged"),
    "about is a list": ({"about": "[1]"}, "about: expected a JSON object, found list"),
    "unknown target": ({"about": '{"run": "a.s1", "target": "rank"}'}, "about: target: expected .*, found 'rank'"),
    "about without a run": (
        {"about": "{}"},
        "about: run: expected text, found null(?s:.*)about: fold_sha256: expected text",
    ),
}


BAD_ARRAYS |= {
    "infinity in float32": (
        {"oof_logits": np.full((4, 3), 1e39)},
        r"oof_logits: NaN or infinity in 4 rows \(ids v0, v1, v2, \.\.\.\)",
    ),
    "seconds are infinite": ({"about": '{"run": "a.s1", "seconds": Infinity}'}, "is damaged(?s:.*)not a finite number"),
    "seconds beyond float64": ({"about": '{"run": "a.s1", "seconds": 1e999}'}, "is damaged(?s:.*)not a finite number"),
    "seconds of 400 digits": ({"about": '{"seconds": 1' + "0" * 400 + "}"}, "is damaged(?s:.*)finite number"),
    "nested lists": ({"about": "[" * 100_000 + "]" * 100_000}, "is damaged"),
}


@pytest.mark.parametrize("case", BAD_ARRAYS)
def test_loading_names_the_file_and_the_fault(case, tmp_path):
    changes, message = BAD_ARRAYS[case]
    file = changed(tmp_path / "run.npz", run_of(), **changes)
    with pytest.raises(PredictionsError, match=message) as error:
        load_predictions(file)
    assert str(file) in str(error.value)


def raw_members(file, run):
    """The bytes of each member of a predictions file."""
    save_predictions(file, run)
    with zipfile.ZipFile(file) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write_members(file, members):
    """Write an archive of these members."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


@pytest.mark.parametrize("member", ["about.json", "about.npy", "oof_logits.npy"])
def test_a_small_file_that_unpacks_to_gigabytes_is_refused_before_that(member, tmp_path, monkeypatch):
    file, run = tmp_path / "run.npz", run_of()
    monkeypatch.setattr(artefact, "LARGE_BYTES", 1 << 22)
    members = raw_members(file, run) | {"about.json": json.dumps(run.about)}
    members.pop("about.json" if member == "about.npy" else member)
    write_members(file, members)
    with zipfile.ZipFile(file, "a", zipfile.ZIP_DEFLATED) as archive, archive.open(member, "w") as stream:
        stream.write(b"\x93NUMPY\x01\x00")
        for _ in range(100):
            stream.write(bytes(1 << 20))
    tracemalloc.start()
    with pytest.raises(PredictionsError, match=r"is damaged(?s:.*) bytes"):
        load_predictions(file)
    assert member == "oof_logits.npy" or read_about(file) is None
    assert tracemalloc.get_traced_memory()[1] < 30e6
    tracemalloc.stop()


def test_an_array_whose_header_promises_more_than_there_is_is_refused(tmp_path):
    file, run, stream = tmp_path / "run.npz", run_of(), io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "<f4", "fortran_order": False, "shape": (10**9, 3)})
    about = {"about.json": json.dumps(run.about)}
    write_members(file, raw_members(file, run) | about | {"test_logits.npy": stream.getvalue()})
    with pytest.raises(PredictionsError, match=r"test_logits\.npy of shape \(1000000000, 3\)"):
        load_predictions(file)


def test_arrays_that_are_not_those_saved_with_the_description_are_stale_and_refused(tmp_path):
    file, run, stream = tmp_path / "run.npz", run_of(stamp="now"), io.BytesIO()
    members = raw_members(file, run)
    assert not is_stale(read_about(file), stamp="now", weights="")
    run.test_logits[0, 0] = np.nan
    np.save(stream, run.test_logits)
    write_members(file, members | {"test_logits.npy": stream.getvalue()})
    assert is_stale(read_about(file), stamp="now", weights="")
    with pytest.raises(PredictionsError, match=r"not those that were saved with about\.json"):
        load_predictions(file)


def test_a_file_that_the_system_cannot_read_is_neither_damaged_nor_stale(tmp_path, monkeypatch):
    file = tmp_path / "run.npz"
    save_predictions(file, run_of())
    for number, reason in ((errno.EACCES, "Permission denied"), (errno.EIO, "Input/output error")):

        def refuse(*_, number=number, reason=reason):
            raise OSError(number, reason, str(file))

        monkeypatch.setattr(zipfile.ZipFile, "__init__", refuse)
        with pytest.raises(PredictionsError, match=f"cannot be read(?s:.*){reason}") as error:
            load_predictions(file)
        assert "rm " not in str(error.value)
        with pytest.raises(OSError, match=reason):
            is_stale(read_about(file), stamp="now", weights="")
        monkeypatch.undo()


def test_all_faults_of_a_file_are_reported_at_once(tmp_path):
    file = changed(tmp_path / "run.npz", run_of(), oof_logits=NAN_ROW, test_logits=np.full((3, 3), np.nan))
    with pytest.raises(PredictionsError) as error:
        load_predictions(file)
    assert len(error.value.faults) == 2


@pytest.mark.parametrize("content", [b"", b"no archive", b"\x80\x04N.", b"PK\x03\x04 and no more"])
def test_a_file_that_is_not_an_archive_is_refused(content, tmp_path):
    file = tmp_path / "run.npz"
    file.write_bytes(content)
    with pytest.raises(PredictionsError, match="is damaged"):
        load_predictions(file)


def test_an_npy_file_is_refused(tmp_path):
    file, stream = tmp_path / "run.npz", io.BytesIO()
    np.save(stream, np.zeros(3))
    file.write_bytes(stream.getvalue())
    with pytest.raises(PredictionsError, match="is damaged"):
        load_predictions(file)


def test_a_file_truncated_at_any_byte_is_refused(tmp_path):
    file = tmp_path / "run.npz"
    save_predictions(file, run_of())
    whole = file.read_bytes()
    for length in range(0, len(whole), 97):
        file.write_bytes(whole[:length])
        with pytest.raises(PredictionsError, match="is damaged"):
            load_predictions(file)


def test_a_changed_byte_never_gives_a_traceback(tmp_path):
    file = tmp_path / "run.npz"
    save_predictions(file, run_of())
    whole = file.read_bytes()
    for place in range(0, len(whole), 13):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        try:
            load_predictions(file)  # some bytes, such as a member's date, are not read
        except PredictionsError as error:
            assert str(file) in str(error)


def test_a_missing_array_is_named(tmp_path):
    file = tmp_path / "run.npz"
    save_predictions(file, run_of())
    np.savez(file, **{name: array for name, array in arrays_of(file).items() if name != "test_ids"})
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("about.json", json.dumps(run_of().about))
    with pytest.raises(PredictionsError, match=r"test_ids\.npy"):
        load_predictions(file)


def test_the_error_for_a_missing_file_names_the_command_that_makes_it(tmp_path):
    with pytest.raises(PredictionsError, match=r"fix: .*make train"):
        load_predictions(tmp_path / "run.npz")


def test_about_is_stored_as_json_that_sorts_its_keys(tmp_path):
    save_predictions(tmp_path / "run.npz", run_of(seconds=1.5))
    with zipfile.ZipFile(tmp_path / "run.npz") as archive:
        text = archive.read("about.json").decode()
    assert text == json.dumps(json.loads(text), sort_keys=True)
