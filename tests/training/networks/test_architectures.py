"""Networks: small stems, heads, frozen layers, local weights, and what is refused."""

import huggingface_hub
import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from timm.optim import param_groups_layer_decay

from podium.config.keys import Recipe
from podium.errors import TrainingError
from podium.training.networks.architectures import IMAGENET, Network, build_network, strides_past_the_image
from podium.training.networks.convolutions import FastConvolution
from podium.training.optimisers import list_rates


def recipe(architecture: str, **keys) -> Recipe:
    keys = {"stored_pixels": 32} | keys
    return Recipe(architecture=architecture, epochs=1, learning_rate=0.1, **keys)


def built(architecture: str, *, seed: int = 1, root=None, classes: int = 5, weights: bool = True, **keys):
    return build_network(recipe(architecture, **keys), classes, root=root, seed=seed, weights=weights).eval()


def features_side(network) -> int:
    maps = getattr(network.body, "forward_features", network.body)  # timm's pools them afterwards
    with torch.no_grad():
        return maps(torch.zeros(1, 3, 32, 32)).shape[-1]


@pytest.mark.parametrize(
    ("architecture", "standard", "small"),
    [("vgg19", 1, 2), ("resnet34", 1, 4), ("densenet121", 1, 4), ("efficientnet_b0", 1, 2)],
)
def test_a_small_stem_keeps_small_images_larger(architecture, standard, small):
    assert features_side(built(architecture)) == standard
    assert features_side(built(architecture, stem="small")) == small


def test_any_timm_architecture_has_as_many_outputs_as_classes_and_can_have_a_small_stem():
    network = built("timm:resnet10t", stem="small", dropout=0.2)
    assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 5)
    assert features_side(network) > features_side(built("timm:resnet10t"))


def test_parameters_come_from_the_seed_and_not_from_the_global_stream():
    torch.manual_seed(3)
    first = built("timm:resnet10t", seed=1).state_dict()
    torch.manual_seed(4)
    again, other = built("timm:resnet10t", seed=1).state_dict(), built("timm:resnet10t", seed=2).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_fastais_head_has_two_layers():
    network = built("resnet34", head="fastai", dropout=0.5)
    assert sum(isinstance(part, torch.nn.Linear) for part in network.head.modules()) == 2


def test_no_maximum_is_taken_by_what_has_no_deterministic_gradient_on_a_gpu():
    for keys in ({"head": "fastai"}, {"architecture": "fastnet"}):
        network = built(**({"architecture": "resnet34"} | keys))
        assert not any(isinstance(part, torch.nn.AdaptiveMaxPool2d) for part in network.modules())


def test_layer_groups_hold_every_parameter_once_and_the_head_last():
    network = built("resnet34")
    groups = network.layer_groups()
    assert sum(len(group) for group in groups) == len(list(network.parameters()))
    assert groups[2][0] is next(network.head.parameters()) and len(groups[0]) > 10


@pytest.mark.parametrize("architecture", ["efficientnet_b0", "timm:tf_efficientnet_lite0"])
def test_convolutions_are_fast_ones_and_include_frozen_norms_alone(architecture):
    network = built(architecture, pretrained=True, frozen_norms=True, weights=False)
    layers = [layer for layer in network.modules() if isinstance(layer, torch.nn.Conv2d)]
    assert all(isinstance(layer, FastConvolution) for layer in layers)
    assert {norm for layer in layers for norm in layer.norms} == set(network.frozen)
    layers = [layer for layer in built(architecture).modules() if isinstance(layer, torch.nn.Conv2d)]
    assert all(isinstance(layer, FastConvolution) and not layer.norms for layer in layers)


def test_a_frozen_norm_that_no_convolution_includes_uses_its_statistics_in_training_too():
    network = Network(torch.nn.BatchNorm2d(3), torch.nn.Flatten(), recipe("resnet34"))
    network.frozen = (network.body,)
    for mode in (True, False):
        assert not network.train(mode).body.training and network.head.training == mode


