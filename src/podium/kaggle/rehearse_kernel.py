"""A kernel rehearsed: what is pushed runs on this machine, offline, in a scratch folder laid out as Kaggle's is."""

import json
import os
import subprocess
import sys
import sysconfig
import tempfile
import time
import venv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from podium.config.keys import read_competition
from podium.data.locate import locate
from podium.data.scan import quiet
from podium.kaggle.client import Kaggle
from podium.kaggle.notebooks.follow import Bench, train_in_kernel
from podium.kaggle.notebooks.import_output import TakenIn
from podium.kaggle.notebooks.kernels import Kernels
from podium.kaggle.notebooks.package import Publish
from podium.kaggle.rehearsal_kernels import Ran, RunKernel
from podium.kaggle.rehearsal_server import RehearsalServer
from podium.kaggle.rehearsal_state import State
from podium.kaggle.session import Patience, Tell
from podium.plan.paths import Project
from podium.plan.runs import list_runs, wanted_runs

# What a machine of its own is told of this one: neither Python's paths, nor accounts, nor where images are.
TOLD = ("PATH", "LANG", "TMPDIR", "CUDA_VISIBLE_DEVICES", "LD_LIBRARY_PATH")
# Whatever asks for a network finds none.
OFFLINE = {name: "http://127.0.0.1:9" for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")}
PATIENCE = Patience(first_pause_seconds=0.5, longest_pause_seconds=5, wait_seconds=4 * 3600, grace_seconds=0)


def here(folder: Path, images: Path | None = None) -> RunKernel:
    """What runs kernels below `folder`; `images` lie there as the competition's do at Kaggle."""

    def run(push: dict[str, Any], datasets: Mapping[str, Mapping[str, bytes]]) -> Ran:
        machine = Path(tempfile.mkdtemp(dir=folder, prefix="machine-"))
        for dataset in push["datasetDataSources"]:
            _write(machine / "input" / "datasets" / dataset, datasets[dataset])
        for competition in push.get("competitionDataSources", []):
            _attach(machine / "input" / "competitions" / competition, images)
        script = machine / "script.py"
        script.write_text(push["text"], encoding="utf-8")
        done = subprocess.run(
            [_image(machine / "image"), str(script)],
            cwd=machine,
            env=_environment(machine),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        log = json.dumps([{"stream_name": "stdout", "time": time.time(), "data": done.stdout}])
        status, failure = ("COMPLETE", "") if done.returncode == 0 else ("ERROR", f"exit code {done.returncode}")
        return Ran(status, failure, _read(machine / "working"), log)

    return run


def rehearse(
    project: Project,
    competition: str,
    names: Sequence[str],
    *,
    wheels: str,
    data: str | None,
    publish: Publish,
    tell: Tell,
) -> TakenIn | None:
    """Go through `train_in_kernel` with everything below `.rehearsal/`; without names with the first run alone.

    Raises what `train_in_kernel` raises.
    """
    scratch = Project(project.root, project.root / ".rehearsal")
    settings = read_competition(project.competition_folder(competition))
    planned = wanted_runs(list_runs(scratch, competition), names)
    images = None
    if settings.data.source != "digits":
        images = locate(settings, competition, project=project, data=data, progress=quiet).path
    state = State(settings.kaggle.competition, lambda _: None)
    with tempfile.TemporaryDirectory() as folder, RehearsalServer(state) as server:
        state.kernels.run = here(Path(folder), images)
        kaggle = Kaggle(settings.kaggle.competition, server.environment(os.environ, Path(folder) / "home"))
        bench = Bench(scratch, competition, Kernels(kaggle), tell, publish, wheels, PATIENCE, PATIENCE)
        planned = planned if names else planned[:1]
        for one in planned:  # what an earlier rehearsal trained would be left as it is
            scratch.predictions_file(competition, one.run).unlink(missing_ok=True)
        return train_in_kernel(bench, planned, force=True)  # this Kaggle remembers no push


def _attach(place: Path, images: Path | None) -> None:
    place.mkdir(parents=True)
    for file in [] if images is None else [images] if images.is_file() else images.iterdir():
        (place / file.name).symlink_to(file.resolve())


def _image(folder: Path) -> str:
    """A Python with the packages that are here, and a place of its own for what the kernel installs."""
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    names = [sysconfig.get_path("purelib"), *(one for one in sys.path if one.endswith("-packages"))]
    own = next((folder / "lib").glob("python3*/site-packages"))
    (own / "image.pth").write_text("\n".join(dict.fromkeys(names)) + "\n", encoding="utf-8")
    return str(python)


def _environment(machine: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name in TOLD}
    return {
        **kept,
        **OFFLINE,
        "HOME": str(machine),
        "PIP_NO_CACHE_DIR": "1",
        "PODIUM_KERNEL_INPUT": str(machine / "input"),
        "PODIUM_KERNEL_WORKING": str(machine / "working"),
        "PODIUM_KERNEL_PROJECT": str(machine / "project"),
    }


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)


def _read(folder: Path) -> dict[str, bytes]:
    files = [file for file in sorted(folder.rglob("*")) if file.is_file()]
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}
