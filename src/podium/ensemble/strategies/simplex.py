"""The minimum of a convex function by Newton's method: of any numbers, or of weights (none negative, sum 1)."""

from collections.abc import Callable

import numpy as np

# point (m,) -> value, gradient (m,), Hessian (m, m)
Convex = Callable[[np.ndarray], tuple[float, np.ndarray, np.ndarray]]
# gradient, Hessian, point -> the step to the minimum of the quadratic approximation
Step = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
RIDGE = 1e-9


def minimise(convex: Convex, start: np.ndarray, step_of: Step, *, tolerance: float) -> np.ndarray:
    """The point (m,) that minimises `convex`; stops when no step promises more than `tolerance`."""
    point = start
    value, gradient, hessian = convex(point)
    for _ in range(100):
        step = step_of(gradient, hessian, point)
        promise = -float(gradient @ step)
        if promise <= tolerance:
            break
        length = 1.0
        while True:
            candidate = point + length * step
            result = convex(candidate)
            if result[0] <= value - 1e-4 * length * promise:
                break
            length /= 2
            if length < 1e-8:  # rounding errors are larger than what a step can gain
                return point
        point, (value, gradient, hessian) = candidate, result
    return point


def shrunk(convex: Convex, target: np.ndarray, strengths: np.ndarray) -> Convex:
    """The function plus half the squared distance from `target`, of each coordinate by its strength, both (m,)."""

    def penalised(point: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        value, gradient, hessian = convex(point)
        distance = point - target
        penalty = float(strengths @ distance**2) / 2
        return value + penalty, gradient + strengths * distance, hessian + np.diag(strengths)

    return penalised


def minimise_on_simplex(convex: Convex, start: np.ndarray, *, tolerance: float = 1e-8) -> np.ndarray:
    """Weights (m,) that minimise `convex`: each step minimises a quadratic over the simplex.

    SciPy's SLSQP finds the same weights (a test compares them), but its import takes half a second, and it does not use
    the Hessian.
    """
    weights = minimise(convex, start, lambda g, h, w: _quadratic_minimum(g, h, w) - w, tolerance=tolerance)
    weights = np.maximum(weights, 0.0)
    return weights / weights.sum()


def _quadratic_minimum(gradient: np.ndarray, hessian: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The minimum of g'(x - w) + (x - w)'H(x - w) / 2 over the simplex, by a primal active-set method."""
    hessian = hessian + RIDGE * max(float(np.trace(hessian)), 1.0) * np.eye(len(weights))
    linear = gradient - hessian @ weights
    point, free = None, weights > 0
    for _ in range(10 * len(weights) + 10):
        # The minimum over the free weights, whose sum is 1, and the multiplier of that sum.
        system = np.pad(hessian[np.ix_(free, free)], (0, 1), constant_values=1.0)
        system[-1, -1] = 0.0
        *solution, multiplier = np.linalg.solve(system, np.append(-linear[free], 1.0))
        target = np.zeros(len(free))
        target[free] = solution
        falling = free & (target < 0)
        if point is None and falling.any():  # fix all of them at 0: of a thousand weights, most are 0 at the minimum
            free &= ~falling
            continue
        if falling.any():  # go to the first bound on the way, and fix that weight at 0
            reach = np.full(len(free), np.inf)
            reach[falling] = point[falling] / (point[falling] - target[falling])
            point = point + reach.min() * (target - point)
            bound = reach.argmin()
            point[bound], free[bound] = 0.0, False
            continue
        point = target
        slope = linear + hessian @ point + multiplier
        slope[free] = 0.0
        lowest = int(slope.argmin())
        if slope[lowest] >= -1e-12:
            break
        free[lowest] = True
    return point
