"""A rehearsal of `make kernel`: the packed script runs on this machine, offline, in a folder laid out as Kaggle's."""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from podium.errors import KaggleError
from podium.kaggle.notebooks.import_output import ImportedOutput, import_output, read_manifest
from podium.kaggle.notebooks.package import Package, pack_notebook
from podium.kaggle.waiting import one_process
from podium.plan.runs import PlannedRun
from podium.workspace import Workspace

# All that the script's environment keeps of this one: no Python paths, no accounts, no place of images.
KEPT_VARIABLES = ("PATH", "LANG", "TMPDIR", "CUDA_VISIBLE_DEVICES", "LD_LIBRARY_PATH")
# Every connection goes to a proxy that does not exist.
OFFLINE = {name: "http://127.0.0.1:9" for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")}


def rehearse_notebook(workspace: Workspace, runs: Sequence[PlannedRun], *, images: Path | None) -> ImportedOutput:
    """Run what `make kernel` would push, and import its output, all below `.rehearsal/`.

    `images` is the archive or folder of the competition's images, attached as Kaggle attaches them. Raises KaggleError
    where the script or a run fails, and what `pack_notebook` raises.
    """
    paths = workspace.paths
    workspace = replace(workspace, paths=replace(paths, outputs=paths.root / ".rehearsal"))
    folder = workspace.paths.notebook_folder
    with one_process(folder / ".lock", f"Another rehearsal of {workspace.name} is running."):
        for run in runs:  # an earlier rehearsal's predictions would be kept
            workspace.paths.predictions_file(run.run).unlink(missing_ok=True)
        package = pack_notebook(workspace, runs, user="rehearsal")
        root = folder / "machine"
        _lay_out(root, package, workspace.competition.kaggle.competition, images)
        exit_code = run_script(package.script, root)
        output = root / "kaggle" / "working"
        if exit_code != 0:
            found = f"exit code {exit_code}; its messages are above"
            raise KaggleError("The rehearsed script failed.", file=package.script, found=found)
        manifest = read_manifest(output)
        result = import_output(workspace, output, manifest)
    faults = [f"{run}: {reason}" for run, reason in result.refused.items()]
    faults += [f"{run}: its training failed; see above" for run in manifest["failed"]]
    if faults:
        raise KaggleError("Not every run of the rehearsal was imported.", file=output, faults=faults)
    return result


def run_script(script: Path, root: Path) -> int:
    """Run the script with `root` in place of Kaggle's /, offline; returns its exit code."""
    root = root.resolve()
    kept = {name: value for name, value in os.environ.items() if name in KEPT_VARIABLES}
    environment = kept | OFFLINE | {"HOME": str(root), "PODIUM_NOTEBOOK_ROOT": str(root)}
    command = [sys.executable, str(script.resolve())]
    return subprocess.run(command, cwd=root, env=environment, stdin=subprocess.DEVNULL).returncode


def _lay_out(root: Path, package: Package, competition: str, images: Path | None) -> None:
    """Attach the dataset and the images below `root`."""
    shutil.rmtree(root, ignore_errors=True)
    attached = root / "kaggle" / "input" / "datasets" / package.dataset
    attached.parent.mkdir(parents=True)
    attached.symlink_to(package.archive.parent.resolve())
    if images is not None:
        folder = root / "kaggle" / "input" / "competitions" / competition
        folder.mkdir(parents=True)
        for file in [images] if images.is_file() else images.iterdir():
            (folder / file.name).symlink_to(file.resolve())
