"""Wheels for a machine without a network: Podium itself, and what Kaggle's image lacks or has too old."""

import base64
import hashlib
import re
import subprocess
import sys
import zipfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import podium
from podium.errors import KaggleError
from podium.kaggle.cli_messages import last_words
from podium.kaggle.session import Tell

# What `podium train` needs, as pyproject.toml bounds it, and the small part of what that needs in turn. Where Kaggle's
# image lacks the one, or has it too old, all of its row is installed there, in the versions that are here.
NEEDS = {
    "fastai>=2.8.3": ("fastcore", "fastdownload", "fastprogress", "fasttransform", "plum-dispatch"),
    "py7zr>=1.0": (
        *("backports-zstd", "brotli", "inflate64", "multivolumefile", "psutil", "pybcj", "pycryptodomex"),
        *("pyppmd", "texttable"),
    ),
    "safetensors>=0.5": (),
    "timm>=1.0.15": (),
    "typer>=0.15": ("annotated-doc", "rich", "shellingham"),
}
# The image's own: too large to bring, and torch is built for its drivers.
OF_THE_IMAGE = ("numpy", "pillow", "torch>=2.6", "torchvision>=0.21")
# Kaggle's image moves from one to the next without a word.
PYTHONS = ("3.11", "3.12", "3.13")
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
TIMEOUT_SECONDS = 900
DATE = (1980, 1, 1, 0, 0, 0)


def podium_wheel(folder: Path) -> Path:
    """Write this Podium's sources as a wheel; the same sources give the same bytes."""
    package = Path(podium.__file__).parent
    head = f"podium-{podium.__version__}"
    contents = {
        f"podium/{file.relative_to(package).as_posix()}": file.read_bytes()
        for file in sorted(package.rglob("*"))
        if file.is_file() and "__pycache__" not in file.parts
    }
    about = f"Metadata-Version: 2.1\nName: podium\nVersion: {podium.__version__}\n"
    contents[f"{head}.dist-info/METADATA"] = about.encode()
    kind = "Wheel-Version: 1.0\nGenerator: podium\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    contents[f"{head}.dist-info/WHEEL"] = kind.encode()
    record = f"{head}.dist-info/RECORD"
    lines = [f"{name},sha256={_record_hash(content)},{len(content)}" for name, content in contents.items()]
    contents[record] = "\n".join([*lines, f"{record},,", ""]).encode()
    wheel = folder / f"{head}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents.items():
            archive.writestr(zipfile.ZipInfo(name, DATE), content, zipfile.ZIP_DEFLATED)
    return wheel


def brought() -> dict[str, tuple[str, ...]]:
    """Need -> the distributions that meet it; none for what the image itself must have."""
    rows = {need: (need.split(">=")[0], *others) for need, others in NEEDS.items()}
    return rows | dict.fromkeys(OF_THE_IMAGE, ())


def fetch_wheels(folder: Path, *, tell: Tell) -> list[Path]:
    """The wheels of NEEDS for every Python of PYTHONS, in `folder`; those that are there are not fetched again.

    Raises KaggleError where they cannot be fetched.
    """
    folder.mkdir(parents=True, exist_ok=True)
    wanted = {name: found for names in brought().values() for name in names if (found := _version_here(name))}
    for python in PYTHONS:
        lacking = _lacking(folder, wanted, python)
        if lacking:
            tell(f"fetching {len(lacking)} wheels for Python {python}")
            _download(folder, lacking, python)
        if lacking := _lacking(folder, wanted, python):
            raise _refusal(folder, lacking, f"pip left no wheel of them that Python {python} can install")
    found = [_wheel_of(folder, name, here, python) for name, here in wanted.items() for python in PYTHONS]
    return sorted({file for file in found if file is not None})


def _lacking(folder: Path, wanted: dict[str, str], python: str) -> list[str]:
    return [f"{name}=={here}" for name, here in wanted.items() if not _wheel_of(folder, name, here, python)]


def _download(folder: Path, requirements: list[str], python: str) -> None:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary=:all:", "--dest", str(folder), "--python-version", python, "--implementation", "cp"]
    command += [word for platform in PLATFORMS for word in ("--platform", platform)]
    command += [word for tag in (f"cp{python.replace('.', '')}", "abi3", "none") for word in ("--abi", tag)]
    try:
        done = subprocess.run(
            [*command, *requirements], capture_output=True, text=True, errors="replace", timeout=TIMEOUT_SECONDS
        )
        found = last_words(done.stderr) if done.returncode else ""
    except subprocess.TimeoutExpired:
        found = f"no answer in {TIMEOUT_SECONDS} s"
    if found:
        raise _refusal(folder, requirements, found)


def _refusal(folder: Path, requirements: list[str], found: str) -> KaggleError:
    return KaggleError(
        "The wheels that Kaggle's image lacks cannot be fetched.",
        file=folder,
        expected=", ".join(requirements),
        found=found,
        fix="fix the connection to the package index; WHEELS=<folder> takes wheels that are there, "
        "WHEELS=none brings none: Kaggle's image may have all that is needed",
    )


def _wheel_of(folder: Path, name: str, here: str, python: str) -> Path | None:
    """The wheel of a distribution that this Python can install."""
    tag = f"cp{python.replace('.', '')}"
    for file in sorted(folder.glob("*.whl")):
        distribution, found, *_, python_tag, abi, _ = file.stem.split("-")
        if (_plain(distribution), found) == (_plain(name), here) and (abi in ("none", "abi3") or tag in python_tag):
            return file
    return None


def _version_here(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None  # such as what only another Python needs


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _record_hash(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
