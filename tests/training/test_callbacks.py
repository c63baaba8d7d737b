"""What goes around a fit."""

import pytest
import torch

from podium.errors import TrainingError
from podium.training.faults import naming


def test_a_device_without_memory_is_told_on_one_screen_with_the_run_and_its_recipe(tmp_path):
    told = r"(?s)^vgg19\.s1: the device has too little memory\..*vgg19\.toml.*tried to allocate.*make -j1"
    with pytest.raises(TrainingError, match=told), naming("vgg19.s1", tmp_path / "vgg19.toml"):
        raise torch.OutOfMemoryError("CUDA out of memory: tried to allocate 2 GiB\nand more")
