"""Networks: fastnet, four of torchvision's, and timm's, with stems for small images.

A network is a published body and a head for the competition's classes. The body gives maps (n, channels, h, w), or
features (n, channels) where the architecture has a pooling of its own, as timm's have (class token, mean, attention).
It has the normalisation that its pretrained weights expect.
"""

from dataclasses import replace
from itertools import chain, compress
from pathlib import Path

import torch
from sklearn.compose import ColumnTransformer
from torch import Tensor, nn

from podium.config.keys import Recipe
from podium.config.pixels import Pixels, height_and_width, pixels_text
from podium.errors import TrainingError
from podium.seeding import stream_seed
from podium.training.batches.stores import Normalisation
from podium.training.networks import published
from podium.training.networks.convolutions import features_of, speed_up
from podium.training.networks.fastnet import FastNetBody, MapMaximum
from podium.training.networks.heads import Trees

IMAGENET = Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class Network(nn.Module):
    """Images (n, 3, height, width) -> logits (n, classes): a body, then a head; built by a recipe."""

    def __init__(self, body: nn.Module, head: nn.Module, recipe: Recipe, normalisation: Normalisation | None = None):
        super().__init__()
        self.body, self.head, self.recipe = body, head, recipe
        self.normalisation = normalisation  # of its images; None until it is measured on them
        self.scale = (0.0, 1.0)  # of its outputs: what is added to them, after they are multiplied, to give logits
        self.encoder: ColumnTransformer | None = None  # of the metadata that the head gets beside the features
        self.published: tuple[nn.Linear, ...] = ()  # the published classifier, if it is one layer; not a part of it
        self.precision = torch.float32  # what it computes in; parameters and logits stay float32
        self.frozen: tuple[nn.Module, ...] = ()  # batch norms that keep their statistics
        self.layers: list[list[nn.Parameter]] = []  # of the body, from the input on, with `layer_decay`

    def train(self, mode: bool = True) -> "Network":
        """Switch to training or evaluation; frozen batch norms use their running statistics in both."""
        super().train(mode)
        for layer in self.frozen:
            layer.eval()
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Logits (n, classes) float32 of (n, 3, height, width) images."""
        # fastai's MixedPrecision supports CUDA only, and leaves autocast on after an exception.
        with torch.autocast(images.device.type, self.precision, enabled=self.precision != torch.float32):
            logits = self.head(self.body(images))
        return logits.float()

    def layer_groups(self) -> list[list[nn.Parameter]]:
        """The parameters in groups: the layers of the body, or else its first half and its second; then the head."""
        body = list(self.body.parameters())
        middle = len(body) // 2
        return [*(self.layers or [body[:middle], body[middle:]]), list(self.head.parameters())]


def build_network(
    recipe: Recipe, classes: int, *, root: Path, seed: int, weights: bool = True, device: torch.device | None = None
) -> Network:
    """The recipe's network with `classes` outputs; new parameters are random, derived from `seed`.

    With `weights=False` pretrained weights are not loaded, but the network has their normalisation: enough to time it
    or to fill it with saved parameters. On a `device` it has the recipe's precision there. Raises TrainingError for an
    unknown architecture or a wrong weights file.
    """
    given, recipe = recipe, published.with_local_weights(recipe)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed(seed, "parameters"))
        body, normalisation, classifier = _body(recipe, root, weights=weights)
        if recipe.stem == "small":
            _shrink_stem(body, recipe)
        if recipe.frozen_stages:
            for parameter in chain(*_layers(body, recipe, "frozen_stages")[: recipe.frozen_stages]):
                parameter.requires_grad = False
        features = _features_shape(body, recipe)
        head = _head(recipe, features, classes)
    network = Network(body, head, given, normalisation if recipe.pretrained else None)
    network.to(memory_format=torch.channels_last)
    if recipe.layer_decay < 1:
        network.layers = _layers(body, recipe, "layer_decay")
    if classifier and classifier.in_features == features[1] and classifier.bias is not None:
        network.published = (classifier,)
    norms = [layer for layer in body.modules() if isinstance(layer, nn.BatchNorm2d)]
    if not recipe.frozen_norms and not recipe.fits_features:  # fastnet's norms have fixed weights, and are trained
        is_frozen = [recipe.frozen_stages and layer.affine and not layer.weight.requires_grad for layer in norms]
        norms = list(compress(norms, is_frozen))
    network.frozen = tuple(norms)
    shape = (2, 3, *height_and_width(recipe.network_pixels))
    speed_up(body, norms, torch.rand(shape, generator=torch.Generator().manual_seed(0)))
    if device:
        network.precision = pick_precision(recipe, network.to(device), device)
    return network.train()


def pick_precision(recipe: Recipe, network: nn.Module, device: torch.device) -> torch.dtype:
    """The data type of the convolutions; parameters and their averages stay float32.

    `auto` is bfloat16 where the device has instructions for it; elsewhere it is emulated, a hundred times slower, and
    a GPU computes in float16 instead. On a CPU, a stride that is longer than the image gives wrong gradients: oneDNN
    3.13 adds uninitialised memory, so that they differ each time or are NaN. Raises TrainingError where the recipe
    asks for bfloat16 with such a stride.
    """
    if recipe.precision == "float32":
        return torch.float32
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if fast or recipe.precision == "bfloat16" else torch.float16
    required, capabilities = recipe.precision == "bfloat16", torch.cpu.get_capabilities()
    if not required and not any(capabilities.get(name) for name in ("amx_bf16", "avx512_bf16")):
        return torch.float32
    smallest = tuple(map(min, zip(*map(height_and_width, recipe.stage_pixels), strict=True)))
    if not strides_past_the_image(network, smallest):
        return torch.bfloat16
    if required:
        raise TrainingError(
            "The CPU cannot train this network in bfloat16.",
            expected="images that are larger than the stride of each convolution",
            found=f"{recipe.architecture} at {pixels_text(smallest)} pixels",
            fix='precision = "auto", stem = "small" or a larger `training_pixels` in the recipe',
        )
    return torch.float32


def strides_past_the_image(network: nn.Module, pixels: Pixels) -> bool:
    """Whether the stride of any convolution is longer than its input, for images of `pixels`."""
    is_longer = []

    def compare(layer: nn.Conv2d, inputs: tuple[Tensor, ...]) -> None:
        is_longer.append(min(inputs[0].shape[2:]) < max(layer.stride))

    hooks = [layer.register_forward_pre_hook(compare) for layer in network.modules() if isinstance(layer, nn.Conv2d)]
    features_of(network, torch.zeros(1, 3, *height_and_width(pixels), device=next(network.parameters()).device))
    for hook in hooks:
        hook.remove()
    return any(is_longer)


def _body(recipe: Recipe, root: Path, *, weights: bool) -> tuple[nn.Module, Normalisation | None, nn.Linear | None]:
    """The recipe's network without classifier, its normalisation; for a head on features the published classifier."""
    if recipe.architecture == "fastnet":
        return FastNetBody(recipe.fastnet), None, None
    wanted = recipe if weights else replace(recipe, pretrained=False)
    model = published.published_model(wanted, root, pixels=recipe.network_pixels)
    classifier = published.classifier_of(model) if recipe.fits_features else None
    if recipe.architecture in published.TORCHVISION:
        _, remove_classifier = published.TORCHVISION[recipe.architecture]
        return remove_classifier(model), IMAGENET, classifier
    import timm

    if recipe.fits_features:
        model.reset_classifier(0)
    settings = timm.data.resolve_model_data_config(model)
    if recipe.weights_package:
        # The weights and their normalisation are TensorFlow's, even if the architecture does not use its padding.
        name = recipe.architecture.removeprefix(published.TIMM_PREFIX)
        tensorflow = timm.get_pretrained_cfg(f"tf_{name.removeprefix('tf_')}")
        settings = tensorflow.to_dict() if tensorflow else settings
    return model, Normalisation(tuple(settings["mean"]), tuple(settings["std"])), classifier


