"""Where things lie: one object that knows every path, so that a rehearsal can have a house of its own."""

import difflib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from podium.config import COMPETITION_FILE
from podium.errors import ConfigError


@dataclass(frozen=True)
class Project:
    """A checkout: competitions and images under `root`, everything that is made under `outputs`."""

    root: Path
    outputs: Path

    @classmethod
    def at(cls, root: Path | str = ".", outputs: Path | str | None = None) -> "Project":
        """The project in `root`, writing beside it or below `outputs`."""
        root = Path(root)
        return cls(root, root if outputs is None else Path(outputs))

    def competitions(self) -> list[str]:
        """Names of the competitions that this project holds."""
        return sorted(file.parent.name for file in (self.root / "competitions").glob(f"*/{COMPETITION_FILE}"))

    def competition_folder(self, competition: str) -> Path:
        """Folder of the settings; raises ConfigError for a competition that is not there."""
        known = self.competitions()
        if competition not in known:
            nearest = difflib.get_close_matches(competition, known, n=1)
            raise ConfigError(
                f"There is no competition '{competition}'.",
                file=self.root / "competitions" / competition / COMPETITION_FILE,
                expected=f"one of {', '.join(known)}" if known else "a folder in competitions/",
                mend=f"COMPETITION={nearest[0]}" if nearest else "ls competitions/",
            )
        return self.root / "competitions" / competition

    def lock_file(self, competition: str) -> Path:
        """What `podium prepare` wrote down about the data: fingerprint, ids, folds."""
        return self.competition_folder(competition) / "data.lock"

    def cache_folder(self, competition: str) -> Path:
        """Decoded images; may be deleted at any time."""
        return Path(os.environ.get("PODIUM_CACHE") or self.root / ".cache") / competition

    def predictions_folder(self, competition: str) -> Path:
        """Predictions of every run."""
        return self.outputs / "oof" / competition

    def predictions_file(self, competition: str, run: str) -> Path:
        """Predictions of one run."""
        return self.predictions_folder(competition) / f"{run}.npz"

    def parameters_file(self, competition: str, run: str) -> Path:
        """Trained parameters of one run."""
        return self.outputs / "models" / competition / f"{run}.safetensors"

    def history_file(self, competition: str, run: str) -> Path:
        """One row an epoch."""
        return self.outputs / "reports" / competition / "history" / f"{run}.csv"

    def report_file(self, competition: str) -> Path:
        """The page that people look at."""
        return self.outputs / "reports" / competition / "index.html"

    def finder_folder(self, competition: str) -> Path:
        """What lr_find said of each recipe: a curve (PNG, CSV) and suggestions (JSON)."""
        return self.outputs / "reports" / competition / "lr-find"

    def sheet_file(self, competition: str, run: str) -> Path:
        """Training images as one run's network sees them."""
        return self.outputs / "reports" / competition / "show" / f"{run}.png"

    def submissions_folder(self, competition: str) -> Path:
        """CSVs and what made them."""
        return self.outputs / "submissions" / competition

    def kernel_folder(self, competition: str) -> Path:
        """What goes to a Kaggle kernel and comes back from it; may be deleted while none is running."""
        return self.outputs / ".kernel" / competition

    def check_outputs(self, competition: str) -> None:
        """Raise ConfigError where nothing can be written: told before hours of training, not after."""
        for folder in (self.predictions_folder(competition), self.parameters_file(competition, "any").parent):
            try:
                folder.mkdir(parents=True, exist_ok=True)
                with tempfile.TemporaryFile(dir=folder):
                    pass
            except OSError as error:
                raise ConfigError(
                    "There is no place for what is trained.",
                    file=folder,
                    expected="a folder that can be written to",
                    found=error.strerror,
                ) from None

    def data_places(self, data: str | None) -> list[Path]:
        """Where a competition's archive is looked for, in order."""
        given = [Path(place) for place in (data, os.environ.get("PODIUM_DATA")) if place]
        return [*given, self.root / "data", self.root.resolve().parent / "shared" / "data"]
