"""One competition on Kaggle, asked through the package kaggle in a child process (ask.py), because it logs in when it
is imported.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from podium.errors import KaggleError
from podium.kaggle.answers import RefusedError, ServerError, answer_error

ASK = Path(__file__).with_name("ask.py")
PAGE_SIZE = 200
MAX_PAGES = 25
MAX_CHARACTERS = 300
RETRIED_STATUS = (500, 502, 503, 504)
# Repeating these could make a second submission or start a second notebook.
NOT_RETRIED_CALLS = ("CreateSubmission", "SaveKernel")
# What the package returns instead of an error.
NO_UPLOAD = "Could not submit to competition"
# An hour at this rate is 700 MB.
UPLOAD_BYTES_PER_SECOND = 200_000


@dataclass(frozen=True)
class ListedSubmission:
    """A submission in Kaggle's list: `status` is PENDING, COMPLETE or ERROR."""

    ref: int
    file: str
    date: str
    message: str
    status: str
    public: float | None
    private: float | None


@dataclass(frozen=True)
class Kaggle:
    """The competition `slug` on Kaggle. All methods raise KaggleError."""

    slug: str
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    timeout_seconds: float = 60
    retry_seconds: Sequence[float] = (1, 4)

    def user(self) -> str:
        """Name of the account."""
        return self.ask("account", "user")["user"]

    def submissions(self) -> list[ListedSubmission]:
        """The account's submissions, newest first."""
        order = {"sortBy": "SUBMISSION_SORT_BY_DATE", "group": "SUBMISSION_GROUP_ALL"}
        answer = self.ask("competitions", "list_submissions", competitionName=self.slug, pageSize=PAGE_SIZE, **order)
        listed = [
            ListedSubmission(
                ref=row["ref"],
                file=row["fileName"] or "",
                date=row["date"] or "",
                message=row["description"] or "",
                status=row["status"],
                public=_score(row["publicScore"]),
                private=_score(row["privateScore"]),
            )
            for row in answer["submissions"]
        ]
        return sorted(listed, key=lambda submission: -submission.ref)

    def remaining(self) -> int | None:
        """Number of submissions left today; None where Kaggle does not answer."""
        try:
            return self.ask("competitions", "get_submission_limits", competitionName=self.slug)["numAllowedNow"]
        except KaggleError:
            return None

    def reason(self, ref: int) -> str | None:
        """Why a submission has the status ERROR: empty where Kaggle gives no reason, None where it does not answer."""
        try:
            description = self.ask("competitions", "get_submission", ref=ref)["errorDescription"] or ""
        except KaggleError:
            return None
        return " ".join(description.split())[:MAX_CHARACTERS]

    def files(self) -> tuple[dict[str, int], bool]:
        """Name -> bytes of the competition's files, and whether these are all: at most MAX_PAGES pages are read."""
        sizes: dict[str, int] = {}
        page: dict[str, str] = {}
        for _ in range(MAX_PAGES):
            answer = self.ask("competitions", "list_data_files", competitionName=self.slug, pageSize=PAGE_SIZE, **page)
            sizes |= {file["name"]: file["totalBytes"] for file in answer["files"]}
            if not answer["nextPageToken"]:
                return sizes, True
            page = {"pageToken": answer["nextPageToken"]}
        return sizes, False

    def submit(self, file: Path, message: str) -> None:
        """Upload a CSV and submit it; RefusedError means that nothing was submitted.

        After any other error the file may be at Kaggle or not: only the list of submissions shows it.
        """
        fields = {"file_name": str(file), "message": message, "competition": self.slug, "quiet": True}
        result = self.call("package", "competition_submit", fields, seconds=self.upload_seconds(file.stat().st_size))
        if result["answer"]["message"] == NO_UPLOAD:
            raise RefusedError(
                "The upload failed: Kaggle's storage did not accept the file.",
                file=file.name,
                found=result["printed"] or NO_UPLOAD,
                fix="repeat the command; no submission was used up",
            )

    def download(self, folder: Path, *, force: bool, timeout_seconds: float) -> None:
        """Fetch the competition's files as `<slug>.zip` into a folder; it may be cut although no error is raised."""
        fields = {"competition": self.slug, "path": str(folder), "force": force}
        self.call("package", "competition_download_files", fields, seconds=timeout_seconds)

    def leaderboard(self, folder: Path) -> Path:
        """Fetch the whole public leaderboard into a folder: a zip with one CSV."""
        self.ask("package", "competition_leaderboard_download", competition=self.slug, path=str(folder))
        return folder / f"{self.slug}.zip"

    def upload_seconds(self, size: int) -> float:
        """How long an upload of this many bytes may take."""
        return self.timeout_seconds + size / UPLOAD_BYTES_PER_SECOND

    def ask(self, service: str, method: str, **fields: Any) -> Any:
        """Kaggle's answer to one call of its API, by the API's names, or of the package, by the package's names."""
        return self.call(service, method, fields, seconds=self.timeout_seconds)["answer"]

    def call(self, service: str, method: str, fields: Mapping[str, Any], *, seconds: float) -> dict[str, Any]:
        """What ask.py prints; it is asked again where Kaggle's server failed.

        Raises RefusedError or ServerError with the HTTP status, and KaggleError where the package itself fails.
        """
        command = [sys.executable, "-P", str(ASK), service, method, json.dumps(fields)]
        for pause in (*self.retry_seconds, None):
            result = self._run(command, seconds)
            if result["status"] == 200:
                return result
            if pause is None or result["status"] not in RETRIED_STATUS or result["call"] in NOT_RETRIED_CALLS:
                break
            time.sleep(pause)
        message, has_credentials = result["message"][:MAX_CHARACTERS], result["has_credentials"]
        raise answer_error(result["status"], message, slug=self.slug, has_credentials=has_credentials)

    def _run(self, command: Sequence[str], seconds: float) -> dict[str, Any]:
        # A session of its own: Ctrl-C reaches Podium alone, which then ends the child.
        with subprocess.Popen(
            command,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
            close_fds=False,  # the child holds the ledger's lock as long as it lives
        ) as process:
            try:
                stdout, stderr = process.communicate(timeout=seconds)
            except subprocess.TimeoutExpired:
                _kill(process)
                fix = "check the connection, then repeat the command"
                raise ServerError("Kaggle did not answer in time.", found=f"{seconds:.0f} s", fix=fix) from None
            except BaseException:
                _kill(process)
                raise
        if process.returncode != 0:
            found = stderr.strip().rpartition("\n")[2][:MAX_CHARACTERS]
            raise KaggleError("The package kaggle failed.", found=found, fix="make setup")
        return json.loads(stdout)


def _kill(process: subprocess.Popen) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def _score(text: str | None) -> float | None:
    try:
        return float(text or "")
    except ValueError:
        return None
