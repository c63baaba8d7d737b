"""Errors of Kaggle, by HTTP status."""

from podium.errors import KaggleError

TOKENS_PAGE = "https://www.kaggle.com/settings/api"


class RefusedError(KaggleError):
    """Kaggle refused a request, and did nothing; `status` is the HTTP status."""

    status: int | None = 400


class ServerError(KaggleError):
    """Kaggle failed, was too busy, or did not answer: it may have done what was asked for, or not."""

    status: int | None = None


class CommandError(ServerError):
    """A command of the kaggle CLI failed, and Kaggle gives no reason: it may have done its work, or not."""


def answer_error(
    status: int | None, message: str, *, slug: str, has_credentials: bool = True, has_entered: bool = False
) -> RefusedError | ServerError:
    """The error for an HTTP status (None where Kaggle did not answer) and Kaggle's message, with its fix.

    An account that `has_entered` the competition has accepted its rules.
    """
    page = f"https://www.kaggle.com/competitions/{slug}"
    kind, expected, found = RefusedError, None, message or f"status {status}"
    if status is None:
        kind, what, fix = ServerError, "Kaggle cannot be reached.", "check the connection, then repeat the command"
    elif status == 401 and has_credentials:
        what, found, fix = "Kaggle rejected the token.", None, f"create a new token at {TOKENS_PAGE}"
    elif status == 401:
        what, found = "No Kaggle credentials were found.", None
        expected = "KAGGLE_API_TOKEN, ~/.kaggle/access_token or ~/.kaggle/kaggle.json"
        fix = f"create a token at {TOKENS_PAGE}; export KAGGLE_API_TOKEN=..."
    elif status == 403:
        what = "Kaggle denied access to this account."
        task = f"see {page}" if has_entered else f"accept the rules of the competition at {page}/rules"
        fix = f"{task} with the account of the token"
    elif status == 404:
        what = f"There is no competition '{slug}' on Kaggle."
        fix = "correct [kaggle] competition in competition.toml: the last part of the competition's address"
    elif status == 429:
        kind, what, fix = ServerError, "Kaggle got too many requests.", "wait some minutes, then repeat the command"
    elif status >= 500:
        kind, what, fix = ServerError, "Kaggle's server failed.", "wait a little, then repeat the command"
    else:
        what, fix = "Kaggle refused the request.", f"see {page}"
    error = kind(what, expected=expected, found=found, fix=fix)
    error.status = status
    return error
