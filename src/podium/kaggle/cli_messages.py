"""Errors of Kaggle: from an HTTP status and Kaggle's message, or from what the kaggle CLI printed."""

import re

from podium.errors import KaggleError

NO_UPLOAD = "Could not submit to competition"
MAX_CHARACTERS = 300
TOKENS_PAGE = "https://www.kaggle.com/settings/api"

# The CLI prints some errors with their status, others with Kaggle's message alone.
STATUS = re.compile(r"\b([45]\d\d) (?:Client|Server) Error")
STATUS_OF_WORDS = {
    "rules": 403,
    "permission '": 403,  # Kaggle's; a message about a file has no quote here
    "forbidden": 403,
    "not found": 404,
    "could not find competition": 404,
    "too many requests": 429,
    "unauthenticated": 401,
    "authentication required": 401,
}
UNREACHABLE = (
    *("Max retries exceeded", "Connection aborted", "Connection refused", "Failed to resolve", "timed out"),
    *("Connection broken", "Response ended prematurely", "the answer is not JSON"),  # the connection was cut
)


class AnswerError(KaggleError):
    """Kaggle did not do what was asked for; `status` is the HTTP status, None where there is none."""

    status: int | None = None


class ServerError(AnswerError):
    """Kaggle failed, was too busy, or could not be reached: the same request may work a moment later."""


class UploadError(KaggleError):
    """The file did not arrive: no submission was made, and none is used up."""


class PushError(KaggleError):
    """Kaggle did not accept a notebook, or not all of it: there is nothing to follow."""


def answer_error(status: int | None, message: str, *, slug: str, has_credentials: bool) -> AnswerError:
    """The error for an HTTP status and Kaggle's message, with what to do about it."""
    page = f"https://www.kaggle.com/competitions/{slug}"
    kind, expected = AnswerError, None
    if status == 401 and has_credentials:
        what, fix = "Kaggle rejected the token.", f"create a new token at {TOKENS_PAGE}"
    elif status == 401:
        what, fix = "No Kaggle credentials were found.", f"create a token at {TOKENS_PAGE}; export KAGGLE_API_TOKEN=..."
        expected = "KAGGLE_API_TOKEN, ~/.kaggle/access_token or ~/.kaggle/kaggle.json"
    elif status == 403:
        what = "Kaggle denied access to this account."
        fix = f"accept the rules of the competition at {page}/rules with the account of the token"
    elif status == 404:
        what = f"There is no competition '{slug}' on Kaggle."
        fix = "correct [kaggle] competition in competition.toml: the last part of the competition's address"
    elif status == 429:
        kind, what, fix = ServerError, "Kaggle got too many requests.", "wait some minutes, then repeat the command"
    elif status is not None and status >= 500:
        kind, what, fix = ServerError, "Kaggle's server failed.", "wait a little, then repeat the command"
    elif any(words in message for words in UNREACHABLE):
        kind, what, fix = ServerError, "Kaggle cannot be reached.", "check the connection, then repeat the command"
    else:
        what, fix = "Kaggle refused the request.", f"see {page}"
    error = kind(what, expected=expected, found=None if status == 401 else message or "no message", fix=fix)
    error.status = status
    return error


def parse_status(output: str) -> int | None:
    """The HTTP status in the output of the kaggle CLI, as a number or in words; None where there is none."""
    if match := STATUS.search(output):
        return int(match[1])
    if any(words in output for words in UNREACHABLE):
        return None  # a status here would be that of a proxy
    lower = output.lower()
    return next((status for words, status in STATUS_OF_WORDS.items() if words in lower), None)


def error_line(output: str) -> str:
    """The last line that names an HTTP status or a failed connection, else the last line: advice may follow it."""
    lines = [line.strip() for line in re.split(r"[\r\n]", output) if line.strip() and "%|" not in line]
    named = [line for line in lines if STATUS.search(line) or any(words in line for words in UNREACHABLE)]
    return (named or lines or [""])[-1][:MAX_CHARACTERS]
