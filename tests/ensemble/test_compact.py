"""Compact predictions: half the bytes, the same submission, or nothing at all."""

import errno
import os
from dataclasses import replace

import numpy as np
import pytest

from podium.ensemble import compact as compact_module
from podium.ensemble.compact import compact_predictions
from podium.ensemble.write import write_ensemble
from podium.errors import PredictionsError
from podium.predictions.artefact import load_predictions
from toy_runs import SETTINGS, make_project, random_run


def test_compact_predictions_are_smaller_and_give_the_same_csv(tmp_path):
    workspace = make_project(tmp_path, [random_run(f"a.s{seed}", seed=seed) for seed in (1, 2)])
    csv = write_ensemble(workspace).csv_file.read_bytes()
    before, after = compact_predictions(workspace)
    sizes = sum(file.stat().st_size for file in workspace.paths.predictions_folder.glob("*.npz"))
    assert after == sizes < before
    assert write_ensemble(workspace).csv_file.read_bytes() == csv
    with np.load(workspace.paths.predictions_file("a.s1")) as arrays:
        assert {arrays["oof_logits"].dtype, arrays["test_logits"].dtype} == {np.dtype(np.float16)}


def test_where_a_label_would_change_every_file_stays(tmp_path):
    run = random_run("a.s1")
    logits = run.test_logits.copy()
    logits[0] = [1.0, 1.0 + 1e-6, 0.0]  # both are 1.0 in float16, and the first of equal ones is predicted
    workspace = make_project(tmp_path, [replace(run, test_logits=logits)])
    file = workspace.paths.predictions_file("a.s1")
    bytes_before = file.read_bytes()
    with pytest.raises(PredictionsError, match="1 of 30 rows change"):
        compact_predictions(workspace)
    assert file.read_bytes() == bytes_before


def test_where_a_probability_would_change_every_file_stays(tmp_path):
    settings = SETTINGS + '[submission]\nkind = "probabilities"\n'
    workspace = make_project(tmp_path, [random_run("a.s1")], settings=settings)
    file = workspace.paths.predictions_file("a.s1")
    bytes_before = file.read_bytes()
    with pytest.raises(PredictionsError, match="30 of 30 rows change"):
        compact_predictions(workspace)
    assert file.read_bytes() == bytes_before


def full_disk_when_the_last_run_is_written(monkeypatch):
    original = compact_module.write_predictions

    def write(stream, file, predictions):
        original(stream, file, predictions)
        if file.stem == "a.s2":
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(compact_module, "write_predictions", write)


def full_disk_when_the_last_run_is_flushed(monkeypatch):
    original, descriptors = os.fsync, []

    def fsync(descriptor):
        descriptors.append(descriptor)
        if len(descriptors) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        original(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)


@pytest.mark.parametrize("fill", [full_disk_when_the_last_run_is_written, full_disk_when_the_last_run_is_flushed])
def test_a_disk_that_the_last_run_fills_leaves_every_file(tmp_path, monkeypatch, fill):
    workspace = make_project(tmp_path, [random_run(f"a.s{seed}", seed=seed) for seed in (1, 2)])
    folder = workspace.paths.predictions_folder
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    fill(monkeypatch)
    with pytest.raises(OSError, match="No space"):
        compact_predictions(workspace)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


def test_logits_beyond_float16_are_its_largest(tmp_path):
    run = random_run("a.s1")
    sure = np.eye(3, dtype=np.float32)[run.test_logits.argmax(axis=1)] * 1e5
    workspace = make_project(tmp_path, [replace(run, test_logits=sure)])
    compact_predictions(workspace)
    assert np.isfinite(load_predictions(workspace.paths.predictions_file("a.s1")).test_logits).all()
