"""What a notebook at Kaggle is made of: a dataset with Podium, settings and weights, and the script that uses it."""

import hashlib
import json
import pprint
import re
import secrets
import shutil
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import podium
from podium.config.keys import Recipe, published_name
from podium.ensemble.write import read_blend
from podium.errors import ConfigError
from podium.kaggle.notebooks import script
from podium.kaggle.notebooks.float16 import halve
from podium.plan.packages import find_weights
from podium.plan.runs import PlannedRun, longest_first
from podium.plan.stamp import file_sha256, git_commit
from podium.submission import require_test
from podium.workspace import Workspace

# What a session needs beside training: to unpack, to decode the images and to keep the output.
RESERVED_HOURS = 0.5
LONGEST_SLUG = 30
PARAMETERS = ".safetensors"
SCRIPT, DATASET = "kernel.py", "files"  # in the folder of a notebook
SETTINGS_LINE = "SETTINGS: dict[str, Any] = {}\n"
DATE = (1980, 1, 1, 0, 0, 0)  # of the files in the archive


@dataclass(frozen=True)
class Push:
    """A notebook `<user>/<slug>` with its dataset: packed, and then pushed.

    The id `push` is in the script, and in the manifest of its output.
    """

    push: str
    notebook: str
    runs: Sequence[str] = ()
    archive: str = ""  # the file of the dataset
    time: str = ""  # when it was pushed, UTC
    version: int = 0  # of the notebook; 0 until Kaggle reports it

    @property
    def dataset(self) -> str:
        """The dataset `<user>/<slug>` with the archive."""
        return f"{self.notebook}-files"


def pack_notebook(
    workspace: Workspace,
    folder: Path,
    *,
    user: str,
    runs: Sequence[PlannedRun] = (),
    new_version: bool = False,
    precision: str = "float32",
) -> Push:
    """Write SCRIPT and DATASET, a notebook and its files, into a folder: it trains `runs`, or predicts by the ensemble.

    The members' parameters have the `precision`, float32 or float16. Equal content gives an equal archive, except for a
    `new_version`. Published weights must be there before, see `published_weights_file`. Raises ConfigError for files
    that are missing or that a notebook cannot have, and for a competition whose images Kaggle cannot attach,
    TrainingError for a package without weights, and what `read_blend` raises.
    """
    check_images(workspace, trains=bool(runs))
    paths, prefix = workspace.paths, "podium" if runs else "submit"
    notebook = f"{user}/{notebook_slug(workspace.name, prefix)}"
    files = training_files(workspace, runs) if runs else blend_files(workspace)
    if precision == "float16":
        halves = {place: folder / "float16" / file.name for place, file in files.items() if file.suffix == PARAMETERS}
        files |= {place: halve(files[place], target) for place, target in halves.items()}
    files |= {file.relative_to(paths.root).as_posix(): file for file in (paths.settings_file, paths.lock_file)}
    archive = pack_dataset(f"{notebook}-files", folder / DATASET, files | source_files(), new_version=new_version)
    names = [run.run for run in longest_first(runs)]
    push = Push(secrets.token_hex(6), notebook, names, archive.name)
    (folder / SCRIPT).write_text(_script_text(workspace, push), encoding="utf-8")
    return push


def pack_dataset(name: str, folder: Path, files: Mapping[str, Path], *, new_version: bool = False) -> Path:
    """Replace `folder` by an archive of the files and the description of the dataset `<user>/<slug>`.

    `files` maps a path in the project at Kaggle to a file here. Returns the archive `podium-<hash>.pyz`: Kaggle unpacks
    a file called .zip. Equal files give an equal archive, except for a `new_version`.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    temporary = folder / "archive.tmp"
    with zipfile.ZipFile(temporary, "w") as archive:
        for place, file in sorted(files.items()):
            entry = zipfile.ZipInfo(place, DATE)
            with file.open("rb") as source, archive.open(entry, "w", force_zip64=True) as target:
                shutil.copyfileobj(source, target)
        archive.comment = secrets.token_bytes(6) if new_version else b""
    # Kaggle requires a licence, even for a private dataset.
    metadata = {"id": name, "title": name.split("/")[1], "licenses": [{"name": "other"}]}
    (folder / "dataset-metadata.json").write_text(json.dumps(metadata, indent=2), encoding="utf-8")
    return temporary.rename(folder / f"podium-{file_sha256(temporary)[:12]}.pyz")


def notebook_slug(competition_name: str, prefix: str) -> str:
    """`<prefix>-<competition>` in the characters that Kaggle allows; a hash keeps changed names distinct."""
    plain = re.sub(r"[^a-z0-9]+", "-", competition_name.lower()).strip("-")
    if plain != competition_name or len(plain) > LONGEST_SLUG:
        digest = hashlib.sha256(competition_name.encode()).hexdigest()[:6]
        plain = f"{plain[:LONGEST_SLUG].strip('-')}-{digest}"
    return f"{prefix}-{plain}"


def check_images(workspace: Workspace, *, trains: bool) -> None:
    """Raise ConfigError where Kaggle cannot attach the images of a notebook that `trains`, or only predicts the test's.

    Raises DataError where there is no `data.lock`.
    """
    workspace.lock  # noqa: B018 - read now: it is part of every stamp
    settings = workspace.competition
    if trains and settings.data.extra:
        found = ", ".join(settings.data.extra)
        raise ConfigError("A notebook at Kaggle would not have the extra images.", found=found, fix="train here")
    if settings.data.source != "digits" and not settings.kaggle.competition:
        raise ConfigError(
            f"A notebook at Kaggle would have no images of '{workspace.name}'.",
            file=workspace.paths.settings_file,
            expected='[kaggle] with competition = "<slug>", whose images Kaggle attaches',
            fix="add it there",
        )


def source_files() -> dict[str, Path]:
    """Place -> file of Podium's sources."""
    package = Path(podium.__file__).parent
    files = [file for file in package.rglob("*") if file.is_file() and "__pycache__" not in file.parts]
    return {f"src/podium/{file.relative_to(package).as_posix()}": file for file in files}


