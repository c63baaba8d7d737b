"""One run from its recipe to its files."""

import csv
import errno
import json
import shutil
from contextlib import contextmanager
from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load, save_file

from digits_toys import RECIPE, damage_images, digits_workspace, save_test_images
from podium.data.cache import open_images
from podium.data.digits import digits_answers
from podium.data.image_file import ImageFile
from podium.errors import ChangedDataError, DataError, DeviceMemoryError, TrainingError
from podium.predictions import artefact
from podium.predictions.artefact import load_predictions
from podium.training import predict as predict_module
from podium.training import run as run_module
from podium.training.batches import stores
from podium.training.networks.architectures import Network
from podium.training.predict import open_predictor, predict_images
from podium.training.progress import Listener
from podium.training.run import train_run
from podium.workspace import Workspace, open_workspace

ANSWERS = sorted(digits_answers().items())


def weights_file(folder):
    torch.manual_seed(0)
    torch.save(timm.create_model("test_resnet").state_dict(), folder / "weights.pth")
    return folder / "weights.pth"


def train_tiny(workspace: Workspace, **keys):
    (run,) = workspace.runs
    return train_run(workspace, replace(run, recipe=replace(run.recipe, **keys)))


def test_images_that_are_read_from_their_file_give_the_bits_of_mapped_ones(tmp_path, monkeypatch):
    reader, readers, logits = ImageFile.reader, [], []
    monkeypatch.setattr(ImageFile, "reader", lambda *a: readers.append(a) or reader(*a))
    for folder, most in (("mapped", 1 << 30), ("read", 0)):
        monkeypatch.setattr(stores, "MAPPED_BYTES", most)
        predictions = train_tiny(digits_workspace(tmp_path / folder), epochs=1, test_time_augmentation="flip")
        logits.append((predictions.oof_logits.tobytes(), predictions.test_logits.tobytes()))
        assert bool(readers) == (most == 0)
    assert logits[0] == logits[1]


def test_a_run_leaves_predictions_parameters_and_history_and_is_then_up_to_date(tmp_path):
    workspace = digits_workspace(tmp_path)
    train_tiny(workspace)
    loaded = load_predictions(workspace.paths.predictions_file("tiny.s1"))
    lock = workspace.lock
    validated = lock.folds >= 0
    assert loaded.oof_ids.tolist() == lock.train_ids[validated].tolist() and validated.sum() == 297
    assert loaded.oof_labels.tolist() == lock.train_labels[validated].tolist()
    assert loaded.test_ids.tolist() == lock.test_ids.tolist()
    accuracy = (loaded.oof_logits.argmax(axis=1) == loaded.oof_labels).mean()
    assert loaded.about["scores"]["accuracy"] == pytest.approx(accuracy, abs=1e-6)
    assert loaded.about["scored"] == "validation rows"
    assert loaded.about["test_logits_from"] == "this model"
    assert loaded.about["threads"] == 1 and loaded.about["precision"] in ("float32", "bfloat16")
    assert not open_workspace("digits", tmp_path).runs[0].stale
    with workspace.paths.history_file("tiny.s1").open() as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["1", "2"]


def test_a_run_with_learning_rate_find_writes_the_result_of_lr_find(tmp_path):
    workspace = digits_workspace(tmp_path)
    about = train_tiny(workspace, epochs=1, learning_rate="find").about
    folder = workspace.paths.lr_find_folder
    # Named by the run, not by the recipe: another seed beside it must not overwrite them.
    assert sorted(file.name for file in folder.iterdir()) == ["tiny.s1.csv", "tiny.s1.json", "tiny.s1.png"]
    written = json.loads((folder / "tiny.s1.json").read_text())
    assert written["suggestions"][written["used"]] == about["learning_rate"]


