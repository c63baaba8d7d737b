"""Cut points of the numbers or logits of a blend that maximise a metric; it is constant between two of them."""

import numpy as np

from podium.metrics import score_of_confusion

# Of the search for cut points between ordered classes.
CUT_STEPS, MOST_SWEEPS = 50, 10


def best_order_cuts(numbers: np.ndarray, labels: np.ndarray, classes: int, metric: str) -> np.ndarray:
    """The cut points (classes - 1,) between ordered classes that maximise a metric of the numbers (n,).

    A search along one cut point after the other, from the middles between classes, until none gains: the score has no
    gradient. A cut point is tried at CUT_STEPS quantiles of the numbers between its neighbours; of equal scores the one
    that is nearest to the middle wins.
    """
    order = np.argsort(numbers, kind="stable")
    numbers, is_label = numbers[order], np.eye(classes)[labels[order]]
    below = np.vstack([np.zeros(classes), np.cumsum(is_label, axis=0)])  # rows of each label below a place
    middles = np.arange(classes - 1) + 0.5
    cuts = middles.copy()

    def score(cuts: np.ndarray) -> float:
        places = np.concatenate([[0], np.searchsorted(numbers, cuts), [len(numbers)]])
        return score_of_confusion(metric, np.diff(below[places], axis=0).T)

    best = score(cuts)
    for _ in range(MOST_SWEEPS):
        before = best
        for place, middle in enumerate(middles):
            low, high = np.concatenate([[-np.inf], cuts, [np.inf]])[[place, place + 2]]
            between = numbers[(numbers > low) & (numbers <= high)]
            tried = np.quantile(between, np.linspace(0, 1, CUT_STEPS)) if len(between) else []
            for cut in sorted(tried, key=lambda cut: abs(cut - middle)):
                candidate = cuts.copy()
                candidate[place] = cut
                if (value := score(candidate)) > best + 1e-9:
                    best, cuts = value, candidate
        if best == before:
            break
    return cuts


def best_f1_cut(logits: np.ndarray, labels: np.ndarray) -> float:
    """The threshold, between two logits (n,), with the best F1 for labels (n,) 0 or 1; of equal ones the nearest to 0.

    It is 0 if no label is 1.
    """
    if not labels.any():
        return 0.0
    order = np.argsort(-logits, kind="stable")
    ordered = np.append(logits[order], logits.min() - 1)
    f1 = 2 * np.cumsum(labels[order]) / (np.arange(1, len(labels) + 1) + labels.sum())  # of yes for the first 1, 2, ...
    f1[ordered[:-1] == ordered[1:]] = 0
    best = np.flatnonzero(f1 >= f1.max() - 1e-12)
    cuts = (ordered[best] + ordered[best + 1]) / 2
    return float(cuts[np.abs(cuts).argmin()])
