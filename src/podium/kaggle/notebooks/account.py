"""An account's datasets and notebooks at Kaggle. Kaggle's API and its CLI call notebooks "kernels"."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from podium.errors import KaggleError
from podium.kaggle.answers import RefusedError
from podium.kaggle.client import PAGE_SIZE, Kaggle, shorten
from podium.kaggle.waiting import Log, Patience

READY, FAILED = "READY", "FAILED"
COMPLETE = "COMPLETE"
ENDED = (COMPLETE, "ERROR", "CANCEL_ACKNOWLEDGED")
OUTPUT_SECONDS = 1800
NAME_FIELDS = {"datasets": ("ownerSlug", "datasetSlug"), "kernels": ("userName", "kernelSlug")}


class NotFoundError(RefusedError):
    """There is no such dataset or notebook, or the account may not see it: Kaggle answers both alike."""


@dataclass(frozen=True)
class Account:
    """Datasets and notebooks, each named `<user>/<slug>`. All methods raise KaggleError."""

    kaggle: Kaggle

    def dataset_files(self, dataset: str) -> list[str] | None:
        """Names of the files in a dataset's newest version; None where there is no such dataset."""
        try:
            answer = self._ask("datasets", "list_dataset_files", dataset, pageSize=PAGE_SIZE)
        except NotFoundError:
            return None
        return [file["name"] for file in answer["datasetFiles"]]

    def dataset_status(self, dataset: str) -> str:
        """READY, FAILED, or what Kaggle is still doing."""
        return self._ask("datasets", "get_dataset_status", dataset)["status"]

    def upload_dataset(self, folder: Path, *, new: bool, message: str) -> None:
        """Upload a folder as a new dataset or as its new version; only its list of files shows what arrived."""
        size = sum(file.stat().st_size for file in folder.iterdir())
        arguments = ["create"] if new else ["version", "-m", message]
        arguments += ["-p", str(folder), "-q", "-t"]
        output = self.kaggle.check_cli("datasets", *arguments, seconds=self.kaggle.upload_seconds(size))
        if " is being created" not in output:  # the exit code is 0 also where Kaggle refused
            raise RefusedError("Kaggle made no dataset.", found=shorten(output))

    def push_notebook(self, request: Mapping[str, Any]) -> None:
        """Push a notebook once, which then runs; `request` has the API's names.

        Raises RefusedError where Kaggle refused it, or did not attach its data. After any other error it may run or
        not: only the notebook's source shows it.
        """
        answer = self._ask("kernels", "save_kernel", repeat=False, **request)
        if answer["error"]:
            raise RefusedError("Kaggle did not accept the notebook.", found=shorten(answer["error"]))
        if not_attached := answer["invalidDatasetSources"] + answer["invalidCompetitionSources"]:
            fix = "accept the competition's rules, or wait until Kaggle lists the dataset; then make kernel again"
            found = f"not attached: {', '.join(not_attached)}"
            raise RefusedError("Kaggle accepted the notebook without its data.", found=found, fix=fix)

    def notebook_source(self, notebook: str) -> str:
        """The script of a notebook's newest version; empty where there is no such notebook."""
        try:
            return self._ask("kernels", "get_kernel", notebook)["blob"]["source"]
        except NotFoundError:
            return ""

    def notebook_status(self, notebook: str) -> tuple[str, str]:
        """The status, such as QUEUED, RUNNING, COMPLETE or ERROR, and the reason of a failure where Kaggle gives it."""
        answer = self._ask("kernels", "get_kernel_session_status", notebook)
        return answer["status"], (answer["failureMessage"] or "").strip()

    def download_output(self, notebook: str, folder: Path) -> None:
        """Download a notebook's output and its log; files may arrive incomplete."""
        options = ("-p", str(folder), "-o", "-q", "--page-size", str(PAGE_SIZE))
        self.kaggle.check_cli("kernels", "output", notebook, *options, seconds=OUTPUT_SECONDS)

    def _ask(self, service: str, method: str, name: str = "", **fields: Any) -> dict[str, Any]:
        """Kaggle's answer about the dataset or notebook `<user>/<slug>`."""
        if name:
            fields |= dict(zip(NAME_FIELDS[service], name.split("/"), strict=True))
        try:
            return self.kaggle.ask(service, method, **fields)
        except RefusedError as error:
            if error.status not in (403, 404):
                raise
            fix = "check that the account may use notebooks and datasets: https://www.kaggle.com/settings"
            raise NotFoundError("Kaggle denied access, or it does not exist.", found=error.found, fix=fix) from None


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
