"""All runs of a competition: their size before they are read, and their rows."""

import tracemalloc
from dataclasses import replace

import pytest

from podium.ensemble import blend as blend_module
from podium.ensemble import cross_fit as cross_fit_module
from podium.ensemble.write import write_ensemble
from podium.errors import PredictionsError, SubmissionError
from podium.predictions import load as load_module
from podium.predictions.artefact import save_predictions
from podium.predictions.load import PoolSize, available_memory, load_runs, pool_size
from toy_runs import SETTINGS, lock_for, make_project, random_run


def test_the_size_is_that_of_the_runs_and_the_lock(tmp_path):
    workspace = make_project(tmp_path, [random_run(f"a.s{seed}", seed=seed) for seed in (1, 2)])
    assert pool_size(workspace) == PoolSize(runs=2, rows=40, tests=30, classes=3)


def test_runs_that_need_more_memory_than_there_is_are_refused_before_they_are_read(tmp_path, monkeypatch):
    workspace = make_project(tmp_path, [random_run("a.s1")])
    assert len(load_runs(workspace).runs) == 1
    monkeypatch.setattr(load_module, "MEMORY_FILE", tmp_path / "meminfo")
    load_runs(workspace)  # a system that has no such file
    (tmp_path / "meminfo").write_text("MemTotal:  8000 kB\nMemAvailable:      30 kB\n")
    assert available_memory() == 30 * 1024
    workspace.paths.predictions_file("a.s1").write_bytes(b"never opened")
    with pytest.raises(PredictionsError, match=r"expected: 0.0 GB of available memory"):
        load_runs(workspace)


@pytest.mark.parametrize(
    ("strategy", "runs", "rows", "classes"),
    [("log-loss", 60, 300, 20), ("accuracy", 3, 200, 600), ("auto", 3, 200, 60)],
)
def test_an_ensemble_needs_no_more_memory_than_it_says(strategy, runs, rows, classes, tmp_path, monkeypatch):
    monkeypatch.setattr(cross_fit_module, "MANY_LOGITS", 1)
    monkeypatch.setattr(blend_module, "VALUES_AT_A_TIME", 20_000)
    names = tuple(f"c{place}" for place in range(classes))
    pool = [random_run(f"a{run}.s1", rows=rows, tests=rows, classes=names, seed=run) for run in range(runs)]
    lock = lock_for(pool[0])
    workspace = make_project(tmp_path, [], lock=lock, settings=SETTINGS.replace("rows = 40", f"rows = {rows}"))
    for run in pool:
        about = run.about | {"fold_sha256": lock.fold_sha256}
        save_predictions(workspace.paths.predictions_file(run.run), replace(run, about=about))
    del pool
    tracemalloc.start()
    try:
        write_ensemble(workspace, strategy=strategy)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert 0.2 < peak / pool_size(workspace).memory_bytes < 1


def test_rehearsed_runs_have_some_of_the_validation_rows_and_trained_ones_all(tmp_path):
    lock = lock_for(random_run("any.s1"))
    workspace = make_project(tmp_path, [random_run(f"{name}.s1", rows=25) for name in "ba"], lock=lock)
    aligned = load_runs(workspace, rehearsed=True)
    assert aligned.runs == ("a.s1", "b.s1") and len(aligned.oof_ids) == 25
    with pytest.raises(PredictionsError, match="15 validation ids are missing"):
        load_runs(workspace)


def test_without_predictions_the_command_that_makes_them_is_named(tmp_path):
    with pytest.raises(SubmissionError, match=r"fix: +make train COMPETITION=toy"):
        load_runs(make_project(tmp_path, []))
