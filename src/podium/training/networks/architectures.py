"""Networks: four of torchvision's, and any of timm's, with stems for small images.

A network is a body and a head. The body is as published; the head is ours, so that a new one fits any number of
classes. Preprocessing travels with the weights: `build_network` says which normalisation they expect.
"""

import difflib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from podium.config.keys import Recipe
from podium.errors import TrainingError
from podium.seeding import stream_seed
from podium.training.batches.loader import Normalisation
from podium.training.networks.fastnet import FastNetBody, MapMaximum
from podium.training.networks.weights import (
    _load_weights,
    _no_download,
    _with_local_weights,
)

IMAGENET = Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
TIMM_PREFIX = "timm:"


class Network(nn.Module):
    """Images (n, 3, pixels, pixels) -> logits (n, classes): a body, then a head."""

    def __init__(self, body: nn.Module, head: nn.Module, normalisation: Normalisation | None):
        super().__init__()
        self.body, self.head = body, head
        # What the weights it started from were trained with; None for a network that starts from nothing.
        self.normalisation = normalisation

    def forward(self, images: Tensor) -> Tensor:
        """Logits (n, classes) of (n, 3, pixels, pixels) images."""
        return self.head(self.body(images))

    def layer_groups(self) -> list[list[nn.Parameter]]:
        """Parameters in three groups, from the images to the classifier: early body, late body, head."""
        body = list(self.body.parameters())
        middle = len(body) // 2
        return [body[:middle], body[middle:], list(self.head.parameters())]


def build_network(recipe: Recipe, classes: int, *, root: Path, seed: int, weights: bool = True) -> Network:
    """The recipe's network with `classes` outputs, its new parameters drawn from a stream of `seed`.

    Without `weights` it starts from nothing where the recipe starts from published weights: only its shape
    is wanted, to be timed or filled, with the normalisation of those weights. Raises TrainingError for an
    architecture or a weights file that is not what the recipe says.
    """
    recipe = _with_local_weights(recipe)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed(seed, "parameters"))
        body, normalisation = _body(recipe if weights else replace(recipe, pretrained=False), root)
        if recipe.stem == "small":
            _shrink_stem(body, keep_parameters=bool(recipe.pretrained))
        head = _head(recipe, _count_features(body, recipe), classes)
    normalisation = normalisation if recipe.pretrained else None
    return Network(body, head, normalisation).to(memory_format=torch.channels_last)


def published_state(recipe: Recipe) -> dict[str, Tensor]:
    """The published weights of a recipe with `pretrained = true`, downloaded where they are not here yet."""
    if recipe.architecture in _TORCHVISION:
        return _torchvision_model(_TORCHVISION[recipe.architecture][0], recipe, Path()).state_dict()
    return _body(recipe, Path())[0].state_dict()


def has_depthwise_convolutions(network: nn.Module) -> bool:
    """Whether any convolution looks at each channel alone, as EfficientNet's and MobileNet's do."""
    return any(isinstance(part, nn.Conv2d) and part.groups == part.in_channels > 1 for part in network.modules())


def strides_past_the_image(network: nn.Module, pixels: int) -> bool:
    """Whether images of `pixels` shrink so early that a later stride is longer than what is left of them."""
    found = []

    def look(part: nn.Conv2d, inputs: tuple[Tensor, ...]) -> None:
        found.append(min(inputs[0].shape[2:]) < max(part.stride))

    hooks = [part.register_forward_pre_hook(look) for part in network.modules() if isinstance(part, nn.Conv2d)]
    was_training, device = network.training, next(network.parameters()).device
    with torch.no_grad():
        network.eval()(torch.zeros(1, 3, pixels, pixels, device=device))
    network.train(was_training)
    for hook in hooks:
        hook.remove()
    return any(found)


def _body(recipe: Recipe, root: Path) -> tuple[nn.Module, Normalisation | None]:
    name = recipe.architecture
    if name == "fastnet":
        return FastNetBody(recipe.fastnet), None
    if name.startswith(TIMM_PREFIX):
        return _timm_body(recipe, root)
    if name not in _TORCHVISION:
        nearest = difflib.get_close_matches(name, _TORCHVISION, n=1)
        raise TrainingError(
            "There is no such architecture.",
            expected=f"one of {', '.join(_TORCHVISION)}, or {TIMM_PREFIX}<a name of timm.list_models()>",
            found=f'architecture = "{name}"',
            fix=f'architecture = "{nearest[0]}"' if nearest else None,
        )
    published, cut = _TORCHVISION[name]
    model = _torchvision_model(published, recipe, root)
    return cut(model), IMAGENET


def _torchvision_model(published: str, recipe: Recipe, root: Path) -> nn.Module:
    import torchvision.models

    if recipe.pretrained is not True:
        model = torchvision.models.get_model(published, weights=None)
        if recipe.pretrained:
            _load_weights(model, root / str(recipe.pretrained))
        return model
    try:
        return torchvision.models.get_model(published, weights="IMAGENET1K_V1")
    except OSError as error:  # urllib's errors are OSErrors
        raise _no_download(recipe, error) from None