def test_frozen_stages_are_the_stem_and_the_stages_after_it():
    network = built("timm:efficientnet_lite0", pretrained=True, frozen_stages=2, weights=False)
    frozen = [name for name, parameter in network.body.named_parameters() if not parameter.requires_grad]
    assert frozen == [
        name for name, _ in network.body.named_parameters() if name.startswith(("conv_stem", "bn1", "blocks.0"))
    ]
    assert all(p.requires_grad for p in network.head.parameters())


def test_only_timms_architectures_have_stages_to_freeze():
    with pytest.raises(TrainingError, match=r'(?s)frozen_stages = 1.*architecture = "timm:'):
        built("resnet34", pretrained=True, frozen_stages=1, weights=False)


def test_a_resnet_of_five_strides_needs_more_than_16_pixels():
    network = built("resnet34").train()
    assert not strides_past_the_image(network, 32)
    assert strides_past_the_image(network, 16)
    assert network.training


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_local_weights_are_loaded_without_their_classifier_and_bring_imagenets_normalisation(tmp_path, suffix):
    published = torchvision.models.resnet34(weights=None)
    file = tmp_path / f"weights{suffix}"
    state = published.state_dict()
    save_file(state, file) if suffix == ".safetensors" else torch.save(state, file)
    network = built("resnet34", root=tmp_path, pretrained=file.name)
    assert torch.equal(network.body[0].weight, published.conv1.weight)
    assert network.head[-1].out_features == 5 and network.normalisation == IMAGENET
    assert built("resnet34").normalisation is None


def test_a_small_stem_keeps_pretrained_parameters(tmp_path):
    published = torchvision.models.resnet34(weights=None)
    save_file(published.state_dict(), tmp_path / "weights.safetensors")
    network = built("resnet34", root=tmp_path, pretrained="weights.safetensors", stem="small")
    assert torch.equal(network.body[0].weight, published.conv1.weight) and network.body[0].stride == (1, 1)


def test_a_weights_file_that_would_run_code_is_refused(tmp_path):
    torch.save({"layer": print}, tmp_path / "weights.pth")
    with pytest.raises(TrainingError, match="without running code") as error:
        built("resnet34", root=tmp_path, pretrained="weights.pth")
    assert "weights_only" not in str(error.value) and "trust" not in str(error.value)


@pytest.mark.parametrize("content", [b"hello world\n", b"e", b"", b"123\n456\n.", b"<html>", b"version 1\n"])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_file_that_holds_no_weights_is_refused_by_name(tmp_path, content, suffix):
    (tmp_path / f"weights{suffix}").write_bytes(content)
    with pytest.raises(TrainingError, match=r"(?s)weights file cannot be loaded.*weights\."):
        built("resnet34", root=tmp_path, pretrained=f"weights{suffix}")


@pytest.mark.parametrize(
    "content",
    [{"state_dict": [1]}, {"conv1.weight": 5}, {1: torch.zeros(1)}, [torch.zeros(1)]],
    ids=["state_dict", "number", "numbered", "list"],
)
def test_weights_that_are_not_tensors_by_name_are_refused(tmp_path, content):
    torch.save(content, tmp_path / "weights.pth")
    with pytest.raises(TrainingError, match="not tensors"):
        built("resnet34", root=tmp_path, pretrained="weights.pth")


