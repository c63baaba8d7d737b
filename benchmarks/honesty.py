"""Is the cross-fitted score right, and which strategy wins? Blends of many data sets whose true score is known.

    python benchmarks/honesty.py [--draws 300] [--rows 1000] [--runs equal] [--prior-rows 5] [--plot FILE]

Each draw has some runs and some validation rows, and scores every strategy as `make ensemble` does. The true score is
the score of the same blend on rows that were not used. `--runs`:

- equal, unequal: simulated runs of random strength, error correlation and confidence; 10,000 true rows
- digits: three to nine of thirteen scikit-learn models, on rows of scikit-learn's digits; the other rows are the truth
- cifar10-scratch: the committed runs, on some of their validation rows; the others are the truth

`--prior-rows` is how strongly the strategy log-loss is shrunk towards equal weights.
"""

import argparse
import os
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np

from podium.config.keys import Ensemble
from podium.ensemble.blend import blended
from podium.ensemble.compare import Bootstrap, bootstrap, choose, estimate
from podium.ensemble.cross_fit import cross_fit, map_in_threads
from podium.ensemble.pool import pool_of
from podium.ensemble.strategies import log_loss as log_loss_module
from podium.ensemble.strategies.table import ONE_AVERAGE, STRATEGIES
from podium.metrics import Z_95, accuracy, log_loss, softmax
from podium.predictions.align import Aligned, load_runs
from podium.targets.target import Target
from podium.workspace import open_workspace

CLASSES, TRUE_ROWS = 10, 10_000
RUNS = ("equal", "unequal", "cifar10-scratch", "digits")
CANDIDATES = [(name, "logits" if name in ONE_AVERAGE else "probabilities") for name in STRATEGIES]
NAMES = [name for name, _ in CANDIDATES]
BEST, BLENDS = NAMES.index("best"), [place for place, name in enumerate(NAMES) if name != "best"]
# Scores of one draw by strategy or rule: true accuracy, true log loss, cross-fitted, in sample, covered.
Scores = dict[str, tuple[float, float, float, float, float]]


def population(draw: np.random.Generator, rows: int, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Logits (runs, rows, classes) of simulated runs whose errors are correlated, and labels (rows,)."""
    runs = int(draw.integers(3, 10))
    deviation = draw.uniform(0, 1) if kind == "equal" else draw.uniform(1, 2.5)
    strength = draw.uniform(4, 7) + draw.normal(scale=deviation, size=runs)
    if kind == "unequal":
        strength = np.clip(strength, 0.7, 8)
    shared, confidence = draw.uniform(0.3, 0.9), draw.uniform(0.5, 2, size=runs).astype(np.float32)
    labels = draw.integers(CLASSES, size=rows)
    difficulty = draw.exponential(size=(rows, 1)).astype(np.float32)
    common = draw.normal(size=(rows, CLASSES)).astype(np.float32)
    own = draw.standard_normal(size=(runs, rows, CLASSES), dtype=np.float32)
    noise = np.float32(np.sqrt(shared)) * common + np.float32(np.sqrt(1 - shared)) * own
    signal = np.eye(CLASSES, dtype=np.float32)[labels] * strength[:, None, None].astype(np.float32)
    return (signal + 2 * difficulty * noise) * confidence[:, None, None], labels


@cache
def measured(kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Logits (runs, rows, classes) of real runs for rows that they were not trained on, and labels (rows,)."""
    if kind == "cifar10-scratch":
        aligned = load_runs(open_workspace(kind))
        return aligned.oof_logits.astype(np.float32), aligned.oof_labels
    return _digits_models()


def _digits_models() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis, QuadraticDiscriminantAnalysis
    from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.naive_bayes import BernoulliNB, GaussianNB
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.neural_network import MLPClassifier
    from sklearn.svm import SVC
    from sklearn.tree import DecisionTreeClassifier

    pixels, labels = load_digits(return_X_y=True)
    models = (
        LogisticRegression(C=0.05, max_iter=200),
        RandomForestClassifier(60, random_state=0),
        ExtraTreesClassifier(60, random_state=0),
        GaussianNB(var_smoothing=1e-2),
        BernoulliNB(binarize=0.4),
        KNeighborsClassifier(7),
        SVC(gamma=0.02, C=1, probability=True, random_state=0),
        SVC(kernel="poly", degree=2, probability=True, random_state=0),
        DecisionTreeClassifier(max_depth=8, random_state=0),
        MLPClassifier((16,), max_iter=60, random_state=0),
        MLPClassifier((32,), max_iter=40, random_state=1),
        LinearDiscriminantAnalysis(),
        QuadraticDiscriminantAnalysis(reg_param=0.3),
    )
    folds = StratifiedKFold(4, shuffle=True, random_state=0)
    predicted = [cross_val_predict(model, pixels / 16, labels, cv=folds, method="predict_proba") for model in models]
    return np.log(np.maximum(predicted, 1e-4)).astype(np.float32), labels


def data_of(kind: str, rows: int, seed: int) -> Aligned:
    """The runs of one draw: `rows` validation rows, and as test rows those of the true score, labels as their ids."""
    draw = np.random.default_rng([seed, rows, RUNS.index(kind)])
    if kind in ("equal", "unequal"):
        logits, labels = population(draw, rows + TRUE_ROWS, kind)
    else:
        logits, labels = measured(kind)
        runs = len(logits)
        used = np.sort(draw.permutation(runs)[: draw.integers(3, min(runs, 9) + 1)]) if runs > 4 else np.arange(runs)
        order = draw.permutation(len(labels))
        logits, labels = logits[used][:, order], labels[order]
    runs = tuple(f"run.s{place}" for place in range(len(logits)))
    return Aligned(
        runs=runs,
        abouts=tuple({"architecture": run} for run in runs),
        oof_ids=np.arange(rows).astype(str),
        oof_logits=logits[:, :rows],
        oof_labels=labels[:rows],
        test_ids=labels[rows:],
        test_logits=logits[:, rows:],
        classes=tuple("abcdefghij"),
        target=Target("class", CLASSES),
    )


# Gains by accuracy (strategies,), their paired errors (strategies, strategies), and the same of log loss -> the choice.
Rule = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], int]


