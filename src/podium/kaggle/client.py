"""One competition on Kaggle: questions in a child process (ask.py), uploads and downloads by the kaggle CLI.

Nothing of the package kaggle is imported here: it logs in when it is imported.
"""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from podium.errors import KaggleError
from podium.kaggle.answers import CommandError, RefusedError, ServerError, answer_error
from podium.kaggle.credentials import cleaned_environment, find_secrets, masked

ASK = Path(__file__).with_name("ask.py")
COMMAND = (sys.executable, "-P", "-m", "kaggle", "-W")
# Ctrl-C reaches Podium alone, which then kills the child; the CLI would exit with 0.
CHILD = {"stdin": subprocess.DEVNULL, "text": True, "errors": "replace", "start_new_session": True}
PAGE_SIZE = 200
MAX_PAGES = 25
MAX_CHARACTERS = 300
RETRIED_STATUS = (500, 502, 503, 504)
# The CLI prints this where the upload failed, with exit code 0 in some versions: nothing was submitted.
NO_UPLOAD = "Could not submit to competition"
# An hour at this rate is 700 MB.
UPLOAD_BYTES_PER_SECOND = 200_000


@dataclass(frozen=True)
class ListedSubmission:
    """A submission in Kaggle's list: `status` is PENDING, COMPLETE or ERROR."""

    ref: int
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

    def about(self) -> dict[str, Any]:
        """The competition by the API's names, such as isKernelsSubmissionsOnly: it takes notebooks only."""
        return self.ask("competitions", "get_competition", competitionName=self.slug)

    def submissions(self) -> list[ListedSubmission]:
        """The account's submissions, newest first."""
        order = {"sortBy": "SUBMISSION_SORT_BY_DATE", "group": "SUBMISSION_GROUP_ALL"}
        answer = self.ask("competitions", "list_submissions", competitionName=self.slug, pageSize=PAGE_SIZE, **order)
        listed = [
            ListedSubmission(
                ref=row["ref"],
                date=row["date"] or "",
                message=row["description"] or "",
                status=row["status"],
                public=_score(row.get("publicScore")),
                private=_score(row.get("privateScore")),
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

    def reason(self, ref: int) -> str:
        """Why a submission has the status ERROR; empty where Kaggle does not answer."""
        try:
            description = self.ask("competitions", "get_submission", ref=ref)["errorDescription"]
        except KaggleError:
            return ""
        return shorten(description or "Kaggle gives no reason")

    def files(self) -> tuple[dict[str, int], bool]:
        """Name -> bytes of the files on the first MAX_PAGES pages of Kaggle's list, and whether these are all."""
        sizes: dict[str, int] = {}
        page: dict[str, str] = {}
        for _ in range(MAX_PAGES):
            answer = self.ask("competitions", "list_data_files", competitionName=self.slug, pageSize=PAGE_SIZE, **page)
            sizes |= {file["name"]: file["totalBytes"] for file in answer["files"]}
            page = {"pageToken": answer["nextPageToken"]}
            if not page["pageToken"]:
                break
        return sizes, not page["pageToken"]

    def submit(self, file: Path, message: str, *, notebook: str = "", version: int = 0) -> None:
        """Submit by the kaggle CLI: a CSV, or a version of the notebook `<user>/<slug>` that writes such a file.

        RefusedError means that nothing was submitted. After a return, or another error, only the list of submissions
        shows whether a submission was made.
        """
        source = ("-k", notebook, "-v", str(version), "-f", file.name) if notebook else ("-f", str(file))
        arguments = ("submit", self.slug, *source, f"--message={message}", "-q")
        self.check_cli("competitions", *arguments, seconds=self.upload_seconds(file.stat().st_size), file=file.name)

    def download(self, folder: Path, name: str = "", *, force: bool, timeout_seconds: float) -> None:
        """Fetch the competition's files as `<slug>.zip` into a folder; it may be cut although no error is raised.

        With a `name` that file alone is fetched, as itself or as `<name>.zip`. Versions of the kaggle CLI differ in
        whether they make the folders of a name such as `train/1.png`.
        """
        options = ("-p", str(folder), "-q", *(["-o"] if force else []), *(["-f", name] if name else []))
        self.check_cli("competitions", "download", self.slug, *options, seconds=timeout_seconds)

    def leaderboard(self, folder: Path) -> Path:
        """Fetch the whole public leaderboard into a folder: a zip with one CSV."""
        options = ("--download", "-p", str(folder), "-q")
        self.check_cli("competitions", "leaderboard", self.slug, *options, seconds=self.timeout_seconds)
        return folder / f"{self.slug}.zip"

    def upload_seconds(self, size: int) -> float:
        """How long an upload of this many bytes may take."""
        return self.timeout_seconds + size / UPLOAD_BYTES_PER_SECOND

    def ask(self, service: str, method: str, *, repeat: bool = True, **fields: Any) -> dict[str, Any]:
        """Kaggle's answer to a question, by the API's names; `repeat` asks again where Kaggle's server failed.

        Raises RefusedError or ServerError with the HTTP status, and KaggleError where the package itself fails.
        """
        command = [sys.executable, "-P", str(ASK), service, method, json.dumps(fields)]
        for pause in (*(self.retry_seconds if repeat else ()), None):
            code, stdout, stderr = self.run(command, self.timeout_seconds)
            if code != 0:
                found = shorten(stderr.strip().rpartition("\n")[2])
                raise KaggleError("The package kaggle failed.", found=found, fix="make setup")
            result = json.loads(stdout)
            if pause is None or result["status"] not in RETRIED_STATUS:
                break
            time.sleep(pause)
        if result["status"] == 200:
            return result["answer"]
        has_entered = False
        if result["status"] == 403 and method == "get_competition":
            result["status"] = 404  # so Kaggle answers to a mistyped slug
        elif result["status"] == 403 and service == "competitions":
            has_entered = self.about()["userHasEntered"]
        raise self._error(result["status"], result["message"], service=service, has_entered=has_entered)

    def check_cli(self, *arguments: str, seconds: float, file: str | None = None) -> str:
        """Output of a command of the kaggle CLI, which may report success where it failed.

        Raises ServerError where it does not end in time, and RefusedError where Kaggle's storage refused the upload of
        a `file`. Of another failure its output does not always have the HTTP status, so Kaggle is asked a question: if
        it refuses that too, its answer is raised, else CommandError.
        """
        code, stdout, stderr = self.run([*COMMAND, *arguments], seconds)
        output = f"{stdout}\n{stderr}"
        if NO_UPLOAD in output:
            raise RefusedError(
                "The upload failed: Kaggle's storage did not accept the file.",
                file=file,
                found=shorten(output.replace(NO_UPLOAD, "")) or f"{NO_UPLOAD}, exit code {code}",
                fix="repeat the command; no submission was used up",
            )
        if code == 0:
            return output
        if arguments[0] != "competitions":
            self.user()
        elif not self.about()["userHasEntered"]:
            raise self._error(403, output)
        found = shorten(output) or "no output"
        raise CommandError("The kaggle command failed.", found=found, fix="repeat the command")

    def stream_cli(self, *arguments: str, seconds: float) -> Iterator[str]:
        """Yield what a command of the kaggle CLI prints, line by line, until it ends or the seconds are over."""
        environment = cleaned_environment(self.environment)
        secrets, pipes = find_secrets(environment), {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        with subprocess.Popen([*COMMAND, *arguments], env=environment, **pipes, **CHILD) as process:
            end = threading.Timer(seconds, process.kill)
            end.start()
            try:
                for text in process.stdout:
                    yield from masked(text, secrets).splitlines()
            finally:
                end.cancel()
                process.kill()

    def _error(self, status: int | None, message: str, **known: Any) -> KaggleError:
        has_credentials = bool(find_secrets(self.environment))
        return answer_error(status, shorten(message), slug=self.slug, has_credentials=has_credentials, **known)

    def run(self, command: Sequence[str], seconds: float) -> tuple[int, str, str]:
        """Exit code, stdout and stderr of a child process without secrets; raises ServerError after so many seconds."""
        environment = cleaned_environment(self.environment)
        secrets = find_secrets(environment)
        try:
            process = subprocess.run(
                command,
                env=environment,
                capture_output=True,
                timeout=seconds,
                close_fds=False,  # the child holds the ledger's lock as long as it lives
                **CHILD,
            )
        except subprocess.TimeoutExpired:
            fix = "check the connection, then repeat the command"
            raise ServerError("Kaggle did not answer in time.", found=f"{seconds:.0f} s", fix=fix) from None
        secrets |= find_secrets(environment)  # the package may have deleted or renewed a token
        return process.returncode, masked(process.stdout, secrets), masked(process.stderr, secrets)


def _score(text: str | None) -> float | None:
    """A score of Kaggle's list; None while it is unknown, whatever text Kaggle has for that."""
    try:
        return float(text or "")
    except ValueError:
        return None


def shorten(output: str) -> str:
    """The beginning of a message or of an output, in one line; hints of the kaggle CLI come after Kaggle's words."""
    return " ".join(output.split())[:MAX_CHARACTERS]
