"""Commands that create a competition, prepare its images, train, and predict."""

import shlex
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from podium.cli.ensemble import check
from podium.cli.kaggle import competition_text, download_weights
from podium.cli.live import close_table
from podium.cli.options import DEFAULT, DataPlace, Opened, RunNames, open_named
from podium.cli.printing import RunPrinter, TaskPrinter, duration, first_score, print_line, print_result, wrote_line
from podium.plan.memory import remember
from podium.plan.runs import fit_names, longest_first, select_runs
from podium.text import record_lines

commands = typer.Typer()
MOST_FAULTS = 10
# Of the recipes for photos: a logistic regression on features, which needs no training of a network.
FASTEST = "lite0-logistic"
OPTIONS_OF_ENGINE = {"": ("fit", "again"), "ray": ("address", "checkpoints"), "slurm": ("address", "options")}


@commands.command()
def init(folder: Annotated[Path, typer.Argument(help="It is made if it does not exist.")] = Path(".")) -> None:
    """Make a folder of your own, in which make does everything: a Makefile, .gitignore and empty folders."""
    from podium.scaffold.folder import init_folder

    files = init_folder(folder)
    first = "" if folder.resolve() == Path().resolve() else f"cd {shlex.quote(str(folder))} && "
    next_line = f"next: {first}make demo, or make new COMPETITION=<name> DATA=<folder or archive of your images>"
    print_result({"files": files}, [wrote_line(files), next_line])


@commands.command()
def new(
    competition: Annotated[str, typer.Option("--competition", "-c", help="Name of the new competition.")],
    data: Annotated[str, typer.Option(help="Folder or archive of the images.")] = "",
    kaggle: Annotated[str, typer.Option(help="Slug of a competition on Kaggle, which is then downloaded.")] = "",
    target: Annotated[str, typer.Option(help="What a label is: class, multi-label, ordinal or number.")] = "",
    metric: Annotated[str, typer.Option(help="The leaderboard's metric, such as auc or log_loss.")] = "",
    kind: Annotated[str, typer.Option(help="What a submission has: labels, probability, ranking, ...")] = "",
    others: Annotated[str, typer.Option("--set", help="Other keys, as in data.group_column=patient.")] = "",
    demo: Annotated[bool, typer.Option("--demo", help="Write the settings of the demo instead.")] = False,
) -> None:
    """Guess the settings of a new competition from its files; write competition.toml and recipes."""
    from podium.config.keys import Competition, Data
    from podium.data.locate import named_place
    from podium.errors import ConfigError
    from podium.kaggle.client import Kaggle
    from podium.kaggle.download import download
    from podium.plan.paths import Paths
    from podium.scaffold.folder import write_demo
    from podium.scaffold.guess import guess_competition, with_given
    from podium.scaffold.variant import parse_assignments
    from podium.scaffold.write import check_new_name, write_competition

    paths = Paths(competition, Path("."), Path("."))
    check_new_name(paths)
    if demo:
        files = write_demo(paths)
        print_result({"files": files}, [wrote_line(files)])
        return
    if bool(kaggle) == bool(data):
        fix = f"make new COMPETITION={competition} KAGGLE=<slug>, or DATA=<folder or archive>"
        raise ConfigError("A new competition needs either KAGGLE= or DATA=.", fix=fix)
    options = {"COMPETITION": competition, "KAGGLE": kaggle, "DATA": data, "SET": others}
    command = " ".join(["make new", *(f"{name}={shlex.quote(value)}" for name, value in options.items() if value)])
    keys = {"data.target": target, "metric": metric, "submission.kind": kind, "kaggle.competition": kaggle}
    given = parse_assignments(others, Competition) | {name: value for name, value in keys.items() if value}
    names = with_given(Competition(title=competition, data=Data(source="folders")), given).kaggle.files
    data_folder = paths.root / "data"
    if kaggle:
        print_line(f"{kaggle}: {competition_text(Kaggle(kaggle).about())}")
    source = named_place("DATA", data) if data else download(Kaggle(kaggle), data_folder, names, log=print_line)
    guess = guess_competition(source, paths.cache, title=kaggle or competition, given=given, command=command)
    files = write_competition(paths, guess)
    lines = [*guess.lines, *(f"please check {item}" for item in guess.to_check)]
    lines += [f"fix before make prepare: {fault}" for fault in guess.listing.faults[:MOST_FAULTS]]
    remember(paths.root, competition, data=data)
    is_found = not data or source.parent.resolve() == data_folder.resolve()
    option = f"COMPETITION={competition}" + ("" if is_found else f" DATA={shlex.quote(str(source))}")
    lines += [wrote_line(files), f"next: check these files, then type make rehearse {option}", *_fastest(files)]
    print_result({"files": files, "to_check": guess.to_check, "faults": guess.listing.faults}, lines)


def _fastest(files: Sequence[Path]) -> list[str]:
    """What to type for a first blend, if there is a recipe that trains no network."""
    is_here = FASTEST in {file.stem for file in files}
    return [f"or next: make {FASTEST}, then make ensemble, for a first blend in a minute or two"] if is_here else []


