"""What `make ensemble` prints."""

from podium.ensemble import build as build_module
from podium.ensemble.text import cost_lines
from podium.ensemble.write import write_ensemble
from podium.predictions.load import pool_size
from toy_runs import make_project, random_run


def test_with_very_many_logits_only_the_strategy_in_use_is_compared_and_the_cost_is_told_first(tmp_path, monkeypatch):
    workspace = make_project(tmp_path, [random_run(f"{name}.s1", seed=seed) for seed, name in enumerate("abc")])
    assert cost_lines(pool_size(workspace)) == []
    assert len(write_ensemble(workspace).result.strategies) == 10
    monkeypatch.setattr(build_module, "MOST_WORK", 3 * 40 * 3 * (3 + 3) - 1)
    assert cost_lines(pool_size(workspace))[0].startswith("3 runs x 40 validation rows x 3 classes: at most 0.0 GB")
    assert [score.strategy for score in write_ensemble(workspace).result.strategies] == [
        "best",
        "uniform",
        "accuracy",
        "log-loss",
    ]
