"""An account's datasets and notebooks at Kaggle. Kaggle's API calls notebooks "kernels"."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from podium.kaggle.answers import RefusedError
from podium.kaggle.client import PAGE_SIZE, Kaggle

READY, FAILED = "READY", "FAILED"
COMPLETE = "COMPLETE"
ENDED = (COMPLETE, "ERROR", "CANCEL_ACKNOWLEDGED")
OUTPUT_SECONDS = 1800
NOT_ATTACHED = {"invalidDatasetSources": "datasets", "invalidCompetitionSources": "competitions"}


class NotFoundError(RefusedError):
    """There is no such dataset or notebook, or the account may not see it: Kaggle answers both alike."""


@dataclass(frozen=True)
class Account:
    """Datasets and notebooks, each named `<user>/<slug>`. All methods raise KaggleError."""

    kaggle: Kaggle

    def dataset_files(self, dataset: str) -> list[str] | None:
        """Names of the files in a dataset's newest version; None where there is no such dataset."""
        try:
            answer = self._ask_dataset("list_dataset_files", dataset, pageSize=PAGE_SIZE)
        except NotFoundError:
            return None
        return [file["name"] for file in answer["datasetFiles"]]

    def dataset_status(self, dataset: str) -> str:
        """READY, FAILED, or what Kaggle is still doing."""
        return self._ask_dataset("get_dataset_status", dataset)["status"]

    def upload_dataset(self, folder: Path, *, new: bool, message: str) -> None:
        """Upload a folder as a new dataset or as its new version; only its list of files shows what arrived."""
        method = "dataset_create_new" if new else "dataset_create_version"
        fields = {"folder": str(folder), "quiet": True, "convert_to_csv": False}
        fields |= {} if new else {"version_notes": message}
        size = sum(file.stat().st_size for file in folder.iterdir())
        result = self.kaggle.call("package", method, fields, seconds=self.kaggle.upload_seconds(size))
        answer = result["answer"] or {}
        if (answer.get("status") or "").lower() != "ok":
            raise RefusedError("Kaggle made no dataset.", found=answer.get("error") or result["printed"])

    def push_notebook(self, folder: Path) -> None:
        """Push a notebook, which then runs; raises RefusedError where Kaggle refused it, or did not attach its data.

        After any other error it may run or not: only the notebook's source shows it.
        """
        answer = self.kaggle.ask("package", "kernels_push", folder=str(folder))
        if answer["error"]:
            raise RefusedError("Kaggle did not accept the notebook.", found=answer["error"])
        missing = [f"{kind} {', '.join(answer[key])}" for key, kind in NOT_ATTACHED.items() if answer[key]]
        if missing:
            fix = "accept the competition's rules, or wait until Kaggle lists the dataset; then make kernel again"
            found = f"not attached: {'; '.join(missing)}"
            raise RefusedError("Kaggle accepted the notebook without its data.", found=found, fix=fix)

    def notebook_source(self, notebook: str) -> str:
        """The script of a notebook's newest version; empty where there is no such notebook."""
        try:
            return self._ask_notebook("get_kernel", notebook)["blob"]["source"]
        except NotFoundError:
            return ""

    def notebook_status(self, notebook: str) -> tuple[str, str]:
        """The status, such as QUEUED, RUNNING, COMPLETE or ERROR, and the reason of a failure where Kaggle gives it."""
        answer = self._ask_notebook("get_kernel_session_status", notebook)
        return answer["status"], (answer["failureMessage"] or "").strip()

    def download_output(self, notebook: str, folder: Path) -> None:
        """Download a notebook's output and its log; files may arrive incomplete."""
        fields = {"kernel": notebook, "path": str(folder), "force": True, "page_size": PAGE_SIZE}
        self.kaggle.call("package", "kernels_output", fields, seconds=OUTPUT_SECONDS)

    def _ask_dataset(self, method: str, dataset: str, **fields: Any) -> dict[str, Any]:
        owner, slug = dataset.split("/")
        return self._ask("datasets", method, ownerSlug=owner, datasetSlug=slug, **fields)

    def _ask_notebook(self, method: str, notebook: str) -> dict[str, Any]:
        user, slug = notebook.split("/")
        return self._ask("kernels", method, userName=user, kernelSlug=slug)

    def _ask(self, service: str, method: str, **fields: Any) -> dict[str, Any]:
        try:
            return self.kaggle.ask(service, method, **fields)
        except RefusedError as error:
            if error.status not in (403, 404):
                raise
            fix = "check that the account may use notebooks and datasets: https://www.kaggle.com/settings"
            raise NotFoundError("Kaggle denied access, or it does not exist.", found=error.found, fix=fix) from None
