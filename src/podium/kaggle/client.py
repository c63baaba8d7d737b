"""The kaggle CLI as a process: in a scrubbed environment, with a time limit, and not believed by its exit code.

The package `kaggle` logs in when it is imported, and leaves the process where it cannot: nothing of it is imported
here. Its exit code is 0 after uploads that failed; its words are looked at too.
"""

import csv
import io
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from podium.errors import KaggleError
from podium.kaggle.cli_messages import NO_UPLOAD, ServerError, UploadError, fault_of, last_words, status_of
from podium.kaggle.credentials import has_credentials, scrubbed, without_secrets

ROWS_LISTED = 200
MOST_PAGES = 25
# A failure of these is one before anything was submitted.
BEFORE_UPLOAD = ("IntrospectToken", "StartSubmissionUpload")
# An hour at this rate is 700 MB.
UPLOAD_BYTES_PER_SECOND = 200_000
# The list of submissions has no reasons; the library that the CLI is made of has.
ASK_REASON = """
import sys
from kaggle import api
from kagglesdk.competitions.types.competition_api_service import ApiGetSubmissionRequest
request = ApiGetSubmissionRequest()
request.ref = int(sys.argv[1])
with api.build_kaggle_client() as kaggle:
    said = kaggle.competitions.competition_api_client.get_submission(request).error_description or ""
    print(" ".join(said.split()))
"""

T = TypeVar("T")


@dataclass(frozen=True)
class Row:
    """A line of `kaggle competitions submissions`: `status` is PENDING, COMPLETE or ERROR."""

    ref: int
    file: str
    date: str
    message: str
    status: str
    public: float | None
    private: float | None


@dataclass(frozen=True)
class Answer:
    """How a call of the CLI ended, and what it printed, without secrets."""

    code: int
    said: str
    printed: str


