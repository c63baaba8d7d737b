"""Errors of training name the run and its recipe."""

import pytest
import torch

from podium.errors import DeviceMemoryError
from podium.training.errors import name_run_in_errors


def test_a_full_device_memory_is_an_error_with_the_run_and_its_recipe(tmp_path):
    message = r"(?s)^vgg19\.s1: The device has too little memory\..*vgg19\.toml.*tried to allocate.*make -j1"
    with pytest.raises(DeviceMemoryError, match=message), name_run_in_errors("vgg19.s1", tmp_path / "vgg19.toml"):
        raise torch.OutOfMemoryError("CUDA out of memory: tried to allocate 2 GiB\nand more")
