"""Warnings about runs that know validation rows, or whose test images differ; no label of the test is needed.

Validation and test rows are two samples of the same images: an honest run is equally confident on both, and disagrees
with the other runs equally often. A run that was trained on validation rows is more confident on them.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from podium.ensemble.contribution import votes
from podium.ensemble.pool import Pool
from podium.ensemble.strategies.calibrate import fit_temperature
from podium.metrics import over_classes, softmax
from podium.targets.target import Target

# Standard errors; chance exceeds them for one of 370 honest runs.
MOST_Z = 3.0
MOST_NAMED = 6
# These predict the test with other models than the validation rows, so that their confidence differs anyway.
OTHER_MODELS = ("refit", "average")
# A number for each row that needs no label: its name, in which direction a change from validation to test is suspicious
# (1 more, -1 less, 0 both), the runs, and the numbers of validation rows (runs, n) and of test rows (runs, m).
Measure = tuple[str, int, Sequence[str], np.ndarray, np.ndarray]


def shift_warnings(pool: Pool, test_logits: np.ndarray) -> tuple[str, ...]:
    """A sentence for each run that differs between validation and test, or is perfect; the most suspicious first.

    test_logits (runs, m, outputs). Rows of one group are alike and count as fewer rows.
    """
    perfect = [run for run, correct in zip(pool.runs, pool.correct, strict=True) if correct.all()]
    largest: dict[str, tuple[float, str]] = {}
    for name, direction, runs, *both in _measures(pool, pool.target.cells(test_logits)) if test_logits.size else ():
        for run, validation, test in zip(runs, *both, strict=True):
            z = z_of_difference(validation, test, pool.units)
            if abs(z) > max(MOST_Z, largest.get(run, (0.0,))[0]) and z * direction >= 0:
                cause = "the test differs" if direction == 0 < z else "it knows validation rows, or the test differs"
                means = f"{validation.mean():.4f} on validation rows and {test.mean():.4f} on the test (z = {z:+.1f})"
                largest[run] = (abs(z), f"{run}: {cause}: its {name} is {means}")
    sentences = [sentence for _, sentence in sorted(largest.values(), reverse=True)]
    found = [f"{', '.join(perfect)}: no error on the validation rows: trained on them?"] if perfect else []
    more = [f"{len(sentences) - MOST_NAMED} more runs differ in this way"] if len(sentences) > MOST_NAMED else []
    return (*found, *sentences[:MOST_NAMED], *more)


def z_of_difference(validation: np.ndarray, test: np.ndarray, units: np.ndarray) -> float:
    """The mean of `test` (m,) minus that of `validation` (n,), in standard errors; groups `units` (n,) widen these."""
    centred = validation - validation.mean()
    of_groups, of_rows = np.square(np.bincount(units, centred)).sum(), np.square(centred).sum()
    design_effect = max(of_groups / of_rows, 1.0) if of_rows else 1.0
    variance = np.concatenate([validation, test]).var() * design_effect
    error = np.sqrt(variance * (1 / len(validation) + 1 / len(test)))
    return float((test.mean() - validation.mean()) / max(error, 1e-9))


def _measures(pool: Pool, test_logits: np.ndarray) -> Iterator[Measure]:
    """Each run's confidence, alone and beside the other runs', and how far it disagrees with the other runs."""
    # A run that trained on pseudo-labels of test rows is more confident there.
    sources = ["refit" if about.get("pseudo_labels") else about.get("test_logits_from", "") for about in pool.abouts]
    places = [place for place, source in enumerate(sources) if not any(word in source for word in OTHER_MODELS)]
    runs = [pool.runs[place] for place in places]
    if runs and pool.target.has_probabilities:
        temperatures = {place: fit_temperature(pool.logs[place], pool.labels) for place in places}
        both = [
            np.array([over_classes(np.maximum, softmax(np.float64(logits[k]) / t)) for k, t in temperatures.items()])
            for logits in (pool.logs, test_logits)
        ]
        yield ("calibrated confidence", 0, runs, *both)
        if len(runs) > 1:
            beside = [(len(runs) * values - values.sum(axis=0)) / (len(runs) - 1) for values in both]
            yield ("calibrated confidence minus that of the other runs", -1, runs, *beside)
    if len(pool.runs) > 1:
        shares = [_disagreement(values, pool.target) for values in (pool.predicted, pool.target.predicted(test_logits))]
        yield ("disagreement with the other runs", 1, pool.runs, *shares)


def _disagreement(predicted: np.ndarray, target: Target) -> np.ndarray:
    """How many of the other runs predict another class, or the distance from their mean number, of (runs, n)."""
    runs, rows = predicted.shape
    if not target.has_classes:
        return np.abs(predicted - predicted.mean(axis=0)) * runs / (runs - 1)
    return (runs - votes(predicted, target.value_width)[np.arange(rows), predicted]) / (runs - 1)
