"""The blend that the JSON of an ensemble records, to apply it to images that were not there when it was fitted."""

from typing import Any

import numpy as np

from podium.ensemble.blend import Blend
from podium.errors import SubmissionError
from podium.files import read_json
from podium.plan.stamp import CONTENT_KEY, content_sha256, file_sha256
from podium.targets.target import Target
from podium.workspace import Workspace


def read_blend(workspace: Workspace, out: str = "ensemble") -> tuple[tuple[str, ...], Blend]:
    """The names of the members in `submissions/<competition>/<out>.json`, and their blend.

    Its numbers have eight decimals. Raises SubmissionError where there is no such ensemble, its file was changed, or
    the predictions of a member have changed since. Predictions that are not here are not compared.
    """
    file, fix = workspace.paths.submissions / f"{out}.json", f"make ensemble COMPETITION={workspace.name}"
    record = read_json(file)
    if not isinstance(record, dict):
        raise SubmissionError("There is no ensemble here.", file=file, fix=fix)
    if record.get(CONTENT_KEY) != content_sha256(record):
        raise SubmissionError("The file of the ensemble was changed, or an older Podium wrote it.", file=file, fix=fix)
    members = [run for run in record["runs"] if run["weight"]]
    names = tuple(run["run"] for run in members)
    now = {name: file_sha256(workspace.paths.predictions_file(name)) for name in names}
    if changed := [name for name, sha256 in now.items() if sha256 not in ("", record["inputs"][name])]:
        found = f"other predictions of {', '.join(changed)}"
        raise SubmissionError("Runs were trained again after they were blended.", file=file, found=found, fix=fix)
    return names, _blend_of(record, members, workspace.lock.target)


def _blend_of(record: dict[str, Any], members: list[dict[str, Any]], target: Target) -> Blend:
    biases, cuts = record["biases"], record.get("cut_points")
    return Blend(
        strategy=record["strategy"]["used"],
        average=record["strategy"]["average"],
        temperatures=np.array([run["temperature"] for run in members]),
        weights=np.array([run["weight"] for run in members]),
        biases=None if biases is None else np.array(list(biases.values())),
        temperature=record["temperature"],
        target=target,
        cuts=None if cuts is None else np.array(cuts),
    )
