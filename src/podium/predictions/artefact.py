"""The predictions of one run: what training hands to the ensemble, as one `.npz` file without pickled objects.

Everything that reads these files works without torch. Runs are joined by id, never by position.
"""

import json
import math
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from podium.errors import PredictionsError, examples
from podium.files import atomic_write
from podium.plan.stamp import ABOUT_MEMBER, CRC_KEY, DamagedFileError, member_checksums, open_archive, parse_about
from podium.targets.base import Target
from podium.targets.table import TARGETS

# Array -> number of dimensions, kinds of its dtype, their name in a message.
ARRAYS = {
    "oof_ids": (1, "U", "text"),
    "oof_logits": (2, "f", "floats"),
    "oof_labels": Target.label_form,
    "test_ids": (1, "U", "text"),
    "test_logits": (2, "f", "floats"),
    "classes": (1, "U", "text"),
}
# The description has these keys, with text; joining and selecting runs need them.
REQUIRED_KEYS = ("run", "architecture", "fingerprint", "fold_sha256")
OPTIONAL_KEYS = {
    "recipe": dict,
    "recipe_name": str,
    "scores": dict,
    "seconds": int | float,
    "scored": str,
    "test_logits_from": str,
    "target": str,
}
# A larger array that compresses better than 100 to 1 has no content that a model computed.
LARGE_BYTES, MOST_COMPRESSION = 1 << 28, 100


@dataclass(frozen=True, eq=False)
class Predictions:
    """One run's logits for the validation rows (oof) and the test rows, and how they were made."""

    oof_ids: np.ndarray  # (n,) str
    oof_logits: np.ndarray  # (n, outputs) float
    oof_labels: np.ndarray  # (n,) int; (n, outputs) of a multi-label target
    test_ids: np.ndarray  # (m,) str
    test_logits: np.ndarray  # (m, outputs) float
    classes: tuple[str, ...]
    about: dict[str, Any]  # recipe, seed, stamp, data fingerprint, scores, seconds, ...
    file: Path | None = None  # the file that they were read from

    @property
    def run(self) -> str:
        """Name of the run."""
        return self.about["run"]


def save_predictions(file: Path, predictions: Predictions) -> None:
    """Write one `.npz` atomically; equal predictions give equal bytes.

    Raises PredictionsError for predictions that `load_predictions` would refuse.
    """
    with atomic_write(file) as stream:
        write_predictions(stream, file, predictions)


def write_predictions(stream: BinaryIO, file: Path, predictions: Predictions) -> None:
    """Write predictions to a stream whose content will be `file`; raises as `save_predictions` does."""
    arrays = {name: np.asarray(getattr(predictions, name)) for name in ARRAYS}
    _refuse(file, _about_faults(predictions.about) or _array_faults(arrays, predictions.about))
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)
        about = predictions.about | {CRC_KEY: member_checksums(archive)}
        with archive.open(ABOUT_MEMBER, "w") as member:  # writestr() would store the time of day
            member.write(json.dumps(about, sort_keys=True, allow_nan=False).encode())


def load_predictions(file: Path) -> Predictions:
    """Read and check one run's predictions; float16 logits become float32.

    Raises PredictionsError with the file and everything that is wrong with it.
    """
    try:
        with open_archive(file) as archive:
            about = parse_about(archive)
            arrays = {name: read_array(archive, name) for name in ARRAYS}
    except FileNotFoundError:
        fix = f"make train COMPETITION={file.parent.name}"
        raise PredictionsError("There are no predictions here.", file=file, fix=fix) from None
    except OSError as error:
        raise PredictionsError("A predictions file cannot be read.", file=file, found=error.strerror) from None
    except DamagedFileError as error:
        raise PredictionsError(
            "A predictions file is damaged.",
            file=file,
            expected=f"a zip archive of {', '.join(ARRAYS)} and {ABOUT_MEMBER}",
            found=str(error),
            fix=_train_again(file),
        ) from None
    _refuse(file, _about_faults(about) or _array_faults(arrays, about))
    labels = arrays["oof_labels"]
    return Predictions(
        oof_ids=arrays["oof_ids"],
        oof_logits=widened(arrays["oof_logits"]),
        oof_labels=labels if labels.dtype.kind == "f" else labels.astype(np.int64),
        test_ids=arrays["test_ids"],
        test_logits=widened(arrays["test_logits"]),
        classes=tuple(arrays["classes"].tolist()),
        about=about,
        file=file,
    )


def widened(logits: np.ndarray) -> np.ndarray:
    """Logits as float32, if they are float16."""
    return logits.astype(np.float32) if logits.dtype.itemsize < 4 else logits


