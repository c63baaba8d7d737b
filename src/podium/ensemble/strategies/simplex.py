"""A convex function minimised over weights: none negative, summing to 1."""

from collections.abc import Callable

import numpy as np

# weights (m,) -> value, gradient (m,), Hessian (m, m)
Convex = Callable[[np.ndarray], tuple[float, np.ndarray, np.ndarray]]
RIDGE = 1e-9


def minimise_on_simplex(convex: Convex, start: np.ndarray, *, tolerance: float = 1e-8) -> np.ndarray:
    """Weights (m,) that minimise `convex`, by Newton steps, each the minimum of a quadratic over the simplex.

    Ends when no move promises more than `tolerance`. SciPy's SLSQP finds the same (the tests say so) but takes
    half a second to import.
    """
    weights = start
    value, gradient, hessian = convex(weights)
    for _ in range(100):
        step = _quadratic_minimum(gradient, hessian, weights) - weights
        promise = -float(gradient @ step)
        if promise <= tolerance:
            break
        share = 1.0
        while True:
            wanted = weights + share * step
            found = convex(wanted)
            if found[0] <= value - 1e-4 * share * promise or share < 1e-8:
                break
            share /= 2
        weights, (value, gradient, hessian) = wanted, found
    weights = np.maximum(weights, 0.0)
    return weights / weights.sum()


def _quadratic_minimum(gradient: np.ndarray, hessian: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Where g'(x - w) + (x - w)'H(x - w) / 2 is least on the simplex: a primal active-set method."""
    hessian = hessian + RIDGE * max(float(np.trace(hessian)), 1.0) * np.eye(len(weights))
    linear = gradient - hessian @ weights
    here, free = weights.copy(), weights > 0
    for _ in range(10 * len(weights) + 10):
        wanted, multiplier = _free_minimum(linear, hessian, free)
        falling = free & (wanted < 0)
        if falling.any():
            reach = np.full(len(here), np.inf)
            reach[falling] = here[falling] / (here[falling] - wanted[falling])
            here = here + reach.min() * (wanted - here)
            first = reach.argmin()
            here[first], free[first] = 0.0, False
            continue
        here = wanted
        pull = linear + hessian @ here + multiplier
        pull[free] = 0.0
        lowest = int(pull.argmin())
        if pull[lowest] >= -1e-12:
            break
        free[lowest] = True
    return here


def _free_minimum(linear: np.ndarray, hessian: np.ndarray, free: np.ndarray) -> tuple[np.ndarray, float]:
    """The minimum over the free weights with sum 1, the others 0, and the sum's multiplier."""
    count = int(free.sum())
    system = np.zeros((count + 1, count + 1))
    system[:count, :count] = hessian[np.ix_(free, free)]
    system[:count, count] = system[count, :count] = 1.0
    solved = np.linalg.solve(system, np.append(-linear[free], 1.0))
    wanted = np.zeros(len(free))
    wanted[free] = solved[:count]
    return wanted, float(solved[count])
