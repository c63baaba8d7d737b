"""Export the networks of a run as one ONNX file, which is kept if it gives their logits, with a model card."""

import sys
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from podium.config.pixels import height_and_width
from podium.errors import TrainingError
from podium.files import write_file
from podium.predictions.artefact import Predictions, load_predictions
from podium.targets.target import Target
from podium.training.batches.augment import resize
from podium.training.batches.stores import every_nth, open_recipe_images
from podium.training.card import file_metadata, model_card
from podium.training.inference import views_of
from podium.training.networks.architectures import Network
from podium.training.predict import mean_logits, open_networks
from podium.workspace import Workspace

PACKAGES = ("onnx", "onnxruntime", "onnxscript")
# Validation images whose logits are compared, and how many at once.
MOST_IMAGES, BATCH = 256, 16
# Largest difference of a logit, as a share of the largest logit: float32 sums in another order.
TOLERANCE = 1e-3


class ExportedRun(nn.Module):
    """(n, height, width, 3) uint8 RGB images, as stored -> logits (n, outputs), and probabilities where there are any.

    The logits are the mean over the run's networks, and over the views of each, as `podium predict` has them.
    """

    def __init__(self, networks: Sequence[Network], target: Target):
        super().__init__()
        self.networks, self.target = nn.ModuleList(networks), target

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Logits, and probabilities."""
        logits = torch.stack([self._logits(network, images.float()) for network in self.networks]).mean(0)
        if self.target.has_columns:
            return logits, logits.sigmoid()
        return (logits, logits.softmax(1)) if self.target.has_probabilities else (logits,)

    @staticmethod
    def _logits(network: Network, images: Tensor) -> Tensor:
        recipe, (mean, deviation) = network.recipe, network.scale
        of_images, of_outputs = torch.tensor(network.normalisation.mean), torch.tensor(network.normalisation.deviation)
        images = ((images / 255 - of_images) / of_outputs).permute(0, 3, 1, 2)
        images = resize(images, recipe.network_pixels, recipe.interpolation)
        views = views_of(images, recipe.test_time_augmentation)
        outputs = sum(weight * network.head(network.body(view)) for weight, view in views)
        return outputs * deviation + mean


def export_onnx(workspace: Workspace, run: str) -> tuple[Path, str]:
    """Write `exports/<competition>/<run>/model.onnx` and README.md; returns the folder and what the check measured.

    Raises TrainingError where packages or parameters are missing, or where the file does not give the run's logits on
    validation images: then nothing is written. Raises DataError where the images are not prepared.
    """
    if missing := [name for name in PACKAGES if find_spec(name) is None]:
        fix = f"{sys.executable} -m pip install {' '.join(missing)}"
        raise TrainingError("Packages that the export needs are not installed.", found=", ".join(missing), fix=fix)
    networks = open_networks(workspace, run, device=torch.device("cpu"))
    predictions = load_predictions(workspace.paths.predictions_file(run))
    dataset = open_recipe_images(workspace, networks[0].recipe)
    rows = every_nth(np.flatnonzero(workspace.lock.folds >= 0), MOST_IMAGES)
    folder = workspace.paths.outputs / "exports" / workspace.name / run
    with tempfile.TemporaryDirectory() as temporary:
        file = Path(temporary) / "model.onnx"
        _write(file, networks, predictions)
        check = _compare(file, networks, dataset.train_images, rows)
        write_file(folder / file.name, file.read_bytes())
    write_file(folder / "README.md", model_card(workspace, predictions, networks, check).encode())
    return folder, check


def _write(file: Path, networks: Sequence[Network], predictions: Predictions) -> None:
    """Write the networks as one ONNX file of float32 parameters; raises TrainingError for what ONNX does not have."""
    recipe, target = networks[0].recipe, predictions.target
    if recipe.head == "boosting":
        found, fix = 'head = "boosting", which are trees of scikit-learn', "a run with another head"
        raise TrainingError("This run is not a network alone.", file=file.name, found=found, fix=fix)
    names = ["logits", "probabilities"] if target.has_probabilities else ["numbers"]
    images = torch.zeros(2, *height_and_width(recipe.stored_pixels), 3, dtype=torch.uint8)
    model, options = ExportedRun(networks, target).eval(), {"input_names": ["images"], "output_names": names}
    try:
        with torch.no_grad():
            program = torch.onnx.export(
                model, (images,), dynamo=True, dynamic_shapes=({0: "n"},), verbose=False, **options
            )
    except torch.onnx.OnnxExporterError as error:
        found = str(error).strip().split("\n")[0][:200]
        raise TrainingError("ONNX does not have a part of the network.", found=found, fix="another run") from None
    program.model.metadata_props.update(file_metadata(predictions, recipe))
    program.save(file, external_data=False)


def _compare(file: Path, networks: Sequence[Network], images: np.ndarray, rows: np.ndarray) -> str:
    """The largest difference between the file's logits and the networks' own; raises TrainingError if it is large."""
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    blocks = [np.asarray(images[part]) for part in np.array_split(rows, -(-len(rows) // BATCH))]
    own = np.concatenate([mean_logits(networks, block) for block in blocks])
    exported = np.concatenate([session.run(None, {"images": block})[0] for block in blocks])
    difference, largest = np.abs(exported - own).max(), np.abs(own).max()
    limit = TOLERANCE * max(1.0, largest)
    if not difference <= limit:  # also for NaN
        raise TrainingError(
            "The exported file does not give the logits of the run, and is not kept.",
            expected=f"a difference of at most {limit:.2g} on {len(rows)} validation images",
            found=f"{difference:.2g}",
            fix="another version of torch, onnxscript or onnxruntime",
        )
    return f"{difference:.1e} on {len(rows)} validation images, with logits of up to {largest:.3g}"