@commands.command()
def prepare(
    workspace: Opened = DEFAULT,
    data: DataPlace = None,
    accept_data: Annotated[
        bool, typer.Option("--accept-data", help="Accept other images than those of data.lock. All runs become stale.")
    ] = False,
) -> None:
    """Find, check and decode the images, and split them. Writes data.lock, a file to commit."""
    started = time.perf_counter()
    from podium.data.prepare import prepare as prepare_data

    printing = {"progress": TaskPrinter(), "note": lambda text: print_line(f"{workspace.name}: {text}")}
    lock = prepare_data(workspace, data=data, accept=accept_data, **printing)
    if data:
        remember(workspace.paths.root, workspace.name, data=data)
    labels = f"{len(lock.classes)} classes" if lock.target.has_classes else "numbers"
    counts = {"labelled": len(lock.train_ids), "validation": int((lock.folds >= 0).sum()), "test": len(lock.test_ids)}
    line = (
        f"{workspace.name}: {counts['labelled']:,} labelled images ({counts['validation']:,} of them validation rows), "
        f"{counts['test']:,} test images, {labels}. Prepared in {time.perf_counter() - started:.1f} s."
    )
    print_result(counts | {"classes": lock.classes, "fingerprint": lock.fingerprint}, [line])


@commands.command()
def estimate(workspace: Opened = DEFAULT) -> None:
    """Print how long the stale runs will take on this machine, from a few timed steps of each recipe."""
    stale = [run for run in longest_first(workspace.trainable_runs) if run.stale]
    if not stale:
        print_result({"recipes": [], "runs": 0, "seconds": 0}, [f"{workspace.name}: every run is up to date."])
        return
    started = time.process_time()
    from podium.training.estimate import check_recipes, estimate_seconds, total_seconds

    start = time.process_time() - started  # what the process of every run needs too
    print_line(f"{workspace.name}: times a few steps of each of {len({run.recipe_name for run in stale})} recipe(s)")
    check_recipes(workspace, stale)
    seconds_of_recipe = estimate_seconds(workspace, stale)
    total, devices = total_seconds(workspace.competition, stale, seconds_of_recipe, start=start)
    counts, each = Counter(run.recipe_name for run in stale), seconds_of_recipe.items()
    records = [{"recipe": name, "runs": counts[name], "seconds_each": sum(seconds)} for name, seconds in each]
    lines = record_lines(records, {"recipe": "", "runs": ",", "seconds_each": ",.0f"})
    time_of_all = f"about {duration(total)} ({total / 3600:.2f} hours) on {devices}"
    lines.append(f"{workspace.name}: {len(stale)} runs to train, {time_of_all}")
    print_result({"recipes": records, "runs": len(stale), "seconds": total, "devices": devices}, lines)


@commands.command("plan-cost")
def plan_cost(
    assignments: Annotated[list[str] | None, typer.Argument(help="As in seconds_per_run=420 price=2.")] = None,
    workspace: Opened = DEFAULT,
) -> None:
    """Simulate how many hours runs take on 1 to 64 devices, what they cost, and what keeps devices from computing."""
    from podium.config.pixels import count_pixels, pixels_text
    from podium.plan.cost import Rental, costs
    from podium.scaffold.variant import settings_from

    rental = settings_from(" ".join(assignments or []), Rental)
    images = rental.images or len(workspace.lock.train_ids) + len(workspace.lock.test_ids)
    pixels = rental.pixels or max((run.recipe.stored_pixels for run in workspace.trainable_runs), key=count_pixels)
    rental, seconds = replace(rental, images=images, pixels=pixels), [[rental.seconds_per_run]]
    if not rental.seconds_per_run:
        from podium.training.estimate import estimate_seconds

        of_recipe = estimate_seconds(workspace, workspace.trainable_runs)
        seconds = [of_recipe[run.recipe_name] for run in workspace.trainable_runs]
    mean = sum(map(sum, seconds)) / len(seconds) / rental.speed
    plans = list(costs(rental, seconds))
    line = f"{mean:,.0f} s per run and device; {images:,} images of {pixels_text(pixels)} pixels"
    formats = dict.fromkeys(("runs", "devices", "nodes"), "d") | {"hours": ",.2f", "cost": ",.2f", "busy": ".0%"}
    lines = [line, *record_lines(plans, formats | {"not_busy_because_of": ""})]
    print_result({"seconds_each": mean, "images": images, "pixels": pixels, "plans": plans}, lines)


