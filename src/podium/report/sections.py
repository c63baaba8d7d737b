"""The page's five sections as plain values: questions of a competitor, each answered from what was gathered."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from podium.ensemble.calibrate import calibration_error
from podium.kaggle.ledger import Entry
from podium.kaggle.standings import best_public, distinct_scored, rank_correlation
from podium.metrics import softmax, wilson_interval
from podium.report import figures, mistakes
from podium.report.duplicates import Twin, near_duplicates
from podium.report.gallery import Images, Said, Shown
from podium.report.gather import Epoch, Gathered

WORST, SUSPECTED, UNCERTAIN, TWINS, PAIRS = 30, 24, 30, 12, 12
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
        "best_interval": _interval(found, result.best.scores["accuracy"]) if metric == "accuracy" else None,
        "comparisons": result.comparisons,
        "rows": result.validation_rows,
        "tests": len(result.test_ids),
        "caveats": result.caveats,
        "submissions": list(reversed(found.ledger)),
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
    losses, accuracies = (_lines(found.history, what) for what in ("training_loss", "validation_accuracy"))
    epochs = [
        [run, place, one.stage, one.training_loss, one.validation_accuracy]
        for run, history in found.history.items()
        for place, one in enumerate(history, start=1)
    ]
    finders = {
        name: (
            figures.finder(name, one.rates, one.losses, one.suggestions),
            list(zip(one.rates, one.losses, strict=True)),
        )
        for name, one in found.finders.items()
        if len(one.rates) > 1
    }
    return {
        "rows": sorted(rows, key=lambda row: -row["accuracy"]),
        "untrained": [run for run in found.stale if run not in found.aligned.runs],
        "courses": [
            figures.courses(lines, title=title, shares=shares)
            for lines, title, shares in ((losses, "training loss", False), (accuracies, "validation accuracy", True))
            if lines
        ],
        "epochs": epochs,
        "finders": finders,
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
    labels, said = found.aligned.oof_labels, found.result.cross_fitted
    classes = found.aligned.classes
    counts = mistakes.confusion(labels, said.argmax(axis=1), len(classes))
    shown = _most_confused(counts)
    suspected = mistakes.suspected_labels(said, labels)
    pairs = mistakes.confused_pairs(counts, classes, most=PAIRS)
    return {
        "rows": len(labels),
        "mistakes": int((said.argmax(axis=1) != labels).sum()),
        "classes": [classes[k] for k in shown],
        "all_classes": len(classes),
        "counts": counts[np.ix_(shown, shown)].tolist(),
        "scores": mistakes.class_scores(counts, classes),
        "pairs": pairs,
        "worst": _shown_rows(found, images, mistakes.largest_losses(said, labels, most=WORST)),
        "suspected": _shown_rows(found, images, suspected[:SUSPECTED]),
        "suspected_count": len(suspected),
        "twins": _twins(found, images),
    }


def submission(found: Gathered, images: Images) -> dict[str, Any] | None:
    """What am I about to submit? Class shares, the least certain rows, the file and how it was made."""
    sent = found.submission
    if sent is None:
        return None
    classes = found.aligned.classes
    training = np.bincount(found.lock.train_labels, minlength=len(classes)) / len(found.lock.train_labels)
    predicted = np.bincount(sent.probabilities.argmax(axis=1), minlength=len(classes)) / len(sent.ids)
    few = np.argsort(-np.abs(training - predicted), kind="stable")[:MOST_CLASSES]
    some = np.sort(few)
    uncertain = mistakes.least_certain(sent.probabilities, most=UNCERTAIN)
    place = {one: row for row, one in enumerate(found.aligned.test_ids.tolist())}
    member = _member_probabilities(found, np.array([place[one] for one in sent.ids[uncertain].tolist()]), part="test")
    return {
        "sent": sent,
        "shares": figures.shares([classes[k] for k in some], training[some], predicted[some]),
        "share_rows": [[classes[k], training[k], predicted[k]] for k in range(len(classes))],
        "uncertain": [
            _shown(found, images, "test", str(sent.ids[row]), sent.probabilities[row], None, member[:, number])
            for number, row in enumerate(uncertain)
        ],
        "members": [run for run in sent.made.get("runs", []) if run.get("weight")],
    }


def _run_row(found: Gathered, place: int, run: Any, brings: Any) -> dict[str, Any]:
    about = found.aligned.abouts[place]
    said = softmax(found.aligned.oof_logits[place])
    low, high = _interval(found, run.scores["accuracy"])
    state = "imported" if about.get("imported") else "no recipe"
    if run.run in found.stale:
        state = "stale" if found.stale[run.run] else "up to date"
    return {
        "run": run.run,
        "architecture": run.architecture,
        "recipe": about.get("recipe_name", ""),
        "seed": about.get("seed", ""),
        "accuracy": run.scores["accuracy"],
        "low": low,
        "high": high,
        "log_loss": run.scores["log_loss"],
        "calibration": calibration_error(said, found.aligned.oof_labels),
        "seconds": about.get("seconds"),
        "device": ", ".join(str(about[key]) for key in ("device", "precision") if about.get(key)),
        "weight": run.weight,
        "why": f"{run.reason}; {brings.verdict}",
        "state": state,
    }


def _interval(found: Gathered, accuracy: float) -> tuple[float, float]:
    rows = found.result.validation_rows
    return wilson_interval(accuracy * rows, rows)


def _error(entry: Entry) -> float | None:
    return float(entry.standard_error) if entry.standard_error else None


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


def _shown_rows(found: Gathered, images: Images, rows: np.ndarray) -> list[Shown]:
    members = _member_probabilities(found, rows, part="oof")
    classes, labels = found.aligned.classes, found.aligned.oof_labels
    return [
        _shown(
            found,
            images,
            "train",
            str(found.aligned.oof_ids[row]),
            found.result.cross_fitted[row],
            classes[labels[row]],
            members[:, number],
        )
        for number, row in enumerate(rows)
    ]


def _member_probabilities(found: Gathered, rows: np.ndarray, *, part: str) -> np.ndarray:
    """What each run says of some rows, (runs, rows, classes), calibrated as the blend uses it."""
    logits = getattr(found.aligned, f"{part}_logits")[:, rows]
    return softmax(logits / found.result.blend.temperatures[:, None, None])


def _shown(
    found: Gathered,
    images: Images,
    part: str,
    one: str,
    blend: np.ndarray,
    label: str | None,
    members: np.ndarray,
) -> Shown:
    """A row: the blend's two most probable classes, and the first of each member."""
    classes = found.aligned.classes
    two = np.argsort(-blend, kind="stable")[:2]
    said = [
        Said(run.run, classes[int(own.argmax())], float(own.max()))
        for run, own in zip(found.result.runs, members, strict=True)
        if run.weight
    ]
    return Shown(one, images.address(part, one), label, [(classes[k], float(blend[k])) for k in two], said)


