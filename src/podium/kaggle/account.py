"""An account's datasets and notebooks at Kaggle. Kaggle's API and its CLI call notebooks "kernels"."""

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from podium.errors import KaggleError
from podium.kaggle.answers import RefusedError
from podium.kaggle.client import PAGE_SIZE, Kaggle, shorten

READY, FAILED = "READY", "FAILED"
COMPLETE, RUNNING = "COMPLETE", "RUNNING"
ENDED = (COMPLETE, "ERROR", "CANCEL_ACKNOWLEDGED")
OUTPUT_SECONDS = 1800
# After so long the status is asked for again: a connection may break without an error.
LOG_SECONDS = 600
NAME_FIELDS = {"datasets": ("ownerSlug", "datasetSlug"), "kernels": ("userName", "kernelSlug")}


class Account(Kaggle):
    """Datasets and notebooks, each named `<user>/<slug>`. All methods raise KaggleError."""

    def dataset_files(self, dataset: str) -> list[str] | None:
        """Names of the files in a dataset's newest version; None where there is no such dataset."""
        answer = self._find("datasets", "list_dataset_files", dataset, pageSize=PAGE_SIZE)
        return None if answer is None else [file["name"] for file in answer["datasetFiles"]]

    def dataset_status(self, dataset: str) -> str:
        """READY, FAILED, or what Kaggle is still doing."""
        return self.ask("datasets", "get_dataset_status", **_fields("datasets", dataset))["status"]

    def upload_dataset(self, folder: Path, *, new: bool, message: str) -> None:
        """Upload a folder as a new dataset or as its new version; only its list of files shows what arrived."""
        size = sum(file.stat().st_size for file in folder.iterdir())
        arguments = ["create"] if new else ["version", "-m", message]
        arguments += ["-p", str(folder), "-q", "-t"]
        output = self.check_cli("datasets", *arguments, seconds=self.upload_seconds(size))
        if " is being created" not in output:  # the exit code is 0 also where Kaggle refused
            raise RefusedError("Kaggle made no dataset.", found=shorten(output))

    def push_notebook(self, request: Mapping[str, Any]) -> int:
        """Push a notebook once, which then runs; returns its version. `request` has the API's names.

        Raises RefusedError where Kaggle refused it, or did not attach its data. After any other error it may run or
        not: only the notebook's source shows it.
        """
        answer = self.ask("kernels", "save_kernel", repeat=False, **request)
        if answer["error"]:
            fix = "where a limit is reached, wait until other notebooks have ended or the quota is renewed; then again"
            raise RefusedError("Kaggle did not accept the notebook.", found=shorten(answer["error"]), fix=fix)
        if not_attached := answer["invalidDatasetSources"] + answer["invalidCompetitionSources"]:
            fix = "accept the competition's rules, or wait until Kaggle lists the dataset; then the same command again"
            found = f"not attached: {', '.join(not_attached)}"
            raise RefusedError("Kaggle accepted the notebook without its data.", found=found, fix=fix)
        return answer["versionNumber"]

    def notebook_source(self, notebook: str) -> tuple[str, int]:
        """The script of a notebook's newest version, and its number; empty where there is no such notebook."""
        answer = self._find("kernels", "get_kernel", notebook)
        return (answer["blob"]["source"], answer["metadata"]["currentVersionNumber"]) if answer else ("", 0)

    def notebook_status(self, notebook: str) -> tuple[str, str]:
        """The status, such as QUEUED, RUNNING, COMPLETE or ERROR, and the reason of a failure where Kaggle gives it."""
        answer = self.ask("kernels", "get_kernel_session_status", **_fields("kernels", notebook))
        return answer["status"], (answer["failureMessage"] or "").strip()

    def follow_log(self, notebook: str) -> Iterator[str]:
        """Yield the lines of a notebook's log from the first on, as it writes them; ends after some minutes too."""
        return self.stream_cli("kernels", "logs", "--follow", notebook, seconds=LOG_SECONDS)

    def gpu_quota(self) -> tuple[float, str]:
        """The GPU hours that are left this week; and a text with them, those of a week, and when the next begins."""
        # The answer of the API, as its package converts it to JSON, loses whole days.
        output = self.check_cli("quota", "-v", seconds=self.timeout_seconds)
        try:
            _, left, total, renewed = {row[0]: row[1:] for row in csv.reader(output.split("\n")) if row}["GPU"]
            hours = [float(text.rstrip("h")) for text in (left, total)]
        except (LookupError, ValueError):
            raise KaggleError("The kaggle command printed no quota.", found=shorten(output)) from None
        text = "{:g} of this week's {:g} GPU hours are left".format(*hours)
        return hours[0], f"{text}; the next week begins {renewed[:16]} UTC"

    def download_output(self, notebook: str, folder: Path) -> None:
        """Download a notebook's output and its log; files may arrive incomplete."""
        options = ("-p", str(folder), "-o", "-q", "--page-size", str(PAGE_SIZE))
        self.check_cli("kernels", "output", notebook, *options, seconds=OUTPUT_SECONDS)

    def _find(self, service: str, method: str, name: str, **fields: Any) -> dict[str, Any] | None:
        """Kaggle's answer about a dataset or notebook; None where there is none, or the account may not see it."""
        try:
            return self.ask(service, method, **fields, **_fields(service, name))
        except RefusedError as error:
            if error.status in (403, 404):
                return None
            raise


def _fields(service: str, name: str) -> dict[str, str]:
    """The name `<user>/<slug>` of a dataset or notebook, by the names of the API."""
    return dict(zip(NAME_FIELDS[service], name.split("/"), strict=True))
