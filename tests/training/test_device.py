"""Devices, precision, threads and repeatable kernels; errors that name the run; the cores that runs share."""

import contextlib
import ctypes
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from podium.config.keys import Recipe
from podium.errors import DeviceMemoryError, TrainingError
from podium.training import device as device_module
from podium.training.device import (
    claim_cores,
    cpu_threads,
    device_name,
    keep_freed_memory,
    name_run_in_errors,
    pick_device,
    repeatable,
    spread_over_gpus,
)
from podium.training.networks.architectures import build_network, pick_precision


@pytest.fixture(autouse=True)
def two_cores(tmp_path, monkeypatch):
    """Locks of this test's own, on a machine of two cores."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(device_module.tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(device_module.os, "sched_getaffinity", lambda _: {0, 1})


SOURCE = str(Path(__file__).parents[2] / "src")
HOLD = """
import sys, time, os
os.sched_getaffinity = lambda _: {0, 1}
from podium.training.device import claim_cores
with claim_cores(int(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.readline()
"""


def holder(count: int) -> subprocess.Popen:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(count)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": SOURCE},
    )
    assert process.stdout.readline() == "held\n"
    return process


def claims(count: int) -> bool:
    """Whether so many cores are free."""

    def wait():
        raise BlockingIOError

    try:
        with claim_cores(count, on_wait=wait):
            return True
    except BlockingIOError:
        return False


def test_a_run_leaves_the_cores_that_it_does_not_need():
    with claim_cores(1):
        assert claims(1) and not claims(2)
    assert claims(2)


def test_a_run_waits_for_cores_and_continues_when_the_run_that_holds_them_is_killed():
    process = holder(1)
    assert claims(1) and not claims(2)
    calls = []

    def on_wait():
        calls.append(time.monotonic())
        process.kill()
        process.wait()

    with claim_cores(2, on_wait=on_wait):
        assert len(calls) == 1


def test_the_files_that_killed_runs_have_left_are_removed():
    holders = holder(1), holder(1)  # the second core would not be claimed again
    for process in holders:
        process.kill()
        process.wait()
    folder = device_module._lock_folder()
    assert len(list(folder.iterdir())) == 2
    with claim_cores(1):
        assert len(list(folder.iterdir())) == 1
    assert not any(folder.iterdir())


def test_a_waiting_run_can_be_cancelled():
    def on_wait():
        raise InterruptedError("enough")

    with claim_cores(64), pytest.raises(InterruptedError, match="enough"), claim_cores(1, on_wait=on_wait):
        pytest.fail("the cores were held")
    assert claims(64), "the cancelled run holds no core"


def test_a_run_with_more_threads_than_cores_claims_all_cores():
    with claim_cores(64, on_wait=lambda: pytest.fail("all cores are free")):
        assert not claims(1)
    assert claims(1)


def test_runs_are_spread_over_the_gpus(monkeypatch):
    monkeypatch.delenv("PODIUM_DEVICE", raising=False)
    chosen = []
    monkeypatch.setattr(torch.cuda, "device", lambda gpu: contextlib.nullcontext(chosen.append(gpu)))
    for count in (1, 3):
        monkeypatch.setattr(torch.cuda, "device_count", lambda count=count: count)
        with spread_over_gpus(), spread_over_gpus(), spread_over_gpus(), spread_over_gpus():
            pass
    assert chosen == [0, 1, 2, 0], "one GPU has all runs; of three, the first has two of four"
    monkeypatch.setenv("PODIUM_DEVICE", "cuda:0")
    with spread_over_gpus():
        assert len(chosen) == 4


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="this C library has no mallopt")
def test_freed_memory_is_used_again_without_asking_the_system():
    script = """
import resource, numpy
from podium.training.device import cpu_threads
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    numpy.ones(10_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults(), print(faults())
with cpu_threads(1):
    faults(), print(faults())
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    before, after = map(int, ended.stdout.split())
    assert after < before / 10


def test_a_c_library_without_mallopt_is_left_as_it_is(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    keep_freed_memory()


def test_cpu_threads_are_set_and_restored():
    before = torch.get_num_threads()
    with cpu_threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


CPU = torch.device("cpu")


def torch_settings() -> tuple[bool, bool]:
    return torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark


def test_repeatable_sets_deterministic_kernels_and_restores_torchs_settings(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    before = torch_settings()
    assert before == (False, True)
    with repeatable(False, CPU):
        assert torch_settings() == before
    with repeatable(True, CPU):
        assert torch_settings() == (True, False)
    assert torch_settings() == before


def test_cudnn_measures_its_kernels_on_a_gpu_where_a_run_need_not_repeat(monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    for deterministic in (False, True):
        with repeatable(deterministic, torch.device("cuda")):
            assert torch.backends.cudnn.benchmark is not deterministic
        assert not torch.backends.cudnn.benchmark


def test_an_operation_that_does_not_repeat_is_named_and_torchs_settings_are_restored():
    before = torch_settings()
    place, value = torch.tensor([1]), torch.tensor([2.0])
    message = r"(?s)does not repeat.*found: *put_ .*deterministic = false"
    with pytest.raises(TrainingError, match=message), repeatable(True, CPU):
        torch.zeros(3).put_(place, value)
    assert torch_settings() == before
    with repeatable(False, CPU):
        torch.zeros(3).put_(place, value)
    with pytest.raises(RuntimeError, match="another"), repeatable(True, CPU):
        raise RuntimeError("another")


def test_on_a_gpu_cublas_is_set_to_repeat_whatever_the_recipe_says(monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    with repeatable(False, CPU):
        assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ
    with repeatable(False, torch.device("cuda")):
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":0:0")
    with (
        pytest.raises(TrainingError, match=r"found: *Deterministic behavior.*CUBLAS"),
        repeatable(True, torch.device("cuda")),
    ):
        raise RuntimeError(
            "Deterministic behavior was enabled but ... is not deterministic because ... CUBLAS, set ..."
        )


def test_two_kinds_of_cpu_have_two_names(tmp_path, monkeypatch):
    names = []
    for model in ("Xeon", "EPYC"):
        (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nmodel name\t: {model}\n")
        monkeypatch.setattr(device_module, "Path", lambda _: tmp_path / "cpuinfo")
        names.append(device_name(torch.device("cpu")))
    assert names[0].startswith("cpu, ") and names[0].endswith(", Xeon") and names[1].endswith(", EPYC")
    (tmp_path / "cpuinfo").unlink()
    assert device_name(torch.device("cpu")).startswith("cpu, ")


def test_the_error_for_a_missing_device_names_the_available_ones(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setenv("PODIUM_DEVICE", "cpu")
    assert pick_device() == torch.device("cpu")
    for name in ("cuda", "foo"):
        monkeypatch.setenv("PODIUM_DEVICE", name)
        with pytest.raises(TrainingError, match=f"(?s)one of cpu\n.*PODIUM_DEVICE={name}.*unset PODIUM_DEVICE"):
            pick_device()


def test_the_first_gpu_is_the_default(monkeypatch):
    monkeypatch.delenv("PODIUM_DEVICE", raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert pick_device() == torch.device("cuda")
    monkeypatch.setenv("PODIUM_DEVICE", "cuda:1")
    assert pick_device() == torch.device("cuda:1")
    monkeypatch.setenv("PODIUM_DEVICE", "cuda:2")
    with pytest.raises(TrainingError, match="cuda, cuda:0, cuda:1, cpu"):
        pick_device()


def test_auto_is_bfloat16_only_where_the_cpu_has_it(monkeypatch):
    def chosen(architecture: str, precision: str = "auto") -> torch.dtype:
        recipe = Recipe(architecture=architecture, epochs=1, learning_rate=0.1, precision=precision)
        network = build_network(recipe, 2, root=None, seed=1)
        return pick_precision(recipe, network, torch.device("cpu"))

    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    assert chosen("timm:resnet10t") == torch.bfloat16
    assert chosen("efficientnet_b0") == torch.bfloat16
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True})
    assert chosen("timm:resnet10t") == torch.float32
    assert chosen("timm:resnet10t", "bfloat16") == torch.bfloat16


@pytest.mark.parametrize(
    ("has_bfloat16", "precision", "expected"),
    [
        (True, "auto", torch.bfloat16),
        (False, "auto", torch.float16),
        (False, "bfloat16", torch.bfloat16),
        (False, "float32", torch.float32),
    ],
)
def test_a_gpu_without_bfloat16_trains_in_float16(monkeypatch, has_bfloat16, precision, expected):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: has_bfloat16)
    recipe = Recipe(architecture="timm:resnet10t", epochs=1, learning_rate=0.1, precision=precision)
    assert pick_precision(recipe, torch.nn.Identity(), torch.device("cuda")) == expected


def test_a_stride_longer_than_the_image_is_never_trained_in_bfloat16_on_a_cpu(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})

    def chosen(pixels: int, **keys) -> torch.dtype:
        recipe = Recipe(architecture="timm:test_resnet", epochs=1, learning_rate=0.1, stored_pixels=pixels, **keys)
        return pick_precision(recipe, build_network(recipe, 2, root=None, seed=1), torch.device("cpu"))

    assert chosen(64) == torch.bfloat16
    assert chosen(16) == torch.float32
    assert chosen(64, progressive_pixels=(16,)) == torch.float32
    with pytest.raises(TrainingError, match="at 16 pixels"):
        chosen(16, precision="bfloat16")


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