def _timm_body(recipe: Recipe, root: Path) -> tuple[nn.Module, Normalisation | None]:
    import huggingface_hub
    import timm

    # The hub tries again for half a minute and warns each time; what it says in the end is told by _no_download.
    huggingface_hub.logging.set_verbosity_error()
    name = recipe.architecture.removeprefix(TIMM_PREFIX)
    if not timm.is_model(name):
        nearest = difflib.get_close_matches(name, timm.list_models(), n=3)
        raise TrainingError(
            "timm has no such architecture.",
            expected="a name of timm.list_models()",
            found=f'architecture = "{recipe.architecture}"',
            fix=f"one of {', '.join(nearest)}" if nearest else None,
        )
    try:
        model = timm.create_model(name, pretrained=recipe.pretrained is True, num_classes=0, global_pool="")
    except (OSError, RuntimeError) as error:  # the hub's errors are one or the other
        if recipe.pretrained is not True:
            raise
        raise _no_download(recipe, error) from None
    if isinstance(recipe.pretrained, str):
        _load_weights(model, root / recipe.pretrained)
    settings = timm.data.resolve_model_data_config(model)
    return model, Normalisation(tuple(settings["mean"]), tuple(settings["std"]))


def _shrink_stem(body: nn.Module, *, keep_parameters: bool) -> None:
    """Keep small images large: no stride in the first convolution, no pooling before the second.

    A body that does not shrink that early (VGG) loses its last pooling instead.
    """
    parts = [(name, part) for name, part in body.named_modules() if isinstance(part, nn.Conv2d | nn.MaxPool2d)]
    convolutions = [place for place, (_, part) in enumerate(parts) if isinstance(part, nn.Conv2d)]
    first, second = convolutions[:2]
    early = [name for name, part in parts[first:second] if isinstance(part, nn.MaxPool2d)]
    name, convolution = parts[first]
    late = [name for name, part in parts if isinstance(part, nn.MaxPool2d)][-1:]
    for pooling in early or (late if convolution.stride == (1, 1) else []):
        _replace(body, pooling, nn.Identity())
    _replace(body, name, _unstrided(convolution, keep_parameters=keep_parameters))


def _unstrided(convolution: nn.Conv2d, *, keep_parameters: bool) -> nn.Conv2d:
    if keep_parameters or convolution.kernel_size[0] <= 3:
        convolution.stride = (1, 1)
        return convolution
    small = nn.Conv2d(
        convolution.in_channels,
        convolution.out_channels,
        kernel_size=3,
        padding=1,
        bias=convolution.bias is not None,
    )
    nn.init.kaiming_normal_(small.weight, mode="fan_out", nonlinearity="relu")
    return small


def _replace(body: nn.Module, name: str, part: nn.Module) -> None:
    parent, _, own_name = name.rpartition(".")
    setattr(body.get_submodule(parent), own_name, part)


def _count_features(body: nn.Module, recipe: Recipe) -> int:
    smallest = min([recipe.network_pixels, *recipe.progressive_pixels])
    body.eval()
    try:
        with torch.no_grad():
            shape = body(torch.zeros(1, 3, smallest, smallest)).shape
    except (RuntimeError, AssertionError) as error:
        key = "training_pixels" if smallest == recipe.network_pixels else "progressive_pixels"
        raise TrainingError(
            "The architecture does not take images of this size.",
            expected=f"{recipe.architecture} at {smallest} pixels",
            found=str(error).splitlines()[0][:200],
            fix=f'a larger `{key}`, or stem = "small"',
        ) from None
    finally:
        body.train()
    if len(shape) != 4:
        raise TrainingError(
            "The architecture's features are not a map.",
            expected="a convolutional architecture, whose features are (n, channels, height, width)",
            found=f"{recipe.architecture} with features of shape {tuple(shape)}",
        )
    return shape[1]


def _head(recipe: Recipe, features: int, classes: int) -> nn.Module:
    if recipe.head == "fastai":
        from fastai.vision.learner import create_head

        head = create_head(features, classes, ps=recipe.dropout)
        head[0].mp = MapMaximum()
        return head
    # A fastnet's biases learn many times faster than its weights, which a bias of the logits would not bear.
    classifier = nn.Linear(features, classes, bias=recipe.architecture != "fastnet")
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(recipe.dropout), classifier)


def _cut_vgg(model: nn.Module) -> nn.Module:
    return model.features


def _cut_resnet(model: nn.Module) -> nn.Module:
    return nn.Sequential(*(part for name, part in model.named_children() if name not in ("avgpool", "fc")))


def _cut_densenet(model: nn.Module) -> nn.Module:
    return nn.Sequential(*model.features.children(), nn.ReLU(inplace=True))


def _cut_efficientnet(model: nn.Module) -> nn.Module:
    return model.features


# Our name -> torchvision's name, and how to leave the published classifier away.
_TORCHVISION: dict[str, tuple[str, Callable[[nn.Module], nn.Module]]] = {
    "vgg19": ("vgg19_bn", _cut_vgg),
    "resnet34": ("resnet34", _cut_resnet),
    "densenet121": ("densenet121", _cut_densenet),
    "efficientnet_b0": ("efficientnet_b0", _cut_efficientnet),
}
