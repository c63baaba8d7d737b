"""lr_find: what its curve says, and the files that keep it."""

import csv
import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from podium.config.keys import Augment, FastNet, Recipe
from podium.errors import TrainingError
from podium.training import learner as learner_module
from podium.training.batches.loader import PixelStore
from podium.training.learner import find_learning_rate
from podium.training.lr_curve import write_finding
from podium.training.lr_find import finding_of
from podium.training.progress import Listener
from podium.training.rows import Material

TINY = Recipe(
    architecture="timm:test_resnet",
    epochs=1,
    learning_rate=0.02,
    batch_size=20,
    stored_pixels=16,
    dropout=0.3,
    augment=Augment(flip="horizontal", shift_pixels=1),
)
RATES = [1e-7 * 10 ** (8 * step / 100) for step in range(100)]


def material() -> Material:
    """Dark and bright noise: 80 images that anything can tell apart."""
    labels = np.arange(80) % 2
    images = np.random.default_rng(0).integers(0, 120, (80, 16, 16, 3)) + labels[:, None, None, None] * 110
    images, rows = images.astype(np.uint8), np.arange(80)
    return Material(PixelStore(images, torch.device("cpu")), images, labels, 2, rows, rows[:0])


def found(recipe, folder, **options):
    torch.set_num_threads(1)
    return find_learning_rate(recipe, material(), seed=1, root=folder, **options)


def valley_shaped():
    """Flat to 1e-4, falling to 1e-2, rising after it."""
    return [2 - max(0, min(1, (math.log10(rate) + 4) / 2)) + max(0, math.log10(rate) + 1.5) for rate in RATES]


def curve(losses):
    return finding_of(RATES[: len(losses)], losses, seconds=12.34, batch_size=20, rows=80)


def test_suggestions_lie_where_the_loss_falls():
    finding = curve(valley_shaped())
    assert list(finding.suggestions) == ["valley", "slide", "steep", "minimum"]
    assert 1e-4 < finding.suggestions["steep"] < 1e-2 and 1e-4 < finding.rate < 1e-2
    assert finding.rate == finding.suggestions["valley"] in RATES
    assert len(finding.rates) == len(finding.losses) == 100


@pytest.mark.parametrize("ruin", [math.nan, math.inf])
def test_a_curve_ends_before_the_first_loss_that_is_no_number(ruin):
    losses = valley_shaped()
    losses[90] = ruin
    assert curve(losses).losses == tuple(valley_shaped()[:90])
    losses[20] = ruin
    with pytest.raises(TrainingError, match=r"(?s)no learning rate.*20 steps.*no number.*learning_rate"):
        curve(losses)


def test_the_shortest_curve_that_can_be_read_is_read():
    assert len(curve(valley_shaped()[:31]).rates) == 31
    with pytest.raises(TrainingError, match="30 steps until the loss diverged"):
        curve(valley_shaped()[:30])


def test_a_finding_is_kept_as_table_suggestions_and_picture(tmp_path):
    finding = curve(valley_shaped())
    picture = write_finding(tmp_path / "lr-find", "tiny", finding)
    with (tmp_path / "lr-find" / "tiny.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["learning_rate"]) for row in rows] == pytest.approx(RATES, rel=1e-5)
    assert [float(row["loss"]) for row in rows] == pytest.approx(list(finding.losses), rel=1e-5)
    assert json.loads((tmp_path / "lr-find" / "tiny.json").read_text()) == {
        "recipe": "tiny",
        "suggestions": finding.suggestions,
        "used": "valley",
        "seconds": 12.3,
        "batch_size": 20,
    }
    with Image.open(picture) as image:
        assert image.width > image.height > 500 and image.getpixel((2, 2))[:3] == (255, 255, 255)


def test_a_real_finder_repeats_and_leaves_every_other_stream_alone(tmp_path):
    torch.manual_seed(5)
    np.random.seed(5)
    state, other = torch.get_rng_state(), np.random.get_state()[1].copy()
    first = found(TINY, tmp_path)
    assert torch.equal(torch.get_rng_state(), state) and np.array_equal(np.random.get_state()[1], other)
    torch.manual_seed(6)
    assert found(TINY, tmp_path).losses == first.losses
    assert first.rates[0] == 1e-7 and 30 < len(first.rates) <= 100
    assert 1e-7 < first.rate < 10 and (first.batch_size, first.rows) == (20, 80)


def test_a_finder_tells_how_far_it_is(tmp_path):
    class Remembering(Listener):
        def __init__(self):
            self.shares = []

        def step(self, share_done, images_per_second):
            self.shares.append(share_done)

    listener = Remembering()
    finding = found(TINY, tmp_path, listener=listener)
    assert listener.shares == pytest.approx([(step + 1) / 100 for step in range(len(finding.rates))])


def test_the_finder_moves_each_list_as_training_does_but_for_muons_filters():
    recipe = replace(TINY, bias_ratio=2, discriminative_ratio=100)
    assert learner_module._finder_rates(recipe, 1.0, groups=2) == pytest.approx([0.1, 0.1, 0.2, 10, 10, 20])
    muon = replace(recipe, optimiser="muon", muon_rate=0.5)
    assert learner_module._finder_rates(muon, 1.0, groups=2) == pytest.approx([0, 0.1, 0.2, 0, 10, 20])


def test_a_finder_for_muon_leaves_the_filters_turned_as_they_were(tmp_path, monkeypatch):
    kept = []
    build = learner_module.build_network

    def remember(*arguments, **options):
        kept.append(build(*arguments, **options))
        return kept[0]

    monkeypatch.setattr(learner_module, "build_network", remember)
    # fastai's finder brings the parameters back in the end.
    monkeypatch.setattr(learner_module.LRFinder, "after_fit", lambda self: None)
    fast = replace(
        TINY, architecture="fastnet", fastnet=FastNet(widths=(16, 16)), optimiser="muon", bias_ratio=2.0, dropout=0.0
    )
    found(fast, tmp_path)
    moved = [p for p in kept[0].parameters() if p.requires_grad and p.ndim > 2]
    start = build(fast, 2, root=tmp_path, seed=learner_module.stream_seed(1, "network/lr-find"))
    began = [p for p in start.parameters() if p.requires_grad and p.ndim > 2]
    for one, then in zip(moved, began, strict=True):
        assert torch.allclose(one / one.norm(), then / then.norm(), atol=1e-5)
    heads = zip(kept[0].head.parameters(), start.head.parameters(), strict=True)
    assert not all(torch.allclose(one, then) for one, then in heads)
