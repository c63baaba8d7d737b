"""The values of the page's five sections, computed from the report data."""

import math
from typing import Any

import numpy as np
import pandas as pd

from podium.ensemble.strategies.calibrate import calibration_error
from podium.kaggle.standings import best_public, distinct_scored, rank_correlation
from podium.metrics import METRICS, wilson_interval
from podium.report import figures, mistakes
from podium.report.changes import find_changes
from podium.report.duplicates import find_duplicates
from podium.report.gallery import Rows
from podium.report.heat import Draw, find_heat_maps
from podium.report.load import CURVES, MOST_RUNS, ReportData

MOST_LOSSES, MOST_SUSPECTED, MOST_UNCERTAIN, MOST_PAIRS = 24, 24, 24, 12
# With more classes, the confusion matrix and the class shares show a selection.
MOST_CLASSES = 20
# Of training labels and test predictions that are numbers.
QUANTILES = {"lowest": 0, "first quarter": 0.25, "median": 0.5, "last quarter": 0.75, "highest": 1}


def score_section(data: ReportData) -> dict[str, Any]:
    """The best single run, what changed since the last ensemble, and the scores on the leaderboard."""
    scored = distinct_scored(data.ledger)
    cells = [(entry.file, entry.cross_fitted, entry.standard_error, entry.public, entry.private) for entry in scored]
    table = pd.DataFrame(cells, columns=["file", "cross-fitted", "standard error", "public", "private"])
    table = table.set_index("file").astype(float)
    points = table.dropna(subset="cross-fitted")
    return {
        "best_single": next(score for score in data.result.strategies if score.strategy == "best"),
        "changes": find_changes(data.workspace, data.result),
        "public": best_public(data.ledger, data.workspace.competition.metric),
        "correlation": rank_correlation(data.ledger),
        "figure": figures.leaderboard_chart(points) if len(points) else None,
        "table": table,
    }


def runs_section(data: ReportData) -> dict[str, Any]:
    """One table row per run, the learning curves, and the curves of lr_find."""
    first, epochs = data.result.pool.target.scores[0], data.epochs
    rows = sorted(_run_rows(data), key=lambda row: -METRICS[first].gain(row[first]))
    return {
        "rows": rows,
        "table": pd.DataFrame(rows),
        "untrained": [run.run for run in data.workspace.runs if run.run not in data.result.aligned.runs],
        "curves": [(name, figures.learning_curves(epochs, name)) for name in CURVES if epochs[name].notna().any()],
        "folds": _fold_scores(data),
        "lr_curves": {name: (figures.lr_curve(name, *curve), curve[0]) for name, curve in data.lr_curves.items()},
    }


def ensemble_section(data: ReportData) -> dict[str, Any]:
    """Strategies, weights, correlation of errors, calibration."""
    result, metric, second = data.result, data.workspace.competition.metric, data.result.pool.target.scores[1]
    strategies = pd.DataFrame(
        {
            "strategy": score.strategy,
            "average": score.average,
            "cross-fitted": score.cross_fitted[metric],
            **_ends(score.interval),
            second: score.cross_fitted[second],
            "in sample": score.in_sample[metric],
            "optimism": score.optimism(metric),
        }
        for score in result.strategies
    )
    by_weight = sorted(range(len(result.runs)), key=lambda index: -result.runs[index].weight)
    weights = pd.DataFrame(
        {
            "run": run.run,
            "weight": run.weight,
            "temperature": run.temperature,
            "error correlation": contribution.error_correlation,
            "disagreement": contribution.disagreement,
            "gain": contribution.loss,
            **_ends(contribution.interval),
            "verdict": contribution.verdict,
        }
        for run, contribution in ((result.runs[index], result.contributions[index]) for index in by_weight)
    )
    names, shown = weights["run"][:MOST_RUNS], by_weight[:MOST_RUNS]
    correlation = pd.DataFrame(result.pool.error_correlation[np.ix_(shown, shown)], index=names, columns=names)
    return {
        "figure": figures.interval_chart(strategies, highlighted=result.used.strategy, metric=metric),
        "strategies": strategies,
        "weights": weights,
        "correlation": correlation,
        "calibration": _calibration(data) if result.calibration else None,
    }


