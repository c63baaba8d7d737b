"""GPU hours: what Kaggle leaves an account this week, against what a notebook needs."""

from collections.abc import Callable

from podium.errors import KaggleError
from podium.kaggle.notebooks.follow import NotebookSession
from podium.kaggle.notebooks.package import RESERVED_HOURS

Estimate = Callable[[], tuple[float, str]]
"""Returns the hours that the training takes on this machine, and what this machine is, such as `2 core(s)`."""


def check_quota(session: NotebookSession, estimate: Estimate = lambda: (0, ""), *, force: bool = False) -> None:
    """Raise KaggleError where fewer GPU hours are left than a notebook needs, unless `force` pushes it all the same.

    The estimate is asked for only where less is left than a session may last. Where Kaggle does not say how many hours
    are left, this is logged.
    """
    settings = session.workspace.competition.kaggle
    if settings.notebook_accelerator == "none":
        return
    try:
        left, total, renewed = session.account.gpu_quota()
    except KaggleError as error:
        session.log(f"Kaggle does not say how many GPU hours are left: {error.what} {error.found or ''}")
        return
    found = f"{left:g} of this week's {total:g} GPU hours are left; the next week begins {renewed}"
    session.log(found)
    if force or left >= settings.notebook_hours:
        return
    hours, machine = estimate()
    needed = min(RESERVED_HOURS + hours, settings.notebook_hours)
    if left < needed:
        timed, less = "", 'notebook_accelerator = "none" predicts on the CPU'
        if hours:
            timed = f"; make estimate measures {hours:.1f} for the runs on {machine} here"
            less = "RUN= trains fewer runs, and a smaller notebook_hours leaves runs for later"
        raise KaggleError(
            "Kaggle's GPU quota does not suffice: nothing was pushed.",
            expected=f"{needed:.1f} hours{timed}",
            found=found,
            fix=f"{less}; or wait for the new week; FORCE=1 pushes anyway",
        )
