"""Runs and ensemble as pandas frames, for a notebook."""

import json
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from podium.ensemble.blend import Blend
from podium.errors import SubmissionError
from podium.plan.stamp import file_sha256
from podium.predictions.align import Aligned, load_runs
from podium.workspace import open_workspace


class Frames:
    """The runs of a competition and its last ensemble; files are read when a frame is first used.

    `podium.load("cifar10-scratch").errors` needs no images and no torch. The blend is the one of `make ensemble`. Its
    weights were fitted on the validation rows, so its scores on these rows are in sample.
    """

    def __init__(self, competition: str, root: Path | str = "."):
        self._workspace = open_workspace(competition, root)

    def __repr__(self) -> str:
        return f"podium.load({self._workspace.name!r}): .scores .predictions .test .errors"

    @cached_property
    def scores(self) -> pd.DataFrame:
        """One row per run: its scores on the validation rows, its weight in the ensemble, how it was trained."""
        metric, target = self._workspace.competition.metric, self._runs.target
        weights = {run["run"]: run["weight"] for run in self._record["runs"]}
        rows = []
        for run, about, logits in zip(self._runs.runs, self._runs.abouts, self._runs.oof_logits, strict=True):
            scores = target.scores_of(logits, self._runs.oof_labels, metric)
            training = {name: about.get(name) for name in ("seed", "seconds", "device", "created")}
            row = {"run": run, "architecture": about["architecture"], **scores, "weight": weights[run], **training}
            rows.append(row)
        return pd.DataFrame(rows).set_index("run").sort_values(target.scores[0], ascending=False)

    @cached_property
    def predictions(self) -> pd.DataFrame:
        """One row per validation row: its label, and the label and probability of each run and of the blend."""
        target = self._runs.target
        probabilities = dict(zip(self._runs.runs, map(target.probabilities, self._runs.oof_logits), strict=True))
        columns: dict[str, Any] = {"label": self._texts(self._runs.oof_labels)}
        for name, values in (probabilities | {"blend": self._blend}).items():
            columns[name] = self._texts(target.predicted_labels(values))
            columns[f"{name}_probability"] = target.confidences(values)
        return pd.DataFrame(columns, index=pd.Index(self._runs.oof_ids, name="id"))

    @cached_property
    def test(self) -> pd.DataFrame:
        """One row per test row, in the order of the submission: the ensemble's class and its probability."""
        assert self._record  # reading it checks that the ensemble was made from the present runs
        file = self._workspace.paths.submissions / "ensemble.probabilities.npz"
        with np.load(file, allow_pickle=False) as arrays:
            ids, probabilities = arrays["ids"], arrays["probabilities"]
        target = self._runs.target
        columns = {
            "label": self._texts(target.predicted_labels(probabilities)),
            "probability": target.confidences(probabilities),
        }
        return pd.DataFrame(columns, index=pd.Index(ids, name="id"))

    @cached_property
    def errors(self) -> pd.DataFrame:
        """The validation rows that the blend predicts wrongly, by falling `loss` (log loss in nats)."""
        loss = self._runs.target.row_losses(self._blend, self._runs.oof_labels)
        frame = self.predictions[["label", "blend", "blend_probability"]].assign(loss=loss)
        return frame[frame["label"] != frame["blend"]].sort_values("loss", ascending=False)

    @cached_property
    def _runs(self) -> Aligned:
        return load_runs(self._workspace)

    def _texts(self, labels: np.ndarray) -> list[str]:
        return [self._runs.target.label_text(label, self._runs.classes) for label in labels]

    @cached_property
    def _record(self) -> dict[str, Any]:
        """The content of ensemble.json; raises SubmissionError where it is missing or was made from other runs."""
        file = self._workspace.paths.submissions / "ensemble.json"
        fix = f"make ensemble COMPETITION={self._workspace.name}"
        if not file.is_file():
            raise SubmissionError("There is no ensemble yet.", file=file, fix=fix)
        record = json.loads(file.read_text(encoding="utf-8"))
        files = self._workspace.paths.predictions_files()
        if record["inputs"] != {file.stem: file_sha256(file) for file in files}:
            raise SubmissionError("The ensemble was made from other runs.", file=file, fix=fix)
        return record

    @cached_property
    def _blend(self) -> np.ndarray:
        """The last ensemble's probabilities of the validation rows (n, classes)."""
        record, runs, target = self._record, self._runs, self._runs.target
        settings = {run["run"]: run for run in record["runs"]}
        biases = record["biases"]
        blend = Blend(
            strategy=record["strategy"]["used"],
            average=record["strategy"]["average"],
            temperatures=np.array([settings[run]["temperature"] for run in runs.runs]),
            weights=np.array([settings[run]["weight"] for run in runs.runs]),
            biases=None if biases is None else np.array([biases[name] for name in target.value_names(runs.classes)]),
            temperature=record["temperature"],
            target=target,
            cuts=np.array(record["cut_points"]) if "cut_points" in record else None,
        )
        return target.rows(blend.probabilities(target.cells(runs.oof_logits)))
