"""What the user can fix, told on one screen."""

from collections.abc import Sequence
from pathlib import Path


class PodiumError(ValueError):
    """A fault the user can fix: what is wrong, where, what was expected, what was found, what to type.

    `faults` lists several findings of one kind (one a line), so that nobody fixes them one run at a time.
    """

    most_faults_shown = 20

    def __init__(
        self,
        what: str,
        *,
        file: Path | str | None = None,
        expected: str | None = None,
        found: str | None = None,
        fix: str | None = None,
        faults: Sequence[str] = (),
    ):
        self.what, self.file, self.expected, self.found, self.fix = what, file, expected, found, fix
        self.faults = tuple(faults)
        super().__init__(self.screen())

    def screen(self) -> str:
        """The whole message, ready to print."""
        lines = [self.what]
        told = [("file", self.file), ("expected", self.expected), ("found", self.found)]
        lines += [f"  {word + ':':<10}{value}" for word, value in told if value is not None]
        lines += [f"  - {fault}" for fault in self.faults[: self.most_faults_shown]]
        if len(self.faults) > self.most_faults_shown:
            lines.append(f"  ... and {len(self.faults) - self.most_faults_shown} more")
        if self.fix:
            lines.append(f"  {'fix:':<10}{self.fix}")
        # A file's name may hold bytes that are no text: a terminal is shown their numbers.
        return "\n".join(lines).encode(errors="backslashreplace").decode()


class ConfigError(PodiumError):
    """A TOML file says something that Podium does not know."""


class DataError(PodiumError):
    """The images, labels or archives are not what the competition says."""


class PredictionsError(PodiumError):
    """A predictions file is damaged, or two of them do not belong together."""


class SubmissionError(PodiumError):
    """A CSV is not a submission of this competition."""


class TrainingError(PodiumError):
    """A run cannot be trained as its recipe says."""


class DivergedError(TrainingError):
    """Training has ruined the network: its loss or its logits are no numbers."""


class KaggleError(PodiumError):
    """Kaggle, or the way there, has refused something."""