def _layers(body: nn.Module, recipe: Recipe, key: str) -> list[list[nn.Parameter]]:
    """The body's parameters by layer, as timm groups them from the input on; by stage for `frozen_stages`."""
    if not hasattr(body, "group_matcher"):
        raise TrainingError(
            "The layers of the architecture are not known.",
            expected=f"an architecture of timm, with known layers, for {key} = {getattr(recipe, key)}",
            found=f'architecture = "{recipe.architecture}"',
            fix=f'architecture = "{published.TIMM_PREFIX}<name>", or no `{key}`, in the recipe',
        )
    from timm.models import group_parameters

    matcher = body.group_matcher(coarse=key == "frozen_stages")
    return list(group_parameters(body, matcher, return_values=True).values())


def _shrink_stem(body: nn.Module, recipe: Recipe) -> None:
    """Remove the stride of the first convolution and the pooling before the second, so that small images stay large.

    A body without either (VGG) loses its last pooling instead. A first convolution larger than 3 x 3 is replaced by a
    new one of 3 x 3, unless it has pretrained parameters. Raises TrainingError where it is the only one.
    """
    layers = [(name, layer) for name, layer in body.named_modules() if isinstance(layer, nn.Conv2d | nn.MaxPool2d)]
    convolutions = [index for index, (_, layer) in enumerate(layers) if isinstance(layer, nn.Conv2d)]
    if len(convolutions) < 2:
        raise TrainingError(
            "The architecture has no stem that can be made smaller.",
            expected='a convolutional architecture for stem = "small"',
            found=f'architecture = "{recipe.architecture}"',
            fix='stem = "standard" and a larger `training_pixels` in the recipe',
        )
    first, second = convolutions[:2]
    early_poolings = [name for name, layer in layers[first:second] if isinstance(layer, nn.MaxPool2d)]
    last_pooling = [name for name, layer in layers if isinstance(layer, nn.MaxPool2d)][-1:]
    name, convolution = layers[first]
    for pooling in early_poolings or (last_pooling if convolution.stride == (1, 1) else []):
        body.set_submodule(pooling, nn.Identity())
    if recipe.pretrained or convolution.kernel_size[0] <= 3:
        convolution.stride = (1, 1)
        return
    channels, has_bias = (convolution.in_channels, convolution.out_channels), convolution.bias is not None
    small = nn.Conv2d(*channels, kernel_size=3, padding=1, bias=has_bias)
    nn.init.kaiming_normal_(small.weight, mode="fan_out", nonlinearity="relu")
    body.set_submodule(name, small)


