"""The search as a page to look at: one file, nothing fetched, light or dark as the reader's screen is."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from jinja2 import Environment, FileSystemLoader
from optuna.trial import FrozenTrial

from podium.config.search import Range
from podium.files import atomic_write
from podium.tune.history import OWN, SCORE, judged, note_words, state_word
from podium.tune.tuning import Tuning
from podium.tune.write import told_lines

# Fewer trials than this say nothing of which key matters.
FEWEST_FOR_IMPORTANCE = 8
WIDTH, HEIGHT = 320, 150


@dataclass(frozen=True)
class Dot:
    """One trial in a plot, in its coordinates."""

    x: float
    y: float
    words: str
    kind: str  # judged, best, own


@dataclass(frozen=True)
class Plot:
    """Trials by the value of one key, or by their order."""

    name: str
    dots: list[Dot]
    line: str  # points of the best so far
    low: str
    high: str


def write_page(tuning: Tuning, again: dict[str, Any] | None) -> Path:
    """Write `index.html` into the search's folder and return it."""
    loader = FileSystemLoader(Path(__file__).parent)
    template = Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True).get_template(
        "page.html"
    )
    best = tuning.best
    bottom, top = _ends(tuning) if best else (0.0, 0.0)
    content = template.render(
        tuning=tuning,
        told=told_lines(tuning, again) if best else ["No trial has come to a score yet."],
        plots=_plots(tuning) if best else [],
        importances=importances(tuning),
        rows=[_row(tuning, trial) for trial in tuning.study.get_trials(deepcopy=False)],
        bottom=tuning.metric.gain(bottom),
        top=tuning.metric.gain(top),
        width=WIDTH,
        height=HEIGHT,
    )
    file = tuning.folder / "index.html"
    with atomic_write(file) as stream:
        stream.write(content.encode())
    return file


def importances(tuning: Tuning) -> dict[str, float]:
    """Key -> share of the scores' variance that it explains, the largest first; empty where trials are too few."""
    if len(judged(tuning.study)) < FEWEST_FOR_IMPORTANCE:
        return {}
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    try:
        return optuna.importance.get_param_importances(tuning.study, evaluator=evaluator)
    except (ValueError, RuntimeError):  # every trial has the same score
        return {}


def _plots(tuning: Tuning) -> list[Plot]:
    trials = sorted(judged(tuning.study), key=lambda one: one.number)
    heights = [max(0.0, _scaled(one.value, *_ends(tuning))) for one in trials]
    numbers = [one.number for one in trials]
    order = _plot(tuning, "in order of trials", trials, [_scaled(one, 0, max(numbers)) for one in numbers], heights)
    best = np.minimum.accumulate([dot.y for dot in order.dots])
    steps = zip(order.dots, best, [best[0], *best], strict=False)
    line = " ".join(f"{dot.x:.1f},{before:.1f} {dot.x:.1f},{y:.1f}" for dot, y, before in steps)
    plots = [Plot(order.name, order.dots, line, "0", str(max(numbers)))]
    for name, one in tuning.search.items():
        if isinstance(one, Range):
            scale = math.log if one.log else float
            ends = (scale(one.low), scale(one.high))
            places = [_scaled(scale(trial.params[name]), *ends) for trial in trials]
            plot = _plot(tuning, name, trials, places, heights, low=f"{one.low:.4g}", high=f"{one.high:.4g}")
        else:
            values = list(one.values)
            places = [_scaled(values.index(tuning.values(trial)[name]), 0, len(values) - 1) for trial in trials]
            plot = _plot(tuning, name, trials, places, heights, low=str(values[0]), high=str(values[-1]))
        plots.append(plot)
    return plots


def _plot(
    tuning: Tuning,
    name: str,
    trials: list[FrozenTrial],
    places: list[float],
    heights: list[float],
    *,
    low: str = "",
    high: str = "",
) -> Plot:
    dots = []
    for trial, place, height in zip(trials, places, heights, strict=True):
        kind = "best" if trial.number == tuning.best.number else "own" if trial.user_attrs.get(OWN) else "judged"
        words = f"trial {trial.number}: {trial.user_attrs[SCORE]:.4f}; " + _values(tuning, trial)
        dots.append(Dot(8 + place * (WIDTH - 16), 8 + (1 - height) * (HEIGHT - 16), words, kind))
    return Plot(name, dots, "", low, high)


def _scaled(value: float, low: float, high: float) -> float:
    return (value - low) / (high - low) if high > low else 0.5


def _ends(tuning: Tuning) -> tuple[float, float]:
    """The values at the lower and the upper edge: what is far below the middle is not told apart, the good ones are."""
    values = [one.value for one in judged(tuning.study)]
    top, middle = max(values), float(np.median(values))
    return (max(min(values), top - 4 * (top - middle)) if top > middle else min(values)), top


def _values(tuning: Tuning, trial: FrozenTrial) -> str:
    return ", ".join(
        f"{name} {one:.4g}" if isinstance(one, float) else f"{name} {one}" for name, one in tuning.values(trial).items()
    )


def _row(tuning: Tuning, trial: FrozenTrial) -> dict[str, Any]:
    """What the table says of a trial."""
    seconds = trial.duration.total_seconds() if trial.duration else None
    last = max(trial.intermediate_values, default=0)
    values = tuning.values(trial)
    return {
        "number": trial.number,
        "state": state_word(trial),
        "score": f"{trial.user_attrs[SCORE]:.4f}" if SCORE in trial.user_attrs else "",
        "epochs": f"{last}: {trial.intermediate_values[last]:.4f}" if last else "",
        "seconds": f"{seconds:.0f}" if seconds is not None else "",
        "values": [
            f"{values[name]:.4g}" if isinstance(values.get(name), float) else str(values.get(name, ""))
            for name in tuning.search
        ],
        "note": note_words(trial),
        "best": tuning.best is not None and trial.number == tuning.best.number,
    }
