"""Parameters as float16: half the upload, where a rehearsal has shown that they give the same labels."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save

from podium.files import write_file
from podium.plan.stamp import file_sha256
from podium.workspace import Workspace


def halve(file: Path, target: Path) -> Path:
    """Write a parameters file with its matrices and kernels as float16; returns `target`.

    Vectors stay as they are: they are few, and among them are the variances of batch norms.
    """
    with safe_open(file, framework="np") as parameters, np.errstate(over="ignore"):
        tensors = {name: parameters.get_tensor(name) for name in parameters.keys()}  # noqa: SIM118 - no mapping
        large = {name: tensor for name, tensor in tensors.items() if tensor.ndim > 1 and tensor.dtype == np.float32}
        halves = {name: tensor.astype(np.float16) for name, tensor in large.items()}
        write_file(target, save(tensors | halves, parameters.metadata()))
    return target


def record_rehearsal(workspace: Workspace, files: Iterable[Path], *, is_equal: bool) -> None:
    """Record whether an ensemble of these files gives the same submission with parameters as float16."""
    write_file(_record_file(workspace), _fingerprint(files) if is_equal else b"")


def rehearsed_precision(workspace: Workspace, files: Iterable[Path]) -> str:
    """float16 if a rehearsal has shown that these files give the same submission with it, else float32."""
    record = _record_file(workspace)
    return "float16" if record.is_file() and record.read_bytes() == _fingerprint(files) else "float32"


def _record_file(workspace: Workspace) -> Path:
    return workspace.paths.notebook_folder / "float16"


def _fingerprint(files: Iterable[Path]) -> bytes:
    """The hash of the files' hashes."""
    return hashlib.sha256("".join(map(file_sha256, files)).encode()).hexdigest().encode()
