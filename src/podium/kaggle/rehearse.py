"""A submission rehearsed: the real kaggle CLI, the whole way, against a Kaggle on this machine."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from podium.config.keys import Competition, read_competition
from podium.kaggle.client import Kaggle
from podium.kaggle.ledger import Entry
from podium.kaggle.rehearsal_server import RehearsalServer
from podium.kaggle.rehearsal_state import Graded, State
from podium.kaggle.session import Desk, Patience, Tell, alone
from podium.kaggle.submit import submit
from podium.lock import Lock, read_lock
from podium.plan.paths import Project
from podium.submission import score_submission

PUBLIC_SHARE = 0.3
PATIENCE = Patience(first_pause_seconds=0.5, longest_pause_seconds=1, wait_seconds=30)


def rehearse_submit(project: Project, competition: str, file: Path, *, tell: Tell, force: bool = False) -> Entry:
    """Go through `submit` with everything below `.rehearsal/`; scores are real where the answers are known.

    Raises what `submit` raises.
    """
    scratch = Project(project.root, project.root / ".rehearsal")
    settings = read_competition(project.competition_folder(competition))
    slug = settings.kaggle.competition or competition
    with tempfile.TemporaryDirectory() as home:
        grade = _grader(settings, lambda: read_lock(project.lock_file(competition)), Path(home))
        with RehearsalServer(State(slug, grade)) as server:
            kaggle = Kaggle(slug, server.environment(os.environ, Path(home) / "home"))
            desk = Desk(scratch, competition, settings, kaggle, tell, PATIENCE)
            with alone(desk):
                desk.ledger.unlink(missing_ok=True)  # this Kaggle remembers nothing
            return submit(desk, file, "rehearsal", force=force)


def _grader(settings: Competition, lock: Callable[[], Lock], folder: Path) -> Callable[[bytes], Graded]:
    """What scores a CSV by the answers of digits; elsewhere nothing is known, and the scores stay empty."""
    if settings.data.source != "digits":
        return lambda _: Graded()

    def grade(content: bytes) -> Graded:
        from podium.data.digits import digits_answers

        file = folder / "graded.csv"
        file.write_bytes(content)
        answers = sorted(digits_answers().items())
        public_rows = int(len(answers) * PUBLIC_SHARE)
        parts = (dict(answers[:public_rows]), dict(answers[public_rows:]))
        scored = [
            score_submission(file, part, lock=lock(), settings=settings.submission, metric=settings.metric)
            for part in parts
        ]
        public, private = (f"{one.scores[settings.metric]:.5f}" for one in scored)
        return Graded(public, private)

    return grade
