"""Runs and ensemble as pandas frames, for a notebook."""

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from podium.ensemble.build import EnsembleResult, build_ensemble
from podium.predictions.align import Aligned, load_runs
from podium.workspace import open_workspace


class Frames:
    """The runs of a competition and their blend; files are read, and the blend is fitted, when a frame is first used.

    `podium.load("cifar10-scratch").errors` needs no images and no torch. The blend is that of `make ensemble` with the
    competition's settings. On validation rows it is cross-fitted: each row is predicted by a blend fitted on others.
    """

    def __init__(self, competition: str, root: Path | str = "."):
        self._workspace = open_workspace(competition, root)

    def __repr__(self) -> str:
        return f"podium.load({self._workspace.name!r}): .scores .predictions .test .errors"

    @cached_property
    def scores(self) -> pd.DataFrame:
        """One row per run: its scores on the validation rows, its weight in the ensemble, how it was trained."""
        rows = []
        for run, about in zip(self._blend.runs, self._runs.abouts, strict=True):
            training = {name: about.get(name) for name in ("seed", "seconds", "device", "created")}
            scores = {"run": run.run, "architecture": run.architecture, **run.scores, "weight": run.weight}
            rows.append(scores | training)
        return pd.DataFrame(rows).set_index("run").sort_values(self._runs.target.scores[0], ascending=False)

    @cached_property
    def predictions(self) -> pd.DataFrame:
        """One row per validation row: its label, and the label and probability of each run and of the blend."""
        target = self._runs.target
        probabilities = dict(zip(self._runs.runs, map(target.probabilities, self._runs.oof_logits), strict=True))
        columns: dict[str, Any] = {"label": self._texts(self._runs.oof_labels)}
        for name, values in (probabilities | {"blend": target.rows(self._blend.cross_fitted)}).items():
            columns[name] = self._texts(target.predicted_labels(values))
            columns[f"{name}_probability"] = target.confidences(values)
        return pd.DataFrame(columns, index=pd.Index(self._runs.oof_ids, name="id"))

    @cached_property
    def test(self) -> pd.DataFrame:
        """One row per test row, in the order of the submission: the ensemble's class and its probability."""
        target, probabilities = self._runs.target, self._blend.test_probabilities
        columns = {
            "label": self._texts(target.predicted_labels(probabilities)),
            "probability": target.confidences(probabilities),
        }
        return pd.DataFrame(columns, index=pd.Index(self._runs.test_ids, name="id"))

    @cached_property
    def errors(self) -> pd.DataFrame:
        """The validation rows that the blend predicts wrongly, by falling `loss` (log loss in nats)."""
        target = self._runs.target
        loss = target.row_losses(target.rows(self._blend.cross_fitted), self._runs.oof_labels)
        frame = self.predictions[["label", "blend", "blend_probability"]].assign(loss=loss)
        return frame[frame["label"] != frame["blend"]].sort_values("loss", ascending=False)

    @cached_property
    def _blend(self) -> EnsembleResult:
        settings, runs = self._workspace.competition, load_runs(self._workspace)
        return build_ensemble(runs, settings.ensemble, metric=settings.metric, only=True)

    @property
    def _runs(self) -> Aligned:
        return self._blend.aligned

    def _texts(self, labels: np.ndarray) -> list[str]:
        return [self._runs.target.label_text(label, self._runs.classes) for label in labels]
