"""One competition on Kaggle: questions in a child process (ask.py), uploads and downloads by the kaggle CLI.

Nothing of the package `kaggle` is imported here: it logs in when it is imported. The CLI's exit code is 0 after some
uploads that failed, so its output is read too.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from podium.errors import KaggleError
from podium.kaggle.cli_messages import (
    MAX_CHARACTERS,
    NO_UPLOAD,
    AnswerError,
    ServerError,
    UploadError,
    answer_error,
    error_line,
    parse_status,
)
from podium.kaggle.credentials import cli_environment, has_credentials, without_secrets

ASK = Path(__file__).with_name("ask.py")
PAGE_SIZE = 200
MAX_PAGES = 25
RETRIED_STATUS = (500, 502, 503, 504)
NO_COMPETITION = "Could not find competition"
# An error in one of these calls happened before anything was submitted: the command may be repeated.
CALLS_BEFORE_UPLOAD = ("IntrospectToken", "StartSubmissionUpload")
# An hour at this rate is 700 MB.
UPLOAD_BYTES_PER_SECOND = 200_000

T = TypeVar("T")


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
class CliResult:
    """Exit code and output of a child process, without secrets."""

    code: int
    stdout: str
    stderr: str

    @property
    def output(self) -> str:
        """Everything that was printed."""
        return f"{self.stdout}\n{self.stderr}"


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
        except AnswerError:
            return None

    def reason(self, ref: int) -> str | None:
        """Why a submission has the status ERROR: empty where Kaggle gives no reason, None where it does not answer."""
        try:
            description = self.ask("competitions", "get_submission", ref=ref)["errorDescription"] or ""
        except AnswerError:
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
        """Upload a CSV. Returns where the CLI reports success; UploadError means that nothing was submitted.

        After any other error the file may be at Kaggle or not: only the list of submissions shows it.
        """
        seconds = self.timeout_seconds + file.stat().st_size / UPLOAD_BYTES_PER_SECOND
        self.retry(lambda: self._submit(file, message, seconds))

    def download(self, folder: Path, *, force: bool, timeout_seconds: float) -> None:
        """Fetch the competition's files as `<slug>.zip` into a folder; it may be cut although no error is raised."""
        options = ["-p", str(folder), "-q", *(["-o"] if force else [])]
        self.check_cli("competitions", "download", self.slug, *options, timeout_seconds=timeout_seconds)

    def leaderboard(self, folder: Path) -> Path:
        """Fetch the whole public leaderboard into a folder: a zip with one CSV."""
        self.check_cli("competitions", "leaderboard", self.slug, "--download", "-p", str(folder), "-q")
        return folder / f"{self.slug}.zip"

    def ask(self, service: str, method: str, **fields: Any) -> dict[str, Any]:
        """Kaggle's answer to one call of its API, by the API's names; AnswerError has the HTTP status."""
        return self.retry(lambda: self._ask(service, method, fields))

    def run_cli(self, *arguments: str, timeout_seconds: float | None = None) -> CliResult:
        """Run a command of the kaggle CLI; raises ServerError only where it does not end in time."""
        command = [sys.executable, "-P", "-m", "kaggle", "-W", *arguments]
        return self._run(command, timeout_seconds or self.timeout_seconds)

    def check_cli(self, *arguments: str, timeout_seconds: float | None = None) -> CliResult:
        """Run a command of the kaggle CLI, again where Kaggle's server failed; an exit code raises AnswerError."""

        def run() -> CliResult:
            result = self.run_cli(*arguments, timeout_seconds=timeout_seconds)
            if result.code != 0:
                raise self.cli_error(result)
            return result

        return self.retry(run)

    def cli_error(self, result: CliResult) -> AnswerError:
        """The error for a command of the kaggle CLI that failed."""
        return self._error(parse_status(result.output), error_line(result.output))

    def retry(self, request: Callable[[], T]) -> T:
        """The result of `request`, repeated where Kaggle's server failed."""
        for seconds in self.retry_seconds:
            try:
                return request()
            except ServerError as error:
                if error.status not in RETRIED_STATUS:
                    raise
                time.sleep(seconds)
        return request()

    def _ask(self, service: str, method: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        command = [sys.executable, "-P", str(ASK), service, method, json.dumps(fields)]
        result = self._run(command, self.timeout_seconds)
        if result.code != 0:
            raise KaggleError("The package kaggle failed.", found=error_line(result.output), fix="make setup")
        answer = json.loads(result.stdout)
        if answer["status"] != 200:
            raise self._error(answer["status"], answer["message"][:MAX_CHARACTERS])
        return answer["answer"]

    def _error(self, status: int | None, message: str) -> AnswerError:
        return answer_error(status, message, slug=self.slug, has_credentials=has_credentials(self.environment))

    def _submit(self, file: Path, message: str, seconds: float) -> None:
        options = ["-f", str(file), f"--message={message}", "-q"]
        result = self.run_cli("competitions", "submit", self.slug, *options, timeout_seconds=seconds)
        if NO_UPLOAD in result.output:
            raise UploadError(
                "The upload failed: Kaggle's storage did not accept the file.",
                file=file.name,
                found=error_line(result.output.replace(NO_UPLOAD, "")) or f"{NO_UPLOAD}, exit code {result.code}",
                fix="repeat the command; no submission was used up",
            )
        if result.code == 0 and NO_COMPETITION not in result.output:
            return
        error = self.cli_error(result)
        if any(call in result.output for call in CALLS_BEFORE_UPLOAD) and isinstance(error, ServerError):
            raise error
        kind = UploadError if error.status in (400, 401, 403, 404) else KaggleError
        raise kind(error.what, expected=error.expected, found=error.found, fix=error.fix)

    def _run(self, command: Sequence[str], seconds: float) -> CliResult:
        environment = cli_environment(self.environment)
        # A session of its own: Ctrl-C reaches Podium alone, which then ends the child; the CLI would exit with 0.
        with subprocess.Popen(
            command,
            env=environment,
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
        texts = (without_secrets(text, environment) for text in (stdout, stderr))
        return CliResult(process.returncode, *texts)


def _kill(process: subprocess.Popen) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def _score(text: str | None) -> float | None:
    try:
        return float(text or "")
    except ValueError:
        return None
