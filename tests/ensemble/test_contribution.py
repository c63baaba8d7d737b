"""How much a run adds to the blend, and which run to train next."""

from dataclasses import replace

import numpy as np
import pytest

from podium.config.keys import Ensemble
from podium.ensemble import blend as blend_module
from podium.ensemble.blend import Blend, blended, without_each_run
from podium.ensemble.build import build_ensemble
from podium.ensemble.contribution import suggest
from podium.ensemble.pool import pool_of
from podium.ensemble.text import suggestion_lines
from podium.metrics import softmax
from toy_runs import join, pool_from, random_run, run_of

SETTINGS = Ensemble(run_temperatures="never")


def test_error_correlation_is_one_for_the_same_errors_and_minus_one_for_the_opposite():
    labels = np.array([[0, 0, 1, 1], [0, 0, 1, 1], [1, 1, 0, 0], [0] * 4])
    correlation = pool_from(np.eye(2)[labels], [0] * 4).error_correlation
    assert correlation[0].tolist() == pytest.approx([1, 1, -1, 0])
    assert correlation[3].tolist() == [0, 0, 0, 0]  # a run without errors


def test_disagreement_is_the_share_of_rows_with_another_class():
    labels = np.array([[0, 1, 2, 0], [0, 1, 1, 1]])
    assert pool_from(np.eye(3)[labels], [0] * 4).disagreement[0].tolist() == [0, 0.5]


def test_error_correlation_and_disagreement_of_a_run_are_means_over_the_other_runs():
    labels = (0, 1, 0, 1)
    runs = [("a.s1", (1, 1, 0, 1)), ("b.s1", (1, 1, 0, 1)), ("c.s1", (0, 1, 1, 1))]
    joined = join([run_of(name, labels=labels, predicted=predicted) for name, predicted in runs])
    first, *_, last = build_ensemble(joined, replace(SETTINGS, strategy="uniform"), metric="accuracy").contributions
    assert first.disagreement == (0 + 0.5) / 2 and last.disagreement == (0.5 + 0.5) / 2
    assert first.error_correlation == pytest.approx((1 - 1 / 3) / 2)  # 1 with b, -1/3 with c
    assert last.error_correlation == pytest.approx(-1 / 3)
    two = build_ensemble(
        join([run_of(*runs[0][:1], labels=labels), run_of("c.s1", labels=labels, predicted=runs[2][1])]),
        SETTINGS,
        metric="accuracy",
    )
    assert [row.disagreement for row in two.contributions] == [0.25, 0.25]


def test_the_verdict_is_drop_for_a_harmful_run_and_keep_for_a_useful_one():
    good = [random_run(f"good.s{seed}", rows=800, seed=seed, noise=1.5) for seed in (1, 2)]
    bad = random_run("bad.s1", rows=800, seed=9, noise=1.0)
    bad.oof_logits[:] = -3 * good[0].oof_logits
    settings = Ensemble(run_temperatures="never", strategy="uniform", select="all")
    result = build_ensemble(join([*good, bad]), settings, metric="accuracy")
    contributions = {row.run: row for row in result.contributions}
    assert (
        contributions["bad.s1"].verdict == "drop: the blend is better without it"
        and contributions["bad.s1"].interval[1] < 0
    )
    assert contributions["good.s2"].verdict == "keep" and contributions["good.s2"].loss > 0


@pytest.mark.parametrize(
    ("strategy", "weights", "without"),
    [
        ("stack", [0.8, 0.5, -0.45], {0: [0, 0.5 + 0.8 * 0.5 / 0.95, -0.45 + 0.8 * 0.45 / 0.95]}),
        ("uniform", [0.5, 0.3, 0.2], {0: [0, 0.6, 0.4], 2: [0.625, 0.375, 0]}),
        ("log-loss", [0.999999, 0, 1e-6], {0: [0, 0, 1]}),
        ("best", [1, 0, 0], {}),
    ],
)
def test_without_a_run_its_weight_is_divided_by_the_sizes_of_the_others(strategy, weights, without):
    logits = np.random.default_rng(0).normal(size=(3, 20, 4)).astype(np.float32)
    biases, average = (np.arange(4.0), "logits") if strategy == "stack" else (None, "probabilities")
    blend = Blend(strategy, average, np.array([1.0, 2.0, 0.5]), np.array(weights), biases, 1.0)
    logs_without = without_each_run(blend, logits)
    assert logs_without.keys() == ({place for place in range(3) if weights[place]} if without else set())
    for run, expected in without.items():
        (logs,) = blended([replace(blend, weights=np.array(expected))], logits)
        np.testing.assert_allclose(softmax(logs_without[run]), softmax(logs), atol=1e-12)


