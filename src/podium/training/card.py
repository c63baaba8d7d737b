"""The model card of an exported run: README.md, with the front matter that the Hugging Face hub reads."""

import json
from collections.abc import Sequence

from huggingface_hub import EvalResult, ModelCardData

from podium.config.keys import Recipe
from podium.config.pixels import height_and_width
from podium.config.schema import changed_keys
from podium.errors import examples
from podium.predictions.artefact import Predictions
from podium.training.networks.architectures import Network
from podium.workspace import Workspace

MOST_CLASSES = 100
# `shape` -> how an image of another shape gets the size of the input, by Pillow.
FITTED = {
    "crop": "ImageOps.fit(image, size, Image.Resampling.BICUBIC)",
    "squash": "image.resize(size, Image.Resampling.BICUBIC)",
    "pad": "ImageOps.pad(image, size, Image.Resampling.BICUBIC)  # in training, mirrored edges instead of black ones",
}
# Target -> the outputs, and the prediction for one image in Python.
OUTPUTS = {
    "class": ("logits and probabilities, float32 (n, classes)", "classes[outputs[1][0].argmax()], outputs[1][0].max()"),
    "multi-label": ("logits and probabilities, float32 (n, labels)", "dict(zip(classes, outputs[1][0]))"),
    "ordinal": (
        "numbers, float32 (n, 1): the nearest integer is the index of the class",
        "classes[int(np.clip(np.rint(outputs[0][0, 0]), 0, len(classes) - 1))]",
    ),
    "number": ("numbers, float32 (n, 1)", "outputs[0][0, 0]"),
}


def file_metadata(predictions: Predictions, recipe: Recipe) -> dict[str, str]:
    """What an ONNX file says about itself: its input, its outputs, the classes in their order as JSON, and the run."""
    height, width = height_and_width(recipe.stored_pixels)
    return {
        "input": f"images, uint8 (n, {height}, {width}, 3), RGB; the file normalises them",
        "outputs": OUTPUTS[predictions.target.name][0],
        "classes": json.dumps(list(predictions.classes), ensure_ascii=False),
        "run": predictions.run,
    }


def model_card(workspace: Workspace, predictions: Predictions, networks: Sequence[Network], check: str) -> str:
    """The text of README.md; `check` is what the comparison with the run's own logits has measured."""
    about, recipe, title = predictions.about, networks[0].recipe, workspace.competition.title
    file = file_metadata(predictions, recipe)
    scores = ", ".join(f"{name} {score:.4f}" for name, score in about["scores"].items())
    facts = {
        "Architecture": f"{about['architecture']}, head {recipe.head}",
        "Started from": f"pretrained = {json.dumps(recipe.pretrained)}" if recipe.pretrained else "random parameters",
        "Licence": "not chosen yet; the weights that it started from and the images decide what is possible",
        "Data": f"{title}: {len(workspace.lock.train_ids):,} labelled images, fingerprint {about['fingerprint'][:12]}",
        "Validation": f"{scores} on {len(predictions.oof_ids):,} {about['scored']}",
        "Networks": f"{len(networks)}, float32, mean of their logits ({about['test_logits_from']})",
        "Views of each image": recipe.test_time_augmentation,
        "Seed": about["seed"],
        "Trained": f"{about['created'][:10]}, {about['seconds']:,.0f} s, {about['device']}, {about['precision']}",
        "Versions": ", ".join(f"{name} {version}" for name, version in about["versions"].items()),
        "Commit of Podium": about["git_commit"] or "unknown",
        "Recipe": f"`{json.dumps(changed_keys(recipe))}`",
        "Largest difference of a logit to PyTorch": check,
        "Input": file["input"],
        "Outputs": file["outputs"],
        "Classes": examples(predictions.classes, most=MOST_CLASSES),
    }
    text = "\n".join(f"- {name}: {value}" for name, value in facts.items())
    name = f"{workspace.name}, {predictions.run}"
    return f"{_front_matter(workspace, predictions)}\n# {name}\n\n{text}\n\n## Use\n\n{_example(predictions, recipe)}"


def _front_matter(workspace: Workspace, predictions: Predictions) -> str:
    """YAML between two lines of ---."""
    task, scores = "image-classification", predictions.about["scores"]
    of_data = {"task_type": task, "dataset_type": workspace.name, "dataset_name": workspace.competition.title}
    results = [
        EvalResult(**of_data, metric_type=name, metric_value=score, metric_name=f"{name}, validation")
        for name, score in scores.items()
    ]
    tag = task if predictions.target.has_classes else None
    known = {"library_name": "onnx", "tags": ["onnx", "podium"], "pipeline_tag": tag}
    return f"---\n{ModelCardData(**known, model_name=predictions.run, eval_results=results).to_yaml()}\n---\n"


def _example(predictions: Predictions, recipe: Recipe) -> str:
    """Python that predicts one image."""
    height, width = height_and_width(recipe.stored_pixels)
    return f"""```python
import json

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

session = onnxruntime.InferenceSession("model.onnx")
classes = json.loads(session.get_modelmeta().custom_metadata_map["classes"])
image, size = Image.open("image.png").convert("RGB"), ({width}, {height})
image = {FITTED[recipe.shape]}
outputs = session.run(None, {{"images": np.asarray(image)[None]}})
print({OUTPUTS[predictions.target.name][1]})
```
"""
