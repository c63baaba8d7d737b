"""Predictions of another program: three kinds of file, rows in any order, the same checks."""

import csv
import io
import zipfile

import numpy as np
import pandas
import pytest

from podium.ensemble.write import write_ensemble
from podium.errors import ConfigError, PredictionsError
from podium.lock import Lock, write_lock
from podium.metrics import softmax
from podium.predictions import artefact as artefact_module
from podium.predictions.artefact import load_predictions
from podium.predictions.importing import import_predictions
from podium.workspace import open_workspace

CLASSES = ("bird", "cat", "dog")
SETTINGS = 'title = "Toy"\n[data]\nsource = "folders"\n[validation]\nrows = 20\n'
RECIPE = 'architecture = "resnet34"\nseeds = [1, 2]\nepochs = 1\nlearning_rate = 0.1\n'


@pytest.fixture
def workspace(tmp_path):
    folder = tmp_path / "competitions" / "toy"
    folder.mkdir(parents=True)
    (folder / "competition.toml").write_text(SETTINGS)
    (folder / "resnet34.toml").write_text(RECIPE)
    workspace = open_workspace("toy", tmp_path)
    ids = np.array([f"v{row:02}" for row in range(30)])
    folds = np.where(np.arange(30) < 20, 0, -1)
    lock = Lock("data", CLASSES, ids, np.arange(30) % 3, folds, np.array([f"t{row}" for row in range(6)]))
    write_lock(workspace.paths.lock_file, lock)
    return workspace


def logits(count, *, sure=2.0):
    draw = np.random.default_rng(count)
    return np.eye(3)[np.arange(count) % 3] * sure + draw.normal(size=(count, 3))


def table(prefix, values, *, order=(2, 0, 1), seed=None, width=2):
    """Columns by name, class columns in another order; rows shuffled if there is a seed."""
    ids = [f"{prefix}{row:0{width}}" for row in range(len(values))]
    rows = np.arange(len(values)) if seed is None else np.random.default_rng(seed).permutation(len(values))
    columns = {"id": [ids[row] for row in rows]}
    return columns | {CLASSES[k]: values[rows, k].tolist() for k in order}


def write(file, columns):
    if file.suffix == ".csv":
        with file.open("w", newline="") as stream:
            csv.writer(stream).writerows([columns, *zip(*columns.values(), strict=True)])
    elif file.suffix == ".parquet":
        pandas.DataFrame(columns).to_parquet(file)
    else:
        np.savez(file, **{name: np.array(column) for name, column in columns.items()})
    return file


def tables(folder, *, suffix=".csv", seed=None, of=softmax):
    oof, test = of(logits(20)), of(logits(6))
    return {
        "oof": write(folder / f"oof{suffix}", table("v", oof, seed=seed)),
        "test": write(folder / f"test{suffix}", table("t", test, seed=seed, width=1)),
    }


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".npz"])
def test_each_kind_of_file_gives_the_same_run_in_any_order_of_its_rows(workspace, tmp_path, suffix):
    import_predictions(workspace, "colleague.s1", **tables(tmp_path))
    file = workspace.paths.predictions_file("colleague.s1")
    before = file.read_bytes()
    import_predictions(workspace, "colleague.s1", **tables(tmp_path, suffix=suffix, seed=3))
    assert file.read_bytes() == before
    loaded = load_predictions(file)
    np.testing.assert_allclose(softmax(loaded.oof_logits), softmax(logits(20)), atol=1e-6)
    assert loaded.about["came_as"] == "probabilities" and loaded.about["architecture"] == "colleague"
    assert loaded.about["scores"]["accuracy"] == (logits(20).argmax(axis=1) == np.arange(20) % 3).mean()
    loss = -np.log(softmax(logits(20))[np.arange(20), np.arange(20) % 3]).mean()
    assert loaded.about["scores"]["log_loss"] == pytest.approx(loss, abs=1e-6)


def test_logits_are_kept(workspace, tmp_path):
    run = import_predictions(workspace, "one.s1", **tables(tmp_path, of=lambda values: values))
    np.testing.assert_allclose(run.oof_logits, logits(20), atol=1e-6)
    assert run.about["came_as"] == "logits"


def test_an_imported_run_is_blended_with_a_caveat(workspace, tmp_path):
    import_predictions(workspace, "vit.s1", **tables(tmp_path))
    result = write_ensemble(workspace).result
    assert [run.architecture for run in result.runs] == ["vit"]
    assert any("1 of 1 members are imported" in caveat for caveat in result.caveats)


