"""An account's datasets and notebooks at Kaggle, by the kaggle CLI, whose exit code is 0 also where Kaggle refused.

The CLI calls notebooks "kernels".
"""

import csv
import io
import re
from dataclasses import dataclass
from pathlib import Path

from podium.errors import KaggleError
from podium.kaggle.cli_messages import PushError, ServerError, fault_of, last_words, status_of
from podium.kaggle.client import UPLOAD_BYTES_PER_SECOND, Answer, Kaggle, from_header
from podium.kaggle.credentials import has_credentials

READY, FAILED = "ready", "failed"
COMPLETE, ERROR = "COMPLETE", "ERROR"
ENDED = (COMPLETE, ERROR, "CANCEL_ACKNOWLEDGED")
# The CLI prints this where Kaggle accepted a push in part.
NOT_ATTACHED = re.compile(r"^The following are not valid .*$", re.MULTILINE)
STATUS = re.compile(r'has status "(?:\w+\.)?(\w+)"')
FAILURE = re.compile(r'^Failure message: "(.*)"$', re.MULTILINE | re.DOTALL)
OUTPUT_SECONDS = 1800


@dataclass(frozen=True)
class Account:
    """Datasets and notebooks, each named `<user>/<slug>`. All methods raise KaggleError."""

    kaggle: Kaggle

    def user(self) -> str:
        """The account's name; raises KaggleError where there are no credentials."""
        found = re.search(r"^- username: (\S+)", self._asked("config", "view").printed, re.MULTILINE)
        if found is None or found[1] == "None":
            raise fault_of("401 Client Error", slug="", has_credentials=has_credentials(self.kaggle.environment))
        return found[1]

    def dataset_files(self, dataset: str) -> list[str] | None:
        """Names of the files in a dataset's newest version; None where there is no such dataset."""
        answer = self._call("datasets", "files", dataset, "-v", "--page-size", "200")
        if answer.code != 0 and status_of(answer.said) in (403, 404):  # Kaggle forbids what does not exist
            return None
        table = csv.DictReader(io.StringIO(from_header(self._checked(answer).printed, "name,")))
        return [row["name"] for row in table]

    def dataset_status(self, dataset: str) -> str:
        """`ready`, `failed`, or what Kaggle is still doing."""
        return last_words(self._asked("datasets", "status", dataset).printed).lower()

    def upload_dataset(self, folder: Path, *, new: bool, message: str) -> None:
        """Upload a folder as a new dataset or as its new version; what arrived, only its list of files says."""
        size = sum(file.stat().st_size for file in folder.iterdir())
        arguments = ["create"] if new else ["version", "-m", message]
        seconds = self.kaggle.timeout_seconds + size / UPLOAD_BYTES_PER_SECOND
        answer = self._call("datasets", *arguments, "-p", str(folder), "-q", "-t", timeout_seconds=seconds)
        if " is being created" not in self._checked(answer).said:
            raise KaggleError("Kaggle made no dataset.", found=last_words(answer.said))

    def push_notebook(self, folder: Path) -> None:
        """Push a notebook, which then runs; raises PushError where Kaggle refused it, or did not attach its data.

        After any other error it may run or not: only the notebook's source says.
        """
        answer = self._call("kernels", "push", "-p", str(folder))
        try:
            self._checked(answer)
        except KaggleError as error:
            if isinstance(error, ServerError) or not 400 <= (status_of(answer.said) or 0) < 500:
                raise
            raise PushError(error.what, expected=error.expected, found=error.found, fix=error.fix) from None
        if "successfully pushed" not in answer.said:
            found = last_words(answer.said).removeprefix("Kernel push error: ")
            error_type = PushError if "Kernel push error" in answer.said else KaggleError
            raise error_type("Kaggle did not accept the notebook.", found=found)
        if not_attached := NOT_ATTACHED.search(answer.said):
            fix = "accept the competition's rules, or wait until Kaggle lists the dataset; then make kernel again"
            raise PushError("Kaggle accepted the notebook without its data.", found=not_attached[0], fix=fix)

    def notebook_source(self, notebook: str, folder: Path) -> str:
        """The script of a notebook's newest version, downloaded into `folder`; empty where there is no notebook."""
        answer = self._call("kernels", "pull", notebook, "-p", str(folder))
        if answer.code != 0 and status_of(answer.said) in (403, 404):
            return ""
        self._checked(answer)
        return "\n".join(file.read_text(encoding="utf-8") for file in sorted(folder.glob("*.py")))

    def notebook_status(self, notebook: str) -> tuple[str, str]:
        """The status, such as QUEUED, RUNNING, COMPLETE or ERROR, and the reason of a failure where Kaggle gives it."""
        printed = self._asked("kernels", "status", notebook).printed
        status, failure = STATUS.search(printed), FAILURE.search(printed)
        if status is None:
            raise KaggleError("Kaggle did not report the notebook's status.", found=last_words(printed))
        return status[1].upper(), failure[1].strip() if failure else ""

    def download_output(self, notebook: str, folder: Path) -> None:
        """Download a notebook's output and its log; files may arrive incomplete."""
        arguments = ("kernels", "output", notebook, "-p", str(folder), "-o", "-q", "--page-size", "200")
        self.kaggle.again(lambda: self._checked(self._call(*arguments, timeout_seconds=OUTPUT_SECONDS)))

    def _asked(self, *arguments: str) -> Answer:
        return self.kaggle.again(lambda: self._checked(self._call(*arguments)))

    def _call(self, *arguments: str, timeout_seconds: float | None = None) -> Answer:
        return self.kaggle.call(*arguments, timeout_seconds=timeout_seconds)

    def _checked(self, answer: Answer) -> Answer:
        if answer.code == 0:
            return answer
        if status_of(answer.said) in (403, 404):
            fix = "check that the account may use notebooks and datasets: https://www.kaggle.com/settings"
            raise KaggleError("Kaggle did not give what was asked for.", found=last_words(answer.said), fix=fix)
        raise fault_of(answer.said, slug="", has_credentials=has_credentials(self.kaggle.environment))
