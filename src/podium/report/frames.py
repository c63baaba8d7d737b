"""What was trained, as pandas frames: for a notebook, where one asks what no command answers."""

import json
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from podium.config.keys import read_competition
from podium.ensemble.blend import Blend
from podium.errors import SubmissionError
from podium.metrics import METRICS, log_losses, softmax
from podium.plan.paths import Project
from podium.plan.stamp import file_sha256
from podium.predictions.align import Aligned
from podium.predictions.load import load_runs
from podium.workspace import open_workspace


class Frames:
    """A competition's runs and its last ensemble; each frame is read when it is first asked for.

    `podium.load("cifar10-cpu").errors` needs no images and no torch. The blend of the validation rows is that of
    `make ensemble`, whose weights were fitted on these very rows: what it scores on them is in sample.
    """

    def __init__(self, competition: str, root: Path | str = "."):
        self._project, self._competition = Project.at(root), competition
        self._project.competition_folder(competition)

    def __repr__(self) -> str:
        return f"podium.load({self._competition!r}): .scores .predictions .test .errors"

    @cached_property
    def scores(self) -> pd.DataFrame:
        """A row a run: its scores on the validation rows, its weight in the ensemble, how it was trained."""
        metric = read_competition(self._project.competition_folder(self._competition)).metric
        names = dict.fromkeys(["accuracy", "log_loss", metric])
        weights = {one["run"]: one["weight"] for one in self._made["runs"]}
        rows = []
        for run, about, logits in zip(self._runs.runs, self._runs.abouts, self._runs.oof_logits, strict=True):
            probabilities = softmax(logits)
            scores = {name: METRICS[name](probabilities, self._runs.oof_labels) for name in names}
            told = {name: about.get(name) for name in ("seed", "seconds", "device", "created")}
            rows.append({"run": run, "architecture": about["architecture"], **scores, "weight": weights[run], **told})
        return pd.DataFrame(rows).set_index("run").sort_values("accuracy", ascending=False)

    @cached_property
    def predictions(self) -> pd.DataFrame:
        """A row a validation row: its label, and each run's and the blend's class with its probability."""
        runs = self._runs
        columns: dict[str, Any] = {"label": self._names(runs.oof_labels)}
        for run, logits in zip(runs.runs, runs.oof_logits, strict=True):
            columns |= self._said(run, softmax(logits))
        columns |= self._said("blend", self._blend)
        return pd.DataFrame(columns, index=pd.Index(runs.oof_ids, name="id"))

    @cached_property
    def test(self) -> pd.DataFrame:
        """A row a test row, in the order of the submission: the last ensemble's class and its probability."""
        assert self._made  # or it is of other runs than those beside it
        with np.load(self._folder / "ensemble.probabilities.npz", allow_pickle=False) as made:
            ids, probabilities, classes = made["ids"], made["probabilities"], made["classes"]
        said = {"label": classes[probabilities.argmax(axis=1)], "probability": probabilities.max(axis=1)}
        return pd.DataFrame(said, index=pd.Index(ids, name="id"))

    @cached_property
    def errors(self) -> pd.DataFrame:
        """The validation rows that the blend has wrong, the most certain errors first (`loss` in nats)."""
        loss = log_losses(self._blend, self._runs.oof_labels)
        frame = self.predictions[["label", "blend", "blend_probability"]].assign(loss=loss)
        return frame[frame["label"] != frame["blend"]].sort_values("loss", ascending=False)

    @property
    def _folder(self) -> Path:
        return self._project.submissions_folder(self._competition)

    @cached_property
    def _runs(self) -> Aligned:
        return load_runs(open_workspace(self._competition, self._project.root))

    @cached_property
    def _made(self) -> dict[str, Any]:
        """What the last ensemble says of itself; raises SubmissionError where it is not of the runs that are here."""
        file, fix = self._folder / "ensemble.json", f"make ensemble COMPETITION={self._competition}"
        if not file.is_file():
            raise SubmissionError("There is no ensemble yet.", file=file, fix=fix)
        made = json.loads(file.read_text(encoding="utf-8"))
        folder = self._project.predictions_folder(self._competition)
        if made["inputs"] != {one.stem: file_sha256(one) for one in sorted(folder.glob("*.npz"))}:
            raise SubmissionError("The ensemble is not of the runs that are here.", file=file, fix=fix)
        return made

    @cached_property
    def _blend(self) -> np.ndarray:
        """The last ensemble's probabilities (n, classes) of the validation rows."""
        made, runs = self._made, self._runs
        of = {one["run"]: one for one in made["runs"]}
        biases = made["biases"]
        blend = Blend(
            strategy=made["strategy"]["used"],
            average=made["strategy"]["average"],
            choices=(),
            temperatures=np.array([of[run]["temperature"] for run in runs.runs]),
            weights=np.array([of[run]["weight"] for run in runs.runs]),
            biases=None if biases is None else np.array([biases[name] for name in runs.classes]),
            temperature=made["temperature"],
        )
        return blend.probabilities(runs.oof_logits)

    def _names(self, labels: np.ndarray) -> np.ndarray:
        return np.array(self._runs.classes)[labels]

    def _said(self, name: str, probabilities: np.ndarray) -> dict[str, np.ndarray]:
        return {
            name: self._names(probabilities.argmax(axis=1)),
            f"{name}_probability": probabilities.max(axis=1),
        }