def _twins(found: Gathered, images: Images) -> dict[str, Any] | None:
    """Near-duplicates across training, validation and test: how many, and the most alike."""
    if images.dataset is None:
        return None
    lock, data = found.lock, images.dataset
    part = np.concatenate([lock.folds + 1, np.full(len(data.test_ids), lock.folds.max() + 2)])
    twins = near_duplicates([data.train_images, data.test_images], part)
    if twins is None:
        return {"searched": False}
    folds = int(lock.folds.max()) + 1
    names = ["training", *(["validation"] if folds == 1 else [f"fold {k + 1}" for k in range(folds)]), "test"]
    ids = np.concatenate([lock.train_ids, lock.test_ids])
    count = len(lock.train_ids)

    def side(place: int) -> dict[str, Any]:
        is_test = place >= count
        one = str(ids[place])
        label = None if is_test else found.aligned.classes[lock.train_labels[place]]
        address = images.address("test" if is_test else "train", one)
        return {"id": one, "part": names[part[place]], "label": label, "image": address}

    def labels(twin: Twin) -> Sequence[int | None]:
        return [None if place >= count else int(lock.train_labels[place]) for place in (twin.one, twin.other)]

    kinds = [" and ".join(sorted((names[part[twin.one]], names[part[twin.other]]))) for twin in twins]
    differ = [None not in labels(twin) and len(set(labels(twin))) == 2 for twin in twins]
    first = sorted(range(len(twins)), key=lambda k: not differ[k])[
        :TWINS
    ]  # those whose labels differ, then by likeness
    return {
        "searched": True,
        "counts": {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)},
        "differ": sum(differ),
        "total": len(twins),
        "shown": [(side(twins[k].one), side(twins[k].other), twins[k].correlation) for k in first],
        "rows": [
            [str(ids[twin.one]), names[part[twin.one]], str(ids[twin.other]), names[part[twin.other]], twin.correlation]
            for twin in twins
        ],
    }
