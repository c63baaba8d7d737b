"""Train a run with all four trackers, kill it, train it again, and print what each of them has recorded.

Needs `pip install 'podium[tensorboard,wandb,mlflow,trackio]'`; no network.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "training")]

from test_trackers import curve, records, tracked  # noqa: E402

from digits_toys import RECIPE, digits_workspace  # noqa: E402

NAMES = ("tensorboard", "wandb", "mlflow", "trackio")
TRAIN = """
import os, sys, time
from podium.training.progress import Listener
from podium.training.run import train_run
from podium.workspace import open_workspace

class Killed(Listener):
    def epoch(self, report):
        if report.epoch == 2 and "kill" in sys.argv:
            time.sleep(2)  # trackio writes in the background
            os._exit(9)

workspace = open_workspace("digits")
train_run(workspace, *workspace.runs, listener=Killed())
"""


def print_mlflow(reports: Path) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{reports}/mlflow.db")
    for run in client.search_runs([client.get_experiment_by_name("podium-digits").experiment_id]):
        history = client.get_metric_history(run.info.run_id, "validation_accuracy")
        print("mlflow", run.info.run_name, run.info.status, [(row.step, round(row.value, 4)) for row in history])


def print_trackio() -> None:
    import trackio

    for run in trackio.Api().runs("podium-digits"):
        rows = trackio.SQLiteStorage.get_logs("podium-digits", run.name, run_id=run.id)
        epochs = [(row["step"], round(row["validation_accuracy"], 4)) for row in rows if "epoch" in row]
        print("trackio", run.name, epochs, len(rows), "rows,", len({row["step"] for row in rows}), "steps")


def print_wandb(reports: Path) -> None:
    from wandb.proto.wandb_internal_pb2 import Record

    for file in sorted(reports.glob("wandb/offline-run-*/run-*.wandb")):
        histories = [Record.FromString(record).history for record in records(file.read_bytes())]
        rows = [{item.key or item.nested_key[0]: json.loads(item.value_json) for item in one.item} for one in histories]
        epochs = [(row["_step"], round(row["validation_accuracy"], 4)) for row in rows if "epoch" in row]
        print("wandb", file.name, epochs)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"WANDB_MODE": "offline", "TRACKIO_DIR": f"{folder}/trackio", "PYTHONPATH": str(ROOT / "src")}
        workspace = tracked(digits_workspace(folder, recipe=RECIPE.replace("epochs = 2", "epochs = 3")), *NAMES)
        for word in ("kill", "resume"):
            subprocess.run([sys.executable, "-W", "ignore", "-c", TRAIN, word], cwd=folder)
        reports = workspace.paths.reports.absolute()
        print(workspace.paths.history_file("tiny.s1").read_text())
        accuracies = curve(reports / "tensorboard" / "tiny.s1" / "train", "validation_accuracy")
        print("tensorboard", [(step, round(value, 4)) for step, value in accuracies])
        print_mlflow(reports)
        print_trackio()
        print_wandb(reports)


if __name__ == "__main__":
    main()
