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

# What torch's unpickler, safetensors and json raise for a damaged file, or a file of another program.
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
        state = state.get("state_dict", state)
        is_state = all(isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items())
    except DAMAGE:  # torch's own message advises to run the file's code
        is_state = False
    if not is_state:
        raise TrainingError(
            "The weights file cannot be loaded without running code.",
            file=file,
            expected=".safetensors, or .pth, with tensors by name only",
            found="a damaged file, another format, or objects that are not tensors",
            fix="save only the model's state_dict(), or correct `pretrained` in the recipe",
        )
    return state


def _is_classifier(name: str) -> bool:
    return name.split(".")[0] in ("classifier", "fc", "head")