@pytest.mark.parametrize("head", ["linear", "logistic"])
def test_pseudo_labels_train_in_every_fold_and_are_never_scored(tmp_path, monkeypatch, head):
    workspace = digits_workspace(tmp_path, validation='kind = "k-fold"\nfolds = 2')
    (tmp_path / "pseudo.csv").write_text("id,label\n" + "".join(f"{id_},{name}\n" for id_, name in ANSWERS[:3]))
    keys = {"pretrained": str(weights_file(tmp_path)), "epochs": 0} if head == "logistic" else {"epochs": 1}
    fit, fits = run_module.fit_network, []
    monkeypatch.setattr(run_module, "fit_network", lambda *args, **keys: fits.append(args[1]) or fit(*args, **keys))
    predictions = train_tiny(workspace, head=head, pseudo_labels="pseudo.csv", refit=True, **keys)
    assert predictions.about["pseudo_labels"] == 3 and len(predictions.oof_ids) == 1297 and len(fits) == 3
    added = np.arange(1297, 1300)
    test_rows = [workspace.lock.test_ids.tolist().index(id_) for id_, _ in ANSWERS[:3]]
    images = open_images(workspace.paths, workspace.lock, pixels=16, shape="crop").test_images[test_rows]
    for data in fits:
        assert np.isin(added, data.training_rows).all() and not np.isin(added, data.validation_rows).any()
        assert [workspace.lock.classes[label] for label in data.labels[added]] == [name for _, name in ANSWERS[:3]]
        assert np.array_equal(next(data.store.batches([torch.from_numpy(added)])).gather(), images)


def test_deterministic_mode_is_on_during_training_only_and_changes_no_bit_on_a_cpu(tmp_path):
    class ModeRecorder(Listener):
        modes: ClassVar[list[bool]] = []

        def epoch(self, report):
            self.modes.append(torch.are_deterministic_algorithms_enabled())

    workspace = digits_workspace(tmp_path)
    plain = train_tiny(workspace)
    (run,) = workspace.runs
    repeating = replace(run, recipe=replace(run.recipe, deterministic=True))
    again = train_run(workspace, repeating, listener=ModeRecorder())
    assert ModeRecorder.modes == [True, True] and not torch.are_deterministic_algorithms_enabled()
    assert np.array_equal(plain.oof_logits, again.oof_logits)
    assert np.array_equal(plain.test_logits, again.test_logits)
    assert plain.about["deterministic"] and again.about["deterministic"]
    assert plain.about["recipe"]["deterministic"] is False and again.about["recipe"]["deterministic"] is True


def test_the_error_for_an_operation_without_a_deterministic_kernel_names_the_run(tmp_path, monkeypatch):
    def put(*_, **__):
        torch.zeros(3).put_(torch.tensor([1]), torch.tensor([2.0]))

    workspace = digits_workspace(tmp_path)
    monkeypatch.setattr(run_module, "fit_network", put)
    with pytest.raises(TrainingError, match=r"(?s)tiny\.s1: .*does not repeat.*tiny\.toml.*put_"):
        train_tiny(workspace, deterministic=True)


def test_k_fold_validates_every_row_once_and_averages_the_fold_models(tmp_path):
    workspace = digits_workspace(tmp_path, validation='kind = "k-fold"\nfolds = 2')
    predictions = train_tiny(workspace, epochs=1)
    assert len(predictions.oof_ids) == 1297 and np.abs(predictions.oof_logits).sum(axis=1).all()
    assert predictions.about["test_logits_from"] == "average of 2 fold models"


def test_a_refit_changes_the_test_logits_and_not_the_oof_logits(tmp_path):
    workspace = digits_workspace(tmp_path)
    plain, refit = train_tiny(workspace), train_tiny(workspace, refit=True)
    assert np.array_equal(plain.oof_logits, refit.oof_logits)
    assert not np.array_equal(plain.test_logits, refit.test_logits)
    assert refit.about["test_logits_from"] == "refit on all labelled rows"
    assert refit.about["scored"] == "validation rows, before refit"


def test_a_run_on_damaged_images_does_not_start(tmp_path):
    class EpochCounter(Listener):
        epochs = 0

        def epoch(self, report):
            self.epochs += 1

    workspace, listener = digits_workspace(tmp_path), EpochCounter()
    damage_images(workspace)
    (run,) = workspace.runs
    with pytest.raises(DataError, match=r"images are damaged(.|\n)*rm .*images-16-crop.npy && make prepare"):
        train_run(workspace, run, listener=listener)
    assert listener.epochs == 0
    assert not workspace.paths.predictions_file("tiny.s1").exists()
    assert not workspace.paths.parameters_file("tiny.s1").exists()


