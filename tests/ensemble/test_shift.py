"""Runs that know validation rows, and test images that differ, are named; honest runs are not."""

from dataclasses import replace

import numpy as np
import pytest

from podium.config.keys import Ensemble
from podium.ensemble.build import build_ensemble
from podium.ensemble.pool import pool_of
from podium.ensemble.shift import MOST_NAMED, shift_warnings, z_of_difference
from podium.ensemble.text import ensemble_lines
from podium.ensemble.write import WrittenEnsemble
from podium.predictions.align import Aligned, load_runs
from podium.targets.target import Target
from podium.workspace import open_workspace
from toy_runs import join, random_run

ROWS, CLASSES, NAMES = 2000, 5, ("a.s1", "b.s1", "c.s1", "d.s1")


def simulated(seed, *, names=NAMES, test_noise=1.0):
    """Runs whose errors are correlated; without `test_noise`, the test images are as difficult as validation rows."""
    draw = np.random.default_rng(seed)
    labels = draw.integers(CLASSES, size=2 * ROWS)
    noise = draw.normal(size=(2 * ROWS, CLASSES)) + draw.normal(size=(len(names), 2 * ROWS, CLASSES))
    noise[:, ROWS:] *= test_noise
    logits = np.eye(CLASSES)[labels] * draw.uniform(3, 4, size=(len(names), 1, 1)) + noise
    ids = np.arange(2 * ROWS).astype(str)
    return Aligned(
        runs=tuple(names),
        abouts=tuple({"architecture": name} for name in names),
        oof_ids=ids[:ROWS],
        oof_logits=logits[:, :ROWS].astype(np.float32),
        oof_labels=labels[:ROWS],
        test_ids=ids[ROWS:],
        test_logits=logits[:, ROWS:].astype(np.float32),
        classes=tuple("abcde"),
        target=Target("class", CLASSES),
    )


def trained_on(aligned, run, *, share):
    """The runs after one of them was trained on a share of the validation rows: it is right and sure there."""
    logits = aligned.oof_logits.copy()
    known = np.arange(round(share * ROWS))
    logits[run, known] = np.eye(CLASSES)[aligned.oof_labels[known]] * 9
    return replace(aligned, oof_logits=logits)


def warnings(aligned):
    return shift_warnings(pool_of(aligned, Ensemble(), metric="accuracy"), aligned.test_logits)


def test_honest_runs_are_not_named():
    named = [bool(warnings(simulated(seed))) for seed in range(60)]
    assert sum(named) <= 2  # twelve measures exceed z = 3 by chance in 3 % of the simulations at most


def test_the_committed_runs_of_cifar10_have_no_warning():
    aligned = load_runs(open_workspace("cifar10-scratch"))
    assert len(aligned.runs) == 4 and warnings(aligned) == ()


@pytest.mark.parametrize("run", range(4))
def test_a_run_that_was_trained_on_a_fifth_of_the_validation_rows_is_the_only_one_named(run):
    for seed in range(5):
        (warning,) = warnings(trained_on(simulated(seed), run, share=0.2))
        assert warning.startswith(
            f"{NAMES[run]}: it knows validation rows, or the test differs: its calibrated confidence"
        )


def test_a_run_that_leaks_alone_is_compared_with_itself():
    honest = simulated(0, names=NAMES[:1])
    assert warnings(honest) == ()
    (warning,) = warnings(trained_on(honest, 0, share=0.6))
    assert warning.startswith("a.s1: it knows validation rows")


def test_a_perfect_run_is_never_taken_without_a_word():
    (warning,) = warnings(trained_on(simulated(1, names=NAMES[:1]), 0, share=1))[:1]
    assert warning == "a.s1: no error on the validation rows: trained on them?"


def test_runs_that_disagree_more_on_the_test_are_named_even_if_their_confidence_cannot_be_compared():
    aligned = simulated(2, test_noise=1.2)
    averaged = tuple({"architecture": "a", "test_logits_from": "average of 5 fold models"} for _ in NAMES)
    named = warnings(replace(aligned, abouts=averaged))
    assert len(named) == 4 and all("its disagreement with the other runs is" in warning for warning in named)


@pytest.mark.parametrize(("noise", "cause"), [(0.8, ": the test differs:"), (1.25, ": it knows validation rows, or")])
def test_test_images_of_another_difficulty_are_noticed(noise, cause):
    assert all(cause in warning for warning in warnings(simulated(3, test_noise=noise))) and warnings(
        simulated(3, test_noise=noise)
    )


@pytest.mark.parametrize("source", ["refit on all labelled rows", "average of 5 fold models"])
def test_other_models_may_have_another_confidence_on_the_test(source):
    aligned = simulated(4, names=NAMES[:1])
    doubled = replace(aligned, test_logits=aligned.test_logits * 2)
    assert warnings(doubled)
    assert not warnings(replace(doubled, abouts=({"architecture": "a", "test_logits_from": source},)))


def test_many_warnings_are_counted():
    named = warnings(simulated(5, names=[f"run.s{seed}" for seed in range(10)], test_noise=1.5))
    assert len(named) == MOST_NAMED + 1 and named[-1] == "4 more runs differ in this way"


def test_the_error_of_a_difference_is_that_of_two_samples_and_groups_widen_it():
    draw = np.random.default_rng(0)
    validation, test = draw.normal(size=400), draw.normal(size=100) + 0.5
    expected = (test.mean() - validation.mean()) / np.sqrt(validation.var() / 400 + test.var() / 100)
    assert z_of_difference(validation, test, np.arange(400)) == pytest.approx(expected, rel=0.1)
    repeated, unit = np.repeat(validation, 25), np.repeat(np.arange(400), 25)
    assert z_of_difference(repeated, np.repeat(test, 25), unit) == pytest.approx(expected, rel=0.1)
    assert z_of_difference(np.ones(4), np.ones(3), np.arange(4)) == 0


def test_warnings_are_printed_and_recorded_beside_the_score(tmp_path):
    runs = [random_run(f"{name}.s1", rows=400, seed=seed) for seed, name in enumerate("ab")]
    runs[1].oof_logits[:] = np.eye(3)[runs[1].oof_labels] * 5
    result = build_ensemble(join(runs), Ensemble(), metric="accuracy")
    lines = ensemble_lines(WrittenEnsemble(result, tmp_path / "a.csv", tmp_path / "a.json"), stale=set())
    assert "WARNING: b.s1: no error on the validation rows: trained on them?" in lines
    assert max(map(len, lines)) <= 100