def test_the_blends_without_each_run_read_each_value_a_fixed_number_of_times(monkeypatch):
    """Twice as many runs cost twice as much, not four times."""
    read = 0

    class Counted(np.ndarray):
        def __array_ufunc__(self, ufunc, method, *inputs, **options):
            nonlocal read
            arrays = [np.asarray(value).view(np.ndarray) for value in inputs]
            read += max(array.size for array in arrays)
            result = getattr(ufunc, method)(*arrays, **options)
            return result.view(Counted)

    monkeypatch.setattr(blend_module, "calibrated", lambda logits, *_: logits.view(Counted))
    for runs in (10, 20):
        read = 0
        blend = Blend("uniform", "logits", np.ones(runs), np.full(runs, 1 / runs), None)
        assert len(without_each_run(blend, np.ones((runs, 5, 3)))) == runs
        assert 0 < read <= 8 * runs * 5 * 3


def test_verdicts_are_corrected_for_the_number_of_runs():
    runs = [random_run(f"a.s{seed:02}", rows=300, seed=seed, noise=3.0) for seed in range(1, 21)]
    settings = Ensemble(run_temperatures="never", strategy="uniform", select="all")
    result = build_ensemble(join(runs), settings, metric="log_loss", only=True)
    rows = result.contributions
    # Of twenty intervals, one misses 0 by chance.
    verdicts = {row.verdict for row in rows if row.interval[0] > 0 or row.interval[1] < 0}
    assert verdicts == {"keep", "unclear: no difference beyond noise"}


def suggestions(predicted, recipes, *, labels, seconds=60.0, **settings):
    """What is suggested beside runs named recipe.seed, which predict these classes."""
    about = {"seconds": seconds} if seconds else {}
    runs = [
        run_of(name, labels=labels, predicted=row, recipe_name=name.split(".")[0], **about)
        for name, row in predicted.items()
    ]
    return suggest(pool_of(join(runs), replace(SETTINGS, **settings), metric="accuracy"), recipes)


def test_recipes_are_ordered_by_fixed_rows_per_hour_after_those_never_trained():
    predicted = {"weak.s1": (0, 0, 0, 1), "other.s1": (0, 0, 1, 1), "other.s2": (0, 0, 1, 1)}
    first, second, third = suggestions(predicted, ["weak", "other", "new"], labels=(0, 0, 0, 0), seconds=1800.0)
    assert first.recipe == "new" and first.fixed_per_hour is first.seconds is None
    # The vote of the other recipes is wrong in rows 2 and 3; weak predicts one of them correctly, in half an hour.
    assert (second.recipe, second.fixed, second.fixed_per_hour) == ("weak", 0.5, 2.0)
    assert (third.recipe, third.fixed) == ("other", 0.0)  # it has the same error as weak


def test_a_recipe_beside_others_whose_vote_is_correct_fixes_nothing():
    # Two of the three runs of b predict each row correctly.
    predicted = {"a.s1": (2, 1), "b.s1": (0, 1), "b.s2": (2, 0), "b.s3": (2, 1)}
    (suggestion,) = suggestions(predicted, ["a"], labels=(2, 1), seconds=None)
    assert suggestion.fixed == 0 and suggestion.seconds is None


@pytest.mark.parametrize(
    ("rule", "member"),
    [
        ({"select": "all"}, True),
        ({"threshold": 0.9, "best_per_architecture": 1}, False),
        ({"threshold": 0.9, "best_per_architecture": 2}, True),
        ({"threshold": 0.4, "best_per_architecture": 1}, True),
    ],
)
def test_a_suggested_run_that_the_rule_would_not_make_a_member_says_so(rule, member):
    predicted = {"a.s1": (0, 0, 0, 1), "b.s1": (1, 1, 1, 1)}
    rows = suggestions(predicted, ["a", "b"], labels=(0, 0, 1, 1), **rule)
    assert rows[0].recipe == "a" and rows[0].member is member
    line = suggestion_lines(rows, {"a": (1,), "b": (1,)})[-1]
    assert line.startswith("next: seeds = [1, 2] in a.toml") and ('[ensemble] select = "all"' in line) is not member


def test_a_suggested_run_that_takes_the_place_of_another_says_so():
    predicted = {"a.s1": (0, 0, 1, 1), "a.s2": (0, 1, 0, 1), "b.s1": (1, 1, 0, 1)}
    for best, member in ((2, False), (3, True)):
        rows = suggestions(predicted, ["a", "b"], labels=(0, 0, 1, 1), threshold=1.0, best_per_architecture=best)
        assert rows[0].recipe == "a" and rows[0].member is member