def _features_shape(body: nn.Module, recipe: Recipe) -> tuple[int, ...]:
    """The shape of the features of one image: (1, channels), or (1, channels, h, w) for maps.

    Raises TrainingError where they are neither, and where the architecture does not take a size of the recipe's images.
    """
    for pixels in sorted(set(recipe.stage_pixels), key=height_and_width):
        try:
            features = features_of(body, torch.zeros(1, 3, *height_and_width(pixels)))
        except (RuntimeError, AssertionError) as error:
            key = "training_pixels" if pixels == recipe.network_pixels else "progressive_pixels"
            raise TrainingError(
                "The images are too small for the architecture, or of a size that it does not take.",
                expected=f"{recipe.architecture} at {pixels_text(pixels)} pixels",
                found=str(error).split("\n")[0][:200],
                fix=f'a larger `{key}`, or stem = "small"',
            ) from None
    # timm gives the number of channels; what it calls the head's may come after a last convolution.
    known = [getattr(body, name) for name in ("num_features", "head_hidden_size") if hasattr(body, name)]
    shape, needs_maps = tuple(getattr(features, "shape", ())), recipe.head == "fastai"
    is_maps = len(shape) == 4 and (not known or shape[1] in known)
    if is_maps or (len(shape) == 2 and not needs_maps):
        return shape
    channels = f", not {' or '.join(map(str, sorted(set(known))))} channels first" if len(shape) == 4 else ""
    raise TrainingError(
        "The features of the architecture are not understood.",
        expected="maps (n, channels, height, width)" + ("" if needs_maps else ", or features (n, channels)"),
        found=f"{recipe.architecture} with features of {f'shape {shape}' if shape else type(features)}{channels}",
        fix='head = "linear"' if needs_maps else "another architecture, such as timm:resnet18",
    )


def _head(recipe: Recipe, features: tuple[int, ...], classes: int) -> nn.Module:
    if recipe.head == "fastai":
        from fastai.vision.learner import create_head

        head = create_head(features[1], classes, ps=recipe.dropout)
        head[0].mp = MapMaximum()
        return head
    pooling = nn.AdaptiveAvgPool2d(1) if len(features) == 4 else nn.Identity()
    if recipe.head == "boosting":
        return nn.Sequential(pooling, nn.Flatten(), Trees(classes))
    # No bias for fastnet: `bias_ratio` trains biases at many times the learning rate, which is too fast for logits.
    classifier = nn.Linear(features[1], classes, bias=recipe.architecture != "fastnet")
    return nn.Sequential(pooling, nn.Flatten(), nn.Dropout(recipe.dropout), classifier)
