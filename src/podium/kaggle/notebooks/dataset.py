"""A kernel's dataset at Kaggle: sent where it differs, and believed by its list of files alone."""

import time
from collections.abc import Mapping

from podium.errors import KaggleError
from podium.kaggle.notebooks.kernels import READY, Kernels
from podium.kaggle.notebooks.package import Package
from podium.kaggle.session import Patience, Tell


def send_dataset(
    kernels: Kernels, package: Package, *, tell: Tell, patience: Patience, again: str, force: bool = False
) -> None:
    """Make Kaggle's dataset the package's, with `force` also where it seems to be the same.

    The kaggle CLI leaves out what it could not upload, and says nothing. Raises KaggleError where the dataset is not
    whole and ready in time.
    """
    before = kernels.dataset_files(package.dataset)
    if not force and not lacking(package, before):
        tell(f"{package.dataset} is at Kaggle, and the same")
    else:
        tell(f"sending {package.dataset} ({sum(package.sizes.values()):,} bytes)")
        kernels.send_dataset(package.files, new=before is None, message=package.listing)
    status, faults, there = "unknown", lacking(package, None), before
    for pause in (*patience.pauses(), 0.0):
        status = kernels.dataset_status(package.dataset)
        if status == READY:
            there = kernels.dataset_files(package.dataset)
            faults = lacking(package, there)
            # While a new version is made, the one before it may be listed, as ready.
            is_new = package.listing in (there or {}) and package.listing not in (before or {})
            if not faults or is_new:
                break
        if status == "failed":
            break
        tell(f"{package.dataset} is {status.replace('_', ' ')} at Kaggle, not done yet")
        time.sleep(pause)
    if status != READY or faults:
        raise KaggleError(
            "The dataset is not whole and ready at Kaggle: no kernel was pushed.",
            file=package.dataset,
            expected=f"status ready, with {len(package.sizes)} files",
            found=f"status {status}",
            faults=faults if status == READY else (),
            fix=f"{again}; or first delete https://www.kaggle.com/datasets/{package.dataset}",
        )
    if odd := of_another_size(package, there or {}):
        tell(f"Kaggle lists other sizes of {', '.join(odd)}: the kernel looks whether they are as they were sent")


def lacking(package: Package, there: Mapping[str, int] | None) -> list[str]:
    """The files that Kaggle does not list."""
    return [f"{name}: missing" for name in package.sizes if name not in (there or {})]


def of_another_size(package: Package, there: Mapping[str, int]) -> list[str]:
    """The files that Kaggle lists with another size: the script in the kernel checks their hashes."""
    return [name for name, size in package.sizes.items() if there[name] != size]
