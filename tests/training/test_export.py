"""A run as an ONNX file: its logits, its card, and what is refused."""

import json
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from digits_toys import RECIPE, digits_workspace
from podium.cli.app import main
from podium.data.cache import open_images
from podium.errors import TrainingError
from podium.plan.stamp import read_about
from podium.training import export
from podium.training.export import export_onnx
from podium.training.predict import open_predictor, predict_images
from podium.training.run import train_run
from target_toys import ROWS, brightness, toy_workspace

onnxruntime = pytest.importorskip("onnxruntime", reason="the packages of the export are not installed: podium[onnx]")
GREY = brightness(ROWS, seed=0)
# Target -> the columns of the table of labels, its metric and its kind.
TARGETS = {
    "multi-label": ({"dim": (GREY < 128).astype(int), "bright": (GREY > 99).astype(int)}, "auc", "probabilities"),
    "ordinal": ({"label": GREY // 64}, "qwk", "labels"),
    "number": ({"label": GREY / 10}, "rmse", "number"),
}


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """A run of two folds, two views and another size of the network, trained for an epoch."""
    folder = tmp_path_factory.mktemp("digits")
    recipe = RECIPE.replace("epochs = 2", "epochs = 1") + 'test_time_augmentation = "flip"\ntraining_pixels = 24\n'
    workspace = digits_workspace(folder, validation='kind = "k-fold"\nfolds = 2', recipe=recipe)
    train_run(workspace, workspace.runs[0])
    return workspace


@pytest.fixture(scope="module")
def exported(digits):
    return export_onnx(digits, "tiny.s1")


def session_of(folder):
    return onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])


def answer_of(folder, image, monkeypatch, capsys):
    """What the example in the card prints for an image."""
    text = (folder / "README.md").read_text()
    Image.fromarray(np.asarray(image)).save(folder / "image.png")
    monkeypatch.chdir(folder)
    exec(re.search(r"```python\n(.*)```", text, re.DOTALL)[1], {})
    (folder / "image.png").unlink()
    return capsys.readouterr().out.strip()


def test_the_file_gives_what_podium_predicts_for_any_number_of_images(digits, exported, monkeypatch, capsys):
    folder, check = exported
    assert sorted(file.name for file in folder.iterdir()) == ["README.md", "model.onnx"]
    images = np.asarray(open_images(digits.paths, digits.lock, pixels=16, shape="crop").test_images[:5])
    logits, probabilities = session_of(folder).run(None, {"images": images})
    with np.load(digits.paths.predictions_file("tiny.s1")) as predictions:
        assert logits == pytest.approx(predictions["test_logits"][:5], abs=0.1)  # perhaps computed in bfloat16
    assert probabilities.sum(axis=1) == pytest.approx(1) and float(check.split()[0]) < 1e-3
    label, probability = answer_of(folder, images[0], monkeypatch, capsys).split()
    assert label == digits.lock.classes[logits[0].argmax()]
    assert float(probability) == pytest.approx(probabilities[0].max(), abs=1e-4)


def test_the_file_and_the_card_describe_input_outputs_and_scores(digits, exported):
    folder, check = exported
    facts = session_of(folder).get_modelmeta().custom_metadata_map
    assert json.loads(facts["classes"]) == list(digits.lock.classes) and "uint8 (n, 16, 16, 3), RGB" in facts["input"]
    text = (folder / "README.md").read_text()
    front = yaml.safe_load(text.split("---")[1])
    (result,) = front["model-index"][0]["results"]
    scores = {metric["type"]: metric["value"] for metric in result["metrics"]}
    assert front["library_name"] == "onnx" and scores == read_about(digits.paths.predictions_file("tiny.s1"))["scores"]
    assert "Started from: random parameters" in text and f"{len(digits.lock.train_ids):,} validation rows" in text
    assert "2, float32, mean of their logits (average of 2 fold models)" in text and check in text
    assert "Seed: 1\n" in text and "torch 2" in text and "Views of each image: flip\n" in text


