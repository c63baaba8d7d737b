"""Networks: fastnet, four of torchvision's and all of timm's convolutional ones, with stems for small images.

A network is a published body and a head for the competition's classes. It has the normalisation that its pretrained
weights expect.
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
from podium.training.networks.convolutions import speed_up
from podium.training.networks.fastnet import FastNetBody, MapMaximum
from podium.training.networks.weights import load_weights, with_local_weights

IMAGENET = Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
TIMM_PREFIX = "timm:"


class Network(nn.Module):
    """Images (n, 3, pixels, pixels) -> logits (n, classes): a body, then a head."""

    def __init__(self, body: nn.Module, head: nn.Module, normalisation: Normalisation | None):
        super().__init__()
        self.body, self.head = body, head
        self.normalisation = normalisation  # of its images; None until it is measured on them
        self.published: tuple[nn.Linear, ...] = ()  # the published classifier, if it is one layer; not a part of it
        self.precision = torch.float32  # what it computes in; parameters and logits stay float32
        self.frozen: tuple[nn.Module, ...] = ()  # batch norms that keep their statistics

    def train(self, mode: bool = True) -> "Network":
        """Switch to training or evaluation; frozen batch norms use their running statistics in both."""
        super().train(mode)
        for layer in self.frozen:
            layer.eval()
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Logits (n, classes) float32 of (n, 3, pixels, pixels) images."""
        # fastai's MixedPrecision supports CUDA only, and leaves autocast on after an exception.
        with torch.autocast(images.device.type, self.precision, enabled=self.precision != torch.float32):
            logits = self.head(self.body(images))
        return logits.float()

    def layer_groups(self) -> list[list[nn.Parameter]]:
        """The parameters in three groups: first half of the body, second half, head."""
        body = list(self.body.parameters())
        middle = len(body) // 2
        return [body[:middle], body[middle:], list(self.head.parameters())]


def build_network(recipe: Recipe, classes: int, *, root: Path, seed: int, weights: bool = True) -> Network:
    """The recipe's network with `classes` outputs; new parameters are random, derived from `seed`.

    With `weights=False` pretrained weights are not loaded, but the network has their normalisation: enough to time it
    or to fill it with saved parameters. Raises TrainingError for an unknown architecture or a wrong weights file.
    """
    recipe = with_local_weights(recipe)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed(seed, "parameters"))
        body, normalisation, classifier = _body(recipe, root, weights=weights)
        if recipe.stem == "small":
            _shrink_stem(body, keep_parameters=bool(recipe.pretrained))
        _freeze_stages(body, recipe)
        features = _count_features(body, recipe)
        head = _head(recipe, features, classes)
    normalisation = normalisation if recipe.pretrained else None
    network = Network(body, head, normalisation).to(memory_format=torch.channels_last)
    if classifier and classifier.in_features == features and classifier.bias is not None:
        network.published = (classifier,)
    norms = [layer for layer in body.modules() if isinstance(layer, nn.BatchNorm2d)]
    if not recipe.frozen_norms and recipe.head != "logistic":
        norms = [layer for layer in norms if layer.weight is not None and not layer.weight.requires_grad]
    network.frozen = tuple(norms)
    shape = (2, 3, recipe.network_pixels, recipe.network_pixels)
    speed_up(body, norms, torch.rand(shape, generator=torch.Generator().manual_seed(0)))
    return network.train()


def published_state(recipe: Recipe) -> dict[str, Tensor]:
    """The published weights of a recipe with `pretrained = true`, downloaded unless they are in the cache."""
    return _published_model(recipe, Path()).state_dict()


def strides_past_the_image(network: nn.Module, pixels: int) -> bool:
    """Whether the stride of any convolution is longer than its input, for images of `pixels`."""
    is_longer = []

    def compare(layer: nn.Conv2d, inputs: tuple[Tensor, ...]) -> None:
        is_longer.append(min(inputs[0].shape[2:]) < max(layer.stride))

    hooks = [layer.register_forward_pre_hook(compare) for layer in network.modules() if isinstance(layer, nn.Conv2d)]
    was_training, device = network.training, next(network.parameters()).device
    with torch.no_grad():
        network.eval()(torch.zeros(1, 3, pixels, pixels, device=device))
    network.train(was_training)
    for hook in hooks:
        hook.remove()
    return any(is_longer)