@dataclass(frozen=True)
class Kaggle:
    """One competition on Kaggle, `slug`, by the CLI. All methods raise KaggleError."""

    slug: str
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    timeout_seconds: float = 60
    retry_seconds: Sequence[float] = (1, 4)

    def submissions(self) -> list[Row]:
        """The account's submissions, newest first."""
        answer = self.again(lambda: self._asked("submissions", self.slug, "-v", "--page-size", str(ROWS_LISTED)))
        return _rows(answer.printed)

    def remaining(self) -> int | None:
        """Submissions left today; None where Kaggle does not say."""
        answer = self._call("submission-limits", self.slug)
        found = re.search(r"^Remaining today: (\d+)", answer.printed, re.MULTILINE)  # its JSON leaves out a zero
        return int(found[1]) if found and answer.code == 0 else None

    def submit(self, file: Path, message: str) -> None:
        """Upload a CSV. Returns where the CLI claims success; UploadError where surely nothing was submitted.

        After any other error the file may be at Kaggle or not: only the list of submissions says.
        """
        seconds = self.timeout_seconds + file.stat().st_size / UPLOAD_BYTES_PER_SECOND
        self.again(lambda: self._submitted(file, message, seconds), only=BEFORE_UPLOAD)

    def reason(self, ref: int) -> str | None:
        """Why a submission has the status ERROR; empty where Kaggle gives no reason, None where it did not answer."""
        try:
            answer = self._run([sys.executable, "-P", "-c", ASK_REASON, str(ref)], self.timeout_seconds)
        except ServerError:
            return None
        return last_words(answer.printed) if answer.code == 0 else None

    def files(self) -> tuple[dict[str, int], bool]:
        """Name -> bytes of the competition's files, and whether these are all: some have more pages than are asked."""
        sizes: dict[str, int] = {}
        words: tuple[str, ...] = ("files", self.slug, "-v", "--page-size", str(ROWS_LISTED))
        for _ in range(MOST_PAGES):
            page = words
            printed = self.again(lambda page=page: self._asked(*page)).printed
            table = csv.DictReader(io.StringIO(from_header(printed, "name,")))
            sizes |= {row["name"]: int(row["size"]) for row in table if (row["size"] or "").isdigit()}
            token = re.search(r"^Next Page Token = (\S+)", printed, re.MULTILINE)
            if token is None:
                return sizes, True
            words = ("files", self.slug, "-v", "--page-size", str(ROWS_LISTED), "--page-token", token[1])
        return sizes, False

    def download(self, folder: Path, *, force: bool, timeout_seconds: float) -> None:
        """Fetch the competition's files as `<slug>.zip` into a folder; the CLI's word for it is not to be believed."""
        words = ["download", self.slug, "-p", str(folder), "-q", *(["-o"] if force else [])]
        self.again(lambda: self._asked(*words, timeout_seconds=timeout_seconds))

    def leaderboard(self, folder: Path) -> Path:
        """Fetch the whole public leaderboard: a zip with one CSV."""
        self.again(lambda: self._asked("leaderboard", self.slug, "--download", "-p", str(folder), "-q"))
        return folder / f"{self.slug}.zip"

    def call(self, *words: str, timeout_seconds: float | None = None) -> Answer:
        """Any command of the kaggle CLI; only one that does not answer in time raises."""
        command = [sys.executable, "-P", "-m", "kaggle", "-W", *words]
        return self._run(command, timeout_seconds or self.timeout_seconds)

    def again(self, ask: Callable[[], T], *, only: Sequence[str] = ("",)) -> T:
        """Ask, and ask again where Kaggle failed; `only` where its words name one of these routes."""
        for seconds in self.retry_seconds:
            try:
                return ask()
            except ServerError as error:
                if not _is_brief(error) or not any(route in error.found for route in only):
                    raise
                time.sleep(seconds)
        return ask()

    def _submitted(self, file: Path, message: str, seconds: float) -> None:
        answer = self._call("submit", self.slug, "-f", str(file), f"--message={message}", "-q", timeout_seconds=seconds)
        if NO_UPLOAD in answer.said:
            raise UploadError(
                "The upload failed: Kaggle's storage did not take the file.",
                file=file.name,
                found=last_words(answer.said.replace(NO_UPLOAD, "")) or f"{NO_UPLOAD}, and exit code {answer.code}",
                fix="the same again; no submission was used up",
            )
        if "Could not find competition" in answer.said:
            raise fault_of("404 Client Error", slug=self.slug, has_credentials=True)
        if answer.code == 0:
            return
        error = fault_of(answer.said, slug=self.slug, has_credentials=has_credentials(self.environment))
        status = status_of(answer.said)
        if status == 400:
            fix = "look at what Kaggle says of it; no submission was used up"
            raise UploadError("Kaggle took the file but made no submission of it.", found=error.found, fix=fix)
        if status in (401, 403, 404):
            raise UploadError(error.what, expected=error.expected, found=error.found, fix=error.fix)
        raise error  # it may have been made: not every error comes before the deed

    def _asked(self, *words: str, timeout_seconds: float | None = None) -> Answer:
        answer = self._call(*words, timeout_seconds=timeout_seconds)
        if answer.code != 0:
            raise fault_of(answer.said, slug=self.slug, has_credentials=has_credentials(self.environment))
        return answer

    def _call(self, *words: str, timeout_seconds: float | None = None) -> Answer:
        return self.call("competitions", *words, timeout_seconds=timeout_seconds)

    def _run(self, command: Sequence[str], seconds: float) -> Answer:
        environment = scrubbed(self.environment)
        # A session of its own: Ctrl-C is for Podium, which then ends the CLI, whose exit code would be 0.
        with subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
            close_fds=False,  # it holds the ledger's lock as long as it lives
        ) as process:
            try:
                printed, warned = process.communicate(timeout=seconds)
            except subprocess.TimeoutExpired:
                _end(process)
                fix = "fix the connection, then the same again"
                raise ServerError("Kaggle did not answer in time.", found=f"{seconds:.0f} s", fix=fix) from None
            except BaseException:
                _end(process)
                raise
        printed = without_secrets(printed, environment)
        return Answer(process.returncode, f"{printed}\n{without_secrets(warned, environment)}", printed)


def _is_brief(error: ServerError) -> bool:
    """Whether it is worth asking again at once."""
    return status_of(error.found or "") in (500, 502, 503, 504)


def _end(process: subprocess.Popen) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def from_header(printed: str, header: str) -> str:
    """The CSV in what was printed: warnings may stand before it."""
    found = re.search(rf"^{re.escape(header)}", printed, re.MULTILINE)
    return printed[found.start() :] if found else ""


def _rows(printed: str) -> list[Row]:
    if "No submissions found" in printed:
        return []
    text = from_header(printed, "ref,")
    if not text:
        raise KaggleError("The list of submissions is none.", expected="ref,fileName,...", found=last_words(printed))
    rows = []
    for one in csv.DictReader(io.StringIO(text, newline="")):
        rows.append(
            Row(
                ref=int(one["ref"]),
                file=one["fileName"],
                date=one["date"],
                message=one["description"],
                status=one["status"].rsplit(".", 1)[-1].upper(),
                public=_score(one["publicScore"]),
                private=_score(one["privateScore"]),
            )
        )
    return sorted(rows, key=lambda row: -row.ref)


def _score(text: str | None) -> float | None:
    try:
        return float(text or "")
    except ValueError:
        return None
