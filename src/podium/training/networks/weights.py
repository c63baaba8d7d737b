"""Pretrained weights, loaded without running code."""

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

# What files that are no weights make torch's unpickler and safetensors raise.
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


def _with_local_weights(recipe: Recipe) -> Recipe:
    """The recipe, starting from a file in $PODIUM_WEIGHTS instead of a download where there is one."""
    file = Path(os.environ.get("PODIUM_WEIGHTS") or ".", published_name(recipe.architecture)).absolute()
    use = recipe.pretrained is True and os.environ.get("PODIUM_WEIGHTS") and file.is_file()
    return replace(recipe, pretrained=str(file)) if use else recipe


def _no_download(recipe: Recipe, error: Exception) -> TrainingError:
    return TrainingError(
        "The pretrained weights could not be downloaded.",
        expected=f"weights of {recipe.architecture}, from the network or a local file",
        found=str(error).splitlines()[0][:200],
        fix='pretrained = "path/to/weights.safetensors" (or .pth) in the recipe',
    )


def _load_weights(model: nn.Module, file: Path) -> None:
    """Load a published state into a model, without running code from the file; its classifier is left out."""
    if not file.is_file():
        raise TrainingError("The weights file is missing.", file=file, fix="correct `pretrained` in the recipe")
    state, own = _read_state(file), model.state_dict()
    fitting = {name: value for name, value in state.items() if name in own and value.shape == own[name].shape}
    missing = [name for name in own if name not in fitting and not _is_classifier(name)]
    if missing:
        raise TrainingError(
            "The weights are of another architecture.",
            file=file,
            expected=f"{len(own)} tensors such as {missing[0]}",
            found=f"{len(fitting)} that fit of {len(state)}",
        )
    model.load_state_dict(fitting, strict=False)


def _read_state(file: Path) -> dict[str, Tensor]:
    try:
        safe = file.suffix == ".safetensors"
        state = load_file(file) if safe else torch.load(file, map_location="cpu", weights_only=True)
    except DAMAGE:  # torch's own words advise to run the file's code
        raise _no_weights(file, "a damaged file, another format, or objects that are no tensors") from None
    state = state.get("state_dict", state) if isinstance(state, dict) else state
    if not isinstance(state, dict):
        raise _no_weights(file, f"a {type(state).__name__} instead of tensors by name")
    strange = [name for name, value in state.items() if not (isinstance(name, str) and isinstance(value, Tensor))]
    if strange:
        raise _no_weights(file, f"a {type(state[strange[0]]).__name__} under {strange[0]!r}")
    return state


def _no_weights(file: Path, found: str) -> TrainingError:
    return TrainingError(
        "Not a weights file that can be loaded without running code.",
        file=file,
        expected=".safetensors, or .pth with tensors alone",
        found=found,
        fix="save the model's state_dict() alone, or correct `pretrained` in the recipe",
    )


def _is_classifier(name: str) -> bool:
    return name.split(".")[0] in ("classifier", "fc", "head")
