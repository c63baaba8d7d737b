"""The predictions of one run: what training hands to the ensemble, as one `.npz` file without pickled objects.

Everything that reads these files works without torch. Runs are joined by id, never by position.
"""

import json
import math
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from podium.errors import PredictionsError, examples
from podium.files import atomic_write
from podium.plan.stamp import ABOUT_MEMBER, CRC_KEY, DamagedFileError, member_checksums, open_archive, parse_about
from podium.targets.target import TARGETS, Target

# Array -> kinds of its dtype, their name in a message.
ARRAYS = {
    "oof_ids": ("U", "text"),
    "oof_logits": ("f", "floats"),
    "oof_labels": ("iubf", "numbers"),
    "test_ids": ("U", "text"),
    "test_logits": ("f", "floats"),
    "classes": ("U", "text"),
}
TYPES = {"text": str, "an object": dict, "a number": int | float}
# Keys of the description, and what they have; joining and selecting runs need the first.
REQUIRED_KEYS = dict.fromkeys(("run", "architecture", "fingerprint", "fold_sha256"), "text")
ABOUT_KEYS = REQUIRED_KEYS | {"recipe": "an object", "scores": "an object", "seconds": "a number"}
ABOUT_KEYS |= dict.fromkeys(("recipe_name", "scored", "test_logits_from", "target"), "text")
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
    classes: tuple[str, ...]  # names of the classes or labels, in the order of the outputs
    about: dict[str, Any]  # recipe, seed, stamp, data fingerprint, scores, seconds, ...
    file: Path | None = None  # the file that they were read from

    @property
    def run(self) -> str:
        """Name of the run."""
        return self.about["run"]

    @property
    def target(self) -> Target:
        """What the labels are."""
        return Target(self.about.get("target", "class"), len(self.classes))


def save_predictions(file: Path, predictions: Predictions) -> None:
    """Write one `.npz` atomically; equal predictions give equal bytes.

    Raises PredictionsError for predictions that `load_predictions` would refuse.
    """
    with atomic_write(file) as stream:
        write_predictions(stream, file, predictions)


def write_predictions(stream: BinaryIO, file: Path, predictions: Predictions) -> None:
    """Write predictions to a stream whose content will be `file`; raises as `save_predictions` does."""
    arrays = {name: np.asarray(getattr(predictions, name)) for name in ARRAYS}
    _check(file, arrays, predictions.about)
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
    _check(file, arrays, about)
    arrays = {
        name: array.astype(np.float32) if array.dtype.type is np.float16 else array for name, array in arrays.items()
    }
    return Predictions(**arrays | {"classes": tuple(arrays["classes"].tolist())}, about=about, file=file)


def finite_in_float32(logits: np.ndarray) -> np.ndarray:
    """Which rows (n,) of logits (n, classes) are finite in float32, which has a smaller range than float64."""
    with np.errstate(over="ignore"):
        return np.isfinite(logits.astype(np.float32, copy=False)).all(axis=1)


def read_array(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """One array of an `.npz` file; raises ValueError before more is allocated than the file can contain."""
    info = archive.getinfo(f"{name}.npy")
    if info.file_size > max(LARGE_BYTES, MOST_COMPRESSION * info.compress_size):
        raise ValueError(f"{info.filename} has {info.file_size:,} bytes, compressed to {info.compress_size:,}")
    with archive.open(info) as member:
        read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        shape, _, dtype = read_header[np.lib.format.read_magic(member)](member)
        if math.prod(shape) * dtype.itemsize != info.file_size - member.tell() or not dtype.itemsize:
            raise ValueError(f"{info.filename} of shape {shape} has {info.file_size:,} bytes")
    with archive.open(info) as member:
        return np.lib.format.read_array(member, allow_pickle=False)


def read_features(file: Path) -> np.ndarray | None:
    """Features (n, channels) of images, as `podium embed` keeps them; None where the file is missing or damaged."""
    try:
        with open_archive(file) as archive:
            return read_array(archive, "features")
    except (FileNotFoundError, DamagedFileError):
        return None


def _train_again(file: Path) -> str:
    return f"rm {file} && make {file.stem} COMPETITION={file.parent.name}"


def _check(file: Path, arrays: dict[str, np.ndarray], about: Any) -> None:
    """Raise PredictionsError with everything that is wrong with one run; `align` compares it with the lock."""
    if faults := _about_faults(about) or _array_faults(arrays, about.get("target", "class")):
        raise PredictionsError("These predictions cannot be used.", file=file, fix=_train_again(file), faults=faults)


def _about_faults(about: Any) -> list[str]:
    if not isinstance(about, dict):
        return [f"about: expected a JSON object, found {type(about).__name__}"]
    faults = [
        f"about: {key}: expected {words}, found {json.dumps(about.get(key))[:40]}"
        for key, words in ABOUT_KEYS.items()
        if (key in about or key in REQUIRED_KEYS) and not isinstance(about.get(key), TYPES[words])
    ]
    if isinstance(target := about.get("target", "class"), str) and target not in TARGETS:
        faults.append(f"about: target: expected {', '.join(TARGETS)}, found {target[:20]!r}")
    return faults


def _array_faults(arrays: dict[str, np.ndarray], target_name: str) -> list[str]:
    rows, tests, classes = (arrays[name].size for name in ("oof_ids", "test_ids", "classes"))
    target = Target(target_name, classes)
    labels = (rows, classes) if target.has_columns else (rows,)
    shapes = ((rows,), (rows, target.outputs), labels, (tests,), (tests, target.outputs), (classes,))
    faults = [
        f"{name}: expected {words} of shape {shape}, found {arrays[name].dtype} of shape {arrays[name].shape}"
        for (name, (kinds, words)), shape in zip(ARRAYS.items(), shapes, strict=True)
        if arrays[name].dtype.kind not in kinds or arrays[name].shape != shape
    ]
    for part in () if faults else ("oof", "test"):
        if not (finite := finite_in_float32(arrays[f"{part}_logits"])).all():
            ids = arrays[f"{part}_ids"][~finite]
            faults.append(f"{part}_logits: NaN or infinity in {len(ids)} rows (ids {examples(ids)})")
    return faults
