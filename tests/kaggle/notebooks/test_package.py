"""What goes to Kaggle: which files, under which names, and the script that is pushed."""

import ast
import hashlib
import json
import tomllib
import zipfile
from pathlib import Path

import numpy as np
import pytest

from notebook_toys import RECIPE, write_competition
from podium.errors import ConfigError, DataError
from podium.kaggle.notebooks.package import check_images, notebook_slug, pack_notebook, write_sources
from podium.kaggle.notebooks.script import REQUIRED
from podium.lock import Lock, write_lock
from podium.workspace import open_workspace

ROOT = Path(__file__).parents[3]


@pytest.fixture
def home(tmp_path):
    home = write_competition(tmp_path)
    rows = (np.array(["1", "2"]), np.array([0, 1]), np.array([0, -1]), np.array(["3"]))
    write_lock(home / "data.lock", Lock("data", ("a", "b"), *rows))
    return home


def packed(home, *, new_version=False):
    workspace = open_workspace("tiny", home.parents[1])
    return pack_notebook(workspace, workspace.runs, user="me", new_version=new_version)


def places(package):
    """Place in the project -> the file in the dataset."""
    entries = json.loads((package.dataset.folder / package.dataset.listing).read_text())
    return {entry["place"]: package.dataset.folder / entry["name"] for entry in entries}


def settings_of(package):
    assignments = ast.parse((package.script_folder / "kernel.py").read_text()).body
    (value,) = (one.value for one in assignments if isinstance(one, ast.AnnAssign) and one.target.id == "SETTINGS")
    return ast.literal_eval(value)


def metadata_of(package):
    return json.loads((package.script_folder / "kernel-metadata.json").read_text())


def test_the_dataset_holds_the_competition_and_podium_each_with_its_hash(home):
    package = packed(home)
    folder = "competitions/tiny"
    expected = {f"{folder}/competition.toml", f"{folder}/data.lock", f"{folder}/net.toml", "podium.pyz"}
    assert set(places(package)) == expected
    for entry in json.loads((package.dataset.folder / package.dataset.listing).read_text()):
        content = (package.dataset.folder / entry["name"]).read_bytes()
        assert hashlib.sha256(content).hexdigest() == entry["sha256"]
    metadata = json.loads((package.dataset.folder / "dataset-metadata.json").read_text())
    assert metadata["id"] == "me/podium-tiny-files" and 6 <= len(metadata["title"]) <= 50


def test_equal_content_has_an_equal_listing_and_every_push_has_its_own_id(home):
    first, second = packed(home), packed(home)
    assert first.dataset.listing == second.dataset.listing and first.push != second.push
    (home / "net.toml").write_text(RECIPE + "dropout = 0.1\n")
    assert packed(home).dataset.listing != first.dataset.listing
    assert packed(home, new_version=True).dataset.listing != packed(home, new_version=True).dataset.listing


def test_the_script_knows_its_push_and_the_notebook_is_private_and_offline(home):
    package = packed(home)
    settings, metadata = settings_of(package), metadata_of(package)
    assert (settings["push"], settings["runs"], settings["source"]) == (package.push, ["net.s1", "net.s2"], "")
    assert (settings["dataset"], settings["listing"]) == ("me/podium-tiny-files", package.dataset.listing)
    assert (metadata["id"], metadata["title"], metadata["code_file"]) == ("me/podium-tiny", "podium-tiny", "kernel.py")
    assert metadata["enable_internet"] is False and metadata["is_private"] is True and metadata["enable_gpu"] is True


def test_a_competition_at_kaggle_is_attached(home):
    file = home / "competition.toml"
    file.write_text(file.read_text() + '[kaggle]\ncompetition = "dogs"\n')
    package = packed(home)
    assert metadata_of(package)["competition_sources"] == ["dogs"] and settings_of(package)["source"] == "dogs"


@pytest.mark.parametrize(
    ("competition", "slug"),
    [
        ("digits", "podium-digits"),
        ("cifar10-cpu", "podium-cifar10-cpu"),
        ("A_b", "podium-a-b-08eb65"),
        ("x" * 60, "podium-" + "x" * 30 + "-42f2d9"),
    ],
)
def test_slugs_are_allowed_by_kaggle_and_two_competitions_never_share_one(competition, slug):
    assert notebook_slug(competition) == slug
    assert notebook_slug("a.b") != notebook_slug("a-b") != notebook_slug("A_b")


def test_a_weights_file_lies_where_the_recipe_expects_it(home):
    (home / "net.toml").write_text('pretrained = "weights/net.pth"\n' + RECIPE)
    with pytest.raises(ConfigError, match="weights file is missing"):
        packed(home)
    root = home.parents[1]
    (root / "weights").mkdir()
    (root / "weights" / "net.pth").write_bytes(b"weights")
    assert places(packed(home))["weights/net.pth"].read_bytes() == b"weights"


@pytest.mark.parametrize("place", ["/somewhere/net.pth", "../net.pth"])
def test_a_weights_file_outside_the_project_is_refused(home, place):
    (home / "net.toml").write_text(f'pretrained = "{place}"\n' + RECIPE)
    with pytest.raises(ConfigError, match="cannot have this weights file"):
        packed(home)


def test_published_weights_are_packed_because_a_notebook_is_offline(home):
    (home / "net.toml").write_text("pretrained = true\n" + RECIPE)
    with pytest.raises(ConfigError, match="weights file is missing"):
        packed(home)
    file = home.parents[1] / ".kernel" / "published" / "timm-test_resnet.safetensors"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"weights")
    assert places(packed(home))["published/timm-test_resnet.safetensors"].read_bytes() == b"weights"


def test_the_sources_are_packed_into_the_same_bytes_each_time(tmp_path):
    for name in ("one", "two"):
        write_sources(tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    with zipfile.ZipFile(tmp_path / "one") as archive:
        assert {"podium/__main__.py", "podium/kaggle/notebooks/script.py"} <= set(archive.namelist())
        assert not any("__pycache__" in name for name in archive.namelist())


def test_the_image_must_have_what_pyproject_asks_for():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    required = {f"{name}>={minimum}" for name, minimum in REQUIRED.items() if name != "python"}
    assert required <= set(project["dependencies"]) and project["requires-python"] == f">={REQUIRED['python']}"


def test_data_that_are_not_prepared_are_refused(home):
    (home / "data.lock").unlink()
    with pytest.raises(DataError, match="not prepared yet"):
        packed(home)


def test_only_images_that_kaggle_attaches_or_digits_can_be_trained_on(home):
    file = home / "competition.toml"
    file.write_text(file.read_text().replace('"digits"\n[val', '"folders"\n[val'))
    with pytest.raises(ConfigError, match="would have no images"):
        check_images(open_workspace("tiny", home.parents[1]))
    file.write_text(file.read_text() + '[kaggle]\ncompetition = "dogs"\n')
    check_images(open_workspace("tiny", home.parents[1]))