def broken(name):
    columns = table("v", softmax(logits(20)))
    if name == "a class is missing":
        columns["catt"] = columns.pop("cat")
    if name == "a column too many":
        columns["label"] = ["x"] * 20
    if name == "no ids":
        columns["key"] = columns.pop("id")
    if name == "an id twice":
        columns["id"][3] = "v04"
    if name == "another id":
        columns["id"][3] = "w04"
    if name == "no number":
        columns["dog"][3] = "much"
    if name == "NaN":
        columns["dog"][3] = float("nan")
    if name == "beyond float32":
        columns["dog"][3] = 1e39
    if name == "sums":
        columns["dog"] = [0.9] * 20
    return columns


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a class is missing", r"columns that are not classes: catt(?s:.*)no column for the class 'cat'"),
        ("a column too many", "columns that are not classes: label"),
        ("no ids", "no id column"),
        ("an id twice", r"1 ids are repeated \(v04\)(?s:.*)line 6: the id .v04., as in line 5"),
        ("another id", "1 ids are unknown \\(w04\\)"),
        ("no number", "1 rows have a cell that is no finite number: line 5, id v03: much for dog"),
        ("NaN", "line 5, id v03: nan for dog"),
        ("beyond float32", r"line 5, id v03: 1e[+]39 for dog"),
        ("sums", "rows do not sum to 1"),
    ],
)
def test_a_faulty_table_is_refused_by_file(workspace, tmp_path, name, message):
    files = tables(tmp_path)
    write(files["oof"], broken(name))
    with pytest.raises(PredictionsError, match=message) as caught:
        import_predictions(workspace, "colleague.s1", **files)
    assert str(files["oof"]) in str(caught.value)
    assert not workspace.paths.predictions_file("colleague.s1").exists()


def test_missing_damaged_and_different_kinds_of_tables_are_refused(workspace, tmp_path):
    files = tables(tmp_path)
    for name, message in (("none.csv", "cannot be read(?s:.*)No such file"), ("oof.txt", "cannot read this kind")):
        with pytest.raises(PredictionsError, match=message):
            import_predictions(workspace, "colleague.s1", **files | {"oof": tmp_path / name})
    (tmp_path / "bad.npz").write_bytes(b"PK\x03\x04 no archive")
    (tmp_path / "bad.parquet").write_bytes(b"no parquet")
    (tmp_path / "bad.csv").write_text("id,bird,cat,dog\nv00,1\n")
    for name in ("bad.npz", "bad.parquet", "bad.csv"):
        with pytest.raises(PredictionsError, match="cannot be read"):
            import_predictions(workspace, "colleague.s1", **files | {"oof": tmp_path / name})
    with pytest.raises(PredictionsError, match="line 2 has 2 cells, 4 columns: v00,1"):
        import_predictions(workspace, "colleague.s1", **files | {"oof": tmp_path / "bad.csv"})
    (tmp_path / "bad.csv").write_text("id,bird,cat,dog,cat\nv00,1,0,0,1\n")
    with pytest.raises(PredictionsError, match="several columns have one name: id,bird,cat,dog,cat"):
        import_predictions(workspace, "colleague.s1", **files | {"oof": tmp_path / "bad.csv"})
    write(files["test"], table("t", logits(6), width=1))
    with pytest.raises(PredictionsError, match="different kinds"):
        import_predictions(workspace, "colleague.s1", **files)


def test_a_competition_without_recipes_imports_and_blends(workspace, tmp_path):
    (workspace.paths.folder / "resnet34.toml").unlink()
    workspace = open_workspace("toy", tmp_path)
    import_predictions(workspace, "colleague.s1", **tables(tmp_path))
    assert write_ensemble(workspace).csv_file.is_file()


def test_the_name_of_a_recipes_run_is_refused(workspace, tmp_path):
    files = tables(tmp_path)
    for name, message in (("resnet34.s1", "name of a recipe.s run"), ("../up", "cannot be the name")):
        with pytest.raises(ConfigError, match=message):
            import_predictions(workspace, name, **files)


def test_the_same_predictions_by_another_name_are_refused(workspace, tmp_path):
    import_predictions(workspace, "colleague.s1", **tables(tmp_path))
    with pytest.raises(PredictionsError, match=r"imported already, as colleague\.s1"):
        import_predictions(workspace, "other.s1", **tables(tmp_path, suffix=".npz", seed=3))
    import_predictions(workspace, "colleague.s1", **tables(tmp_path))


def test_a_row_of_a_table_without_lines_is_named(workspace, tmp_path):
    files = tables(tmp_path, suffix=".parquet")
    write(files["oof"], broken("NaN"))
    with pytest.raises(PredictionsError, match="row 4, id v03: nan for dog"):
        import_predictions(workspace, "colleague.s1", **files)


def test_an_npz_table_is_not_unpacked_beyond_what_its_size_can_hold(workspace, tmp_path, monkeypatch):
    monkeypatch.setattr(artefact_module, "LARGE_BYTES", 1000)
    files = tables(tmp_path)
    files["oof"] = tmp_path / "zeros.npz"
    np.savez_compressed(files["oof"], id=np.zeros(100_000), **{name: np.zeros(100_000) for name in CLASSES})
    with pytest.raises(PredictionsError, match=r"id.npy has 800,128 bytes, compressed to"):
        import_predictions(workspace, "colleague.s1", **files)
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (10**12, 3)})
    with zipfile.ZipFile(files["oof"], "w") as archive:
        archive.writestr("id.npy", header.getvalue())
    with pytest.raises(PredictionsError, match=r"of shape \(1000000000000, 3\)"):
        import_predictions(workspace, "colleague.s1", **files)
