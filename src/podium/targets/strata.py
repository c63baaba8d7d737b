"""Strata of rows whose labels are no classes: every part of a split gets its share of each."""

import numpy as np

# Numbers are stratified into so many parts of equal size, from the lowest to the highest.
NUMBER_STRATA = 10


def number_strata(labels: np.ndarray, *, least: int, most: int) -> np.ndarray:
    """Parts of equal size, (n,) int, from the lowest numbers to the highest."""
    parts = max(1, min(NUMBER_STRATA, most, len(labels) // max(least, 1)))
    ranks = np.argsort(np.argsort(labels, kind="stable"), kind="stable")
    return ranks * parts // max(len(labels), 1)


def label_strata(labels: np.ndarray, *, least: int, most: int) -> np.ndarray:
    """Rows with the same labels (n, columns) are a stratum, rarer ones by their rarest label, the rest together: (n,).

    The rarest label first is the order of Sechidis et al. (ECML 2011), who assign labels to folds one by one.
    """
    rows, columns = labels.shape
    frequency = np.where(labels, labels.sum(axis=0), rows + 1)
    rarest = np.where(labels.any(axis=1), frequency.argmin(axis=1), columns)
    combinations = np.unique(labels, axis=0, return_inverse=True)[1].reshape(-1)
    while True:
        strata = _with_rare_ones(combinations, rarest + combinations.max() + 1, least=least)
        strata = _with_rare_ones(strata, np.full(rows, -1), least=least)
        values, counts = np.unique(strata, return_counts=True)
        if values[0] == -1 and counts[0] < least:  # too few for a stratum of their own
            strata[strata == -1] = values[counts.argmax()]
        numbers = np.unique(strata, return_inverse=True)[1]
        if numbers.max(initial=0) < most or least > rows:
            return numbers
        least *= 2


def _with_rare_ones(strata: np.ndarray, others: np.ndarray, *, least: int) -> np.ndarray:
    """The stratum of each row (n,), or that in `others` if fewer than `least` rows have it."""
    counts = np.unique(strata, return_inverse=True, return_counts=True)
    return np.where(counts[2][counts[1].reshape(-1)] < least, others, strata)
