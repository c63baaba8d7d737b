"""Would it do to look six times only at the images of which a network is unsure? Accuracy and time of it.

    python benchmarks/views.py [--competition cifar10-cpu] [--runs fastnet.s1 ...] [--outputs FOLDER]

Takes the trained parameters in `models/<competition>/` (below --outputs, where they are not here) and looks at the
validation rows with one view and with all views of `flip-and-shift`, on one thread. A row is unsure where the two
largest logits of its one view are close. Seconds are of CPU: those of a part are those of one view of every row, and
the share of what the other five cost.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from podium.data.cache import open_images
from podium.lock import read_lock
from podium.metrics import log_loss, softmax
from podium.plan.paths import Project
from podium.predictions.artefact import load_predictions
from podium.training.batches.loader import PixelStore
from podium.training.device import cpu_threads, pick_precision
from podium.training.learner import evaluation_loader
from podium.training.logits import predict_logits
from podium.training.predict import _read_parameters
from training import ROOT, machine

CPU = torch.device("cpu")
SHARES = (0.1, 0.2, 0.3, 0.5)
HEAD = ("run", "views", "accuracy", "other labels than all views", "log loss", "CPU seconds", "of the run")


def look(project: Project, competition: str, run: str, views: str) -> tuple[np.ndarray, float]:
    """Logits (n, classes) of the validation rows, and the seconds that they took."""
    about = load_predictions(project.predictions_file(competition, run)).about
    lock = read_lock(project.lock_file(competition))
    file = project.parameters_file(competition, run)
    recipe, ((network, normalisation), *_) = _read_parameters(file, len(lock.classes), stamp=about["stamp"])
    dataset = open_images(project.paths(competition), lock, pixels=recipe.stored_pixels, shape=recipe.shape)
    store, rows = PixelStore(dataset.train_images, CPU), np.flatnonzero(lock.folds >= 0)
    loader = evaluation_loader(store, rows, recipe=recipe, normalisation=normalisation)
    with cpu_threads(1):
        began = time.process_time()
        logits = predict_logits(network, loader, views=views, precision=pick_precision(recipe, network, CPU))
    return logits, time.process_time() - began


def lines(project: Project, competition: str, run: str) -> list[Sequence[str]]:
    """The table's lines about one run."""
    lock = read_lock(project.lock_file(competition))
    labels = lock.train_labels[lock.folds >= 0]
    trained_seconds = load_predictions(project.predictions_file(competition, run)).about["seconds"]
    one, one_seconds = look(project, competition, run, "none")
    every, all_seconds = look(project, competition, run, "flip-and-shift")
    margins = np.diff(np.partition(one, -2, axis=1)[:, -2:], axis=1).ravel()
    table = []
    for share in (0.0, *SHARES, 1.0):
        unsure = np.argsort(margins, kind="stable")[: round(share * len(labels))]
        logits = one.copy()
        logits[unsure] = every[unsure]
        found, seconds = logits.argmax(axis=1), one_seconds + share * (all_seconds - one_seconds)
        words = {0.0: "one", 1.0: "all"}.get(share, f"all for the {share:.0%} least sure")
        changed, loss = (found != every.argmax(axis=1)).sum(), log_loss(softmax(logits), labels)
        table.append(
            (
                run,
                words,
                f"{(found == labels).mean():.4f}",
                str(changed),
                f"{loss:.4f}",
                f"{seconds:.1f}",
                f"{seconds / trained_seconds:.1%}",
            )
        )
    return table


def main() -> None:
    """Look both ways with every run and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--competition", default="cifar10-cpu")
    parser.add_argument("--runs", nargs="+", default=["fastnet-deep.s1", "fastnet.s1"])
    parser.add_argument("--outputs", type=Path, default=ROOT, help="where models/ and oof/ are")
    given = parser.parse_args()
    project = Project.at(ROOT, given.outputs)
    rows = int((read_lock(project.lock_file(given.competition)).folds >= 0).sum())
    print(f"{machine(CPU)}; one thread\n{rows:,} validation rows of {given.competition}\n", flush=True)
    for line in (HEAD, ["---"] * len(HEAD)):
        print(f"| {' | '.join(line)} |")
    for run in given.runs:
        for line in lines(project, given.competition, run):
            print(f"| {' | '.join(line)} |", flush=True)


if __name__ == "__main__":
    main()
