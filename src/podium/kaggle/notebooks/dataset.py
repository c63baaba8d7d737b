"""A private dataset at Kaggle with one archive, whose name has a hash of its content."""

import json
import secrets
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path

from podium.errors import KaggleError
from podium.kaggle.notebooks.account import FAILED, READY, Account
from podium.kaggle.waiting import Log, Patience
from podium.plan.stamp import file_sha256

DATE = (1980, 1, 1, 0, 0, 0)


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


def upload_dataset(account: Account, name: str, archive: Path, *, log: Log, patience: Patience, fix: str) -> None:
    """Upload a dataset's archive unless Kaggle has it already, and wait until the dataset is ready.

    The package kaggle skips a file that it cannot upload, without an error: only Kaggle's list shows what arrived.
    Raises KaggleError where the archive is not there in time.
    """
    before = account.dataset_files(name)
    if archive.name in (before or ()):
        log(f"{archive.name} is at Kaggle already")
    else:
        log(f"uploading {archive.name} into {name}: {archive.stat().st_size:,} bytes")
        account.upload_dataset(archive.parent, new=before is None, message=archive.name)
    for _ in patience.attempts():
        status = account.dataset_status(name)
        # While Kaggle makes a new version, it may list the previous version as ready.
        listed = account.dataset_files(name) or [] if status == READY else []
        if archive.name in listed:
            return
        if status == FAILED:
            break
        log(f"{name} is {status.lower().replace('_', ' ')} at Kaggle, not done yet")
    raise KaggleError(
        "The dataset is not ready at Kaggle: no notebook was pushed.",
        file=name,
        expected=f"status {READY}, with {archive.name}",
        found=f"status {status}, with {', '.join(listed) or 'no file'}",
        fix=f"{fix}; or first delete https://www.kaggle.com/datasets/{name}",
    )
