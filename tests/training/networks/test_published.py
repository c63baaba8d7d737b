"""Published models: timm's by its own pooling and image size, and the weights that a recipe asks for."""

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from podium.config.keys import Recipe, published_name
from podium.errors import TrainingError
from podium.training.networks.architectures import build_network
from podium.training.networks.published import published_state
from podium.training.optimisers import list_rates, make_optimiser


def recipe(architecture: str, **keys) -> Recipe:
    keys = {"stored_pixels": 64} | keys
    return Recipe(architecture=architecture, epochs=1, learning_rate=0.1, **keys)


def built(architecture: str, *, root=None, weights: bool = True, **keys):
    return build_network(recipe(architecture, **keys), 5, root=root, seed=1, weights=weights).eval()


def images_of(pixels: int = 64, count: int = 2) -> torch.Tensor:
    return torch.randn(count, 3, pixels, pixels, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("architecture", "pixels", "features"),
    [
        ("test_vit", 64, 64),
        ("test_vit3", 48, 96),  # pools by attention, as SigLIP does
        ("test_convnext", 64, 64),
        ("test_maxvit", 64, 128),
        ("test_coatnet", 64, 128),
        ("test_vit_relpos", 64, 96),
        ("vit_tiny_patch16_224", 64, 192),
        ("deit_tiny_distilled_patch16_224", 64, 192),
        ("eva02_tiny_patch14_224", 56, 192),
        ("vit_small_patch14_dinov2", 56, 384),
        ("vit_small_patch16_dinov3", 64, 384),
        ("swin_tiny_patch4_window7_224", 64, 768),
        ("convnext_atto", 64, 320),
        ("maxvit_rmlp_pico_rw_256", 64, 256),
        ("mobilenetv4_conv_small", 64, 1280),
        ("tf_efficientnetv2_b0", 64, 1280),
        ("tiny_vit_5m_224", 64, 320),
        ("crossvit_9_240", 240, 384),
        ("levit_128s", 64, 384),
    ],
)
def test_every_kind_of_network_of_timm_gives_features_and_logits(architecture, pixels, features):
    network = built(f"timm:{architecture}", stored_pixels=pixels)
    with torch.no_grad():
        assert network.body(images_of(pixels)).shape == (2, features)
        assert network(images_of(pixels)).shape == (2, 5)


@pytest.mark.parametrize("architecture", ["test_vit", "test_vit3", "test_convnext", "test_maxvit", "test_efficientnet"])
@pytest.mark.parametrize(("optimiser", "rate"), [("adamw", 0.002), ("muon", 0.05)])
def test_training_steps_lower_the_loss(architecture, optimiser, rate):
    settings = recipe(f"timm:{architecture}", optimiser=optimiser, layer_decay=0.9, drop_path=0.1)
    network = build_network(settings, 5, root=None, seed=1)
    optimiser = make_optimiser(settings, network)
    rates = list_rates(settings, rate, groups=len(network.layer_groups()))
    for group, group_rate in zip(optimiser.param_groups, rates, strict=True):
        group["lr"] = group_rate
    images, labels, losses = images_of(count=10), torch.arange(10) % 5, []
    torch.manual_seed(0)
    for _ in range(12):
        loss = nn.functional.cross_entropy(network(images), labels)
        losses.append(float(loss))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert min(losses[-3:]) < 0.9 * losses[0]


@pytest.mark.parametrize("architecture", ["resnet10t", "tf_efficientnet_lite0"])
def test_the_pooling_of_timm_has_the_bits_of_a_mean_of_the_maps(architecture):
    network = built(f"timm:{architecture}").train()
    maps = timm.create_model(architecture, num_classes=0, global_pool="")
    maps.load_state_dict(network.body.state_dict())
    gradients, images = [], images_of()
    for body, pooling in ((network.body, nn.Identity()), (maps, nn.AdaptiveAvgPool2d(1))):
        body.to(memory_format=torch.channels_last).train()
        features = pooling(body(images.contiguous(memory_format=torch.channels_last))).flatten(1)
        features.square().sum().backward()
        gradients.append([features.detach(), *(p.grad for p in body.parameters())])
    assert all(torch.equal(*pair) for pair in zip(*gradients, strict=True))


@pytest.mark.parametrize("architecture", ["test_vit", "test_convnext", "mobilenetv3_small_050", "test_resnet"])
def test_the_published_classifier_on_the_features_gives_the_published_logits(tmp_path, architecture):
    torch.manual_seed(0)
    model = timm.create_model(architecture).eval()
    nn.init.normal_(model.get_classifier().weight)
    save_file(model.state_dict(), tmp_path / "weights.safetensors")
    network = built(
        f"timm:{architecture}", root=tmp_path, pretrained="weights.safetensors", head="logistic", stored_pixels=160
    )
    images = images_of(160)
    with torch.no_grad():
        assert torch.allclose(network.published[0](network.body(images)), model(images), atol=1e-4)


