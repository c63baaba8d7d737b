"""What a search prints about itself, and its files: the best trial as a recipe, a table of all trials, plots."""

import tomllib
import warnings
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import matplotlib
import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from podium import __version__
from podium.config.editing import changed_text
from podium.config.recipe import recipe_of
from podium.config.search import Range
from podium.errors import ConfigError
from podium.files import atomic_write, write_file
from podium.plan.runs import check_recipe_name
from podium.tune.inner import describe_rows
from podium.tune.study import OWN_VALUES, REASON, Tuning


def first_lines(tuning: Tuning, trials: int | None, minutes: float | None) -> list[str]:
    """What is searched, on which rows and until when."""
    rows = describe_rows(tuning.inner, tuning.workspace.competition.validation)
    lines = [f"{tuning.run.recipe_name}: {rows}", "searches:"]
    for key, values in tuning.search.items():
        if isinstance(values, Range):
            text = f"{values.low:.4g} to {values.high:.4g}{', logarithmic' if values.log else ''}"
        else:
            text = ", ".join(map(str, values))
        lines.append(f"  {key:<22} {text}")
    lines.append(f"{len(tuning.finished)} earlier trials of this recipe with these ranges and data")
    limits = [] if trials is None else [f"{trials} trials in all"]
    limits += [] if minutes is None else [f"{minutes:g} minutes"]
    return [*lines, f"runs up to {' or '.join(limits)}"]


def trial_line(tuning: Tuning, trial: FrozenTrial) -> str:
    """One line: number, state, score, values, reason."""
    texts = [f"{name} {v:.4g}" if isinstance(v, float) else f"{name} {v}" for name, v in tuning.values(trial).items()]
    note = "  the recipe as it is" if OWN_VALUES in trial.user_attrs else ""
    reason = f"  {trial.user_attrs[REASON]}" if REASON in trial.user_attrs else ""
    state = trial.state.name.lower()
    return f"trial {trial.number:>3}  {state:<8}  {_score(trial):<6}  {', '.join(texts)}{note}{reason}"


def summary(tuning: Tuning, comparison: str) -> str:
    """How the best trial was found and how far its score can be trusted."""
    best, own = tuning.best, tuning.own
    return (
        f"Trial {best.number} is the best of {len(tuning.finished)} trials, "
        f"{describe_rows(tuning.inner, tuning.workspace.competition.validation)}. "
        f"Its {tuning.workspace.competition.metric} is {_score(best)} there; "
        f"{tuning.run.recipe_name} as it is has {(own and _score(own)) or 'no score'}. "
        f"{comparison or 'It is the recipe as it is.'}"
    )


def _score(trial: FrozenTrial) -> str:
    """The score of a complete trial; empty for another one, whose value is that of an epoch."""
    return f"{trial.value:.4f}" if trial.state == TrialState.COMPLETE else ""


def winner_file(tuning: Tuning, out: str | None) -> Path:
    """`<recipe>-tuned.toml`, or `<out>.toml`, beside the recipe; raises ConfigError for an invalid or used name."""
    name = out or f"{tuning.run.recipe_name}-tuned"
    check_recipe_name(name, tuning.recipe_file.parent)
    file = tuning.recipe_file.with_name(f"{name}.toml")
    if file.exists():
        what, expected = "The tuned recipe cannot replace an existing file.", "an unused name"
        raise ConfigError(what, file=file, expected=expected, fix="OUT=another-name")
    return file


def write_winner(tuning: Tuning, file: Path, comparison: str) -> None:
    """Write the best trial as a recipe; raises ConfigError where `file` was made meanwhile."""
    winner_file(tuning, file.stem)
    sentences = (
        f"Found by `make tune RECIPE={tuning.run.recipe_name} COMPETITION={tuning.workspace.name}` on "
        f"{datetime.now(UTC).date()} with podium {__version__}, torch {version('torch')}. {summary(tuning, comparison)}"
    )
    text = changed_text(tuning.recipe_file, tuning.values(tuning.best), recipe=tuning.run.recipe, reason=sentences)
    assert recipe_of(tomllib.loads(text), file) == tuning.recipe_of(tuning.best), file
    write_file(file, text.encode())


def write_report(tuning: Tuning) -> None:
    """Write trials.csv, history.svg and values.svg into the search's folder."""
    table = tuning.study.trials_dataframe(attrs=("number", "state", "value", "duration", "params", "user_attrs"))
    with atomic_write(tuning.folder / "trials.csv") as stream:
        table.to_csv(stream, index=False)
    if tuning.best is None:
        return
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plots = optuna.visualization.matplotlib
    for name, plot in (("history", plots.plot_optimization_history), ("values", plots.plot_slice)):
        with warnings.catch_warnings(action="ignore"):  # Optuna's matplotlib plots are marked experimental
            axes = plot(tuning.study, target_name=tuning.workspace.competition.metric)
        figure = np.ravel(axes)[0].figure
        with atomic_write(tuning.folder / f"{name}.svg") as stream:
            figure.savefig(stream, format="svg", bbox_inches="tight")
        plt.close(figure)
