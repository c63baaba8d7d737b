"""The command that begins a competition."""

from typing import TYPE_CHECKING, Annotated

import typer

from podium.cli.options import tell_line
from podium.plan.paths import Project

if TYPE_CHECKING:
    from podium.scaffold.guess import Looked

commands = typer.Typer()
MOST_FAULTS = 10


@commands.command()
def new(
    competition: Annotated[str, typer.Option("--competition", "-c", help="What to call it here.")],
    data: Annotated[str | None, typer.Option(help="A folder or an archive with images.")] = None,
    kaggle: Annotated[str, typer.Option(help="Slug of a competition on Kaggle, to be downloaded.")] = "",
) -> None:
    """Look at a new competition's files, and write its competition.toml and recipes to begin with."""
    from podium.data.locate import named_place
    from podium.errors import ConfigError
    from podium.kaggle.client import Kaggle
    from podium.kaggle.download import download as fetch
    from podium.scaffold.guess import look
    from podium.scaffold.write import check_new, start

    project = Project.at(".")
    check_new(project, competition)
    if bool(kaggle) == bool(data):
        fix = f"make new COMPETITION={competition} KAGGLE=<slug>, or DATA=<folder or archive>"
        raise ConfigError("A new competition comes from Kaggle or from a place.", fix=fix)
    place = named_place("DATA", data) if data else fetch(Kaggle(kaggle), project.root / "data", tell=tell_line)
    looked = look(place, project.cache_folder(competition), title=kaggle or competition)
    files = start(project, competition, looked, slug=kaggle)
    print("\n".join(_looked_lines(looked)))
    print(f"wrote {', '.join(str(file) for file in files)}")
    given = "" if place.parent.resolve() == (project.root / "data").resolve() else f" DATA={place}"
    print(f"next: read them, then make rehearse COMPETITION={competition}{given}")


def _looked_lines(looked: "Looked") -> list[str]:
    listing, settings, counts = looked.listing, looked.competition, looked.class_counts
    classes = list(counts.items())
    shown = ", ".join(f"{name} {count:,}" for name, count in (classes if len(classes) < 7 else classes[:3]))
    if len(classes) >= 7:
        shown += f", ... {classes[-1][0]} {classes[-1][1]:,}"
    how = "one folder a class" if settings.data.source == "folders" else f"labels in {settings.data.labels}"
    lines = [
        f"{len(listing.train_names):,} labelled images ({how}), {len(listing.test_ids):,} test images",
        f"{len(classes)} classes: {shown}",
        f"sides {looked.sides[0]} to {looked.sides[1]} pixels, the shorter ones with a median of {looked.median_side}",
        f"a submission has {settings.submission.kind}, {_said_by(settings.data.sample_submission)}",
    ]
    lines += [f"unsure: {one}" for one in looked.unsure]
    return lines + [f"to fix before make prepare: {fault}" for fault in listing.faults[:MOST_FAULTS]]


def _said_by(sample: str) -> str:
    return f"says {sample}" if sample else "as no sample says otherwise"
