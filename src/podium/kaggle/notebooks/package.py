"""What a kernel is made of: a dataset with code, competition, weights and wheels, and the script that uses them."""

import hashlib
import json
import pprint
import re
import secrets
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from podium.config.keys import Competition, Recipe, published_name, read_competition, recipe_files
from podium.errors import ConfigError
from podium.kaggle.notebooks import in_kernel
from podium.kaggle.notebooks.wheels import brought, fetch_wheels, podium_wheel
from podium.kaggle.session import Tell
from podium.lock import read_lock
from podium.plan.paths import Project
from podium.plan.runs import PlannedRun, longest_first
from podium.plan.stamp import file_sha256, git_commit

Publish = Callable[[Recipe, Path], None]
"""Writes the published weights of a recipe with `pretrained = true` into a file."""

SCRIPT = "kernel.py"
# A session with a GPU is ended after nine: the last run must have ended before.
HOURS = 8.5
# Two of them; newer builds of torch have no code for the P100 that `enable_gpu` alone may bring.
ACCELERATOR = "NvidiaTeslaT4"
LONGEST_SLUG = 30
NO_WHEELS = "none"


@dataclass(frozen=True)
class Brought:
    """A file of the dataset, and where it belongs in the project; no place: pip looks it up."""

    name: str
    place: str
    sha256: str
    bytes: int


@dataclass(frozen=True)
class Package:
    """A dataset's folder and a kernel's, and what they are called at Kaggle."""

    files: Path
    script: Path
    listing: str  # names the dataset's content
    brought: tuple[Brought, ...]
    dataset: str
    kernel: str
    push: str  # names this push of the kernel

    @property
    def sizes(self) -> dict[str, int]:
        """Name -> bytes of everything that the dataset must have."""
        return {one.name: one.bytes for one in self.brought}


def pack(
    project: Project,
    competition: str,
    runs: Sequence[PlannedRun],
    *,
    user: str,
    wheels: str = "",
    publish: Publish,
    tell: Tell,
    force: bool = False,
) -> Package:
    """Write both folders into `.kernel/<competition>/`; equal content gives an equal listing, but for `force`.

    `wheels` is a folder with wheels, or "none". Raises ConfigError for weights that a kernel cannot have, KaggleError
    where wheels cannot be fetched.
    """
    settings = read_competition(project.competition_folder(competition))
    folder = project.kernel_folder(competition)
    name, files, script = slug_of(competition), folder / "files", folder / "script"
    for one in (files, script):
        shutil.rmtree(one, ignore_errors=True)
        one.mkdir(parents=True)
    all_brought = _bring(project, competition, runs, files, wheels=wheels, publish=publish, tell=tell)
    text = json.dumps([vars(one) for one in all_brought], indent=1)
    # By its name alone a version that is sent again can be told from the one before.
    nonce = secrets.token_hex(6) if force else ""
    listing = f"files-{hashlib.sha256((text + nonce).encode()).hexdigest()[:12]}.json"
    (files / listing).write_text(text, encoding="utf-8")
    all_brought.append(Brought(listing, "", file_sha256(files / listing), len(text.encode())))
    package = Package(
        files, script, listing, tuple(all_brought), f"{user}/{name}-files", f"{user}/{name}", secrets.token_hex(6)
    )
    _write_json(files / "dataset-metadata.json", _dataset_metadata(package))
    _write_json(script / "kernel-metadata.json", _kernel_metadata(package, settings))
    order = [one.run for one in longest_first(project.paths(competition), runs)]
    commit = git_commit(project.root)
    (script / SCRIPT).write_text(_script(package, competition, settings, order, commit=commit), encoding="utf-8")
    return package


def slug_of(competition: str) -> str:
    """`podium-<competition>` as Kaggle writes names: what had to be changed is told apart by a hash."""
    plain = re.sub(r"[^a-z0-9]+", "-", competition.lower()).strip("-")
    if plain != competition or len(plain) > LONGEST_SLUG:
        plain = f"{plain[:LONGEST_SLUG].strip('-')}-{hashlib.sha256(competition.encode()).hexdigest()[:6]}"
    return f"podium-{plain}"