def mistakes_section(data: ReportData, draw: Draw | None) -> dict[str, Any]:
    """Largest losses, near-duplicates, and what the target has: a confusion matrix, or scores of columns."""
    aligned, target = data.result.aligned, data.result.pool.target
    labels, blend = aligned.oof_labels, target.rows(data.result.cross_fitted)
    rows = Rows(data, "train", aligned.oof_ids, aligned.oof_logits, blend, labels)
    largest = mistakes.largest_losses(blend, labels, most=MOST_LOSSES, target=target)
    heat = find_heat_maps(data, rows.ids[largest], blend[largest].argmax(axis=1), draw)
    return {
        "rows": labels.size,
        "counted": "labels of the validation rows" if labels.ndim > 1 else "validation rows",
        "mistakes": int((target.predicted_labels(blend) != labels).sum()) if target.has_classes else None,
        "classes": _class_mistakes(rows) if target.has_classes and labels.ndim == 1 else None,
        "columns": mistakes.column_scores(blend, labels, aligned.classes) if labels.ndim > 1 else None,
        "numbers": None if target.has_classes else _number_mistakes(blend[:, 0], rows),
        "groups": _group_mistakes(data, target.row_losses(blend, labels)),
        "largest": (rows.gallery(largest, heat), rows.table(largest)),
        "heat": heat,
        "duplicates": find_duplicates(data) if data.images is not None else None,
    }


def submission_section(data: ReportData) -> dict[str, Any] | None:
    """The file and how it was made, class shares, the least certain test rows; None where there is no file."""
    file = data.submission
    if file is None or file.probabilities is None:
        return None if file is None else {"file": file, "fits_lock": False}
    lock, aligned = data.workspace.lock, data.result.aligned
    classes, target = lock.classes, lock.target
    if not target.has_classes:
        numbers = {"training labels": lock.train_labels, "test predictions": file.probabilities[:, 0]}
        rows = [np.quantile(values, list(QUANTILES.values())) for values in numbers.values()]
        table = pd.DataFrame(rows, columns=list(QUANTILES))
        table.insert(0, "", list(numbers))
        return {"file": file, "fits_lock": True, "numbers": table}
    training, predicted = target.shares(lock.train_labels), target.shares(target.predicted_labels(file.probabilities))
    shares = pd.DataFrame({"class": classes, "training": training, "predicted": predicted})
    differing = np.argsort(-np.abs(training - predicted), kind="stable")[:MOST_CLASSES]
    rows = Rows(data, "test", aligned.test_ids, aligned.test_logits, file.probabilities)
    uncertain = np.argsort(target.confidences(file.probabilities), kind="stable")[:MOST_UNCERTAIN]
    return {
        "file": file,
        "fits_lock": True,
        "numbers": None,
        "figure": figures.class_shares(shares.iloc[np.sort(differing)]),
        "is_selection": len(classes) > MOST_CLASSES,
        "shares": shares,
        "uncertain": (rows.gallery(uncertain), rows.table(uncertain)),
    }


def _run_rows(data: ReportData) -> list[dict[str, Any]]:
    """A row of the table for each run, with its scores by their names."""
    aligned, result, target = data.result.aligned, data.result, data.result.pool.target
    pool, count = result.pool, len(aligned.oof_ids)
    # Rows of one group, and labels of one row, are not independent, so Wilson's interval would be too narrow.
    is_share = target.has_probabilities and target.cells_per_row == 1 and aligned.groups is None
    states = {run.run: "stale" if run.stale else "up to date" for run in data.workspace.runs}
    rows = []
    for run, about, contribution, logs in zip(result.runs, pool.abouts, result.contributions, pool.logs, strict=True):
        row = {
            "run": run.run,
            "architecture": run.architecture,
            "recipe": about.get("recipe_name", ""),
            "seed": about.get("seed", ""),
            **run.scores,
            **_ends(wilson_interval(run.scores["accuracy"] * count, count) if is_share else None),
            "calibration error": None,
            "seconds": about.get("seconds"),
            "device": ", ".join(str(about[key]) for key in ("device", "precision") if about.get(key)),
            "weight": run.weight,
            "reason": f"{run.reason}; {contribution.verdict}",
            "state": states.get(run.run, "imported" if about.get("imported") else "no recipe"),
        }
        if target.has_probabilities:
            row["calibration error"] = calibration_error(target.values(logs), pool.labels)
        rows.append(row)
    return rows


