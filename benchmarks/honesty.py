"""Is the cross-fitted score right? Blends are fitted and scored on many simulated data sets whose true score is known.

    python benchmarks/honesty.py [--draws 300] [--rows 1000] [--plot docs/honesty.png]

Each draw simulates runs of random accuracy, error correlation and confidence on some validation rows, and scores every
strategy as `make ensemble` does. The true score is the score of the same blend on 50,000 more rows.
"""

import argparse
import os
from collections import defaultdict
from pathlib import Path

import numpy as np

from podium.config.keys import Ensemble
from podium.ensemble.blend import fit_blends, pool_of
from podium.ensemble.compare import bootstrap, choose, draw_rows, estimate
from podium.ensemble.cross_fit import cross_fit, map_in_threads, split_rows
from podium.ensemble.strategies.table import ONE_AVERAGE, STRATEGIES
from podium.metrics import accuracy
from podium.predictions.align import Aligned

CLASSES, TRUTH_ROWS = 10, 50_000
CANDIDATES = [(name, "logits" if name in ONE_AVERAGE else "probabilities") for name in STRATEGIES]
NAMES = [name for name, _ in CANDIDATES]
Scores = dict[str, tuple[float, float, float, bool, bool]]  # truth, cross-fitted, in sample, covered, test covered


def population(draw: np.random.Generator, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits (runs, rows, classes) of runs whose errors are correlated, and labels (rows,)."""
    runs = int(draw.integers(3, 10))
    strength = draw.uniform(4, 7) + draw.normal(scale=draw.uniform(0, 1), size=runs)
    shared, confidence = draw.uniform(0.3, 0.9), draw.uniform(0.5, 2.0, size=runs)
    labels = draw.integers(CLASSES, size=rows)
    difficulty = draw.exponential(size=(rows, 1))
    common = draw.normal(size=(rows, CLASSES))
    own = draw.normal(size=(runs, rows, CLASSES))
    noise = np.sqrt(shared) * common + np.sqrt(1 - shared) * own
    signal = np.eye(CLASSES)[labels] * strength[:, None, None]
    return ((signal + 2 * difficulty * noise) * confidence[:, None, None]).astype(np.float32), labels


def simulate(seed: int, rows: int, tests: int) -> Scores:
    """The true score and the estimated scores of every strategy, in one draw."""
    draw = np.random.default_rng([seed, rows])
    logits, labels = population(draw, rows + TRUTH_ROWS)
    runs = tuple(f"run.s{seed}" for seed in range(len(logits)))
    aligned = Aligned(
        runs=runs,
        abouts=tuple({"architecture": run} for run in runs),
        oof_ids=np.arange(rows).astype(str),
        oof_logits=logits[:, :rows],
        oof_labels=labels[:rows],
        test_ids=np.arange(tests).astype(str),
        test_logits=logits[:, rows:],
        classes=tuple("abcdefghij"),
    )
    settings = Ensemble(seed=seed)
    pool = pool_of(aligned, settings)
    crossed = cross_fit(pool, split_rows(pool.labels, None, settings), CANDIDATES, settings, metric="accuracy")
    resampled = bootstrap(crossed.probabilities, pool.labels, metric="accuracy", draws=draw_rows(rows, None, seed))
    blends = fit_blends(pool, CANDIDATES, settings, metric="accuracy")
    choice = int(choose(resampled.whole, resampled.standard_errors(), NAMES))
    scores = {}
    for name, place in [*zip(NAMES, range(len(NAMES)), strict=True), ("auto", choice)]:
        predicted = blends[place].probabilities(aligned.test_logits)
        truth, of_test = accuracy(predicted, labels[rows:]), accuracy(predicted[:tests], labels[rows : rows + tests])
        chosen_among = NAMES if name == "auto" else None
        score = estimate(resampled, place, metric="accuracy", tests=tests, chosen_among=chosen_among)
        scores[name] = (
            truth,
            score.score,
            accuracy(blends[place].probabilities(pool.log_probabilities), pool.labels),
            score.interval[0] <= truth <= score.interval[1],
            score.test_interval[0] <= of_test <= score.test_interval[1],
        )
    return scores


def table(draws: list[Scores], rows: int) -> str:
    lines = [
        f"{len(draws)} draws of {rows:,} validation rows; points of accuracy; load average {os.getloadavg()[0]:.2f}",
        f"{'strategy':<10} {'truth':>7} {'cross-fitted - truth':>22} {'in sample - truth':>20} {'covered':>9} "
        f"{'test':>7}",
    ]
    for name in [*NAMES, "auto"]:
        truth, cross_fitted, in_sample, covered, test_covered = np.array([draw[name] for draw in draws], dtype=float).T
        lines.append(
            f"{name:<10} {truth.mean() * 100:7.2f} {_spread(cross_fitted - truth):>22} "
            f"{_spread(in_sample - truth):>20} {covered.mean():9.1%} {test_covered.mean():7.1%}"
        )
    auto, best = (np.array([draw[name][0] for draw in draws]) for name in ("auto", "best"))
    noise = np.sqrt(best * (1 - best) / rows)
    lines.append(
        f"auto against the best single run, in truth: {(auto - best).mean() * 100:+.2f} on average, "
        f"{(auto - best).min() * 100:+.2f} at worst; worse by more than one standard error of a score in "
        f"{np.mean(auto < best - noise):.1%} of the draws"
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
                gaps[name].append((draw[name][2 - column] - draw[name][0]) * 100)
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
    arguments.add_argument("--plot", type=Path)
    options = arguments.parse_args()
    draws = map_in_threads(lambda seed: simulate(seed, options.rows, options.rows), range(options.draws))
    print(table(draws, options.rows))
    if options.plot:
        plot(draws, options.rows, options.plot)


if __name__ == "__main__":
    main()
