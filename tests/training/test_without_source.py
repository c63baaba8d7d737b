"""After `prepare`, training needs the decoded images only."""

import shutil

import numpy as np
from PIL import Image

from digits_toys import RECIPE
from podium.data.prepare import prepare
from podium.training.run import train_run
from podium.workspace import open_workspace

SETTINGS = """
title = "Cats and dogs"
[data]
source = "folders"
archive = "pets"
[validation]
rows = 4
"""


def test_a_run_trains_after_its_original_images_were_deleted(tmp_path):
    generator = np.random.default_rng(0)
    names = [f"train/{label}/{i}" for label in ("cat", "dog") for i in range(8)] + ["test/a", "test/b"]
    for name in names:
        file = tmp_path / "data/pets" / f"{name}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(file)
    settings = tmp_path / "competitions/pets"
    settings.mkdir(parents=True)
    (settings / "competition.toml").write_text(SETTINGS)
    (settings / "tiny.toml").write_text(RECIPE.replace("epochs = 2", "epochs = 1"))
    prepare(open_workspace("pets", tmp_path))
    shutil.rmtree(tmp_path / "data")
    workspace = open_workspace("pets", tmp_path)
    predictions = train_run(workspace, workspace.runs[0])
    assert predictions.test_ids.tolist() == ["a", "b"] and len(predictions.oof_ids) == 4
