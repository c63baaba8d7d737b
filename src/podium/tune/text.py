"""What a search prints and writes about itself."""

from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from optuna.trial import FrozenTrial

from podium import __version__
from podium.config.search import Range
from podium.tune.inner import describe_rows
from podium.tune.study import OWN_VALUES, REASON, SCORE, Tuning, state_of


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Scores of the best trial and of the recipe on `rows` other inner rows; None where a training failed."""

    trial: int
    rows: int
    tuned: float | None
    own: float | None
    gain: float | None = None  # tuned - own, or own - tuned where less is better
    error: float | None = None  # standard error of the gain, where the metric is a mean over rows


def first_lines(tuning: Tuning, bound: str, parallel: int) -> list[str]:
    """What is searched, on which rows and until when."""
    name, rows = tuning.run.recipe_name, describe_rows(tuning.split, tuning.workspace.competition.validation)
    ranges = f"[search] of {name}.toml" if tuning.has_own_ranges else f"default ranges: {name}.toml has no [search]"
    lines = [f"{name}: {rows}", f"searches ({ranges}):"]
    for key, values in tuning.search.items():
        if isinstance(values, Range):
            text = f"{values.low:.4g} to {values.high:.4g}{', logarithmic' if values.log else ''}"
        else:
            text = ", ".join(map(str, values.values))
        lines.append(f"  {key:<22} {text}")
    if tuning.is_new:
        lines.append("recipe, ranges or data differ from the last search: this is a new one")
    elif tuning.finished:
        lines.append(f"goes on after {len(tuning.finished)} trials")
    repeats = "; parallel trials do not repeat exactly" if parallel > 1 else ""
    return [*lines, f"{bound}, {parallel} at a time{repeats}"]


def trial_line(tuning: Tuning, trial: FrozenTrial) -> str:
    """One line: number, state, score or last epoch, values, reason."""
    last = max(trial.intermediate_values, default=0)
    result = f"epoch {last}" if last else ""
    if SCORE in trial.user_attrs:
        result = f"{trial.user_attrs[SCORE]:.4f}"
    values = ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in tuning.values(trial).items()
    )
    notes = ["the recipe as it is"] if OWN_VALUES in trial.user_attrs else []
    if state_of(trial) == "failed":
        notes.append(trial.user_attrs[REASON])
    return f"trial {trial.number:>3}  {state_of(trial):<8}  {result:<8}  {values}  {'; '.join(notes)}".rstrip()


def summary(tuning: Tuning, comparison: Comparison | None) -> list[str]:
    """How the best trial was found and how far its score can be trusted, in sentences."""
    name, best, own = tuning.run.recipe_name, tuning.best, tuning.own
    states = [state_of(trial) for trial in tuning.finished]
    counts = ", ".join(f"{states.count(state)} {state}" for state in ("pruned", "failed") if state in states)
    own_score = f"{own.user_attrs[SCORE]:.4f}" if own and SCORE in own.user_attrs else "no score"
    sentences = [
        f"Trial {best.number} is the best of {len(states)} trials{f' ({counts})' if counts else ''},",
        f"{describe_rows(tuning.split, tuning.workspace.competition.validation)}.",
        f"Its {tuning.metric_name} is {best.user_attrs[SCORE]:.4f} there; {name} as it is has {own_score}.",
    ]
    return [*sentences, describe_comparison(comparison)]


def describe_comparison(comparison: Comparison | None) -> str:
    """The result of the comparison, in a sentence."""
    if comparison is None:
        return "It is the recipe as it is."
    tuned, own = ("no score" if score is None else f"{score:.4f}" for score in (comparison.tuned, comparison.own))
    text = (
        "The best score of many trials is usually too good: "
        f"on {comparison.rows:,} other inner rows, with other seeds, it has {tuned} against {own}"
    )
    if comparison.gain is None:
        return f"{text}."
    error = "" if comparison.error is None else f" ± {comparison.error:.4f}"
    return f"{text}, {comparison.gain:+.4f}{error}: {verdict(comparison)}."


def verdict(comparison: Comparison) -> str:
    """Whether the best trial is better than the recipe on the other rows."""
    if comparison.error is not None and abs(comparison.gain) <= 2 * comparison.error:
        return "no difference beyond noise"
    if comparison.error is None:
        return "better" if comparison.gain > 0 else "not better"
    return "better beyond the noise of the rows" if comparison.gain > 0 else "worse"


def origin(tuning: Tuning) -> str:
    """The command, date and versions of a search."""
    today = datetime.now(UTC).date().isoformat()
    versions = ", ".join(f"{name} {version(name)}" for name in ("optuna", "torch", "fastai"))
    command = f"make tune RECIPE={tuning.run.recipe_name} COMPETITION={tuning.workspace.name}"
    return f"Found by `{command}` on {today} with podium {__version__}, {versions}."


def last_lines(tuning: Tuning, comparison: Comparison | None, file: Path) -> list[str]:
    """The result, the files, and what to do next."""
    if tuning.best is None:
        return ["no trial has a score", f"see {tuning.folder}"]
    lines = ["", *summary(tuning, comparison)]
    if comparison:
        option = f"COMPETITION={tuning.workspace.name}"
        lines += [
            f"wrote {file}, a recipe like any other: `make all` trains its runs",
            f"next: make {file.stem} {option}, then make ensemble {option}; or rm {file}",
        ]
    return [*lines, f"see {tuning.folder}: trials.csv and plots"]