def simplest(means: np.ndarray, errors: np.ndarray, places: list[int]) -> int:
    """The first of `places` within one standard error of their best."""
    top = max(places, key=lambda place: means[place])
    return next(place for place in places if means[top] - means[place] <= errors[top, place])


def unless_best(choice: int, means: np.ndarray, errors: np.ndarray) -> int:
    """The choice, or the best run if it is ahead beyond noise."""
    return BEST if means[BEST] - means[choice] > Z_95 * errors[BEST, choice] else choice


def null_is_best(means: np.ndarray, errors: np.ndarray, *_: np.ndarray) -> int:
    """The rule of earlier versions: the best run, unless the simplest blend is ahead of it beyond noise."""
    choice = simplest(means, errors, [BEST, *BLENDS])
    return choice if means[choice] - means[BEST] > Z_95 * errors[choice, BEST] else BEST


RULES: dict[str, Rule] = {
    "null: best run": null_is_best,
    "simplest in 1 se": lambda m, e, *_: unless_best(simplest(m, e, BLENDS), m, e),
    "most accurate": lambda m, e, *_: unless_best(max(BLENDS, key=lambda place: m[place]), m, e),
    "least log loss": lambda m, e, loss, _: unless_best(max(BLENDS, key=lambda place: loss[place]), m, e),
}


def simulate(kind: str, rows: int, seed: int) -> Scores:
    """The true score and the estimated scores of every strategy and rule, in one draw."""
    aligned, settings = data_of(kind, rows, seed), Ensemble(seed=seed, select="all")
    pool = pool_of(aligned, settings, metric="accuracy")
    candidates = cross_fit(pool, CANDIDATES)
    blends = [candidate.blend for candidate in candidates]
    predicted, in_sample = (
        [softmax(logs / blend.temperature) for logs, blend in zip(blended(blends, logits), blends, strict=True)]
        for logits in (aligned.test_logits, pool.logs)
    )
    cross_fitted = [candidate.predicted for candidate in candidates]
    return scores_of(
        bootstrap(pool, cross_fitted),
        bootstrap(replace(pool, metric="log_loss"), cross_fitted),
        truths=[(accuracy(p, aligned.test_ids), log_loss(p, aligned.test_ids)) for p in predicted],
        in_sample=[accuracy(p, pool.labels) for p in in_sample],
        tests=len(aligned.test_ids),
    )


