"""Errors of Kaggle, by HTTP status."""

from podium.errors import KaggleError

TOKENS_PAGE = "https://www.kaggle.com/settings/api"
CORRECT_SLUG = "correct [kaggle] competition in competition.toml: the last part of the competition's address"


class RefusedError(KaggleError):
    """Kaggle refused a request, and did nothing; `status` is the HTTP status."""

    status: int | None = 400


class ServerError(KaggleError):
    """Kaggle failed, was too busy, or did not answer: it may have done what was asked for, or not."""

    status: int | None = None


class CommandError(ServerError):
    """A command of the kaggle CLI failed, and Kaggle gives no reason: it may have done its work, or not."""


def answer_error(
    status: int | None,
    message: str,
    *,
    slug: str,
    service: str = "competitions",
    has_credentials: bool = True,
    has_entered: bool = False,
) -> RefusedError | ServerError:
    """The error for an HTTP status (None where Kaggle did not answer) and Kaggle's message, with its fix.

    An account that `has_entered` the competition has accepted its rules. The other services are about datasets and
    notebooks, of which Kaggle does not say whether they exist.
    """
    page = f"https://www.kaggle.com/competitions/{slug}"
    task = f"see {page}" if has_entered else f"accept the rules of the competition at {page}/rules"
    new_token = f"create a token at {TOKENS_PAGE}; export KAGGLE_API_TOKEN=..., or write it to ~/.kaggle/access_token"
    known = {
        None: ("Kaggle cannot be reached.", "check the connection, then repeat the command"),
        401: ("Kaggle rejected the token." if has_credentials else "No Kaggle credentials were found.", new_token),
        403: ("Kaggle denied access to this account.", f"{task} with the account of the token"),
        404: (f"There is no competition '{slug}' on Kaggle.", CORRECT_SLUG),
        429: ("Kaggle got too many requests.", "wait some minutes, then repeat the command"),
    }
    if service != "competitions":
        account = "check that the account may use notebooks and datasets: https://www.kaggle.com/settings"
        known[403] = known[404] = ("Kaggle denied access, or it does not exist.", account)
    if status not in known:
        failed = ("Kaggle's server failed.", "wait a little, then repeat the command")
        known[status] = failed if status >= 500 else ("Kaggle refused the request.", f"see {page}")
    kind = ServerError if status in (None, 429) or status >= 500 else RefusedError
    what, fix = known[status]
    error = kind(what, found=None if status == 401 else message or f"status {status}", fix=fix)
    error.status = status
    return error
