"""Where the files of one competition are."""

import difflib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from podium.config.keys import COMPETITION_FILE
from podium.errors import ConfigError
from podium.files import os_error_as


@dataclass(frozen=True)
class Paths:
    """Paths of the competition `name`: settings and images under `root`, everything that is made under `outputs`."""

    name: str
    root: Path
    outputs: Path

    @property
    def folder(self) -> Path:
        """Folder of the settings: competition.toml and the recipes."""
        return self.root / "competitions" / self.name

    @property
    def settings_file(self) -> Path:
        """The competition's settings."""
        return self.folder / COMPETITION_FILE

    def recipe_file(self, recipe: str) -> Path:
        """One recipe."""
        return self.folder / f"{recipe}.toml"

    @property
    def lock_file(self) -> Path:
        """What `podium prepare` recorded about the data: fingerprint, ids, labels, folds."""
        return self.folder / "data.lock"

    @property
    def cache(self) -> Path:
        """Decoded images; may be deleted at any time."""
        return Path(os.environ.get("PODIUM_CACHE") or self.root / ".cache") / self.name

    @property
    def predictions_folder(self) -> Path:
        """Predictions of all runs."""
        return self.outputs / "oof" / self.name

    def predictions_files(self) -> list[Path]:
        """All files of predictions, sorted; none without the folder. An OSError, which glob would hide, is raised."""
        try:
            names = os.listdir(self.predictions_folder)
        except FileNotFoundError:
            return []
        return [self.predictions_folder / name for name in sorted(names) if name.endswith(".npz")]

    def predictions_file(self, run: str) -> Path:
        """Predictions of one run."""
        return self.predictions_folder / f"{run}.npz"

    def parameters_file(self, run: str) -> Path:
        """Trained parameters of one run."""
        return self.outputs / "models" / self.name / f"{run}.safetensors"

    @property
    def reports(self) -> Path:
        """Everything that people look at."""
        return self.outputs / "reports" / self.name

    def history_file(self, run: str) -> Path:
        """The epochs of one run, a row each."""
        return self.reports / "history" / f"{run}.csv"

    @property
    def lr_find_folder(self) -> Path:
        """The result of lr_find for a recipe or a run: a curve (PNG, CSV) and suggestions (JSON)."""
        return self.reports / "lr-find"

    def sheet_file(self, run: str) -> Path:
        """Training images as the network of one run sees them."""
        return self.reports / "show" / f"{run}.png"

    @property
    def submissions(self) -> Path:
        """CSVs, and the JSON files that record what made them."""
        return self.outputs / "submissions" / self.name

    @property
    def notebook_folder(self) -> Path:
        """Files that go to a Kaggle notebook and come back from it; may be deleted while none is running."""
        return self.outputs / ".kernel" / self.name

    def check_writable(self) -> None:
        """Raise ConfigError where results cannot be written: before hours of training, not after."""
        for folder in (self.predictions_folder, self.parameters_file("any").parent):
            with os_error_as(ConfigError, "Results cannot be written.", file=folder):
                folder.mkdir(parents=True, exist_ok=True)
                tempfile.TemporaryFile(dir=folder).close()

    def image_places(self) -> list[Path]:
        """Folders in which the images are looked for, in order."""
        given = os.environ.get("PODIUM_DATA")
        places = [self.root / "data", self.root.resolve().parent / "shared" / "data"]
        return [Path(os.path.expanduser(given)), *places] if given else places


def find_competition(name: str, root: Path | str = ".") -> Paths:
    """The paths of a competition below `root`; raises ConfigError if it does not exist."""
    root = Path(root)
    paths = Paths(name, root, root)
    known = sorted(file.parent.name for file in (root / "competitions").glob(f"*/{COMPETITION_FILE}"))
    if name not in known:
        nearest = difflib.get_close_matches(name, known, n=1)
        raise ConfigError(
            f"There is no competition '{name}'.",
            file=paths.settings_file,
            expected=f"one of {', '.join(known)}" if known else "a folder in competitions/",
            fix=f"COMPETITION={nearest[0]}" if nearest else "ls competitions/",
        )
    return paths
