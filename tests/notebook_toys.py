"""A competition whose runs a notebook trains, and a local Kaggle where notebooks end as a test wants."""

import hashlib
import json
import os

import numpy as np
from fake.kernels import Ran

from digits_toys import prepare_digits
from podium.kaggle.account import Account
from podium.kaggle.notebooks.script import MANIFEST
from podium.kaggle.notebooks.train import train_in_notebook
from podium.kaggle.session import Session
from podium.kaggle.waiting import Patience
from podium.predictions.artefact import Predictions, save_predictions
from podium.workspace import open_workspace

SETTINGS = 'title = "digits"\n[data]\nsource = "digits"\n[validation]\nrows = 297\n'
RECIPE = """
architecture = "timm:test_resnet"
epochs = 1
learning_rate = 0.01
batch_size = 256
stored_pixels = 16
seeds = [1, 2]
"""
FILES = {"competition.toml": SETTINGS, "net.toml": RECIPE}
NOTEBOOK = "rehearsal/podium-tiny"
SHORT = Patience(first_pause_seconds=0.05, longest_pause_seconds=0.2, wait_seconds=20, grace_seconds=0)


def write_competition(folder):
    """Write the settings and the recipe of the competition `tiny`; returns their folder."""
    home = folder / "competitions" / "tiny"
    home.mkdir(parents=True)
    for name, text in FILES.items():
        (home / name).write_text(text)
    return home


class NotebookToy:
    """The competition `tiny`, prepared, and a session at the local Kaggle of `server`."""

    def __init__(self, folder, server):
        self.folder, self.server, self.state, self.messages = folder, server, server.state.kernels, []
        self.requests = server.state.asked
        prepare_digits(folder, "tiny", FILES)
        self.home = folder / "competitions" / "tiny"
        self.environment = server.environment(os.environ, folder / "home")
        self.changes = {}
        self.state.run = lambda push, datasets: self.ran(push)

    @property
    def workspace(self):
        """The competition, read again."""
        return open_workspace("tiny", self.folder)

    @property
    def push_file(self):
        """The record of the push that is followed."""
        return self.session().push_file

    def session(self, **options):
        """A session that waits for milliseconds."""
        account = Account("", self.environment, 20, (0.05,))
        options = {"patience": SHORT, "goal": "kernel"} | options
        return Session(self.workspace, account, self.messages.append, **options)

    def train(self, *, force=False, **options):
        """What `make kernel` does, where `make estimate` measures 20 hours."""
        session = self.session(**options)
        return train_in_notebook(session, session.workspace.stale_runs, lambda: 20, force=force)

    def predictions(self, name, **about):
        """A run as its notebook would leave it; `about` changes its description."""
        workspace = self.workspace
        lock, planned = workspace.lock, {run.run: run for run in workspace.runs}[name]
        judged = np.flatnonzero(lock.folds >= 0)
        description = {"run": name, "architecture": "net", "stamp": planned.stamp}
        description |= {"fingerprint": lock.fingerprint, "fold_sha256": lock.fold_sha256}
        return Predictions(
            oof_ids=lock.train_ids[judged],
            oof_logits=np.eye(10, dtype=np.float32)[lock.train_labels[judged]],
            oof_labels=lock.train_labels[judged],
            test_ids=lock.test_ids,
            test_logits=np.ones((len(lock.test_ids), 10), np.float32),
            classes=lock.classes,
            about=description | about,
        )

    def output(self, push, runs=("net.s1", "net.s2"), failed=(), left=(), **about):
        """The files of a notebook that trained some runs, with its manifest."""
        files = {}
        for run in runs:
            file = self.folder / "made" / f"{run}.npz"
            save_predictions(file, self.predictions(run, **about))
            files[f"oof/tiny/{run}.npz"] = file.read_bytes()
            files[f"reports/tiny/history/{run}.csv"] = b"epoch\n1\n"
            files[f"models/tiny/{run}.safetensors"] = b"parameters"
        manifest = {"push": push, "trained": list(runs), "failed": list(failed), "left": list(left)}
        manifest["files"] = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
        return files | {MANIFEST: json.dumps(manifest).encode()}

    def ran(self, push, **options):
        """How a successful notebook ends."""
        push_id = next(line.split("'")[3] for line in push["text"].splitlines() if "'push':" in line)
        return Ran("COMPLETE", "", self.output(push_id, **(options or self.changes)), log_text("trained\n"))

    @property
    def oof(self):
        """Names of the runs in `oof/`."""
        return sorted(file.stem for file in self.workspace.paths.predictions_folder.glob("*.npz"))


def log_text(*pieces):
    """A log as Kaggle writes it."""
    return json.dumps([{"stream_name": "stdout", "time": 1.5, "data": piece} for piece in pieces])
