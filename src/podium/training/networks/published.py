"""Published models of torchvision and timm, and their weights, which are loaded without running code."""

import difflib
import os
import sys
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path

import torch
import torchvision.models
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from podium.config.keys import Recipe, published_name
from podium.config.pixels import Pixels
from podium.data.locate import named_place
from podium.errors import TrainingError
from podium.files import DAMAGE
from podium.plan.packages import find_weights
from podium.plan.stamp import file_sha256, weights_sha256

TIMM_PREFIX = "timm:"
# Podium's name -> torchvision's name, and the function that removes the classifier.
TORCHVISION: dict[str, tuple[str, Callable[[nn.Module], nn.Module]]] = {
    "vgg19": ("vgg19_bn", lambda model: model.features),
    "resnet34": ("resnet34", lambda model: nn.Sequential(*list(model.children())[:-2])),  # pooling and classifier
    "densenet121": ("densenet121", lambda model: nn.Sequential(*model.features.children(), nn.ReLU(inplace=True))),
    "efficientnet_b0": ("efficientnet_b0", lambda model: model.features),
}

# Layers in timm -> in efficientnet_pytorch: outside of the blocks, in blocks, and in those that do not expand first.
OUTSIDE = {"conv_stem": "_conv_stem", "bn1": "_bn0", "conv_head": "_conv_head", "bn2": "_bn1", "classifier": "_fc"}
_PARTS = ("_expand_conv", "_bn0", "_depthwise_conv", "_bn1", "_project_conv", "_bn2")
EXPANDING_BLOCK = dict(zip(("conv_pw", "bn1", "conv_dw", "bn2", "conv_pwl", "bn3"), _PARTS, strict=True))
FIRST_BLOCK = dict(zip(("conv_dw", "bn1", "conv_pw", "bn2"), _PARTS[2:], strict=True))


def published_model(recipe: Recipe, root: Path, *, pixels: Pixels = 0) -> nn.Module:
    """Torchvision's model with its classifier, or timm's without, and the weights that the recipe asks for.

    With a head on features, timm's has its classifier too; it is zero if the weights file has none. An architecture of
    a fixed image size is built for `pixels`; 0: for its published size.
    """
    is_downloaded = recipe.pretrained is True
    try:
        if recipe.architecture in TORCHVISION:
            name, _ = TORCHVISION[recipe.architecture]
            model = torchvision.models.get_model(name, weights="IMAGENET1K_V1" if is_downloaded else None)
        else:
            model = _timm_model(recipe, pixels)
    except (OSError, RuntimeError) as error:  # errors of the network are one or the other
        if not is_downloaded:
            raise
        raise TrainingError(
            "The pretrained weights could not be downloaded, or do not fit.",
            expected=f"published weights of {recipe.architecture}",
            found=str(error).split("\n")[0][:200],
            fix='pretrained = "path/to/weights.safetensors" (or .pth) in the recipe',
        ) from None
    if isinstance(recipe.pretrained, str):
        if classifier := classifier_of(model):
            nn.init.zeros_(classifier.weight)  # until it is loaded
        load_weights(model, recipe, root)
    return model


def _timm_model(recipe: Recipe, pixels: Pixels) -> nn.Module:
    import huggingface_hub
    import timm

    # The hub retries for half a minute and warns each time; Podium's error has its last message.
    huggingface_hub.logging.set_verbosity_error()
    name = recipe.architecture.removeprefix(TIMM_PREFIX)
    if name == recipe.architecture or not timm.is_model(name):
        known = {model: f"{TIMM_PREFIX}{model}" for model in timm.list_models()}
        known |= {} if name != recipe.architecture else {model: model for model in TORCHVISION}
        nearest = [known[model] for model in difflib.get_close_matches(name, known, n=3)]
        raise TrainingError(
            "There is no such architecture.",
            expected=f"fastnet, {', '.join(TORCHVISION)}, or {TIMM_PREFIX}<a name of timm.list_models()>",
            found=f'architecture = "{recipe.architecture}"',
            fix=f"one of {', '.join(nearest)}" if nearest else None,
        )
    has_fixed_size = pixels and getattr(timm.get_pretrained_cfg(name), "fixed_input_size", False)
    arguments = {
        "head": ("num_classes", None if recipe.fits_features else 0),
        'head = "fastai"': ("global_pool", "" if recipe.head == "fastai" else None),
        "training_pixels": ("img_size", pixels if has_fixed_size else None),
        "progressive_pixels": ("dynamic_img_size", True if has_fixed_size and recipe.progressive_pixels else None),
        "drop_path": ("drop_path_rate", recipe.drop_path or None),
    }
    try:
        model = timm.create_model(name, pretrained=recipe.pretrained is True, **dict(arguments.values()))
        if recipe.gradient_checkpointing:
            model.set_grad_checkpointing()
        return model
    except (AssertionError, TypeError) as error:  # what timm raises for an argument that a model does not take
        asked = [key for key, (_, value) in arguments.items() if value not in (None, 0)]
        asked += ["gradient_checkpointing"] * recipe.gradient_checkpointing
        raise TrainingError(
            "The architecture does not do what the recipe asks for.",
            expected=f"an architecture for {', '.join(asked)}",
            found=f"{recipe.architecture}: {error}",
            fix="another architecture, or the default of the key, in the recipe",
        ) from None


