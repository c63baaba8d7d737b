"""Features of a pretrained body: computed once for each content, kept in the cache, and used by every head on them."""

from dataclasses import replace

import numpy as np
import pytest
import timm
import torch

from digits_toys import damage_images, digits_workspace, save_test_images
from podium.data.cache import open_images
from podium.errors import DataError, TrainingError
from podium.training import inference
from podium.training.batches.stores import PixelStore
from podium.training.inference import embed, pooled_features
from podium.training.lr_find import find_learning_rate_of_run
from podium.training.networks.architectures import build_network
from podium.training.predict import open_predictor, predict_images
from podium.training.progress import Listener
from podium.training.run import train_run

RECIPE = 'architecture = "timm:test_resnet"\npretrained = "weights.pth"\nprecision = "float32"\nstored_pixels = 16\n'


@pytest.fixture
def workspace(tmp_path):
    torch.manual_seed(0)
    torch.save(timm.create_model("test_resnet").state_dict(), tmp_path / "weights.pth")
    return digits_workspace(tmp_path, recipe=RECIPE)


def files(workspace):
    return sorted((workspace.paths.cache / "features").glob("*.npz"))


def forbid_computing(monkeypatch):
    monkeypatch.setattr(inference, "predict_logits", lambda *_, **__: pytest.fail("features are computed again"))


def test_embed_keeps_the_features_of_all_images_and_runs_use_them(workspace, monkeypatch):
    (run,) = workspace.runs
    shapes = dict(embed(workspace, run))
    assert shapes["train"][0] == 1297 and shapes["test"][0] == 500 and len(files(workspace)) == 2
    with monkeypatch.context() as patch:
        forbid_computing(patch)
        assert dict(embed(workspace, run)) == shapes
        kept = train_run(workspace, run)
    for file in files(workspace):
        file.unlink()
    computed = train_run(workspace, run)
    assert np.array_equal(computed.oof_logits, kept.oof_logits) and len(files(workspace)) == 2


def test_features_of_an_image_do_not_depend_on_the_images_beside_it(workspace):
    """So a run has the same bits whether its features were kept before or not."""
    (run,) = workspace.runs
    recipe, device = run.recipe, torch.device("cpu")
    network = build_network(recipe, 10, root=workspace.paths.root, seed=0)
    images = open_images(workspace.paths, workspace.lock, pixels=16, shape="crop").train_images
    whole, rows = pooled_features(network, PixelStore(images, device), np.arange(1297)), np.arange(3, 1297, 7)
    assert np.array_equal(pooled_features(network, PixelStore(images, device), rows), whole[rows])


def test_a_run_on_some_of_the_images_keeps_no_features(workspace):
    (run,) = workspace.runs
    train_run(workspace, run, rows=np.arange(0, 1297, 2))
    assert not files(workspace)


def test_other_weights_sizes_or_pixels_have_other_features(workspace, tmp_path):
    (run,) = workspace.runs
    list(embed(workspace, run))
    for count, change in enumerate(({"training_pixels": 24}, {"test_time_augmentation": "flip"}, {"threads": 2}), 2):
        list(embed(workspace, replace(run, recipe=replace(run.recipe, **change))))
        assert len(files(workspace)) == 2 * count, change
    for same in ({"head": "linear", "epochs": 3, "learning_rate": 0.1}, {"head": "boosting"}):
        list(embed(workspace, replace(run, recipe=replace(run.recipe, **same))))
        assert len(files(workspace)) == 8, same
    torch.save(timm.create_model("test_resnet").state_dict(), tmp_path / "weights.pth")
    list(embed(workspace, run))
    assert len(files(workspace)) == 10


def test_a_damaged_file_is_computed_again_and_damaged_pixels_leave_none(workspace):
    (run,) = workspace.runs
    list(embed(workspace, run))
    file = files(workspace)[0]
    content = file.read_bytes()
    file.write_bytes(content[:5000] + b"damaged" + content[5007:])
    list(embed(workspace, run))
    assert file.read_bytes() == content
    for kept in files(workspace):
        kept.unlink()
    damage_images(workspace)
    with pytest.raises(DataError, match="images are damaged"):
        list(embed(workspace, run))
    assert not files(workspace)


def test_a_network_without_pretrained_weights_has_no_features_and_lr_find_needs_epochs(workspace):
    (run,) = workspace.runs
    with pytest.raises(TrainingError, match=r"not trained(?s:.*)expected: +pretrained weights"):
        list(embed(workspace, replace(run, recipe=replace(run.recipe, pretrained=False, head="linear"))))
    with pytest.raises(TrainingError, match="No layer is trained"):
        find_learning_rate_of_run(workspace, run, listener=Listener())


def test_a_boosting_run_is_scored_saved_and_predicts(workspace, tmp_path, monkeypatch):
    monkeypatch.setattr("podium.training.networks.heads.ITERATIONS", 10)
    (run,) = workspace.runs
    predictions = train_run(workspace, replace(run, recipe=replace(run.recipe, head="boosting")))
    assert predictions.about["scores"]["accuracy"] > 0.5  # of ten classes, by the features of a random network
    folder, expected = save_test_images(workspace, predictions)
    assert [row["label"] for _, row in predict_images(open_predictor(workspace, [run.run]), folder)] == expected
