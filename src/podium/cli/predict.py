"""Commands that predict new images by trained parameters."""

import time
from pathlib import Path
from typing import Annotated

import typer

from podium.cli.options import DEFAULT, Opened, complete_runs
from podium.cli.printing import duration, print_line, print_result
from podium.text import csv_text

commands = typer.Typer()


@commands.command()
def predict(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="[RUN] IMAGES",
            help="A run with parameters here; an image, or a folder of images.",
            autocompletion=complete_runs,
        ),
    ],
    workspace: Opened = DEFAULT,
    ensemble: Annotated[
        bool, typer.Option("--ensemble", help="Predict with the blend of ensemble.json, without a RUN.")
    ] = False,
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="Print a probability for each class, instead of the best class.")
    ] = False,
    submission: Annotated[
        Path | None, typer.Option(help="Write the ensemble's submission of the test images in FOLDER into this file.")
    ] = None,
) -> None:
    """Print predictions of images as CSV, by a run's trained parameters or by the ensemble's."""
    from podium.data.listing import find_new_images
    from podium.ensemble.write import read_blend
    from podium.errors import ConfigError
    from podium.plan.runs import check_parameters

    *runs, place = names
    if len(runs) != (not ensemble) or (submission and (not ensemble or probabilities)):
        expected = "RUN IMAGES, --ensemble IMAGES, or --ensemble FOLDER --submission FILE"
        raise ConfigError("Predict with what, and which images?", expected=expected)
    if submission:
        _predict_submission(workspace, place, submission)
        return
    find_new_images(Path(place))  # what is missing is found before the import of torch
    members, blend = read_blend(workspace) if ensemble else (runs, None)
    check_parameters(workspace, members)

    from podium.training.predict import open_predictor, predict_images

    predictor = open_predictor(workspace, members, blend and blend.of_rows)
    predictions = predict_images(predictor, Path(place), probabilities=probabilities)
    records = [{"id": name, **row} for name, row in predictions]
    rows = ([f"{cell:.6f}" if isinstance(cell, float) else cell for cell in row.values()] for row in records)
    print_result({"predictions": records}, text=csv_text([records[0], *rows]))


@commands.command()
def export(
    run: Annotated[str, typer.Argument(help="A run with parameters here.", autocompletion=complete_runs)],
    workspace: Opened = DEFAULT,
    onnx: Annotated[bool, typer.Option("--onnx", help="As an ONNX file, the only format.")] = False,
) -> None:
    """Write a run's networks for other programs, with a model card, if they give the same logits there."""
    from podium.errors import ConfigError
    from podium.training.export import export_onnx

    if not onnx:
        raise ConfigError("Export to which format?", expected="--onnx", fix=f"podium export {run} --onnx")
    folder, check = export_onnx(workspace, run)
    next_step = "a model card: choose a licence in it before you publish it"
    lines = [f"{run}: the largest difference of a logit is {check}"]
    lines.append(f"wrote {folder}/model.onnx and README.md, {next_step}")
    print_result({"file": folder / "model.onnx", "largest_difference": check}, lines)


def _predict_submission(workspace: Opened, place: str, file: Path) -> None:
    """Write the submission, and print its time and memory, for a test set that is a thousand times larger too."""
    import resource

    from podium.unseen import predict_submission

    started = time.perf_counter()
    count = predict_submission(workspace, place, file, note=print_line)
    seconds = time.perf_counter() - started
    gigabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # Linux counts in KiB
    print_line(f"{file}: {count:,} images in {duration(seconds)}, {gigabytes:.1f} GB of memory")
    if count:
        hours = workspace.competition.kaggle.notebook_hours
        most = int(hours * 3600 / seconds * count)
        print_line(
            f"{1000 * seconds / count:.1f} s per 1,000 images: {most:,} images in the {hours:g} hours of a session"
        )