def test_a_network_that_is_published_without_a_classifier_has_none():
    keys = {"pretrained": True, "weights": False, "head": "logistic"}
    assert built("timm:vit_small_patch16_dinov3", **keys).published == ()


def test_a_network_of_a_fixed_image_size_is_built_for_the_training_pixels():
    assert built("timm:test_vit3", training_pixels=48).body.patch_embed.img_size == (48, 48)


def test_progressive_pixels_resample_position_embeddings_where_timm_does():
    network = built("timm:test_vit3", progressive_pixels=(32, 48))
    assert [tuple(network(images_of(pixels)).shape) for pixels in (32, 48, 64)] == [(2, 5)] * 3
    with pytest.raises(TrainingError, match=r"(?s)progressive_pixels.*timm:test_maxvit"):
        built("timm:test_maxvit", progressive_pixels=(32,))
    with pytest.raises(TrainingError, match=r"(?s)timm:test_vit3 at 40 pixels.*progressive_pixels"):
        built("timm:test_vit3", progressive_pixels=(40,))


def test_drop_path_drops_residual_branches_in_training_and_is_refused_where_there_are_none():
    network = built("timm:test_vit", drop_path=0.3)
    dropped = [layer.drop_prob for layer in network.modules() if type(layer).__name__ == "DropPath"]
    assert max(dropped) == pytest.approx(0.3)
    with pytest.raises(TrainingError, match=r"(?s)drop_path.*timm:vgg11"):
        built("timm:vgg11", drop_path=0.3)


@pytest.mark.parametrize(("architecture", "name"), [("test_vit", "pos_embed"), ("test_maxvit", "bias_table")])
def test_local_weights_of_another_image_size_are_resampled(tmp_path, architecture, name):
    torch.manual_seed(0)
    state = timm.create_model(architecture).state_dict()
    save_file(state, tmp_path / "weights.safetensors")
    body = built(f"timm:{architecture}", root=tmp_path, pretrained="weights.safetensors").body.state_dict()
    resampled = [key for key, value in body.items() if value.shape != state[key].shape]
    assert resampled and all(name in key for key in resampled)
    assert all(torch.equal(value, state[key]) for key, value in body.items() if key not in resampled)
    for key in resampled:
        assert 0 < body[key].std() < 2 * state[key].std() and abs(body[key].mean() - state[key].mean()) < 0.1


def test_local_weights_without_a_norm_in_the_head_are_refused(tmp_path):
    state = timm.create_model("test_convnext").state_dict()
    del state["head.norm.weight"]
    save_file(state, tmp_path / "weights.safetensors")
    with pytest.raises(
        TrainingError, match=r"(?s)another architecture.*head\.norm\.weight: expected \(64,\), found none"
    ):
        built("timm:test_convnext", root=tmp_path, pretrained="weights.safetensors")


def test_a_wider_network_of_another_image_size_is_refused(tmp_path):
    save_file(timm.create_model("test_vit4").state_dict(), tmp_path / "weights.safetensors")
    with pytest.raises(TrainingError, match="another architecture"):
        built("timm:test_vit2", root=tmp_path, pretrained="weights.safetensors")


@pytest.mark.parametrize("architecture", ["timm:test_resnet", "efficientnet_b0"])
def test_published_weights_in_the_folder_podium_weights_are_not_downloaded(tmp_path, monkeypatch, architecture):
    # The recipe is not pretrained, so that the "published" weights are random and nothing is downloaded.
    state = {name: value.contiguous() for name, value in published_state(recipe(architecture)).items()}
    save_file(state, tmp_path / published_name(architecture))
    monkeypatch.setenv("PODIUM_WEIGHTS", str(tmp_path))
    network = built(architecture, pretrained=True, root=tmp_path)
    assert network.normalisation is not None
    body = {name.split("features.")[-1]: value for name, value in network.body.state_dict().items()}
    kept = {name.removeprefix("features."): value for name, value in state.items()}
    assert body and all(torch.equal(value, kept[name]) for name, value in body.items())
    assert built(architecture).normalisation is None


def test_a_folder_without_the_weights_leaves_it_to_the_download(tmp_path, monkeypatch):
    def no_network(*_, **__):
        raise OSError("no network here")

    monkeypatch.setenv("PODIUM_WEIGHTS", str(tmp_path))
    monkeypatch.setattr(torchvision.models, "get_model", no_network)
    with pytest.raises(TrainingError, match="could not be downloaded"):
        built("resnet34", pretrained=True)


def test_the_published_state_has_the_published_image_size():
    assert published_state(recipe("timm:test_vit"))["pos_embed"].shape == (1, 101, 64)


@pytest.mark.parametrize("head", ["linear", "fastai", "logistic"])
def test_the_published_state_has_the_classifier_that_another_recipe_of_the_architecture_may_use(head):
    assert "fc.weight" in published_state(recipe("timm:test_resnet", head=head))
