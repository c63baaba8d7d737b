"""GPU hours: what Kaggle leaves an account this week, against what a notebook needs."""

from collections.abc import Callable

from podium.errors import KaggleError
from podium.kaggle.notebooks.package import RESERVED_HOURS
from podium.kaggle.session import Session


def check_quota(session: Session, training_hours: Callable[[], float] = lambda: 0) -> None:
    """Raise KaggleError where fewer GPU hours are left than a notebook needs.

    `training_hours` is called only where less is left than a session may last. Where Kaggle does not say how many hours
    are left, this is logged.
    """
    settings = session.workspace.competition.kaggle
    if settings.notebook_accelerator == "none":
        return
    try:
        left, found = session.kaggle.gpu_quota()
    except KaggleError as error:
        session.log(f"Kaggle does not say how many GPU hours are left: {error.what} {error.found or ''}")
        return
    session.log(found)
    if left < settings.notebook_hours and left < (needed := RESERVED_HOURS + training_hours()):
        raise KaggleError(
            "Kaggle's GPU quota does not suffice: nothing was pushed.",
            expected=f"{min(needed, settings.notebook_hours):.1f} hours",
            found=found,
            fix="wait for the new week; RUN= trains fewer runs, a smaller notebook_hours leaves runs for later, and "
            'notebook_accelerator = "none" uses the CPU; FORCE=1 pushes anyway',
        )