def published_weights_file(root: Path, recipe: Recipe) -> Path:
    """Where the published weights of a recipe with `pretrained = true` are kept: a notebook cannot download them."""
    return root / ".kernel" / "published" / published_name(recipe.architecture)


def training_files(workspace: Workspace, runs: Sequence[PlannedRun]) -> dict[str, Path]:
    """Place -> file of the recipes, of the weights that the runs start from, and of their pseudo-labels."""
    root, files = workspace.paths.root, {}
    for recipe in {run.recipe_name: run.recipe for run in runs}.values():
        if recipe.pretrained is True:
            file = published_weights_file(root, recipe)
            files[f"published/{file.name}"] = file
        elif recipe.weights_package:  # installed by lying beside Podium's sources
            files |= {f"src/{place}": file for place, file in find_weights(recipe.weights_package).files.items()}
        elif recipe.pretrained:
            files[Path(recipe.pretrained).as_posix()] = root / recipe.pretrained
        if recipe.pseudo_labels:
            files[Path(recipe.pseudo_labels).as_posix()] = root / recipe.pseudo_labels
    for place in files:
        if Path(place).is_absolute() or ".." in Path(place).parts:
            expected = "a path below the project, such as weights/resnet34.safetensors"
            raise ConfigError("Another machine cannot have this file.", file=place, expected=expected)
    _require(files.values(), "A file that a recipe names is missing.", "correct the recipe")
    recipes = map(workspace.paths.recipe_file, workspace.recipes)
    return files | {file.relative_to(root).as_posix(): file for file in recipes}


def blend_files(workspace: Workspace) -> dict[str, Path]:
    """Place -> file of the ensemble and of its members' parameters."""
    require_test(workspace.lock)
    paths, members = workspace.paths, read_blend(workspace)[0]
    fix = f"podium train {' '.join(members)} --again --competition {workspace.name}"
    _require(map(paths.parameters_file, members), "A member of the ensemble has no trained parameters here.", fix)
    files = [paths.submissions / "ensemble.json", *map(paths.parameters_file, members)]
    return {file.relative_to(paths.outputs).as_posix(): file for file in files}


def _require(files: Iterable[Path], what: str, fix: str) -> None:
    """Raise ConfigError for a file that is missing."""
    for file in files:
        if not file.is_file():
            raise ConfigError(what, file=file, fix=fix)


def push_request(workspace: Workspace, folder: Path, push: Push) -> dict[str, Any]:
    """What Kaggle has to know about a notebook that was packed into a folder, by the names of its API."""
    settings = workspace.competition.kaggle
    accelerator, image = settings.notebook_accelerator, settings.notebook_image
    return {
        "slug": push.notebook,
        "newTitle": push.notebook.split("/")[1],
        "text": (folder / SCRIPT).read_text(encoding="utf-8"),
        "language": "python",
        "kernelType": "script",
        "isPrivate": True,
        "enableInternet": False,
        "enableGpu": accelerator != "none",
        **({} if accelerator == "none" else {"machineShape": accelerator}),
        "dockerImage" if "@" in image else "dockerImagePinningType": image,
        "datasetDataSources": [push.dataset],
        "competitionDataSources": [settings.competition] if settings.competition else [],
    }


def _script_text(workspace: Workspace, push: Push) -> str:
    """The script with its settings filled in."""
    kaggle = workspace.competition.kaggle
    settings = {
        "push": push.push,
        "competition": workspace.name,
        "runs": push.runs,
        "dataset": push.dataset,
        "archive": push.archive,
        "source": kaggle.competition,
        "hours": kaggle.notebook_hours - RESERVED_HOURS,
        "parameters": kaggle.notebook_parameters,
        "commit": git_commit(workspace.paths.root),
    }
    head, line, rest = Path(script.__file__).read_text(encoding="utf-8").partition(SETTINGS_LINE)
    assert line, "the script has no settings to fill in"
    return f"{head}SETTINGS: dict[str, Any] = {pprint.pformat(settings, width=110, sort_dicts=False)}\n{rest}"
