"""Where a member looked: heat maps of images, which `podium.training.heat_maps` computes where parameters are here."""

import json
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from podium.files import DAMAGE, atomic_write
from podium.plan.stamp import file_sha256
from podium.report.load import ReportData

# Run, rows of the lock (n,), numbers of logits (n,) -> maps (n, h, w) in [0, 1]; None: it cannot.
Draw = Callable[[str, np.ndarray, np.ndarray], np.ndarray | None]


@dataclass(frozen=True, eq=False)
class HeatMaps:
    """The heat maps of some validation rows."""

    run: str
    is_refit: bool  # the network has seen the rows
    maps: dict[str, np.ndarray]  # id -> (h, w) uint8


def find_heat_maps(data: ReportData, ids: np.ndarray, outputs: np.ndarray, draw: Draw | None) -> HeatMaps | None:
    """The heat maps of validation rows, by the member with the largest weight whose parameters are here.

    `outputs` (n,) are the classes to explain. They are read from the file that the last report kept, or drawn. None
    where neither is possible.
    """
    workspace, target = data.workspace, data.result.pool.target
    members = sorted((run for run in data.result.runs if run.weight), key=lambda run: -run.weight)
    members = [run for run in members if workspace.paths.parameters_file(run.run).is_file()]
    if not members or data.images is None or not len(ids):
        return None
    run, outputs = members[0].run, np.minimum(outputs, target.outputs - 1)
    about = {"run": run, "parameters": file_sha256(workspace.paths.parameters_file(run))}
    about |= {"ids": ids.tolist(), "outputs": outputs.tolist()}
    file = workspace.paths.reports / "heat-maps.npz"
    try:
        with np.load(file, allow_pickle=False) as kept:
            known, maps = json.loads(str(kept["about"])), kept["maps"]
    except DAMAGE:
        known = None
    if known != about:
        drawn = draw(run, np.searchsorted(workspace.lock.train_ids, ids), outputs) if draw else None
        if drawn is None:
            return None
        maps = np.round(255 * drawn).astype(np.uint8)
        with atomic_write(file) as stream:
            np.savez_compressed(stream, about=json.dumps(about), maps=maps)
    return HeatMaps(run, "refit" in members[0].test_logits_from, dict(zip(ids.tolist(), maps, strict=True)))
