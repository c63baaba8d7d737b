"""A competition whose runs a kernel trains, at a Kaggle on loopback where kernels end as a test wants."""

import hashlib
import json
import os

import numpy as np
from fake.kernels import Ran

from podium.data.prepare import prepare
from podium.kaggle.client import Kaggle
from podium.kaggle.notebooks.follow import Bench, train_in_kernel
from podium.kaggle.notebooks.in_kernel import MANIFEST
from podium.kaggle.notebooks.kernels import Kernels
from podium.kaggle.session import Patience
from podium.lock import read_lock
from podium.plan.paths import Project
from podium.plan.runs import list_runs
from podium.predictions.artefact import Predictions, save_predictions

SETTINGS = 'title = "digits"\n[data]\nsource = "digits"\n[validation]\nrows = 297\n'
RECIPE = """
architecture = "timm:test_resnet"
epochs = 1
learning_rate = 0.01
batch_size = 256
stored_pixels = 16
seeds = [1, 2]
"""
KERNEL = "rehearsal/podium-tiny"
SOON = Patience(first_pause_seconds=0.05, longest_pause_seconds=0.2, wait_seconds=20, grace_seconds=0)


class KernelHouse:
    """A project with one competition, and a bench at the Kaggle of `state`, whose kernels end as `ends` says."""

    def __init__(self, folder, server):
        self.folder, self.server, self.state, self.told = folder, server, server.state.kernels, []
        self.asked = server.state.asked
        self.project = Project.at(folder)
        home = folder / "competitions" / "tiny"
        home.mkdir(parents=True)
        (home / "competition.toml").write_text(SETTINGS)
        (home / "net.toml").write_text(RECIPE)
        prepare(self.project, "tiny")
        self.lock = read_lock(self.project.lock_file("tiny"))
        self.environment = server.environment(os.environ, folder / "home")
        self.changes = {}
        self.state.run = lambda push, datasets: self.ran(push)

    def bench(self, **options):
        """The bench, in a hurry."""
        kaggle = Kaggle("", self.environment, 20, (0.05,))
        options = {"wheels": "none", "patience": SOON, "dataset_patience": SOON} | options
        return Bench(self.project, "tiny", Kernels(kaggle), self.told.append, options.pop("publish", None), **options)

    def train(self, *, force=False, **options):
        """What `make kernel` does."""
        stale = [one for one in list_runs(self.project, "tiny") if one.stale]
        return train_in_kernel(self.bench(**options), stale, force=force)

    def predictions(self, name, **about):
        """A run as its kernel would leave it; `about` changes what it says of itself."""
        lock, planned = self.lock, {one.run: one for one in list_runs(self.project, "tiny")}[name]
        judged = np.flatnonzero(lock.folds >= 0)
        says = {"run": name, "architecture": "net", "fingerprint": lock.fingerprint, "fold_sha256": lock.fold_sha256}
        return Predictions(
            oof_ids=lock.train_ids[judged],
            oof_logits=np.eye(10, dtype=np.float32)[lock.train_labels[judged]],
            oof_labels=lock.train_labels[judged],
            test_ids=lock.test_ids,
            test_logits=np.ones((len(lock.test_ids), 10), np.float32),
            classes=lock.classes,
            about=says | {"stamp": planned.stamp} | about,
        )

    def output(self, push, runs=("net.s1", "net.s2"), failed=(), left=(), **about):
        """The files of a kernel that trained some runs, with its manifest."""
        files = {}
        for run in runs:
            made = self.folder / "made" / f"{run}.npz"
            save_predictions(made, self.predictions(run, **about))
            files[f"oof/tiny/{run}.npz"] = made.read_bytes()
            files[f"reports/tiny/history/{run}.csv"] = b"epoch\n1\n"
        told = {"push": push, "trained": list(runs), "failed": list(failed), "left": list(left)}
        told["files"] = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
        return files | {MANIFEST: json.dumps(told).encode()}

    def ran(self, push, **options):
        """How a kernel ended that did what it should."""
        name = next(line.split("'")[3] for line in push["text"].splitlines() if "'push':" in line)
        return Ran("COMPLETE", "", self.output(name, **(options or self.changes)), log_of("trained\n"))

    @property
    def oof(self):
        """Names of the runs that are in `oof/`."""
        return sorted(file.stem for file in self.project.predictions_folder("tiny").glob("*.npz"))


def log_of(*pieces):
    """A log as Kaggle writes it."""
    return json.dumps([{"stream_name": "stdout", "time": 1.5, "data": piece} for piece in pieces])
