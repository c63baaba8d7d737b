"""Load pretrained weights without running code from their file."""

import os
import struct
from dataclasses import replace
from pathlib import Path
from pickle import UnpicklingError

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from podium.config.keys import Recipe, published_name
from podium.errors import TrainingError

# What torch's unpickler and safetensors raise for files that are not weights.
DAMAGE = (
    OSError,
    RuntimeError,
    ValueError,
    EOFError,
    LookupError,
    AttributeError,
    TypeError,
    struct.error,
    UnpicklingError,
    SafetensorError,
)


def with_local_weights(recipe: Recipe) -> Recipe:
    """The recipe, with the file in $PODIUM_WEIGHTS as `pretrained` if it has the published weights."""
    folder = os.environ.get("PODIUM_WEIGHTS")
    if recipe.pretrained is not True or not folder:
        return recipe
    file = Path(folder, published_name(recipe.architecture)).absolute()
    return replace(recipe, pretrained=str(file)) if file.is_file() else recipe


def download_error(recipe: Recipe, error: Exception) -> TrainingError:
    """The error for published weights that could not be downloaded."""
    return TrainingError(
        "The pretrained weights could not be downloaded.",
        expected=f"published weights of {recipe.architecture}",
        found=str(error).splitlines()[0][:200],
        fix='pretrained = "path/to/weights.safetensors" (or .pth) in the recipe',
    )


def load_weights(model: nn.Module, file: Path) -> None:
    """Load published weights into a model, all but the classifier's; raises TrainingError."""
    if not file.is_file():
        raise TrainingError("The weights file is missing.", file=file, fix="correct `pretrained` in the recipe")
    state, own = _read_state(file), model.state_dict()
    fitting = {name: value for name, value in state.items() if name in own and value.shape == own[name].shape}
    missing = [name for name in own if name not in fitting and not _is_classifier(name)]
    if missing:
        raise TrainingError(
            "The weights are of another architecture.",
            file=file,
            expected=f"{len(own)} tensors, such as {missing[0]}",
            found=f"{len(state)} tensors, of which {len(fitting)} fit",
        )
    model.load_state_dict(fitting, strict=False)


def _read_state(file: Path) -> dict[str, Tensor]:
    try:
        safe = file.suffix == ".safetensors"
        state = load_file(file) if safe else torch.load(file, map_location="cpu", weights_only=True)
    except DAMAGE:  # torch's own message advises to run the file's code
        raise _format_error(file, "a damaged file, another format, or objects that are not tensors") from None
    state = state.get("state_dict", state) if isinstance(state, dict) else state
    if not isinstance(state, dict):
        raise _format_error(file, f"a {type(state).__name__} instead of tensors by name")
    wrong = [name for name, value in state.items() if not (isinstance(name, str) and isinstance(value, Tensor))]
    if wrong:
        raise _format_error(file, f"a {type(state[wrong[0]]).__name__} under {wrong[0]!r}")
    return state


def _format_error(file: Path, found: str) -> TrainingError:
    return TrainingError(
        "The weights file cannot be loaded without running code.",
        file=file,
        expected=".safetensors, or .pth with tensors only",
        found=found,
        fix="save only the model's state_dict(), or correct `pretrained` in the recipe",
    )


def _is_classifier(name: str) -> bool:
    return name.split(".")[0] in ("classifier", "fc", "head")