def _body(recipe: Recipe, root: Path, *, weights: bool) -> tuple[nn.Module, Normalisation | None, nn.Linear | None]:
    """The recipe's network without classifier, its normalisation, and for a logistic head the published classifier."""
    if recipe.architecture == "fastnet":
        return FastNetBody(recipe.fastnet), None, None
    model = _published_model(recipe if weights else replace(recipe, pretrained=False), root)
    classifier = _last_linear(model) if recipe.head == "logistic" else None
    if recipe.architecture in _TORCHVISION:
        _, remove_classifier = _TORCHVISION[recipe.architecture]
        return remove_classifier(model), IMAGENET, classifier
    import timm

    if recipe.head == "logistic":
        model.reset_classifier(0, "")
    settings = timm.data.resolve_model_data_config(model)
    if recipe.weights_package:
        # The weights are TensorFlow's, also where the architecture has not its padding, and have its normalisation.
        name = recipe.architecture.removeprefix(TIMM_PREFIX)
        published = timm.get_pretrained_cfg(f"tf_{name.removeprefix('tf_')}")
        settings = published.to_dict() if published else settings
    return model, Normalisation(tuple(settings["mean"]), tuple(settings["std"])), classifier


def _last_linear(model: nn.Module) -> nn.Linear | None:
    return next((layer for layer in reversed(list(model.modules())) if isinstance(layer, nn.Linear)), None)


def _published_model(recipe: Recipe, root: Path) -> nn.Module:
    """Torchvision's model with its classifier, or timm's without, and the weights that the recipe asks for.

    With a logistic head, timm's has its classifier too; it is zero if the weights file has none.
    """
    is_downloaded = recipe.pretrained is True
    try:
        if recipe.architecture in _TORCHVISION:
            model = _torchvision_model(recipe.architecture, is_downloaded)
        else:
            model = _timm_model(recipe.architecture, is_downloaded, has_classifier=recipe.head == "logistic")
    except (OSError, RuntimeError) as error:  # errors of the network are one or the other
        if not is_downloaded:
            raise
        raise TrainingError(
            "The pretrained weights could not be downloaded.",
            expected=f"published weights of {recipe.architecture}",
            found=str(error).splitlines()[0][:200],
            fix='pretrained = "path/to/weights.safetensors" (or .pth) in the recipe',
        ) from None
    if isinstance(recipe.pretrained, str):
        if classifier := _last_linear(model):
            nn.init.zeros_(classifier.weight)  # until it is loaded
        load_weights(model, recipe, root)
    return model


def _torchvision_model(name: str, is_downloaded: bool) -> nn.Module:
    import torchvision.models

    return torchvision.models.get_model(_TORCHVISION[name][0], weights="IMAGENET1K_V1" if is_downloaded else None)


def _timm_model(name: str, is_downloaded: bool, *, has_classifier: bool) -> nn.Module:
    import huggingface_hub
    import timm

    # The hub retries for half a minute and warns each time; Podium's error has its last message.
    huggingface_hub.logging.set_verbosity_error()
    timm_name = name.removeprefix(TIMM_PREFIX)
    if timm_name == name or not timm.is_model(timm_name):
        known = [*_TORCHVISION, *(f"{TIMM_PREFIX}{model}" for model in timm.list_models())]
        nearest = difflib.get_close_matches(name, known, n=3)
        raise TrainingError(
            "There is no such architecture.",
            expected=f"fastnet, {', '.join(_TORCHVISION)}, or {TIMM_PREFIX}<a name of timm.list_models()>",
            found=f'architecture = "{name}"',
            fix=f"one of {', '.join(nearest)}" if nearest else None,
        )
    try:
        without_classifier = {} if has_classifier else {"num_classes": 0, "global_pool": ""}
        return timm.create_model(timm_name, pretrained=is_downloaded, **without_classifier)
    except (AssertionError, TypeError) as error:  # what timm raises for a pooling that cannot be removed
        raise _without_maps(name, str(error)) from None


def _freeze_stages(body: nn.Module, recipe: Recipe) -> None:
    """Exclude the parameters of the body's first `frozen_stages` stages, as timm counts them, from training."""
    if not recipe.frozen_stages:
        return
    if not hasattr(body, "group_matcher"):
        raise TrainingError(
            "The stages of the architecture are not known.",
            expected=f"an architecture of timm for frozen_stages = {recipe.frozen_stages}",
            found=f'architecture = "{recipe.architecture}"',
            fix=f'architecture = "{TIMM_PREFIX}<name>", or no `frozen_stages`, in the recipe',
        )
    from timm.models import group_parameters

    for stage, names in group_parameters(body, body.group_matcher(coarse=True)).items():
        for name in names:
            body.get_parameter(name).requires_grad = stage >= recipe.frozen_stages


