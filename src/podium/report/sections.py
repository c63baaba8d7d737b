"""The values of the page's five sections, computed from the report data."""

import math
from typing import Any

import numpy as np

from podium.ensemble.strategies.calibrate import calibration_error
from podium.kaggle.standings import best_public, distinct_scored, rank_correlation
from podium.metrics import METRICS, confusion_matrix, wilson_interval
from podium.report import figures, mistakes
from podium.report.duplicates import find_duplicates
from podium.report.gallery import gallery_rows
from podium.report.load import ReportData

MOST_LOSSES, MOST_SUSPECTED, MOST_UNCERTAIN, MOST_PAIRS = 30, 24, 30, 12
# With more runs, the correlations of errors show those with the largest weights; ensemble.json has all.
MOST_RUNS = 40
# With more classes, the confusion matrix and the class shares show a selection.
MOST_CLASSES = 20
# Of training labels and test predictions that are numbers.
QUANTILES = (0, 0.25, 0.5, 0.75, 1)


def score_section(data: ReportData) -> dict[str, Any]:
    """The best single run, and the scores on the leaderboard."""
    scored = distinct_scored(data.ledger)
    points = [
        (float(entry.cross_fitted), float(entry.public), float(entry.standard_error or "nan"))
        for entry in scored
        if entry.cross_fitted
    ]
    return {
        "best_single": next(score for score in data.result.strategies if score.strategy == "best"),
        "public": best_public(data.ledger, data.workspace.competition.metric),
        "correlation": rank_correlation(data.ledger),
        "figure": figures.leaderboard_chart(points) if points else None,
        "points": [
            [entry.file, entry.cross_fitted, entry.standard_error, entry.public, entry.private] for entry in scored
        ],
    }


def runs_section(data: ReportData) -> dict[str, Any]:
    """One table row per run, the learning curves, and the curves of lr_find."""
    rows = [_run_row(data, index) for index in range(len(data.result.runs))]
    return {
        "rows": sorted(rows, key=lambda row: -METRICS[data.aligned.target.scores[0]].gain(row["first"])),
        "untrained": [run.run for run in data.workspace.runs if run.run not in data.aligned.runs],
        "curves": _learning_curves(data),
        "epochs": [
            [run, number, *epoch]
            for run, history in data.histories.items()
            for number, epoch in enumerate(history, start=1)
        ],
        "lr_curves": {
            recipe: (figures.lr_curve(recipe, points, suggestions), points)
            for recipe, (points, suggestions) in data.lr_curves.items()
        },
    }


def ensemble_section(data: ReportData) -> dict[str, Any]:
    """Strategies, weights, correlation of errors, calibration."""
    result, metric = data.result, data.workspace.competition.metric
    labels = data.aligned.target.cell_labels(data.aligned.oof_labels)
    scored = [score for score in result.strategies if score.interval is not None]
    intervals = [(score.strategy, score.cross_fitted[metric], *score.interval) for score in scored]
    reliability, bins = None, []
    if result.calibration:
        before, after = (
            mistakes.reliability(probabilities, labels) for probabilities in (result.uncalibrated, result.cross_fitted)
        )
        reliability = figures.reliability_diagram(before, after)
        bins = [["before", *row] for row in before.tolist()] + [["after", *row] for row in after.tolist()]
    by_weight = sorted(range(len(result.runs)), key=lambda index: -result.runs[index].weight)
    return {
        "figure": figures.interval_chart(
            intervals, highlighted=result.used.strategy, label=f"cross-fitted {metric}, 95 % interval"
        ),
        "runs": [(result.runs[index], result.contributions[index]) for index in by_weight],
        "names": [result.runs[index].run for index in by_weight[:MOST_RUNS]],
        "correlation": result.error_correlation[np.ix_(by_weight[:MOST_RUNS], by_weight[:MOST_RUNS])].tolist(),
        "reliability": reliability,
        "bins": bins,
    }


def mistakes_section(data: ReportData) -> dict[str, Any]:
    """Largest losses, near-duplicates, and what the target has: a confusion matrix, or scores of columns."""
    aligned, target = data.aligned, data.aligned.target
    labels, blend = aligned.oof_labels, target.rows(data.result.cross_fitted)
    largest = mistakes.largest_losses(blend, labels, most=MOST_LOSSES, target=target)
    return {
        "rows": labels.size,
        "counted": "labels of the validation rows" if labels.ndim > 1 else "validation rows",
        "mistakes": int((target.predicted_labels(blend) != labels).sum()) if target.has_classes else None,
        "classes": _class_mistakes(data, blend) if target.has_classes and labels.ndim == 1 else None,
        "columns": mistakes.column_scores(blend, labels, aligned.classes) if labels.ndim > 1 else None,
        "numbers": None if target.has_classes else mistakes.number_scores(blend[:, 0], labels),
        "largest": gallery_rows(data, largest, part="oof", blend=blend),
        "largest_rows": _csv_rows(data, largest),
        "duplicates": find_duplicates(data) if data.images is not None else None,
    }


def _class_mistakes(data: ReportData, blend: np.ndarray) -> dict[str, Any]:
    """Confusion matrix, scores by class, suspected labels; blend (n, classes)."""
    labels, classes = data.aligned.oof_labels, data.aligned.classes
    counts = confusion_matrix(blend, labels)
    shown = _classes_with_most_mistakes(counts)
    suspected = mistakes.suspected_labels(blend, labels) if data.aligned.target.has_probabilities else np.arange(0)
    return {
        "shown_classes": [classes[k] for k in shown],
        "shown_counts": counts[np.ix_(shown, shown)].tolist(),
        "largest_count": int((counts - np.diag(np.diag(counts))).max()),
        "counts": counts.tolist(),
        "scores": mistakes.class_scores(counts, classes),
        "pairs": mistakes.confused_pairs(counts, classes, most=MOST_PAIRS),
        "suspected": gallery_rows(data, suspected[:MOST_SUSPECTED], part="oof", blend=blend),
        "suspected_rows": _csv_rows(data, suspected),
    }


