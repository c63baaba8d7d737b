"""Runs made by hand for the tests of everything right of the seam."""

import numpy as np

from podium.predictions import Predictions

CLASSES = ("bird", "cat", "dog")


def run_of(name="resnet34.s1", *, labels=(0, 1, 2, 0), said=None, test=(0, 1, 2), classes=CLASSES, sure=3.0, **about):
    """Predictions that say `said` (else the truth) of the validation rows and `test` of the test rows."""
    said = labels if said is None else said
    about = {"architecture": name.split(".")[0], "fingerprint": "data", "fold_sha256": "folds"} | about
    return Predictions(
        oof_ids=np.array([f"v{row}" for row in range(len(labels))]),
        oof_logits=(np.eye(len(classes))[list(said)] * sure).astype(np.float32),
        oof_labels=np.array(labels),
        test_ids=np.array([f"t{row}" for row in range(len(test))]),
        test_logits=(np.eye(len(classes))[list(test)] * sure).astype(np.float32),
        classes=classes,
        about={"run": name, **about},
    )


def random_run(name, *, rows=40, tests=30, classes=CLASSES, seed=0, noise=1.0):
    """Predictions of a model that is often right: logits of the truth plus noise of its own."""
    truth = np.random.default_rng(0)
    labels, answers = truth.integers(len(classes), size=rows), truth.integers(len(classes), size=tests)
    own = np.random.default_rng([seed, 1])

    def logits(right):
        draws = own.normal(scale=noise, size=(len(right), len(classes)))
        return (np.eye(len(classes))[right] * 2 + draws).astype(np.float32)

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