def check_kernel(project: Project, competition: str) -> None:
    """Raise ConfigError for a competition that a kernel would have no images of, DataError without `data.lock`."""
    read_lock(project.lock_file(competition))  # it is in every stamp
    settings = read_competition(project.competition_folder(competition))
    if settings.data.source != "digits" and not settings.kaggle.competition:
        raise ConfigError(
            f"A kernel would have no images of '{competition}'.",
            file=project.competition_folder(competition) / "competition.toml",
            expected='[kaggle] with competition = "<slug>", whose images Kaggle attaches',
            fix="name it there",
        )


def _bring(
    project: Project,
    competition: str,
    runs: Sequence[PlannedRun],
    files: Path,
    *,
    wheels: str,
    publish: Publish,
    tell: Tell,
) -> list[Brought]:
    """Copy everything into the dataset's folder, which is flat: Kaggle takes no folders, and unpacks archives."""
    home = project.competition_folder(competition)
    places = {}
    for file in (home / "competition.toml", project.lock_file(competition), *recipe_files(home).values()):
        places[file.name] = f"competitions/{competition}/{file.name}"
        shutil.copyfile(file, files / file.name)
    for recipe in {one.recipe_name: one.recipe for one in runs}.values():
        if isinstance(recipe.pretrained, str):
            source = _weights(project, recipe.pretrained)
            place = Path(recipe.pretrained).as_posix()
            # By its place: equal files in two places are two.
            name = f"weights-{hashlib.sha256(place.encode()).hexdigest()[:12]}{source.suffix}"
            places[name] = place
            shutil.copyfile(source, files / name)
        elif recipe.pretrained:
            name = published_name(recipe.architecture)
            kept = project.outputs / ".kernel" / "published" / name
            publish(recipe, kept)
            places[f"published-{name}"] = f"published/{name}"
            shutil.copyfile(kept, files / f"published-{name}")
    for wheel in _wheels(project, wheels, tell):
        shutil.copyfile(wheel, files / wheel.name)
    podium_wheel(files)
    return [
        Brought(file.name, places.get(file.name, ""), file_sha256(file), file.stat().st_size)
        for file in sorted(files.iterdir())
    ]


def _weights(project: Project, pretrained: str) -> Path:
    file = project.root / pretrained
    if Path(pretrained).is_absolute() or ".." in Path(pretrained).parts:
        fix = "a path below the project, such as weights/resnet34.safetensors: the recipe is the same at Kaggle"
        raise ConfigError("A weights file that a kernel cannot have.", file=pretrained, fix=fix)
    if not file.is_file():
        raise ConfigError("The weights file is missing.", file=file, fix="correct `pretrained` in the recipe")
    return file


def _wheels(project: Project, wheels: str, tell: Tell) -> list[Path]:
    if wheels == NO_WHEELS:
        return []
    if not wheels:
        return fetch_wheels(project.outputs / ".kernel" / "wheels", tell=tell)
    found = sorted(Path(wheels).glob("*.whl"))
    if not found:
        raise ConfigError("WHEELS= names no folder with wheels.", file=wheels, fix="correct WHEELS=, or WHEELS=none")
    return found


def _script(package: Package, competition: str, settings: Competition, runs: Sequence[str], *, commit: str) -> str:
    told = {
        "push": package.push,
        "competition": competition,
        "runs": list(runs),
        "dataset": package.dataset,
        "listing": package.listing,
        "source": settings.kaggle.competition,
        "needs": brought(),
        "hours": HOURS,
        "commit": commit,
    }
    text = Path(in_kernel.__file__).read_text(encoding="utf-8")
    head, line, rest = text.partition("SETTINGS: dict[str, Any] = {}\n")
    assert line, "the script has no settings to fill in"
    return f"{head}SETTINGS: dict[str, Any] = {pprint.pformat(told, width=110, sort_dicts=False)}\n{rest}"


def _dataset_metadata(package: Package) -> dict:
    # A licence must be named, also of what is private.
    return {"id": package.dataset, "title": package.dataset.split("/")[1], "licenses": [{"name": "other"}]}


def _kernel_metadata(package: Package, settings: Competition) -> dict:
    return {
        "id": package.kernel,
        "title": package.kernel.split("/")[1],
        "code_file": SCRIPT,
        "language": "python",
        "kernel_type": "script",
        "is_private": True,
        "enable_gpu": True,
        "enable_internet": False,
        "machine_shape": ACCELERATOR,
        "dataset_sources": [package.dataset],
        "competition_sources": [settings.kaggle.competition] if settings.kaggle.competition else [],
    }


def _write_json(file: Path, content: dict) -> None:
    file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
