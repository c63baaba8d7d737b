"""lr_find: its suggestions, its files, and that it repeats."""

import csv
import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from digits_toys import damage_images, digits_workspace
from podium.config.keys import Augment, FastNet, Recipe
from podium.errors import DataError, TrainingError
from podium.seeding import stream_seed
from podium.training import learner as learner_module
from podium.training import lr_find as lr_find_module
from podium.training.batches.stores import FitData, PixelStore
from podium.training.drawing import write_lr_curve
from podium.training.lr_find import find_learning_rate, find_learning_rate_of_run, result_of_losses
from podium.training.progress import Listener

TINY = Recipe(
    architecture="timm:test_resnet",
    epochs=1,
    learning_rate=0.02,
    batch_size=20,
    stored_pixels=16,
    dropout=0.3,
    augment=Augment(flip="horizontal", shift_pixels=1),
)
RATES = [lr_find_module._rate(step / 100) for step in range(100)]


def data() -> FitData:
    """Dark and bright noise: 80 images that are easy to classify."""
    labels = np.arange(80) % 2
    images = np.random.default_rng(0).integers(0, 120, (80, 16, 16, 3)) + labels[:, None, None, None] * 110
    images, rows = images.astype(np.uint8), np.arange(80)
    return FitData(PixelStore(images, torch.device("cpu")), labels, 2, rows, rows[:0], seed=1)


def run_lr_find(recipe, folder, **options):
    torch.set_num_threads(1)
    return find_learning_rate(recipe, data(), root=folder, **options)


def valley_shaped():
    """Flat to 1e-4, falling to 1e-2, rising after it."""
    return [2 - max(0, min(1, (math.log10(rate) + 4) / 2)) + max(0, math.log10(rate) + 1.5) for rate in RATES]


def test_suggestions_lie_where_the_loss_falls():
    result = result_of_losses(valley_shaped())
    assert list(result.suggestions) == ["valley", "slide", "steep", "minimum"]
    assert 1e-4 < result.suggestions["steep"] < 1e-2 and 1e-4 < result.rate < 1e-2
    assert result.rate == result.suggestions["valley"] in RATES
    assert len(result.rates) == len(result.losses) == 100


@pytest.mark.parametrize("ruin", [math.nan, math.inf])
def test_a_curve_ends_before_the_first_loss_that_is_not_finite(ruin):
    losses = valley_shaped()
    losses[90] = ruin
    assert result_of_losses(losses).losses == tuple(valley_shaped()[:90])
    losses[20] = ruin
    with pytest.raises(TrainingError, match=r"(?s)no learning rate.*20 steps.*not a finite number.*learning_rate"):
        result_of_losses(losses)
    losses[3] = ruin
    with pytest.raises(TrainingError, match="3 steps"):
        result_of_losses(losses)


def test_31_losses_are_enough_and_30_are_not():
    assert len(result_of_losses(valley_shaped()[:31]).rates) == 31
    with pytest.raises(TrainingError, match="30 steps until the loss diverged"):
        result_of_losses(valley_shaped()[:30])


def test_a_result_is_written_as_csv_json_and_png(tmp_path):
    result = result_of_losses(valley_shaped())
    png_file = write_lr_curve(tmp_path / "lr-find", "tiny", result)
    with (tmp_path / "lr-find" / "tiny.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["learning_rate"]) for row in rows] == pytest.approx(RATES, rel=1e-5)
    assert [float(row["loss"]) for row in rows] == pytest.approx(list(result.losses), rel=1e-5)
    assert json.loads((tmp_path / "lr-find" / "tiny.json").read_text()) == {
        "name": "tiny",
        "suggestions": result.suggestions,
        "used": "valley",
    }
    with Image.open(png_file) as image:
        assert image.width > image.height > 500 and image.getpixel((2, 2))[:3] == (255, 255, 255)


def test_lr_find_repeats_and_uses_no_global_random_stream(tmp_path):
    torch.manual_seed(5)
    np.random.seed(5)
    state, other = torch.get_rng_state(), np.random.get_state()[1].copy()
    first = run_lr_find(TINY, tmp_path)
    assert torch.equal(torch.get_rng_state(), state) and np.array_equal(np.random.get_state()[1], other)
    torch.manual_seed(6)
    assert run_lr_find(TINY, tmp_path).losses == first.losses
    assert first.rates[0] == 1e-7 and 30 < len(first.rates) <= 100
    assert 1e-7 < first.rate < 10


def test_lr_find_on_damaged_images_is_refused(tmp_path):
    workspace = digits_workspace(tmp_path)
    damage_images(workspace)
    (run,) = workspace.runs
    with pytest.raises(DataError, match=r"images are damaged(.|\n)*images-16-crop.npy && make prepare"):
        find_learning_rate_of_run(workspace, run, listener=Listener())


def test_lr_find_reports_its_progress(tmp_path):
    class StepRecorder(Listener):
        def __init__(self):
            self.shares = []

        def step(self, share_done, images_per_second):
            self.shares.append(share_done)

    listener = StepRecorder()
    result = run_lr_find(TINY, tmp_path, listener=listener)
    assert listener.shares == pytest.approx([(step + 1) / 100 for step in range(len(result.rates))])


def test_each_list_of_parameters_has_its_own_rate_and_muons_filters_have_none():
    recipe = replace(TINY, bias_ratio=2, discriminative_ratio=100)
    assert lr_find_module._scheduled_rates(recipe, 1.0, groups=2) == pytest.approx([0.1, 0.1, 0.2, 10, 10, 20])
    muon = replace(recipe, optimiser="muon", muon_rate=0.5)
    assert lr_find_module._scheduled_rates(muon, 1.0, groups=2) == pytest.approx([0, 0.1, 0.2, 0, 10, 20])


def test_lr_find_does_not_train_the_filters_of_muon(tmp_path, monkeypatch):
    networks = []
    build = learner_module.build_network

    def remember(*arguments, **options):
        networks.append(build(*arguments, **options))
        return networks[0]

    monkeypatch.setattr(learner_module, "build_network", remember)
    fast = replace(
        TINY, architecture="fastnet", fastnet=FastNet(widths=(16, 16)), optimiser="muon", bias_ratio=2.0, dropout=0.0
    )
    run_lr_find(fast, tmp_path)
    moved = [p for p in networks[0].parameters() if p.requires_grad and p.ndim > 2]
    start = build(fast, 2, root=tmp_path, seed=stream_seed(1, "network/lr-find"))
    initial = [p for p in start.parameters() if p.requires_grad and p.ndim > 2]
    for after, before in zip(moved, initial, strict=True):
        assert torch.allclose(after / after.norm(), before / before.norm(), atol=1e-5)
    heads = zip(networks[0].head.parameters(), start.head.parameters(), strict=True)
    assert not all(torch.allclose(after, before) for after, before in heads)