def submission_section(data: ReportData) -> dict[str, Any] | None:
    """The file and how it was made, class shares, the least certain test rows; None where there is no file."""
    file = data.submission
    if file is None or file.probabilities is None:
        return None if file is None else {"file": file, "fits_lock": False}
    lock = data.workspace.lock
    classes, target = lock.classes, lock.target
    if not target.has_classes:
        numbers = {"training labels": lock.train_labels, "test predictions": file.probabilities[:, 0]}
        rows = [(name, *np.quantile(values, QUANTILES).tolist()) for name, values in numbers.items()]
        return {"file": file, "fits_lock": True, "numbers": rows}
    predicted_labels = target.predicted_labels(file.probabilities)
    training, predicted = target.shares(lock.train_labels), target.shares(predicted_labels)
    shown = np.sort(np.argsort(-np.abs(training - predicted), kind="stable")[:MOST_CLASSES])
    uncertain = mistakes.least_certain(file.probabilities, most=MOST_UNCERTAIN, target=target)
    return {
        "file": file,
        "fits_lock": True,
        "numbers": None,
        "figure": figures.class_shares([classes[k] for k in shown], training[shown], predicted[shown]),
        "is_selection": len(classes) > MOST_CLASSES,
        "shares": list(zip(classes, training.tolist(), predicted.tolist(), strict=True)),
        "uncertain": gallery_rows(data, uncertain, part="test", blend=file.probabilities),
        "uncertain_rows": [[lock.test_ids[row], *_top_two(data, file.probabilities[row])] for row in uncertain],
    }


def _run_row(data: ReportData, index: int) -> dict[str, Any]:
    about, run, contribution = data.aligned.abouts[index], data.result.runs[index], data.result.contributions[index]
    rows, target = data.result.validation_rows, data.aligned.target
    first, second = (run.scores[name] for name in target.scores)
    labels = target.cell_labels(data.aligned.oof_labels)
    is_share = target.has_probabilities and target.cells_per_row == 1 and data.aligned.groups is None
    is_stale = {planned.run: planned.stale for planned in data.workspace.runs}
    state = "imported" if about.get("imported") else "no recipe"
    if run.run in is_stale:
        state = "stale" if is_stale[run.run] else "up to date"
    return {
        "run": run.run,
        "architecture": run.architecture,
        "recipe": about.get("recipe_name", ""),
        "seed": about.get("seed", ""),
        "first": first,
        # Rows of one group, and labels of one row, are not independent, so Wilson's interval would be too narrow.
        "interval": wilson_interval(first * rows, rows) if is_share else None,
        "second": second,
        "metric": run.scores[data.workspace.competition.metric],
        "calibration": (
            calibration_error(target.values(target.cells(data.aligned.oof_logits[index])), labels)
            if target.has_probabilities
            else None
        ),
        "seconds": about.get("seconds"),
        "device": ", ".join(str(about[key]) for key in ("device", "precision") if about.get(key)),
        "weight": run.weight,
        "reason": f"{run.reason}; {contribution.verdict}",
        "state": state,
    }


def _csv_rows(data: ReportData, rows: np.ndarray) -> list[list[Any]]:
    """Id, label, its probability, loss, the blend's two most probable classes with probabilities, each run's label."""
    aligned, target = data.aligned, data.aligned.target
    labels, blend, classes = aligned.oof_labels, target.rows(data.result.cross_fitted), aligned.classes
    losses = target.row_losses(blend, labels)
    return [
        [
            data.aligned.oof_ids[row],
            target.label_text(labels[row], classes),
            np.exp(-losses[row]) if target.has_probabilities else "",
            losses[row],
            *_top_two(data, blend[row]),
            *(
                target.label_text(label, classes)
                for label in target.predicted_labels(target.probabilities(aligned.oof_logits[:, row]))
            ),
        ]
        for row in rows
    ]


def _top_two(data: ReportData, probabilities: np.ndarray) -> list[Any]:
    cells = [cell for pair in data.aligned.target.top(probabilities, data.aligned.classes) for cell in pair]
    return [*cells, "", ""][:4]


def _learning_curves(data: ReportData) -> list[tuple[str, str]]:
    """Title and figure of each value that was measured in some epoch."""
    drawn = []
    for column, title in ((1, "training loss"), (2, "validation accuracy")):
        curves = {}
        for run, history in data.histories.items():
            values = [(number, epoch[column]) for number, epoch in enumerate(history, start=1)]
            if points := [point for point in values if not math.isnan(point[1])]:
                curves[run] = points
        if curves:
            drawn.append((title, figures.learning_curves(curves, title=title, percent=column == 2)))
    return drawn


def _classes_with_most_mistakes(counts: np.ndarray) -> np.ndarray:
    """Indices of at most MOST_CLASSES classes of a confusion matrix, in class order."""
    wrong = counts - np.diag(np.diag(counts))
    by_mistakes = np.argsort(-(wrong.sum(axis=0) + wrong.sum(axis=1)), kind="stable")
    return np.sort(by_mistakes[:MOST_CLASSES])