def _shrink_stem(body: nn.Module, *, keep_parameters: bool) -> None:
    """Remove the stride of the first convolution and the pooling before the second, so that small images stay large.

    A body without either (VGG) loses its last pooling instead. A first convolution larger than 3 x 3 is replaced by a
    new one of 3 x 3, unless `keep_parameters`.
    """
    layers = [(name, layer) for name, layer in body.named_modules() if isinstance(layer, nn.Conv2d | nn.MaxPool2d)]
    first, second = [index for index, (_, layer) in enumerate(layers) if isinstance(layer, nn.Conv2d)][:2]
    early_poolings = [name for name, layer in layers[first:second] if isinstance(layer, nn.MaxPool2d)]
    last_pooling = [name for name, layer in layers if isinstance(layer, nn.MaxPool2d)][-1:]
    name, convolution = layers[first]
    for pooling in early_poolings or (last_pooling if convolution.stride == (1, 1) else []):
        body.set_submodule(pooling, nn.Identity())
    if keep_parameters or convolution.kernel_size[0] <= 3:
        convolution.stride = (1, 1)
        return
    channels, has_bias = (convolution.in_channels, convolution.out_channels), convolution.bias is not None
    small = nn.Conv2d(*channels, kernel_size=3, padding=1, bias=has_bias)
    nn.init.kaiming_normal_(small.weight, mode="fan_out", nonlinearity="relu")
    body.set_submodule(name, small)


def _count_features(body: nn.Module, recipe: Recipe) -> int:
    """How many channels the body's feature maps have; raises TrainingError where they are not maps."""
    smallest = min([recipe.network_pixels, *recipe.progressive_pixels])
    body.eval()
    try:
        with torch.no_grad():
            features = body(torch.zeros(1, 3, smallest, smallest))
    except (RuntimeError, AssertionError) as error:
        key = "training_pixels" if smallest == recipe.network_pixels else "progressive_pixels"
        raise TrainingError(
            "The images are too small for the architecture.",
            expected=f"{recipe.architecture} at {smallest} pixels",
            found=str(error).splitlines()[0][:200],
            fix=f'a larger `{key}`, or stem = "small"',
        ) from None
    finally:
        body.train()
    # timm gives the number of channels; what it calls the head's may come after a last convolution.
    known = [getattr(body, name) for name in ("num_features", "head_hidden_size") if hasattr(body, name)]
    if not isinstance(features, Tensor):
        raise _without_maps(recipe.architecture, f"features of the type {type(features).__name__}")
    shape = tuple(features.shape)
    if len(shape) != 4 or (known and shape[1] not in known):
        channels = f", not {' or '.join(map(str, sorted(set(known))))} channels first" if len(shape) == 4 else ""
        raise _without_maps(recipe.architecture, f"features of shape {shape}{channels}")
    return shape[1]


def _without_maps(architecture: str, found: str) -> TrainingError:
    return TrainingError(
        "The architecture does not give feature maps.",
        expected="a convolutional architecture, whose features are (n, channels, height, width)",
        found=f"{architecture} with {found}",
        fix="another architecture, such as timm:resnet18",
    )


def _head(recipe: Recipe, features: int, classes: int) -> nn.Module:
    if recipe.head == "fastai":
        from fastai.vision.learner import create_head

        head = create_head(features, classes, ps=recipe.dropout)
        head[0].mp = MapMaximum()
        return head
    # No bias for fastnet: `bias_ratio` trains biases at many times the learning rate, which is too fast for logits.
    classifier = nn.Linear(features, classes, bias=recipe.architecture != "fastnet")
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(recipe.dropout), classifier)


# Podium's name -> torchvision's name, and the function that removes the classifier.
_TORCHVISION: dict[str, tuple[str, Callable[[nn.Module], nn.Module]]] = {
    "vgg19": ("vgg19_bn", lambda model: model.features),
    "resnet34": ("resnet34", lambda model: nn.Sequential(*list(model.children())[:-2])),  # pooling and classifier
    "densenet121": ("densenet121", lambda model: nn.Sequential(*model.features.children(), nn.ReLU(inplace=True))),
    "efficientnet_b0": ("efficientnet_b0", lambda model: model.features),
}
