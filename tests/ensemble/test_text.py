"""What `make ensemble` prints."""

from podium.ensemble import build as build_module
from podium.ensemble.text import cost_lines, ensemble_lines
from podium.ensemble.write import write_ensemble
from podium.predictions.align import pool_size
from toy_runs import make_project, random_run


def test_the_cost_of_very_many_logits_is_printed_first(tmp_path, monkeypatch):
    workspace = make_project(tmp_path, [random_run(f"{name}.s1", seed=seed) for seed, name in enumerate("abc")])
    assert cost_lines(pool_size(workspace)) == []
    monkeypatch.setattr(build_module, "MOST_WORK", 3 * 40 * 3 * (3 + 3) - 1)
    assert cost_lines(pool_size(workspace))[0].startswith("3 runs x 40 validation rows x 3 classes: at most 0.0 GB")


def test_a_difference_that_is_rounded_to_zero_has_no_minus_sign(tmp_path):
    workspace = make_project(tmp_path, [random_run(f"{name}.s1", seed=seed) for seed, name in enumerate("abc")])
    written = write_ensemble(workspace)
    written.result.used.in_sample["accuracy"] = written.result.used.cross_fitted["accuracy"] - 1e-9
    lines = "\n".join(ensemble_lines(written, stale=set()))
    assert "too good by +0.0000" in lines and "-0.0000" not in lines


def test_one_run_is_not_compared_with_itself(tmp_path):
    one, two = (
        "\n".join(ensemble_lines(write_ensemble(make_project(tmp_path / names, runs)), stale=set()))
        for names, runs in {name: [random_run(f"{run}.s1") for run in name] for name in ("a", "ab")}.items()
    )
    assert "compared with" in two and "strategy " in two
    assert (
        not any(words in one for words in ("compared with", "strategy", "corrected"))
        and "cross-fitted; 95 % interval" in one
    )
