"""Versions of installed packages, and weights in them, found in their own lists of files: nothing of them is run."""

import base64
import platform
import sys
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from podium.errors import TrainingError

SUFFIXES = (".pth", ".pt", ".safetensors")
# Their versions decide the bits of a training.
TRAINING_PACKAGES = ("python", "torch", "torchvision", "fastai", "timm", "numpy")


@dataclass(frozen=True)
class PackagedWeights:
    """The weights of an installed package; `sha256` is what its list of files, RECORD, says of them.

    `files` maps the place in an installation -> file here, for the weights and the RECORD: enough to find them again.
    """

    file: Path
    sha256: str
    files: dict[str, Path]


def find_weights(package: str) -> PackagedWeights:
    """The one weights file of an installed package; raises TrainingError."""
    from importlib import metadata  # a plan without such weights takes 30 ms less

    try:
        distribution = metadata.distribution(package)
    except metadata.PackageNotFoundError:
        raise TrainingError(
            "The package with the pretrained weights is not installed.",
            expected=package,
            found="no such package in this environment",
            fix=f"{sys.executable} -m {'uv pip' if find_spec('uv') else 'pip'} install {package}",
        ) from None
    listed = distribution.files or []
    # At the top of site-packages, .pth are lines for Python's path.
    weights = [file for file in listed if file.suffix in SUFFIXES and len(file.parts) > 1]
    hashes = [file.hash.value for file in weights if file.hash and file.hash.mode == "sha256"]
    if len(weights) != 1 or not hashes:
        raise TrainingError(
            f"The package {package} does not have the weights of one network.",
            expected=f"one file {', '.join(SUFFIXES)}, with its SHA-256 in the package's RECORD",
            found=", ".join(map(str, weights)) or "no such file",
            fix="correct `pretrained` in the recipe",
        )
    records = [file for file in listed if file.match("*.dist-info/RECORD")]
    files = {file.as_posix(): Path(distribution.locate_file(file)) for file in [*weights, *records]}
    sha256 = base64.urlsafe_b64decode(f"{hashes[0]}=").hex()
    return PackagedWeights(files[weights[0].as_posix()], sha256, files)


@cache
def version_of(package: str) -> str:
    """The version of Python or of an installed package; `none` where it is not installed."""
    from importlib import metadata

    try:
        return platform.python_version() if package == "python" else metadata.version(package)
    except metadata.PackageNotFoundError:
        return "none"


def training_versions() -> dict[str, str]:
    """Package -> version, of what decides the bits of a training."""
    return {name: version_of(name) for name in TRAINING_PACKAGES}