def finite_in_float32(logits: np.ndarray) -> np.ndarray:
    """Which rows (n,) of logits (n, classes) are finite in float32, which has a smaller range than float64."""
    with np.errstate(over="ignore"):
        return np.isfinite(logits.astype(np.float32, copy=False)).all(axis=1)


def is_increasing(ids: np.ndarray) -> bool:
    """Whether each id sorts after the previous one, so that all are different."""
    return bool((ids[1:] > ids[:-1]).all())


def read_array(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """One array of an `.npz` file; raises ValueError before more is allocated than the file can contain."""
    info = archive.getinfo(f"{name}.npy")
    if info.file_size > max(LARGE_BYTES, MOST_COMPRESSION * info.compress_size):
        raise ValueError(f"{info.filename} has {info.file_size:,} bytes, compressed to {info.compress_size:,}")
    with archive.open(info) as member:
        read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        shape, _, dtype = read_header[np.lib.format.read_magic(member)](member)
        if math.prod(shape) * dtype.itemsize != info.file_size - member.tell():
            raise ValueError(f"{info.filename} of shape {shape} has {info.file_size:,} bytes")
    with archive.open(info) as member:
        return np.lib.format.read_array(member, allow_pickle=False)


def _train_again(file: Path) -> str:
    return f"rm {file} && make {file.stem} COMPETITION={file.parent.name}"


def _refuse(file: Path, faults: Sequence[str]) -> None:
    if faults:
        raise PredictionsError("These predictions cannot be used.", file=file, fix=_train_again(file), faults=faults)


def _array_faults(arrays: dict[str, np.ndarray], about: dict[str, Any]) -> list[str]:
    """Everything that is wrong with the arrays of one run."""
    target, faults = TARGETS[about.get("target", "class")](arrays["classes"].size), []
    for name, (dimensions, kinds, words) in (ARRAYS | {"oof_labels": target.label_form}).items():
        array = arrays[name]
        if array.ndim != dimensions or array.dtype.kind not in kinds:
            found = f"{array.dtype} of shape {array.shape}"
            faults.append(f"{name}: expected {words} in {dimensions} dimensions, found {found}")
    if faults:
        return faults
    classes = target.classes
    if (classes < 2 and target.has_classes) or len(set(arrays["classes"].tolist())) < classes:
        faults.append(f"classes: expected two or more, all different, found {examples(arrays['classes'], most=10)}")
    for part in ("oof", "test"):
        faults += _row_faults(part, arrays[f"{part}_ids"], arrays[f"{part}_logits"], target.outputs)
    labels = arrays["oof_labels"]
    if len(labels) != len(arrays["oof_ids"]):
        faults.append(f"oof_labels: expected {len(arrays['oof_ids'])} rows as in oof_ids, found {len(labels)}")
    return faults + [f"oof_labels: {fault}" for fault in target.label_faults(labels)]


def _row_faults(part: str, ids: np.ndarray, logits: np.ndarray, outputs: int) -> list[str]:
    faults = []
    if part == "oof" and not len(ids):
        faults.append(f"{part}_ids: expected at least one row, found none")
    if logits.shape != (len(ids), outputs):
        faults.append(f"{part}_logits: expected shape {(len(ids), outputs)}, found {logits.shape}")
    elif not (finite := finite_in_float32(logits)).all():
        rows = np.flatnonzero(~finite)
        faults.append(f"{part}_logits: NaN or infinity in {len(rows)} rows (ids {examples(ids[rows])})")
    if not is_increasing(ids):
        unique, counts = np.unique(ids, return_counts=True)
        if (counts > 1).any():
            faults.append(f"{part}_ids: {(counts > 1).sum()} ids occur more than once ({examples(unique[counts > 1])})")
    return faults


def _about_faults(about: Any) -> list[str]:
    if not isinstance(about, dict):
        return [f"about: expected a JSON object, found {type(about).__name__}"]
    missing = [key for key in REQUIRED_KEYS if not isinstance(about.get(key), str) or not about[key]]
    faults = [f"about: expected text under {', '.join(missing)}, found none"] if missing else []
    wrong = [key for key, kind in OPTIONAL_KEYS.items() if key in about and not isinstance(about[key], kind)]
    if "target" not in wrong and about.get("target", "class") not in TARGETS:
        faults.append(f"about: expected a target of {', '.join(TARGETS)}, found {about['target'][:20]!r}")
    return faults + ([f"about: wrong type of value under {', '.join(wrong)}"] if wrong else [])