def test_a_failed_download_is_one_error_and_the_hub_does_not_warn_of_each_try(monkeypatch):
    def fail(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr(timm, "create_model", fail)
    with pytest.raises(TrainingError, match="no network"):
        built("timm:resnet10t", pretrained=True)
    assert huggingface_hub.logging.get_verbosity() == huggingface_hub.logging.ERROR


def test_weights_of_another_architecture_are_refused(tmp_path):
    save_file(torchvision.models.resnet18(weights=None).state_dict(), tmp_path / "weights.safetensors")
    with pytest.raises(TrainingError, match="another architecture"):
        built("densenet121", root=tmp_path, pretrained="weights.safetensors")


def test_a_missing_weights_file_is_named(tmp_path):
    with pytest.raises(TrainingError, match=r"nowhere\.pth"):
        built("resnet34", root=tmp_path, pretrained="nowhere.pth")


def test_an_unknown_architecture_gets_the_nearest_spelling():
    with pytest.raises(TrainingError, match="resnet34"):
        built("resnet43")
    with pytest.raises(TrainingError, match=r"(?s)no such architecture.*timm:resnet18"):
        built("timm:resnot18")
    for name in ("resnet18", "vgg16"):  # timm's, without its prefix
        with pytest.raises(TrainingError, match=rf"no such architecture(?s:.*)fix: +one of timm:{name},"):
            built(name)


@pytest.mark.parametrize(
    ("architecture", "pixels", "found"),
    [
        ("swin_tiny_patch4_window7_224", 64, "(1, 2, 2, 768), not 768 channels first"),
        ("mambaout_femto", 64, "(1, 2, 2, 1152), not 288 or 1152 channels first"),
        ("test_vit", 64, "(1, 17, 64)"),
    ],
)
def test_fastais_head_refuses_features_that_are_not_maps_with_channels_first(architecture, pixels, found):
    with pytest.raises(TrainingError, match=r'(?s)features of the architecture.*fix: +head = "linear"') as error:
        built(f"timm:{architecture}", stored_pixels=pixels, head="fastai")
    assert f"timm:{architecture} with " in error.value.found and found in error.value.found


def test_an_architecture_that_cannot_leave_out_its_pooling_is_refused_with_fastais_head():
    with pytest.raises(TrainingError, match=r'(?s)head = "fastai".*timm:crossvit_9_240'):
        built("timm:crossvit_9_240", stored_pixels=240, head="fastai")


def test_features_that_are_neither_maps_nor_one_vector_an_image_are_refused_by_name(monkeypatch):
    monkeypatch.setattr(timm.models.resnet.ResNet, "forward_head", lambda _, maps: [maps])
    with pytest.raises(TrainingError, match=r"(?s)not understood.*timm:test_resnet with features of <class 'list'>"):
        built("timm:test_resnet")


def test_a_stem_of_one_convolution_cannot_be_made_small():
    with pytest.raises(TrainingError, match=r'(?s)no stem.*timm:test_vit.*stem = "standard"'):
        built("timm:test_vit", stored_pixels=64, stem="small")


def test_layer_decay_has_the_layers_and_rates_of_timm():
    settings = recipe("timm:test_vit", stored_pixels=64, layer_decay=0.7)
    network = built("timm:test_vit", stored_pixels=64, layer_decay=0.7)
    groups = network.layer_groups()
    names = {id(p): name.removeprefix("body.") for name, p in network.named_parameters()}
    rates = dict(zip(range(len(groups)), list_rates(settings, 1.0, groups=len(groups))[::3], strict=True))
    found = {names[id(p)]: rates[place] for place, group in enumerate(groups) for p in group}
    model = timm.create_model("test_vit", img_size=64, num_classes=5)
    scaled = param_groups_layer_decay(model, layer_decay=0.7)
    scales = {id(p): group["lr_scale"] for group in scaled for p in group["params"]}
    expected = {name: scales[id(p)] for name, p in model.named_parameters()}
    assert found.pop("head.3.weight") == found.pop("head.3.bias") == expected.pop("head.weight") == 1.0
    assert expected.pop("head.bias") == 1.0 and found == pytest.approx(expected) and len(groups) == 8


def test_only_timms_architectures_have_layers_to_decay():
    with pytest.raises(TrainingError, match=r"(?s)layers of the architecture are not known.*layer_decay = 0\.5"):
        built("resnet34", layer_decay=0.5)


def test_images_too_small_for_an_architecture_are_refused_before_training():
    with pytest.raises(TrainingError, match="images are too small for the architecture"):
        built("vgg19", stored_pixels=16)
    with pytest.raises(TrainingError, match=r"(?s)vgg19 at 8 pixels.*larger `progressive_pixels`"):
        built("vgg19", progressive_pixels=(8,))
