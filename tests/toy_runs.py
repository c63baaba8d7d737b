"""Small runs and workspaces for the tests of everything that reads predictions."""

from dataclasses import replace

import numpy as np

from podium.config.keys import Ensemble
from podium.ensemble.pool import Pool
from podium.lock import Lock, write_lock
from podium.predictions.align import align
from podium.predictions.artefact import Predictions, save_predictions
from podium.targets.target import CLASS
from podium.workspace import open_workspace

CLASSES = ("bird", "cat", "dog")
SETTINGS = """
title = "A competition made by hand"
[data]
source = "folders"
[validation]
rows = 40
[ensemble]
threshold = 0.7
"""


def run_of(
    name="resnet34.s1", *, labels=(0, 1, 2, 0), predicted=None, test=(0, 1, 2), classes=CLASSES, sure=3.0, **about
):
    """Predictions of the classes `predicted` (default: the labels) for validation rows and `test` for test rows."""
    predicted = labels if predicted is None else predicted
    about = {"architecture": name.split(".")[0], "fingerprint": "data", "fold_sha256": "folds"} | about
    return Predictions(
        oof_ids=np.array([f"v{row}" for row in range(len(labels))]),
        oof_logits=(np.eye(len(classes))[list(predicted)] * sure).astype(np.float32),
        oof_labels=np.array(labels),
        test_ids=np.array([f"t{row}" for row in range(len(test))]),
        test_logits=(np.eye(len(classes))[list(test)] * sure).astype(np.float32),
        classes=classes,
        about={"run": name, **about},
    )


def random_run(name, *, rows=40, tests=30, classes=CLASSES, seed=0, noise=1.0):
    """Predictions of a model that is often correct: logits of the labels plus noise."""
    truth = np.random.default_rng(0)
    labels, answers = truth.integers(len(classes), size=rows), truth.integers(len(classes), size=tests)
    own = np.random.default_rng([seed, 1])

    def logits(classes_of_rows):
        draws = own.normal(scale=noise, size=(len(classes_of_rows), len(classes)))
        return (np.eye(len(classes))[classes_of_rows] * 2 + draws).astype(np.float32)

    return Predictions(
        oof_ids=np.array([f"v{row}" for row in range(rows)]),
        oof_logits=logits(labels),
        oof_labels=labels,
        test_ids=np.array([str(row + 1) for row in range(tests)]),
        test_logits=logits(answers),
        classes=classes,
        about={
            "run": name,
            "architecture": name.split(".")[0],
            "fingerprint": "data",
            "fold_sha256": "folds",
        },
    )


def shuffled(predictions, *, seed):
    """The same predictions with their rows in another order."""
    draw = np.random.default_rng(seed)
    oof, test = draw.permutation(len(predictions.oof_ids)), draw.permutation(len(predictions.test_ids))
    return Predictions(
        oof_ids=predictions.oof_ids[oof],
        oof_logits=predictions.oof_logits[oof],
        oof_labels=predictions.oof_labels[oof],
        test_ids=predictions.test_ids[test],
        test_logits=predictions.test_logits[test],
        classes=predictions.classes,
        about=predictions.about,
    )


def lock_for(run):
    """The lock of data with the validation rows of `run`, and two rows that are always trained on."""
    order, labels = np.argsort(run.oof_ids), run.oof_labels
    return Lock(
        fingerprint="data",
        classes=run.classes,
        train_ids=np.array([*run.oof_ids[order], "w1", "w2"]),
        train_labels=np.array([*labels[order], 0, 1]),
        folds=np.array([*np.zeros(len(labels), dtype=int), -1, -1]),
        test_ids=np.array(sorted(run.test_ids, key=lambda id_: (len(id_), id_))),
    )


def join(runs):
    """The runs joined by id, with a lock that has the rows of the first run."""
    lock = lock_for(runs[0])
    folds = {"folds": lock.fold_sha256}
    return align(
        [replace(run, about=run.about | {"fold_sha256": folds.get(run.about["fold_sha256"], "other")}) for run in runs],
        lock,
    )


def pool_from(logs, labels, *, metric="accuracy", groups=None, target=CLASS, **settings):
    """A pool of log-probabilities (runs, n, classes), as `pool_of` makes it of aligned runs."""
    logs, labels = np.asarray(logs, float), np.asarray(labels)
    names = tuple(f"a.s{seed}" for seed in range(len(logs)))
    return Pool(
        runs=names,
        abouts=tuple({"architecture": "a"} for _ in names),
        logs=logs,
        predicted=target.predicted(logs),
        labels=labels,
        strata=target.strata(labels, least=5, most=len(labels)),
        units=np.arange(len(labels)) if groups is None else np.unique(groups, return_inverse=True)[1],
        counted="rows" if groups is None else "groups",
        target=target,
        metric=metric,
        settings=Ensemble(**settings),
    )


def make_project(folder, runs, *, lock=None, settings=SETTINGS):
    """A workspace of the competition `toy`, with its lock and these runs' predictions."""
    competition = folder / "competitions" / "toy"
    competition.mkdir(parents=True, exist_ok=True)
    (competition / "competition.toml").write_text(settings)
    workspace = open_workspace("toy", folder)
    write_lock(workspace.paths.lock_file, lock or lock_for(random_run("any.s1")))
    for run in runs:
        save(workspace, run)
    return workspace


def save(workspace, run):
    """Save a run as if it had been trained with the folds of `lock_for`."""
    about = run.about | {"fold_sha256": lock_for(random_run("any.s1")).fold_sha256}
    save_predictions(workspace.paths.predictions_file(run.run), replace(run, about=about))
