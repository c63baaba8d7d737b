"""Predictions: checked loading, atomic and repeatable saving, joining by id."""

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
from podium.predictions.align import align
from podium.predictions.artefact import load_predictions, save_predictions
from toy_runs import join, lock_for, random_run, run_of, shuffled


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
    "one row too few": ({"oof_logits": NAN_ROW[:2]}, r"oof_logits: expected shape \(4, 3\), found \(2, 3\)"),
    "one class too few": (
        {"test_logits": np.zeros((3, 2))},
        r"test_logits: expected shape \(3, 3\), found \(3, 2\)",
    ),
    "infinity": ({"oof_logits": NAN_ROW}, r"oof_logits: NaN or infinity in 1 rows \(ids v2\)"),
    "duplicate ids": (
        {"test_ids": np.array(["t1", "t1", "t2"])},
        r"test_ids: 1 ids occur more than once \(t1\)",
    ),
    "label too large": ({"oof_labels": np.array([0, 3, 1, 1])}, "oof_labels: expected 0 to 2, found 3"),
    "negative label": ({"oof_labels": np.array([0, -1, 1, 1])}, "oof_labels: expected 0 to 2, found -1"),
    "labels as floats": (
        {"oof_labels": np.zeros(4)},
        "oof_labels: expected integers in 1 dimensions, found float64",
    ),
    "labels too few": (
        {"oof_labels": np.zeros(3, int)},
        "oof_labels: expected 4 rows as in oof_ids, found 3",
    ),
    "ids as numbers": ({"test_ids": np.arange(3)}, "test_ids: expected text in 1 dimensions, found int64"),
    "logits as integers": (
        {"test_logits": np.ones((3, 3), int)},
        "test_logits: expected floats in 2 dimensions",
    ),
    "a class twice": (
        {"classes": np.array(["cat", "dog", "cat"])},
        "classes: expected two or more, all different",
    ),
    "one class": (
        {"classes": np.array(["cat"]), "oof_logits": np.ones((4, 1)), "test_logits": np.ones((3, 1))},
        "classes: expected two or more, all different, found cat",
    ),
    "no rows": (
        {"oof_ids": np.array([], "U1"), "oof_logits": np.zeros((0, 3)), "oof_labels": np.array([], int)},
        "oof_ids: expected at least one",
    ),
    "object array": ({"oof_ids": np.array(["v1", None], dtype=object)}, "is damaged"),
    "about is not JSON": ({"about": "{run:"}, "is damaged"),
    "about is a list": ({"about": "[1]"}, "about: expected a JSON object, found list"),
    "unknown target": ({"about": '{"run": "a.s1", "target": "rank"}'}, "about: expected a target of .*, found 'rank'"),
    "about without a run": (
        {"about": "{}"},
        "expected text under run, architecture, fingerprint, fold",
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
    assert not is_stale(file, stamp="now", weights="")
    run.test_logits[0, 0] = np.nan
    np.save(stream, run.test_logits)
    write_members(file, members | {"test_logits.npy": stream.getvalue()})
    assert is_stale(file, stamp="now", weights="")
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
            is_stale(file, stamp="now", weights="")
        monkeypatch.undo()


def test_all_faults_of_a_file_are_reported_at_once(tmp_path):
    file = changed(tmp_path / "run.npz", run_of(), oof_logits=NAN_ROW, oof_labels=np.array([0, 9, 0, 0]))
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


def test_runs_are_joined_by_id_in_any_order_of_their_rows():
    runs = [random_run(name, seed=seed) for seed, name in enumerate(("a.s1", "a.s2", "b.s1"))]
    ordered = join(runs)
    mixed = join([shuffled(run, seed=seed) for seed, run in enumerate(reversed(runs))])
    assert ordered.runs == mixed.runs == ("a.s1", "a.s2", "b.s1")
    for name in ("oof_ids", "oof_logits", "oof_labels", "test_ids", "test_logits"):
        np.testing.assert_array_equal(getattr(ordered, name), getattr(mixed, name))
    row = list(ordered.test_ids).index("17")
    np.testing.assert_array_equal(ordered.test_logits[1, row], runs[1].test_logits[16])


def test_a_single_run_is_aligned():
    aligned = join([run_of()])
    assert aligned.oof_logits.shape == (1, 4, 3)
    assert aligned.oof_ids.tolist() == ["v0", "v1", "v2", "v3"]


def test_half_precision_runs_in_memory_are_widened():
    run = run_of()
    half = dataclasses.replace(run, oof_logits=run.oof_logits.astype(np.float16))
    assert join([half]).oof_logits.dtype == np.float32


DIFFERENT = {
    "labels": ({"oof_labels": np.array([0, 1, 1, 0])}, r"other labels in 1 rows \(ids v2\)"),
    "test ids": ({"test_ids": np.array(["t0", "t1", "t9"])}, r"1 test ids are missing \(t2\)"),
    "other test ids": ({"test_ids": np.array(["t0", "t1", "t9"])}, r"1 test ids are unknown \(t9\)"),
    "validation ids": ({"oof_ids": np.array(["v0", "v1", "v2", "x"])}, r"1 validation ids are missing \(v3\)"),
    "class order": ({"classes": ("cat", "bird", "dog")}, "classes: expected bird, cat, dog, found cat, bird, dog"),
}


@pytest.mark.parametrize("case", DIFFERENT)
def test_only_the_run_that_differs_from_the_lock_is_named(case):
    changes, message = DIFFERENT[case]
    other = dataclasses.replace(run_of("vgg19.s1"), **changes)
    with pytest.raises(PredictionsError, match=r"vgg19\.s1 .*" + message) as error:
        join([run_of("resnet34.s1"), other])
    assert "resnet34" not in str(error.value)


@pytest.mark.parametrize("key", ["fold_sha256", "fingerprint"])
def test_runs_of_other_folds_or_data_are_refused(key):
    with pytest.raises(PredictionsError, match=rf"b\.s1 .*: {key}: expected .*, found other"):
        join([run_of("a.s1"), run_of("b.s1", **{key: "other"})])


def test_runs_are_judged_by_the_lock_and_not_by_the_first_run():
    lock = lock_for(run_of())
    good = [run_of(name, fold_sha256=lock.fold_sha256) for name in ("b.s1", "c.s1", "d.s1")]
    bad = run_of("a.s1", fold_sha256="other")
    with pytest.raises(PredictionsError) as error:
        align([bad, *good], lock)
    assert [fault.split()[0] for fault in error.value.faults] == ["a.s1"]


def test_two_files_of_one_run_are_refused():
    with pytest.raises(PredictionsError, match=r"a\.s1 .*: the same run is in memory"):
        join([run_of("a.s1"), run_of("a.s1")])


def test_all_runs_that_differ_are_reported_at_once():
    with pytest.raises(PredictionsError) as error:
        join(
            [
                run_of("a.s1"),
                run_of("b.s1", fold_sha256="x"),
                run_of("c.s1", fold_sha256="y", labels=(0, 1, 1, 0)),
            ]
        )
    assert [fault.split()[0] for fault in error.value.faults] == ["b.s1", "c.s1", "c.s1"]


def test_about_is_stored_as_json_that_sorts_its_keys(tmp_path):
    save_predictions(tmp_path / "run.npz", run_of(seconds=1.5))
    with zipfile.ZipFile(tmp_path / "run.npz") as archive:
        text = archive.read("about.json").decode()
    assert text == json.dumps(json.loads(text), sort_keys=True)
