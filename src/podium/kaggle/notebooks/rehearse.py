"""Rehearsals: the script of a notebook runs on this machine, offline, in a folder laid out as Kaggle's."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from podium.errors import KaggleError
from podium.kaggle.notebooks.blend import EQUAL, compare
from podium.kaggle.notebooks.float16 import record_rehearsal
from podium.kaggle.notebooks.follow import read_manifest
from podium.kaggle.notebooks.package import DATASET, SCRIPT, blend_files, pack_notebook
from podium.kaggle.notebooks.script import SUBMISSION
from podium.kaggle.notebooks.train import ImportedOutput, import_output
from podium.kaggle.waiting import one_process
from podium.plan.runs import PlannedRun
from podium.workspace import Workspace

# All that the script's environment keeps of this one: no Python paths, no accounts, no place of images.
KEPT_VARIABLES = ("PATH", "LANG", "TMPDIR", "CUDA_VISIBLE_DEVICES", "LD_LIBRARY_PATH")
# Every connection goes to a proxy that does not exist.
OFFLINE = {name: "http://127.0.0.1:9" for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")}


def rehearse_training(workspace: Workspace, runs: Sequence[PlannedRun], *, images: Path | None) -> ImportedOutput:
    """Run what `make kernel` would push, and import its output, all below `.rehearsal/`.

    `images` is the archive or folder of the competition's images, attached as Kaggle attaches them. Raises KaggleError
    where the script or a run fails, and what `pack_notebook` raises.
    """
    paths = workspace.paths
    workspace = replace(workspace, paths=replace(paths, outputs=paths.root / ".rehearsal"))
    for run in runs:  # an earlier rehearsal's predictions would be kept
        workspace.paths.predictions_file(run.run).unlink(missing_ok=True)
    with _rehearsed(workspace, images, runs) as (_, output):
        manifest, _ = read_manifest(output)
        result = import_output(workspace, output, manifest)
    faults = [f"{run}: {reason}" for run, reason in result.refused.items()]
    faults += [f"{run}: its training failed; see above" for run in manifest["failed"]]
    if faults:
        raise KaggleError("Not every run of the rehearsal was imported.", file=output, faults=faults)
    return result


def rehearse_blend(workspace: Workspace, *, images: Path | None) -> str:
    """Run what `make notebook` would push on the visible test images; returns how its CSV differs from the ensemble's.

    Labels are first predicted with parameters as float16, which `make notebook` then pushes if this CSV is equal.
    Raises KaggleError where the script fails, and what `pack_notebook` raises.
    """
    files, results = blend_files(workspace).values(), []
    has_labels = workspace.competition.submission.kind == "labels"
    for precision in ("float16", "float32") if has_labels else ("float32",):
        with _rehearsed(workspace, images, precision=precision) as (archive, output):
            difference = compare(workspace, output / SUBMISSION)
        if precision == "float16":
            record_rehearsal(workspace, files, is_equal=difference == EQUAL)
        megabytes = archive.stat().st_size / 1e6
        results.append(f"with parameters as {precision}, {megabytes:.1f} MB to upload, {difference}")
        if difference == EQUAL:
            break
    return "; ".join(results)


@contextmanager
def _rehearsed(
    workspace: Workspace, images: Path | None, runs: Sequence[PlannedRun] = (), **options: str
) -> Iterator[tuple[Path, Path]]:
    """Yield the packed archive and the output of the script, which runs here with its dataset and images attached."""
    folder = workspace.paths.root / ".rehearsal" / ".kernel" / workspace.name
    with one_process(folder / ".lock", f"Another rehearsal of {workspace.name} is running."):
        push, root = pack_notebook(workspace, folder, user="rehearsal", runs=runs, **options), folder / "machine"
        shutil.rmtree(root, ignore_errors=True)
        attached = root / "kaggle" / "input" / "datasets" / push.dataset
        attached.parent.mkdir(parents=True)
        attached.symlink_to((folder / DATASET).resolve())
        if images is not None:
            place = root / "kaggle" / "input" / "competitions" / workspace.competition.kaggle.competition
            place.mkdir(parents=True)
            for file in [images] if images.is_file() else images.iterdir():
                (place / file.name).symlink_to(file.resolve())
        if exit_code := run_script(folder / SCRIPT, root):
            found = f"exit code {exit_code}; its messages are above"
            raise KaggleError("The rehearsed script failed.", file=folder / SCRIPT, found=found)
        yield folder / DATASET / push.archive, root / "kaggle" / "working"


def run_script(script: Path, root: Path) -> int:
    """Run the script with `root` in place of Kaggle's /, offline; returns its exit code."""
    root = root.resolve()
    kept = {name: value for name, value in os.environ.items() if name in KEPT_VARIABLES}
    environment = kept | OFFLINE | {"HOME": str(root), "PODIUM_NOTEBOOK_ROOT": str(root)}
    command = [sys.executable, str(script.resolve())]
    return subprocess.run(command, cwd=root, env=environment, stdin=subprocess.DEVNULL).returncode
