"""The size of an ensemble before its runs are read."""

import pytest

from podium.errors import PredictionsError
from podium.predictions import size as size_module
from podium.predictions.align import load_runs
from podium.predictions.size import PoolSize, available_memory, pool_size
from toy_runs import make_project, random_run


def test_the_size_is_that_of_the_runs_and_the_lock(tmp_path):
    workspace = make_project(tmp_path, [random_run(f"a.s{seed}", seed=seed) for seed in (1, 2)])
    assert pool_size(workspace) == PoolSize(runs=2, rows=40, tests=30, values=3)


def test_runs_that_need_more_memory_than_there_is_are_refused_before_they_are_read(tmp_path, monkeypatch):
    workspace = make_project(tmp_path, [random_run("a.s1")])
    assert len(load_runs(workspace).runs) == 1
    monkeypatch.setattr(size_module, "MEMORY_FILE", tmp_path / "meminfo")
    load_runs(workspace)  # a system that has no such file
    (tmp_path / "meminfo").write_text("MemTotal:  8000 kB\nMemAvailable:      30 kB\n")
    assert available_memory() == 30 * 1024
    workspace.paths.predictions_file("a.s1").write_bytes(b"never opened")
    with pytest.raises(PredictionsError, match=r"expected: 0.0 GB of available memory"):
        load_runs(workspace)