class Meddler(Listener):
    """Changes something after the first epoch."""

    def __init__(self, change):
        self.change = change

    def epoch(self, report):
        if report.epoch == 1:
            self.change()


@pytest.mark.parametrize(
    ("file", "mapped"), [("images-16-crop.npy", 1 << 30), ("images-16-crop.npy", 0), ("data.lock", 0)]
)
def test_a_run_whose_data_change_while_it_trains_is_refused_and_leaves_nothing(tmp_path, monkeypatch, file, mapped):
    monkeypatch.setattr(stores, "MAPPED_BYTES", mapped)
    workspace = digits_workspace(tmp_path)
    lock_file, (run,) = workspace.paths.lock_file, workspace.runs

    def change():
        if file == "data.lock":
            lock_file.write_text(lock_file.read_text() + " ")
        else:
            damage_images(workspace)

    with pytest.raises(ChangedDataError, match=f"(?s)data changed during the training.*{file}"):
        train_run(workspace, run, listener=Meddler(change))
    assert not workspace.paths.predictions_file("tiny.s1").exists()
    assert not workspace.paths.checkpoint_file("tiny.s1", "fold0").exists()


def test_a_cache_that_is_deleted_costs_no_run_in_training(tmp_path):
    workspace = digits_workspace(tmp_path)
    train_run(workspace, workspace.runs[0], listener=Meddler(lambda: shutil.rmtree(workspace.paths.cache)))
    assert workspace.paths.predictions_file("tiny.s1").exists()


@contextmanager
def memory_for(images: int):
    """A memory that has no place for a training step of more images."""

    def check(module, inputs):
        if isinstance(module, Network) and module.training and len(inputs[0]) > images:
            raise torch.OutOfMemoryError("CUDA out of memory")

    with torch.nn.modules.module.register_module_forward_pre_hook(check):
        yield


@pytest.mark.parametrize("keys", [{"epochs": 2}, {"epochs": 1, "learning_rate": "find"}])
def test_a_step_that_the_memory_cannot_hold_is_taken_in_parts_and_the_description_says_so(tmp_path, keys):
    workspace = digits_workspace(tmp_path)
    expected = train_tiny(workspace, batch_size=16, accumulate=4, **keys)
    history = workspace.paths.history_file("tiny.s1").read_text().count("train,")
    with memory_for(20):
        predictions = train_tiny(workspace, **keys)
    assert np.array_equal(predictions.oof_logits, expected.oof_logits)
    assert "in 4 parts" in predictions.about["batches"] and "batches" not in expected.about
    assert workspace.paths.history_file("tiny.s1").read_text().count("train,") == history


def test_a_memory_for_less_than_two_images_is_an_error(tmp_path):
    workspace = digits_workspace(tmp_path)
    with memory_for(1), pytest.raises(DeviceMemoryError, match=r"tiny\.s1: The device has too little memory"):
        train_tiny(workspace)


@pytest.mark.parametrize("pixels", [16, (16, 24)])
def test_predict_images_gives_the_classes_of_the_test_logits(tmp_path, pixels):
    recipe = RECIPE.replace("stored_pixels = 16", f"stored_pixels = {json.dumps(pixels)}")
    workspace = digits_workspace(tmp_path, recipe=recipe)
    predictions = train_tiny(workspace)
    folder, expected = save_test_images(workspace, predictions, pixels=pixels)
    rows = predict_images(open_predictor(workspace, ["tiny.s1"]), folder)
    assert [name for name, _ in rows] == list("01234")
    assert [row["label"] for _, row in rows] == expected
    (folder / "0.png").write_bytes((folder / "0.png").read_bytes()[:100])
    with pytest.raises(DataError, match=r"0\.png"):
        predict_images(open_predictor(workspace, ["tiny.s1"]), folder)
    with pytest.raises(TrainingError, match="no trained parameters"):
        predict_images(open_predictor(workspace, ["tiny.s2"]), folder)


