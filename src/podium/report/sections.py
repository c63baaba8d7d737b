"""The page's five sections as plain values: questions of a competitor, each answered from what was gathered."""

from typing import Any

import numpy as np

from podium.ensemble.build import RunInBlend
from podium.ensemble.contribution import Contribution
from podium.ensemble.strategies.calibrate import calibration_error
from podium.kaggle.ledger import Entry
from podium.kaggle.standings import best_public, distinct_scored, rank_correlation
from podium.metrics import log_losses, softmax, wilson_interval
from podium.report import figures, mistakes
from podium.report.duplicates import twins_of
from podium.report.gallery import Images, shown_rows
from podium.report.gather import Epoch, Gathered

WORST, SUSPECTED, UNCERTAIN, PAIRS = 30, 24, 30, 12
# A matrix of more classes is shown for those that are confused most.
MOST_CLASSES = 20


def where(found: Gathered) -> dict[str, Any]:
    """Where do I stand? The honest score, the best run, the leaderboard as the ledger knows it."""
    result, metric = found.result, found.competition.metric
    scored = distinct_scored(found.ledger)
    points = [(float(one.cross_fitted), float(one.public), _error(one)) for one in scored if one.cross_fitted]
    best = best_public(found.ledger, metric)
    return {
        "metric": metric,
        "honest": result.honest,
        "taken": result.taken,
        "optimism": result.taken.optimism(metric),
        "best": result.best,
        "picked": next(one for one in result.strategies if one.strategy == "best"),
        "comparisons": result.comparisons,
        "rows": result.validation_rows,
        "tests": len(result.test_ids),
        "caveats": result.caveats,
        "submissions": list(reversed(found.ledger)),
        "ledger_fault": found.ledger_fault,
        "public": best,
        "correlation": rank_correlation(found.ledger),
        "figure": figures.against_leaderboard(points) if points else None,
        "points": [[one.file, one.cross_fitted, one.standard_error, one.public, one.private] for one in scored],
    }


def runs(found: Gathered) -> dict[str, Any]:
    """Which runs? One row each, their learning curves, the finder's curves."""
    kept = {run.run: run for run in found.result.runs}
    brings = {one.run: one for one in found.result.contributions}
    rows = [_run_row(found, place, kept[run], brings[run]) for place, run in enumerate(found.aligned.runs)]
    return {
        "rows": sorted(rows, key=lambda row: -row["accuracy"]),
        "untrained": [run for run in found.stale if run not in found.aligned.runs],
        "courses": _courses(found.history),
        "epochs": [
            [run, place, one.stage, one.training_loss, one.validation_accuracy]
            for run, history in found.history.items()
            for place, one in enumerate(history, start=1)
        ],
        "finders": {
            name: (
                figures.finder(name, one.rates, one.losses, one.suggestions),
                list(zip(one.rates, one.losses, strict=True)),
            )
            for name, one in found.finders.items()
        },
    }


def ensemble(found: Gathered) -> dict[str, Any]:
    """What does the ensemble do? Strategies, weights, alikeness of errors, calibration."""
    result, metric = found.result, found.competition.metric
    labels = found.aligned.oof_labels
    judged = [one for one in result.strategies if one.interval is not None]
    before, after = (mistakes.reliability(said, labels) for said in (result.uncalibrated, result.cross_fitted))
    order = sorted(range(len(result.runs)), key=lambda place: -result.runs[place].weight)
    return {
        "strategies": result.strategies,
        "taken": result.taken,
        "figure": figures.intervals(
            [
                figures.Interval(one.strategy, one.cross_fitted[metric], *one.interval, marked=one is result.taken)
                for one in judged
            ],
            label=f"cross-fitted {metric}, 95 % interval",
        ),
        "members": [(result.runs[place], result.contributions[place]) for place in order],
        "names": [result.runs[place].run for place in order],
        "correlation": result.error_correlation[np.ix_(order, order)].tolist(),
        "temperature": result.blend.temperature,
        "calibration": result.calibration,
        "reliability": figures.reliability(before, after),
        "bins": [["before", *row] for row in before.tolist()] + [["after", *row] for row in after.tolist()],
    }


def wrong(found: Gathered, images: Images) -> dict[str, Any]:
    """What does it get wrong? Classes, pairs, the worst rows, labels and pictures to doubt."""
    labels, said, classes = found.aligned.oof_labels, found.result.cross_fitted, found.aligned.classes
    counts = mistakes.confusion(labels, said.argmax(axis=1), len(classes))
    shown = _most_confused(counts)
    suspected = mistakes.suspected_labels(said, labels)
    worst = mistakes.largest_losses(said, labels, most=WORST)
    return {
        "rows": len(labels),
        "mistakes": int((said.argmax(axis=1) != labels).sum()),
        "classes": [classes[k] for k in shown],
        "shown": counts[np.ix_(shown, shown)].tolist(),
        "all_classes": classes,
        "counts": counts.tolist(),
        "scores": mistakes.class_scores(counts, classes),
        "pairs": mistakes.confused_pairs(counts, classes, most=PAIRS),
        "worst": shown_rows(found, images, worst, part="oof", blend=said),
        "worst_rows": _told(found, worst),
        "suspected": shown_rows(found, images, suspected[:SUSPECTED], part="oof", blend=said),
        "suspected_rows": _told(found, suspected),
        "twins": twins_of(found, images) if found.images is not None else None,
    }