@pytest.mark.parametrize("target", TARGETS)
def test_other_targets_are_exported_with_their_own_outputs(tmp_path, target, monkeypatch, capsys):
    columns, metric, kind = TARGETS[target]
    data = f"label_columns = {json.dumps(list(columns))}" if target == "multi-label" else ""
    labels = {name: values.tolist() for name, values in columns.items()}
    workspace = toy_workspace(tmp_path, labels, target=target, metric=metric, kind=kind, data=data)
    train_run(workspace, workspace.runs[0])
    folder, _ = export_onnx(workspace, "tiny.s1")
    image = open_images(workspace.paths, workspace.lock, pixels=16, shape="crop").test_images[0]
    answer = answer_of(folder, image, monkeypatch, capsys)
    (tmp_path / "new").mkdir()
    Image.fromarray(np.asarray(image)).save(tmp_path / "new" / "0.png")
    ((_, own),) = predict_images(open_predictor(workspace, ["tiny.s1"]), tmp_path / "new")
    if target == "multi-label":
        assert [float(found) for found in re.findall(r"[0-9.]+(?=\)?[,}])", answer)] == pytest.approx(
            list(own.values()), abs=0.02
        )
    elif target == "ordinal":
        assert answer == str(own["label"])
    else:
        assert float(answer) == pytest.approx(float(own["label"]), abs=0.1)


def test_a_file_with_other_logits_is_not_kept(digits, exported, monkeypatch, tmp_path):
    monkeypatch.setattr(digits.paths, "outputs", tmp_path)
    monkeypatch.setattr(export, "_write", lambda file, *_: shutil.copy(exported[0] / "model.onnx", file))
    assert export_onnx(digits, "tiny.s1")[0] == tmp_path / "exports" / "digits" / "tiny.s1"
    shutil.rmtree(tmp_path / "exports")
    own = export.mean_logits
    monkeypatch.setattr(export, "mean_logits", lambda networks, images: own(networks[:1], images))
    with pytest.raises(TrainingError, match="does not give the logits"):
        export_onnx(digits, "tiny.s1")
    monkeypatch.setattr(export, "mean_logits", lambda networks, images: np.full((len(images), 10), np.nan))
    with pytest.raises(TrainingError, match="does not give the logits"):
        export_onnx(digits, "tiny.s1")
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_exported_is_refused(digits, monkeypatch):
    with pytest.raises(TrainingError, match="no trained parameters here"):
        export_onnx(digits, "other.s1")
    networks = export.open_networks(digits, "tiny.s1", device=export.torch.device("cpu"))
    for network in networks:
        network.recipe = replace(network.recipe, head="boosting")
    monkeypatch.setattr(export, "open_networks", lambda *_, **__: networks)
    with pytest.raises(TrainingError, match=r"(?s)not a network alone.*trees"):
        export_onnx(digits, "tiny.s1")
    monkeypatch.setattr(export, "find_spec", lambda name: None)
    with pytest.raises(TrainingError, match=r"(?s)Packages that the export needs.*onnxscript"):
        export_onnx(digits, "tiny.s1")


def test_a_part_that_onnx_does_not_have_is_one_screen(digits, monkeypatch):
    def fail(*_, **__):
        raise export.torch.onnx.OnnxExporterError("no such operator\nmore")

    monkeypatch.setattr(export.torch.onnx, "export", fail)
    with pytest.raises(TrainingError, match=r"(?s)ONNX does not have.*no such operator\n") as refusal:
        export_onnx(digits, "tiny.s1")
    assert "more" not in str(refusal.value)


def test_export_needs_its_format_and_prints_what_the_check_measured(digits, monkeypatch, capsys):
    monkeypatch.chdir(digits.paths.root)
    monkeypatch.setattr(export, "export_onnx", lambda workspace, run: (Path("exports") / run, "1e-06 on 9 images"))
    for words, code in ((["--onnx"], 0), ([], 2)):
        monkeypatch.setattr(sys, "argv", ["podium", "export", "tiny.s1", *words, "--competition", "digits"])
        with pytest.raises(SystemExit) as end:
            main()
        assert end.value.code == code
    output, errors = capsys.readouterr()
    assert "the largest difference of a logit is 1e-06 on 9 images" in output and "exports/tiny.s1/model.onnx" in output
    assert "--onnx" in errors
