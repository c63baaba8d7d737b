"""The command that tunes a recipe; it reads arguments and prints, like those in cli.py."""

import sys
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from podium.cli.options import DEFAULT, CompetitionName, DataPlace
from podium.plan.paths import Project

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial
    from rich.table import Table

    from podium.tune.trials import Budget, Onlooker
    from podium.tune.tuning import Tuning

commands = typer.Typer()
DEFAULT_TRIALS = 20
MOST_SHOWN = 8


@commands.command()
def tune(
    recipe: Annotated[str, typer.Argument(help="The recipe whose keys are to be tuned, such as resnet34.")] = "",
    competition: CompetitionName = DEFAULT,
    trials: Annotated[str, typer.Option(help="Trials in all, earlier ones of the same search included.")] = "",
    minutes: Annotated[str, typer.Option(help="Minutes after which no more trials begin.")] = "",
    out: Annotated[str, typer.Option(help="Name of the recipe to write; else <recipe>-tuned.")] = "",
    data: DataPlace = None,
) -> None:
    """Search better values for a recipe's keys on rows that are not validation rows; writes a new recipe."""
    budget = _budget(trials, minutes)
    from podium.tune.page import write_page
    from podium.tune.trials import judge_again, processes, run_trials
    from podium.tune.tuning import open_tuning
    from podium.tune.write import winner_file, write_winner

    with open_tuning(Project.at("."), competition, recipe, data=data) as tuning:
        file = winner_file(tuning, out or None)
        print("\n".join(_beginning_lines(tuning, budget)), flush=True)
        again = None
        try:
            with processes(tuning.place, tuning.workers) as pool, _onlooker() as onlooker:
                run_trials(tuning, budget, pool=pool, onlooker=onlooker)
                again = judge_again(tuning, pool=pool, onlooker=onlooker)
        finally:
            page = write_page(tuning, again)
        if again is not None:
            write_winner(tuning, file, again)
        print("\n".join(_end_lines(tuning, again, file.name, str(page))))


def _budget(trials: str, minutes: str) -> "Budget":
    from podium.errors import ConfigError

    faults = []
    if trials and minutes:
        faults.append("both TRIALS= and MINUTES=: expected one of them")
    if trials and not (trials.isascii() and trials.isdigit() and int(trials)):
        faults.append(f"TRIALS={trials}: expected a whole number, at least 1")
    if minutes and not _is_positive(minutes):
        faults.append(f"MINUTES={minutes}: expected a number above 0")
    if faults:
        raise ConfigError("That is no bound for a search.", faults=faults, fix="TRIALS=20, or MINUTES=30")
    from podium.tune.trials import Budget

    return Budget(minutes=float(minutes)) if minutes else Budget(trials=int(trials or DEFAULT_TRIALS))


def _is_positive(text: str) -> bool:
    try:
        return 0 < float(text) < float("inf")
    except ValueError:
        return False


def _beginning_lines(tuning: "Tuning", budget: "Budget") -> list[str]:
    from podium.config.search import Range
    from podium.tune.history import finished

    whose = f"[search] of {tuning.recipe_file.name}" if tuning.own_ranges else "Podium's ranges: no [search] in it"
    lines = [f"{tuning.recipe_name}: {tuning.split.words}", f"tries ({whose}):"]
    for name, one in tuning.search.items():
        if isinstance(one, Range):
            words = f"{one.low:.4g} to {one.high:.4g}{', by its logarithm' if one.log else ''}"
        else:
            words = ", ".join(str(value) for value in one.values)
        lines.append(f"  {name:<22} {words}")
    done = len(finished(tuning.study))
    if tuning.anew:
        lines.append("recipe, ranges or data are not those of the last search: a new one begins")
    elif done:
        lines.append(f"goes on after {done} trials")
    side = tuning.workers
    bound = f"{budget.trials} trials in all" if budget.trials else f"trials begin for {budget.minutes:g} minutes"
    repeats = "; side by side, a search does not repeat exactly" if side > 1 else ""
    return [*lines, f"{bound}, {side} side by side{repeats}"]


def _end_lines(tuning: "Tuning", again: dict[str, Any] | None, winner: str, page: str) -> list[str]:
    from podium.tune.write import told_lines

    if tuning.best is None:
        return ["no trial has come to a score", f"see {page}"]
    lines = ["", *told_lines(tuning, again)[1:-1]]
    if again is not None:
        file, of = tuning.recipe_file.with_name(winner), f"COMPETITION={tuning.competition_name}"
        lines += [
            f"wrote {file}, a recipe like any other: its runs count among those to train",
            f"next: make {file.stem} {of}, then make ensemble {of}; or rm {file}",
        ]
    return [*lines, f"see {page}"]


def _onlooker() -> "Onlooker":
    """What shows a search: a live table on a terminal, a line a trial elsewhere."""
    from podium.tune.trials import Onlooker

    class Lines(Onlooker):
        def __enter__(self) -> "Onlooker":
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def note(self, text: str) -> None:
            print(text, flush=True)

        def finished(self, tuning: "Tuning", trial: "FrozenTrial") -> None:
            print(_line(tuning, trial), flush=True)

    class LiveTable(Lines):
        def __enter__(self) -> "Onlooker":
            from rich.live import Live

            self.live, self.began = Live(auto_refresh=False), time.monotonic()
            self.live.__enter__()
            return self

        def __exit__(self, *told: object) -> None:
            self.live.__exit__(*told)

        def finished(self, tuning: "Tuning", trial: "FrozenTrial") -> None:
            self.look(tuning)

        def look(self, tuning: "Tuning") -> None:
            self.live.update(_table(tuning, time.monotonic() - self.began), refresh=True)

    return LiveTable() if sys.stdout.isatty() else Lines()


def _line(tuning: "Tuning", trial: "FrozenTrial") -> str:
    return "  ".join(_cells(tuning, trial)).rstrip()


def _cells(tuning: "Tuning", trial: "FrozenTrial") -> list[str]:
    """Number, state, score, last epoch, values, note."""
    from podium.tune.history import SCORE, note_words, state_word

    score = f"{trial.user_attrs[SCORE]:.4f}" if SCORE in trial.user_attrs else "      "
    last = max(trial.intermediate_values, default=0)
    epoch = f"epoch {last} {trial.intermediate_values[last]:.4f}" if last else ""
    values = ", ".join(
        f"{name} {one:.4g}" if isinstance(one, float) else f"{name} {one}" for name, one in tuning.values(trial).items()
    )
    return [f"trial {trial.number:>3}", f"{state_word(trial):<7}", score, f"{epoch:<15}", values, note_words(trial)]


def _table(tuning: "Tuning", seconds: float) -> "Table":
    """The running trials and the best ones."""
    from rich.markup import escape
    from rich.table import Table

    from podium.tune.history import finished, judged

    done = finished(tuning.study)
    running = [one for one in tuning.study.get_trials(deepcopy=False) if one.state.name == "RUNNING"]
    title = f"{tuning.recipe_name}: {len(done)} trials, {len(running)} running, {seconds:.0f} s"
    table = Table(title=escape(title), title_justify="left")
    for name in ("trial", "state", tuning.metric_name, "last epoch", "values", "note"):
        table.add_column(name, overflow="fold")
    for place, trial in enumerate([*running, *judged(tuning.study)[:MOST_SHOWN]]):
        cells = [escape(cell.strip()) for cell in _cells(tuning, trial)]
        table.add_row(*cells, style="bold" if place == len(running) else None)
    return table
