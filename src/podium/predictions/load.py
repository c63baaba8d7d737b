"""All runs of a competition, read from their files."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from podium.errors import SubmissionError
from podium.plan.paths import Paths
from podium.predictions.align import Aligned, align
from podium.predictions.artefact import load_predictions
from podium.workspace import Workspace


def load_runs(workspace: Workspace, *, rehearsed: bool = False) -> Aligned:
    """All runs in `oof/<competition>`, joined by id; `rehearsed` runs have only some of the validation rows.

    Raises SubmissionError if there are no predictions, PredictionsError if they are damaged, or do not belong to the
    data of `data.lock`.
    """
    with ThreadPoolExecutor() as threads:
        predictions = list(threads.map(load_predictions, prediction_files(workspace.paths)))
    return align(predictions, workspace.lock, rehearsed=rehearsed)


def prediction_files(paths: Paths) -> list[Path]:
    """The predictions files of a competition, sorted by run; raises SubmissionError if there are none."""
    files = sorted(paths.predictions_folder.glob("*.npz"))
    if not files:
        raise SubmissionError(
            "There are no predictions to blend.",
            file=paths.predictions_folder,
            fix=f"make train COMPETITION={paths.name}",
        )
    return files