@pytest.fixture(scope="module")
def trained_once(tmp_path_factory):
    workspace = digits_workspace(tmp_path_factory.mktemp("trained"))
    train_tiny(workspace, epochs=1)
    return workspace.paths.root


@pytest.fixture
def trained(trained_once, tmp_path):
    """A workspace whose run is trained for an epoch."""
    shutil.copytree(trained_once, tmp_path, dirs_exist_ok=True)
    return open_workspace("digits", tmp_path)


def image_folder(folder):
    images = folder / "new"
    images.mkdir()
    Image.new("RGB", (16, 16)).save(images / "one.png")
    return images


def test_a_run_that_diverges_in_its_last_step_keeps_the_old_files(trained):
    paths = trained.paths
    files = [place("tiny.s1") for place in (paths.parameters_file, paths.predictions_file, paths.history_file)]
    before = [file.read_bytes() for file in files]
    one_step = {"epochs": 1, "batch_size": 1000, "optimiser": "sgd", "schedule": "constant", "learning_rate": 1e30}
    with pytest.raises(TrainingError, match=r"(?s)tiny\.s1: Training diverged.*after the last epoch.*learning_rate"):
        train_tiny(trained, **one_step)
    assert [file.read_bytes() for file in files] == before


def test_a_killed_training_leaves_the_history_of_the_earlier_one_and_no_other_file(trained):
    class Killed(Listener):
        def epoch(self, report):
            raise KeyboardInterrupt

    history = trained.paths.history_file("tiny.s1")
    before = history.read_bytes()
    with pytest.raises(KeyboardInterrupt):
        train_run(trained, trained.runs[0], listener=Killed())
    assert history.read_bytes() == before and list(history.parent.iterdir()) == [history]