def classifier_of(model: nn.Module) -> nn.Linear | None:
    """The classifier, if it is one layer; it is the last of torchvision's networks."""
    layer = model.get_classifier() if hasattr(model, "get_classifier") else list(model.modules())[-1]
    return layer if isinstance(layer, nn.Linear) else None


def published_state(recipe: Recipe) -> dict[str, Tensor]:
    """The published weights of a recipe's architecture, for every head; downloaded unless they are in the cache."""
    return published_model(replace(recipe, head="logistic"), Path()).state_dict()  # with the classifier


def with_local_weights(recipe: Recipe) -> Recipe:
    """The recipe, with the file in $PODIUM_WEIGHTS as `pretrained` if it has the published weights."""
    folder = os.environ.get("PODIUM_WEIGHTS")
    if recipe.pretrained is not True or not folder:
        return recipe
    file = named_place("PODIUM_WEIGHTS", folder).absolute() / published_name(recipe.architecture)
    return replace(recipe, pretrained=str(file)) if file.is_file() else recipe


def load_weights(model: nn.Module, recipe: Recipe, root: Path) -> None:
    """Load the weights in a recipe's local file or package into a model, all but the classifier's.

    A package's tensors have the names of `efficientnet_pytorch`. Position embeddings of another image size are
    resampled. Raises TrainingError where a name or a shape differs; a tensor that the model does not have is ignored
    in a local file only.
    """
    file = find_weights(recipe.weights_package).file if recipe.weights_package else root / str(recipe.pretrained)
    sha256, recorded = file_sha256(file), weights_sha256(recipe, root)
    if not sha256 or sha256 != recorded:
        what = "The weights file is not the one that was installed." if sha256 else "The weights file is missing."
        raise TrainingError(what, file=file, fix="install its package again, or correct `pretrained` in the recipe")
    state, own = _resample(_read_state(file), model), model.state_dict()
    names = efficientnet_names(own) if recipe.weights_package else {name: name for name in own}
    found = {name: tuple(value.shape) for name, value in state.items()}
    expected = {names[name]: tuple(value.shape) for name, value in own.items()}
    compared, classifiers = (found | expected, "_fc") if recipe.weights_package else (expected, _classifiers(model))
    differing = [name for name in compared if found.get(name) != expected.get(name)]
    if faults := [name for name in differing if not name.startswith(classifiers)]:
        raise TrainingError(
            "The weights are of another architecture.",
            file=file,
            expected=f"{len(expected)} tensors of {recipe.architecture}",
            found=f"{len(found)} tensors; {len(faults)} names or shapes differ",
            fix="correct `architecture` or `pretrained` in the recipe",
            faults=[
                f"{name}: expected {expected.get(name, 'none')}, found {found.get(name, 'none')}" for name in faults
            ],
        )
    model.load_state_dict({name: state[names[name]] for name in own if names[name] not in differing}, strict=False)


def efficientnet_names(tensors: Collection[str]) -> dict[str, str]:
    """The name of each tensor of an EfficientNet-Lite in timm -> its name in efficientnet_pytorch.

    timm counts the blocks of a stage, efficientnet_pytorch those of the network. A name that is not an EfficientNet's
    is mapped to itself.
    """
    names: dict[str, str] = {}
    numbers: dict[str, int] = {}  # of the blocks
    expanding = {name.removesuffix(".conv_pwl.weight") for name in tensors}
    for name in tensors:
        path, _, tensor = name.rpartition(".")
        block, _, layer = path.rpartition(".")
        if block.startswith("blocks."):
            layers = EXPANDING_BLOCK if block in expanding else FIRST_BLOCK
            block = f"_blocks.{numbers.setdefault(block, len(numbers))}"
        else:
            layers = OUTSIDE
        names[name] = ".".join(part for part in (block, layers.get(layer, layer), tensor) if part)
    return names


def _classifiers(model: nn.Module) -> tuple[str, ...]:
    """Where the names of the classifier's tensors begin; in timm, other tensors can be in `head` too."""
    names = getattr(model, "pretrained_cfg", {"classifier": ("classifier", "fc")}).get("classifier") or ()
    return tuple(f"{name}." for name in ([names] if isinstance(names, str) else names))


def _resample(state: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """The state with position embeddings of the model's image size, by timm's own function for its checkpoints."""
    own = model.state_dict()
    differing = [name for name, value in state.items() if name in own and value.shape != own[name].shape]
    convert = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    is_other_size = differing and not any(name.endswith((".weight", ".bias")) for name in differing)
    return convert(state, model) if convert and is_other_size else state


def _read_state(file: Path) -> dict[str, Tensor]:
    try:
        safe = file.suffix == ".safetensors"
        state = load_file(file) if safe else torch.load(file, map_location="cpu", weights_only=True)
        state = state.get("state_dict", state)
        is_state = all(isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items())
    except (*DAMAGE, SafetensorError):  # torch's own message advises to run the file's code
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
