"""The command that creates a competition."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from podium.cli.printing import print_log

if TYPE_CHECKING:
    from podium.scaffold.guess import CompetitionGuess

commands = typer.Typer()
MOST_FAULTS = 10
MOST_CLASSES = 6


@commands.command()
def new(
    competition: Annotated[str, typer.Option("--competition", "-c", help="Name of the new competition.")],
    data: Annotated[str | None, typer.Option(help="Folder or archive of the images.")] = None,
    kaggle: Annotated[str, typer.Option(help="Slug of a competition on Kaggle, which is then downloaded.")] = "",
) -> None:
    """Guess the settings of a new competition from its files; write competition.toml and recipes."""
    from podium.data.locate import named_place
    from podium.errors import ConfigError
    from podium.kaggle.client import Kaggle
    from podium.kaggle.download import download
    from podium.plan.paths import Paths
    from podium.scaffold.guess import guess_competition
    from podium.scaffold.write import check_new_name, write_competition

    paths = Paths(competition, Path("."), Path("."))
    check_new_name(paths)
    if bool(kaggle) == bool(data):
        fix = f"make new COMPETITION={competition} KAGGLE=<slug>, or DATA=<folder or archive>"
        raise ConfigError("A new competition needs either KAGGLE= or DATA=.", fix=fix)
    data_folder = paths.root / "data"
    source = named_place("DATA", data) if data else download(Kaggle(kaggle), data_folder, log=print_log)
    guess = guess_competition(source, paths.cache, title=kaggle or competition)
    files = write_competition(paths, guess, slug=kaggle)
    print("\n".join(_guess_lines(guess)))
    print(f"wrote {', '.join(map(str, files))}")
    data_option = "" if source.parent.resolve() == data_folder.resolve() else f" DATA={source}"
    print(f"next: check these files, then type make rehearse COMPETITION={competition}{data_option}")


def _guess_lines(guess: "CompetitionGuess") -> list[str]:
    listing, data, submission = guess.listing, guess.competition.data, guess.competition.submission
    classes = [f"{name} {count:,}" for name, count in guess.class_counts.items()]
    shown = classes if len(classes) <= MOST_CLASSES else [*classes[:3], "...", classes[-1]]
    labels = "one folder per class" if data.source == "folders" else f"labels in {data.labels}"
    sample = f"as in {data.sample_submission}" if data.sample_submission else "the default, without a sample"
    return [
        f"{len(listing.rows):,} labelled images ({labels}), {len(listing.test_images):,} test images",
        f"{len(classes)} classes: {', '.join(shown)}",
        f"image sides: {guess.sides[0]} to {guess.sides[1]} pixels; median of the shorter sides: {guess.median_side}",
        f"submission format: {submission.kind} ({sample})",
        *(f"please check {item}" for item in guess.to_check),
        *(f"fix before make prepare: {fault}" for fault in listing.faults[:MOST_FAULTS]),
    ]
