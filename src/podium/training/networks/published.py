"""Published models of torchvision and timm, with the weights that a recipe asks for."""

import difflib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torchvision.models
from torch import Tensor, nn

from podium.config.keys import Recipe
from podium.config.pixels import Pixels
from podium.errors import TrainingError
from podium.training.networks.weights import load_weights

TIMM_PREFIX = "timm:"
# Podium's name -> torchvision's name, and the function that removes the classifier.
TORCHVISION: dict[str, tuple[str, Callable[[nn.Module], nn.Module]]] = {
    "vgg19": ("vgg19_bn", lambda model: model.features),
    "resnet34": ("resnet34", lambda model: nn.Sequential(*list(model.children())[:-2])),  # pooling and classifier
    "densenet121": ("densenet121", lambda model: nn.Sequential(*model.features.children(), nn.ReLU(inplace=True))),
    "efficientnet_b0": ("efficientnet_b0", lambda model: model.features),
}


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
        known = [*TORCHVISION, *(f"{TIMM_PREFIX}{model}" for model in timm.list_models())]
        nearest = difflib.get_close_matches(recipe.architecture, known, n=3)
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
