"""lr_find for one recipe, and the files that keep its curve."""

import csv
import io
import json
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from podium.files import atomic_write
from podium.lock import read_lock
from podium.plan.paths import Project
from podium.plan.runs import PlannedRun
from podium.training.canvas import GREY, LINE, PLAIN_STYLE, _figure, save_png
from podium.training.device import cpu_threads
from podium.training.faults import naming
from podium.training.learner import find_learning_rate
from podium.training.lr_find import USED, Finding
from podium.training.progress import Listener
from podium.training.rows import first_fold

MARKS = {"valley": ("o", "#b3261e"), "slide": ("s", "#7a4fb5"), "steep": ("^", "#1f7a4d"), "minimum": ("D", "#b06a00")}


@PLAIN_STYLE
def draw_finding(recipe_name: str, finding: Finding) -> Figure:
    """The loss over the learning rate, with fastai's suggestions on it."""
    figure = _figure(9, 5.4)
    axes = figure.add_axes((0.105, 0.12, 0.865, 0.75))
    axes.plot(finding.rates, finding.losses, color=LINE, linewidth=1.8)
    axes.set_xscale("log")
    logs = np.log10(finding.rates)
    for name, rate in finding.suggestions.items():
        mark, colour = MARKS[name]
        loss = float(np.interp(np.log10(rate), logs, finding.losses))
        used = ", used" if name == USED else ""
        axes.plot(
            rate, loss, mark, color=colour, markersize=10, markeredgecolor="white", label=f"{name} {rate:.2g}{used}"
        )
        if used:
            axes.axvline(rate, color=colour, linewidth=1, linestyle="--", zorder=0)
    low, high = min(finding.losses), max(finding.losses[: len(finding.losses) // 2])
    axes.set_ylim(low - 0.08 * (high - low), high + 0.6 * (high - low))
    axes.set_xlabel("learning rate", size=12)
    axes.set_ylabel("training loss, smoothed", size=12)
    axes.tick_params(labelsize=11)
    axes.grid(color="#e4e4e4")
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.legend(fontsize=11, loc="best", framealpha=0.9)
    steps = f"{len(finding.rates)} steps of {min(finding.batch_size, finding.rows):,} images"
    figure.text(0.105, 0.945, f"{recipe_name}: which learning rate?", size=15, weight="bold", parse_math=False)
    figure.text(0.105, 0.895, f"lr_find, {steps} in {finding.seconds:.0f} s", size=11, color=GREY, parse_math=False)
    return figure


def write_finding(folder: Path, recipe_name: str, finding: Finding) -> Path:
    """Write `<recipe>.csv`, `.json` and `.png` into `folder`; returns the PNG."""
    from podium.training.lr_curve import draw_finding

    table = io.StringIO()
    rows = csv.writer(table, lineterminator="\n")
    rows.writerow(["learning_rate", "loss"])
    rows.writerows((f"{rate:.6g}", f"{loss:.6g}") for rate, loss in zip(finding.rates, finding.losses, strict=True))
    about = {
        "recipe": recipe_name,
        "suggestions": finding.suggestions,
        "used": USED,
        "seconds": round(finding.seconds, 1),
        "batch_size": finding.batch_size,
    }
    for suffix, text in ((".csv", table.getvalue()), (".json", json.dumps(about, indent=2) + "\n")):
        with atomic_write(folder / f"{recipe_name}{suffix}") as stream:
            stream.write(text.encode())
    picture = folder / f"{recipe_name}.png"
    save_png(picture, draw_finding(recipe_name, finding))
    return picture


def find_for_run(project: Project, competition_name: str, run: PlannedRun, *, listener: Listener) -> Finding:
    """What lr_find says of a run's recipe on the first fold's rows, whatever rate the recipe has.

    Raises TrainingError and DataError.
    """
    recipe_file = project.competition_folder(competition_name) / f"{run.recipe_name}.toml"
    lock = read_lock(project.lock_file(competition_name))
    material = first_fold(project.paths(competition_name), run.recipe, lock=lock)
    # No core is claimed: a person waits, and it is a hundred steps.
    with naming(run.recipe_name, recipe_file), cpu_threads(run.recipe.threads):
        return find_learning_rate(run.recipe, material, seed=run.seed, root=project.root, listener=listener)
