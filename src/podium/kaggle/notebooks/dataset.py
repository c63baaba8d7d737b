"""A private dataset at Kaggle: packed as one flat folder, uploaded if it changed, and checked by its list of files."""

import hashlib
import json
import secrets
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from podium.errors import KaggleError
from podium.kaggle.notebooks.account import FAILED, READY, Account
from podium.kaggle.waiting import Log, Patience
from podium.plan.stamp import file_sha256


@dataclass(frozen=True)
class PackedDataset:
    """A dataset `<user>/<slug>`: everything in `folder`. The name of the file `listing` is a hash of the content."""

    name: str
    folder: Path
    listing: str

    @property
    def files(self) -> list[Path]:
        """The files that Kaggle must have."""
        return sorted(file for file in self.folder.iterdir() if file.name != "dataset-metadata.json")

    @property
    def bytes(self) -> int:
        """Size of all files."""
        return sum(file.stat().st_size for file in self.files)


def pack_dataset(name: str, folder: Path, files: Mapping[str, Path], *, new_version: bool = False) -> PackedDataset:
    """Replace `folder` by copies of the files and a listing of them; returns the dataset.

    `files` maps a path in the project at Kaggle to a file here. A dataset has no folders, so each file gets a name of
    its own, and the listing says path and SHA-256. Equal content gives an equal listing, except for a `new_version`.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    entries = []
    for place, file in sorted(files.items()):
        flat_name = file.name
        if (folder / flat_name).exists():
            flat_name = f"{hashlib.sha256(place.encode()).hexdigest()[:12]}-{file.name}"
        shutil.copyfile(file, folder / flat_name)
        entries.append({"name": flat_name, "place": place, "sha256": file_sha256(file)})
    text = json.dumps(entries, indent=1)
    salt = secrets.token_hex(6) if new_version else ""
    listing = f"files-{hashlib.sha256((text + salt).encode()).hexdigest()[:12]}.json"
    (folder / listing).write_text(text, encoding="utf-8")
    # Kaggle requires a licence, even for a private dataset.
    metadata = {"id": name, "title": name.split("/")[1], "licenses": [{"name": "other"}]}
    (folder / "dataset-metadata.json").write_text(json.dumps(metadata, indent=2), encoding="utf-8")
    return PackedDataset(name, folder, listing)


def upload_dataset(account: Account, dataset: PackedDataset, *, log: Log, patience: Patience, fix: str) -> None:
    """Upload a dataset unless Kaggle has it already, and wait until it is ready.

    The kaggle CLI skips a file that it cannot upload, without an error. Raises KaggleError where a file is missing at
    Kaggle, or the dataset is not ready in time.
    """
    wanted = {file.name for file in dataset.files}
    before = account.dataset_files(dataset.name)
    if wanted <= set(before or ()):
        log(f"{dataset.name} is at Kaggle already")
    else:
        log(f"uploading {dataset.name}: {len(wanted)} files, {dataset.bytes:,} bytes")
        account.upload_dataset(dataset.folder, new=before is None, message=dataset.listing)
    for pause in (*patience.pauses(), 0.0):
        status = account.dataset_status(dataset.name)
        listed = set(account.dataset_files(dataset.name) or ()) if status == READY else set()
        if status == READY and wanted <= listed:
            return
        # While Kaggle makes a new version, it may list the previous version as ready.
        is_new_version = dataset.listing in listed and dataset.listing not in (before or ())
        if status == FAILED or is_new_version:
            break
        log(f"{dataset.name} is {status.lower().replace('_', ' ')} at Kaggle, not done yet")
        time.sleep(pause)
    raise KaggleError(
        "The dataset is not complete and ready at Kaggle: no notebook was pushed.",
        file=dataset.name,
        expected=f"status {READY}, with {len(wanted)} files",
        found=f"status {status}",
        faults=[f"{name}: missing" for name in sorted(wanted - listed)] if status == READY else (),
        fix=f"{fix}; or first delete https://www.kaggle.com/datasets/{dataset.name}",
    )