def _ends(interval: tuple[float, float] | None) -> dict[str, float]:
    """The ends of an interval as columns of a table; NaN where it is not known."""
    low, high = interval or (math.nan, math.nan)
    return {"low": low, "high": high}


def _fold_scores(data: ReportData) -> pd.DataFrame | None:
    """The metric of the blend and of the runs with the largest weights in each fold; None of a holdout."""
    result, pool, lock = data.result, data.result.pool, data.workspace.lock
    folds = lock.folds[lock.folds >= 0]
    if not folds.any():
        return None
    by_weight = sorted(range(len(result.runs)), key=lambda place: -result.runs[place].weight)[:MOST_RUNS]
    values = {"blend": result.cross_fitted} | {pool.runs[k]: pool.target.values(pool.logs[k]) for k in by_weight}
    table = mistakes.part_scores(pool, values, folds).T
    table.columns = [f"fold {fold + 1} ({rows:,} rows)" for fold, rows in enumerate(np.bincount(folds))]
    spread = {"mean": table.mean(axis=1), "standard deviation": table.std(axis=1)}
    return table.assign(**spread).rename_axis("run").reset_index()


def _group_mistakes(data: ReportData, losses: np.ndarray) -> pd.DataFrame | None:
    """The blend's scores by group, and by each column of metadata with few values; None where there are neither."""
    aligned, file = data.result.aligned, data.workspace.paths.metadata_file
    groups = pd.DataFrame(index=aligned.oof_ids)
    if aligned.groups is not None:
        groups["group"] = aligned.groups
    if file.is_file():
        cells = pd.read_csv(file, dtype=str, keep_default_na=False, index_col="id").reindex(aligned.oof_ids)
        few = [name for name in cells if 1 < cells[name].nunique() <= MOST_CLASSES]
        groups = groups.join(cells[few], rsuffix=" (metadata)")
    return mistakes.group_scores(data.result.pool, data.result.cross_fitted, losses, groups) if len(groups.T) else None


def _number_mistakes(values: np.ndarray, rows: Rows) -> dict[str, Any]:
    """Errors by label, predicted over true numbers, and residuals."""
    table = pd.DataFrame({"id": rows.ids, "true": rows.labels, "predicted": values})
    return {
        "scores": mistakes.number_scores(values, rows.labels),
        "table": table,
        "predicted": figures.predicted_over_true(values, rows.labels),
        "residuals": figures.residual_histogram(values - rows.labels),
    }


def _calibration(data: ReportData) -> dict[str, Any]:
    """The reliability diagram before and after the blend's temperature, and its bins."""
    result, labels = data.result, data.result.pool.labels
    before, after = (mistakes.reliability(values, labels) for values in (result.uncalibrated, result.cross_fitted))
    bins = pd.concat([before.assign(state="before"), after.assign(state="after")])
    return {"figure": figures.reliability_diagram(before, after), "bins": bins}


def _class_mistakes(rows: Rows) -> dict[str, Any]:
    """Confusion matrix, scores by class, suspected labels."""
    target, classes = rows.data.result.pool.target, np.array(rows.data.workspace.lock.classes)
    predicted, has_probabilities = rows.blend.argmax(axis=1), target.has_probabilities
    pairs = mistakes.confusion(predicted, rows.labels, classes)
    confused = mistakes.confused_pairs(pairs, most=MOST_PAIRS)
    suspected = _suspected_labels(rows) if has_probabilities else np.arange(0)
    return {
        "counts": pairs,
        "shown": mistakes.shown_confusion(pairs, classes, most=MOST_CLASSES),
        "largest_count": int(max(confused["rows"], default=0)),
        "scores": mistakes.class_scores(predicted, rows.labels, classes),
        "pairs": confused,
        "suspected": (rows.gallery(suspected[:MOST_SUSPECTED]), rows.table(suspected)),
    }


def _suspected_labels(rows: Rows) -> np.ndarray:
    """Indices of rows with suspected labels: by the blend, and where there are features also by similar images."""
    lock, features, probabilities = rows.data.workspace.lock, rows.data.features, rows.blend
    if features is not None:
        labelled, places = features[: len(lock.train_ids)], np.searchsorted(lock.train_ids, rows.ids)
        shares = mistakes.neighbour_shares(labelled, lock.train_labels, places, classes=len(lock.classes))
        probabilities = (probabilities + shares) / 2
    return mistakes.suspected_labels(probabilities, rows.labels)
