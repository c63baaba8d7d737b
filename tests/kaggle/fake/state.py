"""State of the fake Kaggle: what it knows, which requests it got, and which faults it has to show."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from fake.kernels import KernelState


@dataclass(frozen=True)
class Fault:
    """An answer out of the ordinary: a status, `cut` off half-way, or something that happens before the answer."""

    status: int = 0  # 0: answer as usual
    message: str = ""
    times: int = 1
    cut: bool = False
    stall_seconds: float | None = None  # announce all of a file, send half of it, and end so much later
    before: Callable[[], None] | None = None


@dataclass(frozen=True)
class Graded:
    """What grading a CSV came to; an `error` is a status without scores."""

    public: str = ""
    private: str = ""
    error: str | None = None


@dataclass
class State:
    """What the fake Kaggle knows and which requests it got; `script` maps the end of an address to its next faults."""

    slug: str
    grade: Callable[[bytes], Graded | None]
    archive: bytes = b""
    files: Mapping[str, int] = field(default_factory=dict)
    contents: Mapping[str, bytes] = field(default_factory=dict)  # of files by themselves; `<name>.zip`: compressed
    page_size: int = 0  # of the list of files; 0: as asked
    leaderboard: bytes = b""
    polls_before_score: int = 1
    daily: int = 5
    entered: bool = True  # the account has accepted the rules
    about: dict[str, Any] = field(default_factory=dict)  # more of the competition, by the API's names
    unknown_status: int = 404  # the answer about another competition; Kaggle gives 403 too
    announce_length: bool = True
    kernels: KernelState = field(default_factory=KernelState)
    script: dict[str, list[Fault]] = field(default_factory=dict)
    submissions: list[dict[str, Any]] = field(default_factory=list)
    uploads: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    resumed: list[int] = field(default_factory=list)  # from which byte on
    polls: dict[int, int] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def next_fault(self, path: str) -> Fault | None:
        """The fault that is due for an address, counted down."""
        with self.lock:
            for ending, faults in self.script.items():
                if path.rstrip("/").endswith(ending) and faults:
                    due = faults[0]
                    rest = replace(due, times=due.times - 1, before=None)
                    self.script[ending] = ([rest] if rest.times else []) + faults[1:]
                    return due
        return None