def scores_of(by_accuracy: Bootstrap, by_log_loss: Bootstrap, *, truths: list, in_sample: list, tests: int) -> Scores:
    """The scores of all strategies, and of the choice by each rule; only `auto` has an interval among the rules."""
    evidence = []
    for resampled in (by_accuracy, by_log_loss):
        evidence += [resampled.whole, np.stack([resampled.standard_errors(place) for place in range(len(NAMES))])]
    places = {name: place for place, name in enumerate(NAMES)}
    places["auto"] = int(choose(by_accuracy, by_accuracy.whole, NAMES))
    places |= {name: rule(*evidence) for name, rule in RULES.items()}
    scores = {}
    for name, place in places.items():
        chosen_among = NAMES if name == "auto" else None
        score = estimate(by_accuracy, place, tests=tests, chosen_among=chosen_among)
        low, high = score.test_interval  # the rows of the true score are one more sample
        covered = float(low <= truths[place][0] <= high) if name in NAMES or chosen_among else np.nan
        scores[name] = (*truths[place], score.score, in_sample[place], covered)
    return scores


def table(draws: list[Scores], kind: str, rows: int) -> str:
    """How far each strategy and each rule is behind the oracle, which knows the most accurate strategy of a draw."""
    oracle = np.array([np.array([draw[name][:2] for name in NAMES]) for draw in draws])
    most, least = oracle[:, :, 0].max(axis=1), oracle[:, :, 1].min(axis=1)
    lines = [
        f"{len(draws)} draws of {rows:,} validation rows, {kind} runs; points of accuracy; accuracy of the oracle "
        f"{most.mean() * 100:.2f}; load average {os.getloadavg()[0]:.2f}",
        f"{'strategy':<16} {'behind':>7} {'log loss':>9} {'behind best run':>16} {'cross-fitted - truth':>21} "
        f"{'in sample - truth':>18} {'covered':>8}",
    ]
    best = np.array([draw["best"][0] for draw in draws])
    for name in [*NAMES, "auto", *RULES]:
        truth, loss, cross_fitted, in_sample, covered = np.array([draw[name] for draw in draws], dtype=float).T
        lines.append(
            f"{name:<16} {(most - truth).mean() * 100:7.2f} {(loss - least).mean():9.3f} "
            f"{f'at most {max((best - truth).max(), 0) * 100:.2f}':>16} {_spread(cross_fitted - truth):>21} "
            f"{_spread(in_sample - truth):>18} {'' if np.isnan(covered[0]) else f'{covered.mean():.1%}':>8}"
        )
    return "\n".join(lines)


def _spread(differences: np.ndarray) -> str:
    return f"{differences.mean() * 100:+.2f} ± {differences.std() * 100:.2f}"


def plot(draws: list[Scores], rows: int, file: Path) -> None:
    """Both scores minus the true score, for each strategy: the middle 95 % of the draws and their mean."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7.2, 3.2), layout="constrained")
    names = [*NAMES, "auto"]
    for column, (label, colour, shift) in enumerate(
        (
            ("in sample: tuned and scored on the same rows", "#b35806", 0.16),
            ("cross-fitted", "#2166ac", -0.16),
        )
    ):
        gaps = defaultdict(list)
        for draw in draws:
            for name in names:
                gaps[name].append((draw[name][3 - column] - draw[name][0]) * 100)
        places = np.arange(len(names))[::-1] + shift
        low, high = np.array([np.percentile(gaps[name], [2.5, 97.5]) for name in names]).T
        middle = [np.mean(gaps[name]) for name in names]
        axes.hlines(places, low, high, color=colour, linewidth=2)
        axes.plot(middle, places, "os"[column], color=colour, label=label)
    axes.axvline(0, color="#444444", linewidth=1)
    axes.set_yticks(np.arange(len(names))[::-1], names)
    axes.set_xlabel(f"points by which the score is too good ({len(draws)} simulations, {rows:,} validation rows)")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, 1.2), ncols=2, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=110)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("--draws", type=int, default=300)
    arguments.add_argument("--rows", type=int, default=1000)
    arguments.add_argument("--runs", choices=RUNS, default="equal")
    arguments.add_argument("--prior-rows", type=float, default=log_loss_module.PRIOR_ROWS)
    arguments.add_argument("--plot", type=Path)
    options = arguments.parse_args()
    log_loss_module.PRIOR_ROWS = options.prior_rows
    draws = map_in_threads(lambda seed: simulate(options.runs, options.rows, seed), range(options.draws))
    print(table(draws, options.runs, options.rows))
    if options.plot:
        plot(draws, options.rows, options.plot)


if __name__ == "__main__":
    main()
