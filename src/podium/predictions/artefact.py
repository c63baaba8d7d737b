"""The seam: what training hands over and all that the ensemble and the submission ever see of a run.

One `.npz` a run, readable without running code (`allow_pickle=False`). Everything to the right of this file
works without torch. Two runs are joined by id, never by position.
"""

import json
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from podium.errors import PredictionsError
from podium.files import atomic_write

ARRAYS = ("oof_ids", "oof_logits", "oof_labels", "test_ids", "test_logits", "classes", "about")
# What joining and selecting runs cannot do without.
NEEDED_OF_ABOUT = ("run", "architecture", "fingerprint", "fold_sha256")
KINDS_IN_ABOUT = {
    "recipe": dict,
    "recipe_name": str,
    "scores": dict,
    "seconds": int | float,
    "scored": str,
    "test_logits_from": str,
}
# What a damaged archive makes zipfile, zlib and NumPy raise.
DAMAGE = (OSError, ValueError, EOFError, KeyError, RuntimeError, MemoryError, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True, eq=False)
class Predictions:
    """One run's logits for the validation rows (oof) and the test rows, and what made them."""

    oof_ids: np.ndarray  # (n,) str
    oof_logits: np.ndarray  # (n, classes) float
    oof_labels: np.ndarray  # (n,) int
    test_ids: np.ndarray  # (m,) str
    test_logits: np.ndarray  # (m, classes) float
    classes: tuple[str, ...]
    about: dict[str, Any]
    file: Path | None = None  # where they were read from

    @property
    def run(self) -> str:
        """Name of the run."""
        return self.about["run"]


def save_predictions(file: Path, predictions: Predictions) -> None:
    """Write one `.npz`, whole or not at all; equal predictions give equal bytes.

    Raises PredictionsError for what loading would refuse, so that a run never ends in a file nobody can use.
    """
    arrays = {name: np.asarray(getattr(predictions, name)) for name in ARRAYS[:-2]}
    arrays["classes"] = np.array(predictions.classes)
    arrays["about"] = np.array(json.dumps(predictions.about, sort_keys=True, allow_nan=False))
    _refuse(file, _array_faults(arrays) or _about_faults(predictions.about))
    with atomic_write(file) as stream:
        np.savez_compressed(stream, **arrays)


def load_predictions(file: Path) -> Predictions:
    """Read and check one run's predictions; float16 logits come out as float32.

    Raises PredictionsError naming the file and everything that is wrong with it.
    """
    arrays = _read_arrays(file)
    _refuse(file, _array_faults(arrays))
    try:
        about = json.loads(str(arrays["about"]))
    except ValueError as error:
        _refuse(file, [f"about: expected a JSON object, found {str(arrays['about'])[:40]!r} ({error})"])
    _refuse(file, _about_faults(about))
    return Predictions(
        oof_ids=arrays["oof_ids"],
        oof_logits=_widened(arrays["oof_logits"]),
        oof_labels=arrays["oof_labels"].astype(np.int64),
        test_ids=arrays["test_ids"],
        test_logits=_widened(arrays["test_logits"]),
        classes=tuple(arrays["classes"].tolist()),
        about=about,
        file=file,
    )


def examples(values: Iterable[Any], *, most: int = 3) -> str:
    """The first few values, shortened, for a message."""
    values = list(values)
    shown = ", ".join(str(value) if len(str(value)) <= 40 else f"{str(value)[:37]}..." for value in values[:most])
    return shown + (", ..." if len(values) > most else "")


def _read_arrays(file: Path) -> dict[str, np.ndarray]:
    again = f"rm {file} && make {file.stem} COMPETITION={file.parent.name}"
    try:
        # Opened as a zip first: NumPy would take a lone .npy, or offer to unpickle anything else.
        with zipfile.ZipFile(file), np.load(file, allow_pickle=False) as archive:
            missing = [name for name in ARRAYS if name not in archive.files]
            arrays = {name: archive[name] for name in ARRAYS if name not in missing}
    except FileNotFoundError:
        raise PredictionsError("There are no predictions here.", file=file, fix="make train") from None
    except DAMAGE as error:
        raise PredictionsError(
            "A predictions file is damaged.",
            file=file,
            expected="an .npz archive of plain arrays",
            found=f"{type(error).__name__}: {str(error)[:200]}",
            fix=again,
        ) from None
    if missing:
        raise PredictionsError(
            "A predictions file lacks arrays.",
            file=file,
            expected=", ".join(ARRAYS),
            found=f"no {', '.join(missing)}",
            fix=again,
        )
    return arrays


