"""What the kaggle CLI said, told as a fault that the user can fix."""

import re

from podium.errors import KaggleError

NO_UPLOAD = "Could not submit to competition"
NO_ACCOUNT = "Authentication required"
MOST_CHARACTERS_SHOWN = 300
TOKENS = "https://www.kaggle.com/settings/api"

# Some answers come with a status, others with Kaggle's words alone.
STATUS = re.compile(r"\b([45]\d\d) (?:Client|Server) Error")
STATUS_OF_WORDS = {
    "rules": 403,
    "permission '": 403,  # of Kaggle's; a file's has no quote after it
    "forbidden": 403,
    "not found": 404,
    "too many requests": 429,
    "unauthenticated": 401,
}
UNREACHABLE = (
    *("Max retries exceeded", "Connection aborted", "Connection refused", "Failed to resolve", "timed out"),
    *("Connection broken", "Response ended prematurely"),  # an answer that was cut on the way
)


class ServerError(KaggleError):
    """Kaggle failed, or was too busy, or could not be reached: the same may work a moment later."""


class UploadError(KaggleError):
    """The file did not arrive: no submission was made of it, none is used up."""


class PushError(KaggleError):
    """Kaggle did not take the kernel, or not whole: nothing is to be followed."""


def status_of(said: str) -> int | None:
    """The HTTP status that the CLI's words stand for, or None."""
    if NO_ACCOUNT in said:
        return 401
    if found := STATUS.search(said):
        return int(found[1])
    if any(words in said for words in UNREACHABLE):
        return None  # whatever a proxy on the way said
    lower = said.lower()
    return next((status for words, status in STATUS_OF_WORDS.items() if words in lower), None)


def fault_of(said: str, *, slug: str, has_credentials: bool) -> KaggleError:
    """What went wrong by the CLI's words, and what to do about it."""
    status, found = status_of(said), last_words(said)
    page = f"https://www.kaggle.com/competitions/{slug}"
    if status == 401 and not has_credentials:
        return KaggleError(
            "There are no Kaggle credentials here.",
            expected="KAGGLE_API_TOKEN, ~/.kaggle/access_token or ~/.kaggle/kaggle.json",
            fix=f"take a token from {TOKENS}, and export KAGGLE_API_TOKEN=...",
        )
    if status == 401:
        return KaggleError("Kaggle rejected the token.", fix=f"take a new one from {TOKENS}: this one is not valid")
    if status == 403:
        fix = f"accept the rules of the competition at {page}/rules with the token's account"
        return KaggleError("Kaggle does not let this account in.", found=found, fix=fix)
    if status == 404:
        fix = "correct [kaggle] competition in competition.toml: the last part of the competition's address"
        return KaggleError(f"Kaggle knows no competition '{slug}'.", found=found, fix=fix)
    if status == 429:
        return ServerError("Kaggle asks for fewer requests.", found=found, fix="wait some minutes, then the same again")
    if status is not None and status >= 500:
        return ServerError("Kaggle failed.", found=found, fix="wait a little, then the same again")
    if any(words in said for words in UNREACHABLE):
        return ServerError("Kaggle cannot be reached.", found=found, fix="fix the connection, then the same again")
    return KaggleError("Kaggle refused.", found=found or "no words at all", fix=f"look at {page}")


def last_words(said: str) -> str:
    """The last line that says something: tracebacks and progress bars end with it."""
    lines = [line.strip() for line in re.split(r"[\r\n]", said) if line.strip() and "%|" not in line]
    text = lines[-1] if lines else ""
    return text if len(text) <= MOST_CHARACTERS_SHOWN else f"{text[: MOST_CHARACTERS_SHOWN - 3]}..."
