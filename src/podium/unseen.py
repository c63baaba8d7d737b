"""The submission of a test set that was not there at training, such as the one that Kaggle gives to notebooks only."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from podium.data.locate import find_source
from podium.data.scan import scan_test
from podium.ensemble.write import read_blend
from podium.files import write_file
from podium.submission import submission_text
from podium.training.predict import open_predictor
from podium.workspace import Workspace


def predict_submission(workspace: Workspace, place: str, file: Path, *, note: Callable[[str], object]) -> int:
    """Write the submission of the test images in `place`, by the ensemble's members; returns how many images it has.

    `place` is an archive, or a folder with the files that competition.toml names; its sample submission, if it has one,
    gives the ids and their order. An image that is missing or damaged gets the shares of the classes in the training
    data; `note` receives how many these are. Raises DataError where there is no part for the test images, and what
    `read_blend` and `open_predictor` raise.
    """
    competition, lock = workspace.competition, workspace.lock
    as_test = replace(competition, data=replace(competition.data, train=competition.data.test))  # the rest may be away
    source = find_source(as_test, workspace.paths, data=place)
    images, faults = scan_test(competition, source)
    if faults:
        note(f"{len(faults):,} faults of the test files, which do not matter here; the first: {faults[0]}")
    members, blend = read_blend(workspace)
    predictor, prior = open_predictor(workspace, members, blend.of_rows), lock.target.prior(lock.train_labels)
    blocks = [np.empty((0, len(prior)))]
    blocks += predictor.predict([Path(name) for name in images.values()], otherwise=prior)
    probabilities = np.concatenate(blocks)
    if missing := int((probabilities == prior).all(axis=1).sum()):
        note(f"{missing:,} of {len(images):,} images are missing or damaged: they get the shares of the classes")
    unseen = replace(lock, test_ids=np.array(list(images), str))
    text = submission_text(probabilities, lock=unseen, settings=competition.submission)
    write_file(file, text.encode())
    return len(images)
