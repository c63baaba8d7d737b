"""Several processes train the network that one process trains; none outlives the fit."""

import multiprocessing
import os
import threading
import time
from concurrent.futures import Future
from dataclasses import replace
from queue import Queue

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.distributed import TCPStore

from digits_toys import RECIPE, digits_workspace
from podium.config.keys import Augment
from podium.config.recipe import recipe_of
from podium.errors import ConfigError, DataError, TrainingError
from podium.predictions.artefact import load_predictions
from podium.training import checkpoint as checkpoint_module
from podium.training import device as device_module
from podium.training import ranks as ranks_module
from podium.training.batches.loader import TrainingLoader
from podium.training.device import StepMemoryError, check_machine, computing, spread_over_gpus
from podium.training.estimate import check_recipes, estimate_seconds
from podium.training.learner import Learner, fit_network, prepare_network
from podium.training.progress import Listener, ProgressRecorder
from podium.training.ranks import Ranks, open_ranks
from podium.training.run import train_run
from ranks_toys import die, run_out_of_memory
from training_toys import TINY, data_of, help_with_toys

# float32 adds the gradients of the processes in another order than those of one batch.
TOLERANCE = 2e-6
LAYER_NORMS = replace(
    TINY,
    architecture="timm:test_convnext",
    training_pixels=32,
    precision="float32",
    learning_rate=0.002,
    batch_size=11,
    accumulate=2,
    hard_share=0.6,
    ema_decay=0.9,
    gradient_clip=1.0,
    augment=Augment(flip="horizontal", shift_pixels=1, rotate_degrees=5, brightness=0.1, cutout_pixels=4),
)
BATCH_NORMS = replace(TINY, precision="float32", augment=Augment(flip="alternating"))


def fitted(recipe, folder, **keys):
    """The parameters, their largest running statistic, and the losses of the epochs."""
    torch.set_num_threads(1)
    progress = ProgressRecorder(Listener(), images=1)
    parts = keys.pop("parts", 1)
    network = fit_network(recipe, replace(data_of(), parts=parts), root=folder, progress=progress, **keys)
    return dict(network.named_parameters()), [report.training_loss for report in progress.epochs]


def furthest(first, second) -> float:
    """The largest difference of parameters."""
    return max(float((first[name] - second[name]).abs().max().detach()) for name in first)


def test_two_processes_train_the_parameters_of_one(tmp_path):
    """With batch norms, those of one that takes each batch in two parts: a norm sees the images of its process."""
    recipes = (LAYER_NORMS, BATCH_NORMS)
    with open_ranks(2, [], help_with_toys, *recipes) as ranks:
        of_two = [fitted(recipe, tmp_path, ranks=ranks) for recipe in recipes]
    for (two, losses), recipe, parts in zip(of_two, recipes, (1, 2), strict=True):
        one, losses_of_one = fitted(recipe, tmp_path, parts=parts)
        assert furthest(two, one) < TOLERANCE
        assert losses == pytest.approx(losses_of_one, abs=2e-5)
    assert furthest(two, fitted(BATCH_NORMS, tmp_path)[0]) > 1e-3, "one norm of the whole batch is another training"
    assert not multiprocessing.active_children()


def test_running_statistics_are_the_mean_of_those_of_all_processes(tmp_path, monkeypatch):
    monkeypatch.setattr(Ranks, "add", lambda _, tensors: [tensor.mul_(2) for tensor in tensors])  # of two equal ones

    def statistics(ranks):
        torch.manual_seed(0)
        learner = Learner(prepare_network(BATCH_NORMS, data_of(), root=tmp_path), data_of(), ranks=ranks)
        images, targets = torch.rand(10, 3, 16, 16), torch.arange(10) % 2
        learner.loader.last_rows = torch.arange(10 * ranks.count)
        learner.step(images, targets)
        return {name: value for name, value in learner.network.named_buffers() if "running" in name}

    assert furthest(statistics(Ranks(0, 2)), statistics(Ranks())) == 0


def test_a_killed_run_of_two_processes_goes_on_and_is_as_good_as_that_of_one(tmp_path, monkeypatch):
    class Killer(Listener):
        steps = 0

        def step(self, share_done, images_per_second):
            self.steps += 1
            if self.steps == 20:
                raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint_module, "MOST_SHARE", float("inf"))  # save after the first epoch, of 16 steps
    keys = f"{RECIPE}precision = 'float32'\n"
    one, two = (
        digits_workspace(tmp_path / name, recipe=keys + more)
        for name, more in (("one", "accumulate = 2\n"), ("two", "processes = 2\n"))
    )
    (run,) = one.runs
    train_run(one, replace(run, recipe=replace(run.recipe, batch_size=32)))
    (run,) = two.runs
    with pytest.raises(KeyboardInterrupt):
        train_run(two, run, listener=Killer())
    assert not multiprocessing.active_children()
    listener = Killer()
    listener.steps = 20
    train_run(two, run, listener=listener)
    assert listener.steps == 20 + 16, "only the second epoch is trained again"
    parameters = [load_file(workspace.paths.parameters_file(run.run)) for workspace in (one, two)]
    trained = [{name: of_run[name] for name in of_run if name.endswith(("weight", "bias"))} for of_run in parameters]
    assert furthest(*trained) < TOLERANCE
    scores = [load_predictions(workspace.paths.predictions_file(run.run)).about["scores"] for workspace in (one, two)]
    assert scores[1]["accuracy"] == pytest.approx(scores[0]["accuracy"], abs=0.04)  # 297 rows
    assert not two.paths.checkpoint_file(run.run, "fold0").exists()


