"""Where the fits are that a scheduler trains."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from podium.engines.tasks import Task

Note = Callable[[str], object]


class Table:
    """Says where each task is: one line for each change, with how many wait, run, are done and failed."""

    def __init__(self, tasks: Sequence[Task], note: Note):
        self.states, self.note = {str(task): "waiting" for task in tasks}, note

    def show(self, task: Task | str, state: str) -> None:
        """Note the state of a task, if it is new."""
        if self.states[str(task)] == state:
            return
        self.states[str(task)] = state
        kinds = Counter(state.split()[0] for state in self.states.values())
        counts = ", ".join(f"{kinds[kind]} {kind}" for kind in ("waiting", "running", "done", "failed") if kinds[kind])
        self.note(f"{task}: {state} ({counts})")

    def show_places(self, places: Mapping[str, str]) -> None:
        """Note which tasks run, or run again, at which node."""
        for task, place in places.items():
            if self.states[task] not in ("done", "failed"):
                self.show(task, f"running on {place}")