def submission(found: Gathered, images: Images) -> dict[str, Any] | None:
    """What am I about to submit? Class shares, the least certain rows, the file and how it was made."""
    sent = found.submission
    if sent is None or sent.probabilities is None:
        return None if sent is None else {"sent": sent, "is_of_these_rows": False}
    classes, count = found.lock.classes, len(found.lock.classes)
    training = np.bincount(found.lock.train_labels, minlength=count) / len(found.lock.train_labels)
    predicted = np.bincount(sent.probabilities.argmax(axis=1), minlength=count) / len(sent.probabilities)
    some = np.sort(np.argsort(-np.abs(training - predicted), kind="stable")[:MOST_CLASSES])
    order = np.argsort(found.lock.test_ids)  # the joined runs' rows are sorted by id
    blend = sent.probabilities[order]
    uncertain = mistakes.least_certain(blend, most=UNCERTAIN)
    return {
        "sent": sent,
        "is_of_these_rows": True,
        "shares": figures.shares([classes[k] for k in some], training[some], predicted[some]),
        "share_rows": [[classes[k], training[k], predicted[k]] for k in range(count)],
        "uncertain": shown_rows(found, images, uncertain, part="test", blend=blend),
        "uncertain_rows": [[found.aligned.test_ids[row], *_two(found, blend[row])] for row in uncertain],
    }


def _run_row(found: Gathered, place: int, run: RunInBlend, brings: Contribution) -> dict[str, Any]:
    about, metric = found.aligned.abouts[place], found.competition.metric
    state = "imported" if about.get("imported") else "no recipe"
    if run.run in found.stale:
        state = "stale" if found.stale[run.run] else "up to date"
    return {
        "run": run.run,
        "architecture": run.architecture,
        "recipe": about.get("recipe_name", ""),
        "seed": about.get("seed", ""),
        "accuracy": run.scores["accuracy"],
        "interval": _interval(found, run.scores["accuracy"]),
        "log_loss": run.scores["log_loss"],
        "metric": run.scores[metric],
        "calibration": calibration_error(softmax(found.aligned.oof_logits[place]), found.aligned.oof_labels),
        "seconds": about.get("seconds"),
        "device": ", ".join(str(about[key]) for key in ("device", "precision") if about.get(key)),
        "weight": run.weight,
        "why": f"{run.reason}; {brings.verdict}",
        "state": state,
    }


def _interval(found: Gathered, accuracy: float) -> tuple[float, float] | None:
    """Wilson's; none where rows come in groups, which makes them worth less than they are many."""
    rows = found.result.validation_rows
    return None if found.lock.groups is not None else wilson_interval(accuracy * rows, rows)


def _told(found: Gathered, rows: np.ndarray) -> list[list[Any]]:
    """Rows of a CSV: id, label, its probability, loss, the blend's two most probable classes, what each run said."""
    said, labels, classes = found.result.cross_fitted, found.aligned.oof_labels, found.aligned.classes
    losses = log_losses(said, labels)
    return [
        [
            found.aligned.oof_ids[row],
            classes[labels[row]],
            said[row, labels[row]],
            losses[row],
            *_two(found, said[row]),
            *(classes[k] for k in found.aligned.oof_logits[:, row].argmax(axis=1)),
        ]
        for row in rows
    ]


def _two(found: Gathered, probabilities: np.ndarray) -> list[Any]:
    one, other = np.argsort(-probabilities, kind="stable")[:2]
    classes = found.aligned.classes
    return [classes[one], probabilities[one], classes[other], probabilities[other]]


def _error(entry: Entry) -> float | None:
    return float(entry.standard_error) if entry.standard_error else None


def _courses(history: dict[str, list[Epoch]]) -> list[tuple[str, str]]:
    """(What it shows, the drawing) of what was measured in any epoch."""
    drawn = []
    for title, what in (("training loss", "training_loss"), ("validation accuracy", "validation_accuracy")):
        if lines := _lines(history, what):
            drawn.append((title, figures.courses(lines, title=title, shares=what == "validation_accuracy")))
    return drawn


def _lines(history: dict[str, list[Epoch]], what: str) -> list[figures.Line]:
    """A course for each run; epochs where nothing was measured are left out."""
    lines = []
    for run, epochs in history.items():
        points = [(place, getattr(one, what)) for place, one in enumerate(epochs, start=1)]
        points = [(x, y) for x, y in points if y == y]
        if points:
            lines.append(figures.Line(run, run.rpartition(".")[0] or run, *zip(*points, strict=True)))
    return lines


def _most_confused(counts: np.ndarray) -> np.ndarray:
    """The classes of the matrix, in order: all where they are few, else those with most mistakes."""
    wrong = counts - np.diag(np.diag(counts))
    by_mistakes = np.argsort(-(wrong.sum(axis=0) + wrong.sum(axis=1)), kind="stable")
    return np.sort(by_mistakes[:MOST_CLASSES])