@pytest.mark.parametrize(
    ("end", "error", "words"),
    [(die, TrainingError, "was killed"), (run_out_of_memory, StepMemoryError, "allocate memory")],
)
def test_a_process_that_ends_ends_all_with_one_error(end, error, words):
    with pytest.raises(error, match=words), open_ranks(2, [], end) as ranks:
        ranks.connect()
        while True:
            ranks.add([torch.ones(1)])
    assert not multiprocessing.active_children()
    assert not torch.distributed.is_initialized()


@pytest.mark.parametrize(
    ("raised", "sent"),
    [(DataError("no image"), DataError), (RuntimeError("DefaultCPUAllocator: can't allocate memory"), StepMemoryError)],
)
def test_rank_0_raises_the_error_of_another_process(monkeypatch, raised, sent):
    def fail(ranks):
        raise raised

    helper, store = Future(), TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    with pytest.raises(sent, match=r"no image|memory") as error:
        ranks_module._help(Ranks(1, 2), [], fail, ())
    helper.set_exception(error.value)
    with pytest.raises(sent, match=r"no image|memory"):
        Ranks(0, 2, port=store.port, helpers=[helper]).connect()


def test_a_process_that_waits_in_a_gpu_for_a_dead_one_is_ended(monkeypatch, capsys):
    codes, ended, helper = Queue(), threading.Event(), Future()
    monkeypatch.setattr(ranks_module, "GRACE_SECONDS", 0.01)
    monkeypatch.setattr(os, "_exit", codes.put)
    helper.set_exception(RuntimeError("no GPU"))
    ranks_module._end_if_stuck(helper, ended=ended)
    assert codes.get(timeout=60) == 2 and "no GPU" in capsys.readouterr().err
    ended.set()
    ranks_module._end_if_stuck(helper, ended=ended)
    time.sleep(0.1)
    assert codes.empty(), "it noticed by itself"


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize(
    "keys",
    [
        {"augment": Augment(flip="alternating", shift_pixels=2)},
        {"hard_share": 0.5, "mixup": 0.0, "augment": Augment(flip="horizontal", crop=0.5)},
        {"sampling": "balanced", "augment": Augment(zoom=1.2, contrast=0.1, cutout_pixels=3)},
    ],
)
def test_the_processes_batches_together_are_those_of_one_process(count, keys):
    recipe, data = replace(TINY, **keys), data_of()
    loaders = [
        TrainingLoader(recipe, data, normalisation=data.normalisation, ranks=Ranks(rank, of))
        for of in (1, count)
        for rank in range(of)
    ]
    for _ in range(2):
        for (images, targets), *parts in zip(*loaders, strict=True):
            assert max(len(part) for part, _ in parts) - min(len(part) for part, _ in parts) <= 1
            assert torch.equal(torch.cat([part for part, _ in parts]), images)
            assert torch.equal(torch.cat([part for _, part in parts]), targets)
            for loader in loaders:
                loader.record_losses(images.mean(dim=(1, 2, 3)))


def test_each_process_mixes_and_drops_by_draws_of_its_own_which_repeat():
    recipe, data = replace(TINY, mixup=0.5), data_of()

    def seeds(rank):
        loader = TrainingLoader(recipe, data, normalisation=data.normalisation, ranks=Ranks(rank, 2))
        return [loader.seed_of_batch for _ in loader]

    assert seeds(0) == seeds(0) and not {*seeds(0)} & {*seeds(1)}


def test_processes_without_a_core_or_a_gpu_each_are_refused_before_training(tmp_path, monkeypatch):
    workspace = digits_workspace(tmp_path, recipe=f"{RECIPE}processes = 3\nthreads = 2\n")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(4))
    message = r"(?s)tiny.*expected: *6 cores.*found: *4 cores.*processes = 2"
    with pytest.raises(TrainingError, match=message):
        check_recipes(workspace, workspace.runs)
    check_recipes(workspace, workspace.runs, here=False)
    with pytest.raises(TrainingError, match=message):
        train_run(workspace, workspace.runs[0])
    with pytest.raises(TrainingError, match=r"(?s)expected: *9 cores.*found: *4 cores.*threads = 4"):
        check_machine(replace(workspace.runs[0].recipe, threads=9, processes=1), tmp_path)
    with computing("heat maps", tmp_path, workspace.runs[0].recipe) as gpus:  # by one process
        assert not gpus
    assert estimate_seconds(workspace, workspace.runs), "of machines elsewhere"
    monkeypatch.setattr(device_module, "count_gpus", lambda: 2)
    with pytest.raises(TrainingError, match=r"(?s)expected: *3 GPUs.*found: *2 GPUs"):
        check_machine(workspace.runs[0].recipe, tmp_path)


def test_each_process_gets_a_gpu_of_its_own_and_those_of_another_run_come_last(monkeypatch):
    monkeypatch.setattr(device_module, "count_gpus", lambda: 4)
    monkeypatch.setattr(torch.cuda, "device", lambda _: threading.Lock())
    with spread_over_gpus() as first, spread_over_gpus(2) as second, spread_over_gpus(3) as third:
        assert (first, second, third) == ([0], [1, 2], [3, 0, 1])


def test_a_batch_without_two_images_for_each_process_is_refused(tmp_path):
    table = {"architecture": "fastnet", "epochs": 1, "learning_rate": 0.1, "batch_size": 6, "processes": 4}
    with pytest.raises(ConfigError, match="processes = 4: expected a batch_size of two images"):
        recipe_of(table, tmp_path / "a.toml")
    recipe, data = replace(TINY, processes=4), replace(data_of(), training_rows=np.arange(7))
    with pytest.raises(TrainingError, match=r"(?s)Too few training images.*8 or more.*found: *7"):
        TrainingLoader(recipe, data, normalisation=data_of().normalisation, ranks=Ranks(0, 4))
