"""Where the files of one competition are."""

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from podium.config.keys import COMPETITION_FILE
from podium.errors import ConfigError, unknown_name
from podium.files import os_error_as


@dataclass
class Paths:
    """Paths of the competition `name`: settings and images under `root`, everything that is made under `outputs`."""

    name: str
    root: Path
    outputs: Path

    def __post_init__(self) -> None:
        self.folder = self.root / "competitions" / self.name  # competition.toml and the recipes
        self.settings_file = self.folder / COMPETITION_FILE
        self.lock_file = self.folder / "data.lock"  # fingerprint, ids, labels and folds of the data
        self.metadata_file = self.folder / "metadata.csv"  # for heads on features, made with the lock
        # Decoded images; may be deleted at any time.
        self.cache = Path(os.environ.get("PODIUM_CACHE") or self.root / ".cache") / self.name
        self.predictions_folder = self.outputs / "oof" / self.name
        self.parameters_folder = self.outputs / "models" / self.name
        self.reports = self.outputs / "reports" / self.name  # everything that people look at
        self.lr_find_folder = self.reports / "lr-find"  # for a recipe or a run: curve (PNG, CSV), suggestions (JSON)
        self.submissions = self.outputs / "submissions" / self.name  # CSVs, and JSON files that say what made them
        # Files that go to a Kaggle notebook and come back from it; may be deleted while none is running.
        self.notebook_folder = self.outputs / ".kernel" / self.name

    def recipe_file(self, recipe: str) -> Path:
        """One recipe."""
        return self.folder / f"{recipe}.toml"

    def predictions_file(self, run: str) -> Path:
        """Predictions of one run."""
        return self.predictions_folder / f"{run}.npz"

    def predictions_files(self) -> list[Path]:
        """All files of predictions, sorted; none without the folder. An OSError, which glob would hide, is raised."""
        try:
            names = os.listdir(self.predictions_folder)
        except FileNotFoundError:
            return []
        return [self.predictions_folder / name for name in sorted(names) if name.endswith(".npz")]

    def parameters_file(self, run: str) -> Path:
        """Trained parameters of one run."""
        return self.parameters_folder / f"{run}.safetensors"

    def checkpoint_file(self, run: str, fit: str) -> Path:
        """What one fit of a run resumes from, and what is kept of it until the run is trained."""
        return self.cache / "checkpoints" / f"{run}.{fit}.pt"

    def history_file(self, run: str) -> Path:
        """The epochs of one run, a row each."""
        return self.reports / "history" / f"{run}.csv"

    def check_writable(self) -> None:
        """Raise ConfigError where results cannot be written: before hours of training, not after."""
        for folder in (self.predictions_folder, self.parameters_folder):
            with os_error_as(ConfigError, "Results cannot be written.", file=folder):
                folder.mkdir(parents=True, exist_ok=True)
                tempfile.TemporaryFile(dir=folder).close()


def competition_names(root: Path) -> list[str]:
    """Names of the competitions below `root`, sorted."""
    return sorted(file.parent.name for file in (root / "competitions").glob(f"*/{COMPETITION_FILE}"))


def find_competition(name: str, root: Path | str = ".") -> Paths:
    """The paths of a competition below `root`; raises ConfigError if it does not exist, or has no name."""
    root = Path(root)
    known = competition_names(root)
    if not known:
        fix = "make new COMPETITION=<name> DATA=<folder or archive>, or make demo"
        raise ConfigError("There is no competition here.", expected="a folder in competitions/", fix=fix)
    if name not in known:
        raise unknown_name("competition", name, known, option="COMPETITION")
    return Paths(name, root, root)