@commands.command("check-recipes")
def check_recipes(
    runs: RunNames = None,
    workspace: Opened = DEFAULT,
    elsewhere: Annotated[bool, typer.Option("--elsewhere", help="They will be trained on other machines.")] = False,
) -> None:
    """Build the network of each stale run's recipe and load its weights, so that all faults come before training."""
    selected = [run for run in select_runs(workspace.trainable_runs, runs or []) if run.stale]
    names = list(dict.fromkeys(run.recipe_name for run in selected))
    if selected:
        print_line(f"{workspace.name}: builds the networks of {len(names)} recipe(s)")
        from podium.training.estimate import check_recipes as check

        check(workspace, selected, here=not elsewhere)
    print_result({"recipes": names}, [f"{workspace.name}: {len(names)} recipe(s) can be trained"])


@commands.command()
def train(
    runs: RunNames = None,
    workspace: Opened = DEFAULT,
    again: Annotated[bool, typer.Option("--again", help="Train the named runs even if they are up to date.")] = False,
    fit: Annotated[
        str, typer.Option(help="Train only this fit of a run, fold0 or refit; `train RUN` joins them.")
    ] = "",
    engine: Annotated[str, typer.Option(help="A scheduler, ray or slurm, that trains the fits.")] = "",
    address: Annotated[str, typer.Option(help="Of the Ray cluster, as host:6379; `local` is this machine.")] = "",
    checkpoints: Annotated[str, typer.Option(help="A folder, or s3://..., that all nodes of Ray reach.")] = "",
    options: Annotated[str, typer.Option(help="Of SLURM's job: 'slurm_partition=gpu timeout_min=60'.")] = "",
) -> None:
    """Train the runs whose recipe, seed or data changed, one after the other. Writes oof/<competition>/<run>.npz."""
    selected, paths = select_runs(workspace.trainable_runs, runs or []), workspace.paths
    _check_engine(engine, fit=fit, again=again, address=address, checkpoints=checkpoints, options=options)
    _remove_needless_checkpoints(workspace)
    again = again and bool(runs)
    to_train = [run for run in selected if run.stale or again]
    for run in selected if not again else ():
        if not run.stale:
            print_line(f"{run.run}: up to date")
    print_result({"runs": [run.run for run in to_train]})
    if not to_train:
        return
    from podium.training.estimate import check_recipes as check_before_training
    from podium.training.run import train_fit, train_if_stale, train_run

    paths.check_writable()
    if fit:
        for run in to_train:
            train_fit(workspace, run, fit, listener=RunPrinter(f"{run.run} {fit}"))
        return
    if len({run.recipe_name for run in to_train}) > 1:
        check_before_training(workspace, to_train, here=not engine)
    failed = {}
    if engine:
        from podium.engines.train import failure, train_elsewhere

        where = {"engine": engine, "address": address, "checkpoints": checkpoints, "options": options.split()}
        if engine == "ray":
            download_weights(to_train)
        failed = train_elsewhere(workspace, longest_first(to_train), **where, note=print_line)
    for run in (run for run in to_train if run.run not in failed):
        train_one = train_if_stale if run.stale else train_run
        about = train_one(workspace, run, listener=RunPrinter(run.run)).about
        speed = about["images_per_second"]  # 0 where a head was fitted to features
        how = f"{f'{speed:,.0f} images/s, ' if speed else ''}{about['precision']}, {duration(about['seconds'])}"
        print_line(f"{run.run:<14} validation {first_score(about)} ({about['scored']}), {how}")
    if failed:
        raise failure(failed)


def _check_engine(engine: str, **options: object) -> None:
    """Refuse an unknown scheduler, and options that have no effect with it, or without one."""
    if engine not in OPTIONS_OF_ENGINE:
        raise typer.BadParameter(f"{engine} is neither ray nor slurm.", param_hint="--engine")
    for name, value in options.items():
        if value and name not in OPTIONS_OF_ENGINE[engine]:
            beside = f"with --engine {engine}" if engine else "without --engine"
            raise typer.BadParameter(f"It has no effect {beside}.", param_hint=f"--{name}")


def _remove_needless_checkpoints(workspace: Opened) -> None:
    """Remove those of runs that are up to date, left by a kill after the results were written."""
    checkpoint_file = workspace.paths.checkpoint_file
    needed = {
        checkpoint_file(run.run, part)
        for run in workspace.stale_runs
        for part in fit_names(workspace.competition, run.recipe)
    }
    for file in set(checkpoint_file("", "").parent.glob("*.pt")) - needed:
        file.unlink(missing_ok=True)


@commands.command()
def rehearse(workspace: Opened = DEFAULT, data: DataPlace = None) -> None:
    """Run every step on few images, one epoch per recipe, in .rehearsal/. Do it before hours of training."""
    started = time.perf_counter()
    prepare(workspace, data)
    from podium.ensemble.text import ensemble_lines
    from podium.rehearsal import rehearse as rehearse_workspace

    workspace = open_named(workspace.name)  # with the new lock
    written = rehearse_workspace(workspace, listener_of=RunPrinter)
    close_table()
    for line in ensemble_lines(written, stale=set()):
        print_line(line)
    if written.csv_file:
        check(written.csv_file, workspace)
    print_line(f"Rehearsal passed in {duration(time.perf_counter() - started)}. Its scores are meaningless.")