def _refuse(file: Path, faults: Sequence[str]) -> None:
    if faults:
        raise PredictionsError(
            "These predictions cannot be used.",
            file=file,
            fix=f"rm {file} && make {file.stem} COMPETITION={file.parent.name}",
            faults=faults,
        )


def _array_faults(arrays: dict[str, np.ndarray]) -> list[str]:
    """Everything that is wrong with the arrays of one file, in words."""
    rank_and_kinds = {"ids": (1, "U", "text"), "logits": (2, "f", "floats"), "labels": (1, "iu", "integers")}
    rank_and_kinds |= {"classes": (1, "U", "text"), "about": (0, "U", "text")}
    faults = []
    for name, array in arrays.items():
        rank, kinds, words = rank_and_kinds[name.split("_")[-1]]
        if array.ndim != rank or array.dtype.kind not in kinds:
            found = f"{array.dtype} of shape {array.shape}"
            faults.append(f"{name}: expected {words} in {rank} dimensions, found {found}")
    if faults:
        return faults
    classes = len(arrays["classes"])
    if classes < 2 or len(set(arrays["classes"].tolist())) < classes:
        faults.append(f"classes: expected two or more, each once, found {examples(arrays['classes'], most=10)}")
    for part in ("oof", "test"):
        faults += _rows_faults(part, arrays[f"{part}_ids"], arrays[f"{part}_logits"], classes)
    labels = arrays["oof_labels"]
    if labels.shape != arrays["oof_ids"].shape:
        faults.append(f"oof_labels: expected {len(arrays['oof_ids'])} rows as in oof_ids, found {len(labels)}")
    strange = labels[(labels < 0) | (labels >= classes)]
    if len(strange):
        faults.append(f"oof_labels: expected 0 to {classes - 1}, found {examples(np.unique(strange))}")
    return faults


def _rows_faults(part: str, ids: np.ndarray, logits: np.ndarray, classes: int) -> list[str]:
    faults = []
    if not len(ids):
        faults.append(f"{part}_ids: expected at least one row, found none")
    if logits.shape != (len(ids), classes):
        faults.append(f"{part}_logits: expected shape {(len(ids), classes)}, found {logits.shape}")
    elif not np.isfinite(logits).all():
        rows = np.flatnonzero(~np.isfinite(logits).all(axis=1))
        faults.append(f"{part}_logits: NaN or infinity in {len(rows)} rows (ids {examples(ids[rows])})")
    if not _are_in_order(ids):
        unique, counts = np.unique(ids, return_counts=True)
        if len(unique) < len(ids):
            twice = unique[counts > 1]
            faults.append(f"{part}_ids: {len(twice)} ids are there more than once ({examples(twice)})")
    return faults


def _are_in_order(ids: np.ndarray) -> bool:
    """Whether each id sorts after the one before it: then none is there twice."""
    return bool((ids[1:] > ids[:-1]).all())


def _about_faults(about: Any) -> list[str]:
    if not isinstance(about, dict):
        return [f"about: expected a JSON object, found {type(about).__name__}"]
    lacking = [name for name in NEEDED_OF_ABOUT if not isinstance(about.get(name), str) or not about[name]]
    faults = [f"about: expected text under {', '.join(lacking)}, found none"] if lacking else []
    strange = [name for name, kind in KINDS_IN_ABOUT.items() if name in about and not isinstance(about[name], kind)]
    return faults + ([f"about: expected other kinds of values under {', '.join(strange)}"] if strange else [])


def _widened(logits: np.ndarray) -> np.ndarray:
    return logits.astype(np.float32) if logits.dtype.itemsize < 4 else logits
