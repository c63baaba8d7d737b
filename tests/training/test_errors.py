"""Errors of training name the run and its recipe."""

import numpy as np
import pytest
import torch

from podium.errors import DeviceMemoryError
from podium.training.errors import name_run_in_errors


def test_a_full_device_memory_is_an_error_with_the_run_and_its_recipe(tmp_path):
    message = r"(?s)^vgg19\.s1: The device has too little memory\..*vgg19\.toml.*tried to allocate.*make -j1"
    with pytest.raises(DeviceMemoryError, match=message), name_run_in_errors("vgg19.s1", tmp_path / "vgg19.toml"):
        raise torch.OutOfMemoryError("CUDA out of memory: tried to allocate 2 GiB\nand more")


@pytest.mark.parametrize("allocate", [torch.empty, np.empty, bytearray])
def test_a_full_memory_of_a_cpu_is_the_same_error(tmp_path, allocate):
    with pytest.raises(DeviceMemoryError, match="too little memory"), name_run_in_errors("a.s1", tmp_path / "a.toml"):
        allocate(1 << 50)


def test_another_runtime_error_stays_as_it_is(tmp_path):
    with pytest.raises(RuntimeError, match="a bug"), name_run_in_errors("a.s1", tmp_path / "a.toml"):
        raise RuntimeError("a bug")
