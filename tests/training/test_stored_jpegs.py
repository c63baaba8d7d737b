"""A run whose images are stored as JPEGs: it trains, goes on after a kill, predicts new images, has its own stamp."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from digits_toys import RECIPE, SETTINGS, prepare_digits
from podium.config.schema import changed_keys
from podium.data.cache import open_images
from podium.errors import ChangedDataError, DataError
from podium.plan.stamp import run_stamp
from podium.training import checkpoint
from podium.training.batches.stores import open_recipe_images
from podium.training.predict import open_predictor
from podium.training.progress import Listener
from podium.training.run import train_run

KEYS = 'stored_format = "jpeg"\n'


@pytest.fixture
def workspace(tmp_path):
    """Digits that are stored as pixels, for tiny.s1, and as JPEGs, for jpegs.s1."""
    files = {
        "competition.toml": SETTINGS + "rows = 297",
        "tiny.toml": RECIPE,
        "jpegs.toml": RECIPE.replace("epochs = 2", "epochs = 1") + KEYS,
    }
    return prepare_digits(tmp_path, "digits", files)


def run_of(workspace, name="jpegs.s1"):
    return next(run for run in workspace.runs if run.run == name)


class AfterSteps(Listener):
    """Calls a function after so many steps."""

    def __init__(self, steps, call):
        self.steps, self.call = steps, call

    def step(self, share_done, images_per_second):
        self.steps -= 1
        if self.steps == 0:
            self.call()


def stop():
    raise KeyboardInterrupt


def test_a_run_trains_goes_on_after_a_kill_and_predicts_new_images_as_it_predicted_those_of_the_test(
    workspace, monkeypatch
):
    monkeypatch.setattr(checkpoint, "MOST_SHARE", float("inf"))  # save, however long that takes
    run = run_of(workspace)
    expected = train_run(workspace, run)
    workspace = replace(workspace, competition=replace(workspace.competition, checkpoint_minutes=0.0))
    with pytest.raises(KeyboardInterrupt):
        train_run(workspace, run, listener=AfterSteps(9, stop))
    assert workspace.paths.checkpoint_file(run.run, "fold0").is_file()
    predictions = train_run(workspace, run)
    assert np.array_equal(predictions.oof_logits, expected.oof_logits)
    assert np.array_equal(predictions.test_logits, expected.test_logits)
    assert (predictions.oof_logits.argmax(axis=1) == predictions.oof_labels).mean() > 0.6
    originals, folder = open_images(workspace.paths, workspace.lock, pixels=16, shape="crop"), workspace.paths.root
    for number, image in enumerate(originals.test_images[:9]):
        Image.fromarray(image).save(folder / f"{number}.png")
    predictor = open_predictor(workspace, [run.run])
    rows = np.concatenate(list(predictor.predict([folder / f"{number}.png" for number in range(9)])))
    assert np.allclose(rows, predictions.target.probabilities(predictions.test_logits[:9]), atol=1e-6)


@pytest.mark.parametrize("is_decodable", [True, False])
def test_jpegs_that_change_while_a_run_trains_are_refused_in_one_message(workspace, is_decodable):
    (file,) = workspace.paths.cache.rglob("images-16-crop-jpeg.npy")
    offsets = open_recipe_images(workspace, run_of(workspace).recipe).images.offsets
    place, size = (int(offsets[1]) - 4, 1) if is_decodable else (int(offsets[1]), 400_000)

    def damage():
        with file.open("r+b") as stream:
            stream.seek(place)
            content = bytes(byte ^ 1 for byte in stream.read(size))
            stream.seek(place)
            stream.write(content)

    kind, what = (ChangedDataError, "changed during the training") if is_decodable else (DataError, "are damaged")
    with pytest.raises(kind, match=f"(?s){what}.*{file.name}"):
        train_run(workspace, run_of(workspace), listener=AfterSteps(2, damage))
    with pytest.raises(DataError, match=f"(?s)images are damaged.*rm .*{file.name} && make prepare"):
        train_run(workspace, run_of(workspace))
    assert not workspace.paths.predictions_file("jpegs.s1").exists()


def test_the_format_is_in_the_stamp_only_where_it_is_not_the_default(workspace):
    settings, run = workspace.competition, run_of(workspace)
    stamps = [
        run_stamp(settings, replace(run.recipe, **keys), 1, lock_sha256="")
        for keys in ({}, {"stored_format": "pixels"}, {"stored_format": "jpeg"})
    ]
    assert "stored_format" not in changed_keys(replace(run.recipe, stored_format="pixels"))
    assert stamps[0] == stamps[2] != stamps[1]