def test_a_disk_that_is_full_for_the_parameters_loses_no_predictions_and_is_named(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(run_module, "save", full)  # of the parameters
    workspace = digits_workspace(tmp_path)
    message = r"(?s)tiny\.s1 is trained and its predictions are saved.*models/digits/tiny\.s1\.safetensors.*No space"
    with pytest.raises(DataError, match=message):
        train_tiny(workspace, epochs=1)
    assert not open_workspace("digits", tmp_path).runs[0].stale
    monkeypatch.setattr(run_module, "save", lambda *_: b"parameters")
    monkeypatch.setattr(artefact.zipfile.ZipFile, "open", full)
    with pytest.raises(OSError, match="No space") as error:
        train_tiny(workspace, epochs=1)
    assert error.value.filename == str(workspace.paths.predictions_file("tiny.s1"))


def test_parameters_and_predictions_of_different_trainings_are_refused(trained, tmp_path):
    workspace, folder = trained, image_folder(tmp_path)
    file = workspace.paths.parameters_file("tiny.s1")
    with safe_open(file, framework="pt") as stored:
        metadata = stored.metadata()
    about = json.loads(metadata["about"]) | {"stamp": "of another recipe"}
    save_file(load(file.read_bytes()), file, metadata | {"about": json.dumps(about)})
    with pytest.raises(TrainingError, match=r"(?s)different trainings.*tiny\.s1\.safetensors.*tiny\.s1 --again"):
        predict_images(open_predictor(workspace, ["tiny.s1"]), folder)


def test_damaged_parameters_are_refused(trained, tmp_path):
    workspace, folder = trained, image_folder(tmp_path)
    file = workspace.paths.parameters_file("tiny.s1")
    content = file.read_bytes()
    tensors = load(content)
    with safe_open(file, framework="pt") as stored:
        metadata = stored.metadata()

    def refused():
        with pytest.raises(
            TrainingError, match=r"(?s)parameters file is damaged.*tiny\.s1\.safetensors.*train tiny\.s1 --again"
        ):
            predict_images(open_predictor(workspace, ["tiny.s1"]), folder)

    file.write_bytes(content[: len(content) // 2])
    refused()
    file.write_bytes(b"")
    refused()
    save_file(tensors, file)
    refused()
    # Not any tensor: a batch norm's count of batches may be missing, and changes nothing.
    lost = next(name for name in sorted(tensors) if name.endswith(".weight"))
    save_file({name: value for name, value in tensors.items() if name != lost}, file, metadata)
    refused()
    save_file(tensors, file, metadata | {"normalisations": "[1]"})
    refused()


@pytest.mark.parametrize(("name", "allocate"), [("build_network", torch.empty), ("_read_image", np.empty)])
def test_a_full_memory_while_predicting_is_one_screen(trained, tmp_path, monkeypatch, name, allocate):
    workspace, folder = trained, image_folder(tmp_path)
    monkeypatch.setattr(predict_module, name, lambda *_, **__: allocate(1 << 50))
    with pytest.raises(
        DeviceMemoryError, match=r"(?s)tiny\.s1: The device has too little memory.*fewer images at once"
    ):
        predict_images(open_predictor(workspace, ["tiny.s1"]), folder)


def test_parameters_that_are_not_numbers_predict_nothing(trained, tmp_path):
    workspace, folder = trained, image_folder(tmp_path)
    file = workspace.paths.parameters_file("tiny.s1")
    with safe_open(file, framework="pt") as stored:
        metadata = stored.metadata()
    tensors = load(file.read_bytes())
    save_file(
        {name: value * torch.nan if value.is_floating_point() else value for name, value in tensors.items()},
        file,
        metadata,
    )
    with pytest.raises(TrainingError, match=r"(?s)not finite.*tiny\.s1\.safetensors.*1 of 1 images.*--again"):
        predict_images(open_predictor(workspace, ["tiny.s1"]), folder)


def test_the_error_for_an_unknown_run_names_the_runs_with_parameters(tmp_path):
    workspace, folder = digits_workspace(tmp_path), image_folder(tmp_path)
    with pytest.raises(TrainingError, match=r"podium train tiny\.s1 --again"):
        predict_images(open_predictor(workspace, ["tiny.s1"]), folder)
    train_tiny(workspace, epochs=1)
    with pytest.raises(TrainingError, match=r"one of tiny\.s1") as error:
        predict_images(open_predictor(workspace, ["tiny.s9"]), folder)
    assert "--again" not in str(error.value)


def test_a_missing_folder_a_file_and_an_empty_folder_are_refused(trained, tmp_path):
    workspace, folder = trained, image_folder(tmp_path)
    (folder / "x.png").mkdir()
    assert [name for name, _ in predict_images(open_predictor(workspace, ["tiny.s1"]), folder)] == ["one"]
    for place, found in [("nowhere", "nothing"), ("nowhere.png", "nothing"), ("new/x.png", "a folder without images")]:
        with pytest.raises(DataError, match=rf"(?s)There are no images\..*an image, or a folder.*{found}"):
            predict_images(open_predictor(workspace, ["tiny.s1"]), tmp_path / place)


def test_an_image_is_predicted_as_its_folder_is(trained, tmp_path):
    run, folder = open_predictor(trained, ["tiny.s1"]), image_folder(tmp_path)
    (expected,) = predict_images(run, folder)
    assert predict_images(run, folder / "one.png") == [expected]
    (folder / "one.bmp").write_bytes((folder / "one.png").read_bytes())
    assert [name for name, _ in predict_images(run, folder)] == ["one.bmp", "one.png"], "ids are not repeated"


def test_a_probability_for_each_class_is_predicted(trained, tmp_path):
    ((_, best),) = predict_images(open_predictor(trained, ["tiny.s1"]), image_folder(tmp_path))
    ((_, row),) = predict_images(open_predictor(trained, ["tiny.s1"]), tmp_path / "new", probabilities=True)
    assert list(row) == list("0123456789") and sum(row.values()) == pytest.approx(1)
    assert row[best["label"]] == max(row.values()) == best["probability"]


def test_the_error_for_an_unknown_architecture_names_the_recipe_file(tmp_path):
    workspace = digits_workspace(tmp_path, recipe=RECIPE.replace("timm:test_resnet", "resnet43"))
    with pytest.raises(TrainingError, match=r"tiny\.toml"):
        train_tiny(workspace)
