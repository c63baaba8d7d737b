"""Datasets and kernels by the kaggle CLI, which ends with exit code 0 also where Kaggle refused."""

import csv
import io
import re
from dataclasses import dataclass
from pathlib import Path

from podium.errors import KaggleError
from podium.kaggle.cli_messages import PushError, ServerError, fault_of, last_words, status_of
from podium.kaggle.client import UPLOAD_BYTES_PER_SECOND, Answer, Kaggle, from_header
from podium.kaggle.credentials import has_credentials

READY = "ready"
# What the CLI says of a push that Kaggle took in part.
NOT_ATTACHED = re.compile(r"^The following are not valid .*$", re.MULTILINE)
STATUS = re.compile(r'has status "(?:\w+\.)?(\w+)"')
FAILURE = re.compile(r'^Failure message: "(.*)"$', re.MULTILINE | re.DOTALL)
COMPLETE, ERROR = "COMPLETE", "ERROR"
ENDED = (COMPLETE, ERROR, "CANCEL_ACKNOWLEDGED")
OUTPUT_SECONDS = 1800


@dataclass(frozen=True)
class Kernels:
    """An account's datasets and kernels, named `<user>/<slug>`. All methods raise KaggleError."""

    kaggle: Kaggle

    def user(self) -> str:
        """The account's name; raises KaggleError where there are no credentials."""
        found = re.search(r"^- username: (\S+)", self._asked("config", "view").printed, re.MULTILINE)
        if found is None or found[1] == "None":
            raise fault_of("401 Client Error", slug="", has_credentials=has_credentials(self.kaggle.environment))
        return found[1]

    def dataset_files(self, dataset: str) -> dict[str, int] | None:
        """Name -> bytes of the files of a dataset's newest version; None where there is no such dataset."""
        answer = self._call("datasets", "files", dataset, "-v", "--page-size", "200")
        if answer.code != 0 and status_of(answer.said) in (403, 404):  # what is not there is forbidden, too
            return None
        table = csv.DictReader(io.StringIO(from_header(self._checked(answer).printed, "name,")))
        return {row["name"]: int(row["size"]) for row in table if (row["size"] or "").isdigit()}

    def dataset_status(self, dataset: str) -> str:
        """Such as ready; other words mean that Kaggle still works on it, or failed."""
        return last_words(self._asked("datasets", "status", dataset).printed).lower()

    def send_dataset(self, folder: Path, *, new: bool, message: str) -> None:
        """Upload a folder as a new dataset, or as a new version of one; only its list of files says what arrived."""
        size = sum(file.stat().st_size for file in folder.iterdir())
        words = ["create"] if new else ["version", "-m", message]
        seconds = self.kaggle.timeout_seconds + size / UPLOAD_BYTES_PER_SECOND
        answer = self._call("datasets", *words, "-p", str(folder), "-q", "-t", timeout_seconds=seconds)
        if " is being created" not in self._checked(answer).said:
            raise KaggleError("Kaggle made no dataset.", found=last_words(answer.said), fix="look at what Kaggle says")

    def push(self, folder: Path) -> None:
        """Push a kernel, which then runs; raises PushError where Kaggle did not take it, or without what it needs.

        After any other error it may run or not: only the kernel's source says.
        """
        said = self._pushed(self._call("kernels", "push", "-p", str(folder))).said
        if "successfully pushed" not in said:
            found = last_words(said).removeprefix("Kernel push error: ")
            kind = PushError if "Kernel push error" in said else KaggleError
            raise kind("Kaggle did not take the kernel.", found=found, fix="look at what Kaggle says")
        if lacking := NOT_ATTACHED.search(said):
            fix = "accept the competition's rules, or wait until Kaggle lists the dataset; then make kernel again"
            raise PushError("Kaggle took the kernel without its data.", found=lacking[0], fix=fix)

    def source(self, kernel: str, folder: Path) -> str:
        """The script of a kernel's newest version; empty where there is no such kernel."""
        answer = self._call("kernels", "pull", kernel, "-p", str(folder))
        if answer.code != 0 and status_of(answer.said) in (403, 404):
            return ""
        self._checked(answer)
        return "\n".join(file.read_text(encoding="utf-8") for file in sorted(folder.glob("*.py")))

    def status(self, kernel: str) -> tuple[str, str]:
        """Such as QUEUED, RUNNING, COMPLETE or ERROR, and why it failed, where Kaggle says so."""
        printed = self._asked("kernels", "status", kernel).printed
        found, failure = STATUS.search(printed), FAILURE.search(printed)
        if found is None:
            raise KaggleError("Kaggle does not say how the kernel is.", found=last_words(printed))
        return found[1].upper(), failure[1].strip() if failure else ""

    def output(self, kernel: str, folder: Path) -> None:
        """Fetch a kernel's output and its log; what arrives may be cut."""
        words = ("kernels", "output", kernel, "-p", str(folder), "-o", "-q", "--page-size", "200")
        self.kaggle.again(lambda: self._checked(self._call(*words, timeout_seconds=OUTPUT_SECONDS)))

    def _pushed(self, answer: Answer) -> Answer:
        try:
            return self._checked(answer)
        except KaggleError as error:
            if isinstance(error, ServerError) or not 400 <= (status_of(answer.said) or 0) < 500:
                raise
            raise PushError(error.what, expected=error.expected, found=error.found, fix=error.fix) from None

    def _asked(self, *words: str) -> Answer:
        return self.kaggle.again(lambda: self._checked(self._call(*words)))

    def _call(self, *words: str, timeout_seconds: float | None = None) -> Answer:
        return self.kaggle.call(*words, timeout_seconds=timeout_seconds)

    def _checked(self, answer: Answer) -> Answer:
        if answer.code == 0:
            return answer
        error = fault_of(answer.said, slug="", has_credentials=has_credentials(self.kaggle.environment))
        if status_of(answer.said) in (403, 404) and not isinstance(error, ServerError):
            fix = "look whether the account may use kernels and datasets: https://www.kaggle.com/settings"
            raise KaggleError("Kaggle does not give what was asked for.", found=last_words(answer.said), fix=fix)
        raise error
