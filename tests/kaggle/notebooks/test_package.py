"""What goes to Kaggle: which files, under which names, and the script that is pushed."""

import ast
import json
import sys
import tomllib
import zipfile
from pathlib import Path

import numpy as np
import pytest

from notebook_toys import RECIPE, write_competition
from podium.errors import ConfigError, DataError, TrainingError
from podium.kaggle.notebooks.package import (
    DATASET,
    SCRIPT,
    check_images,
    notebook_slug,
    pack_dataset,
    pack_notebook,
    push_request,
)
from podium.kaggle.notebooks.script import REQUIRED
from podium.lock import Lock, write_lock
from podium.plan.packages import find_weights
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
    return pack_notebook(workspace, home / "packed", user="me", runs=workspace.runs, new_version=new_version)


def content(home, push):
    """Place in the project -> content of the file in the dataset's archive."""
    with zipfile.ZipFile(home / "packed" / DATASET / push.archive) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def settings_of(home):
    assignments = ast.parse((home / "packed" / SCRIPT).read_text()).body
    (value,) = (line.value for line in assignments if isinstance(line, ast.AnnAssign) and line.target.id == "SETTINGS")
    return ast.literal_eval(value)


def request_of(home, push):
    return push_request(open_workspace("tiny", home.parents[1]), home / "packed", push)


def test_the_archive_has_the_competition_and_the_sources(home):
    package = packed(home)
    names = set(content(home, package))
    folder = "competitions/tiny"
    assert {f"{folder}/competition.toml", f"{folder}/data.lock", f"{folder}/net.toml"} <= names
    assert {"src/podium/__main__.py", "src/podium/kaggle/notebooks/script.py"} <= names
    assert not any("__pycache__" in name for name in names)
    assert package.dataset == "me/podium-tiny-files"


def test_equal_content_has_an_equal_archive_and_every_push_has_its_own_id(home):
    first, second = packed(home), packed(home)
    assert first.archive == second.archive and first.push != second.push
    (home / "net.toml").write_text(RECIPE + "dropout = 0.1\n")
    assert packed(home).archive != first.archive
    assert packed(home, new_version=True).archive != packed(home, new_version=True).archive


def test_the_script_knows_its_push_and_the_notebook_is_private_and_offline(home):
    package = packed(home)
    settings, request = settings_of(home), request_of(home, package)
    assert (settings["push"], settings["runs"], settings["source"]) == (package.push, ["net.s1", "net.s2"], "")
    assert (settings["dataset"], settings["archive"]) == ("me/podium-tiny-files", package.archive)
    assert (request["slug"], request["newTitle"]) == ("me/podium-tiny", "podium-tiny")
    assert request["text"] == (home / "packed" / SCRIPT).read_text() and package.push in request["text"]
    assert request["enableInternet"] is False and request["isPrivate"] is True and request["enableGpu"] is True


IMAGE = f"gcr.io/kaggle-images/python@sha256:{'0' * 64}"


@pytest.mark.parametrize(
    ("table", "machine"),
    [
        ("", {"enableGpu": True, "machineShape": "NvidiaTeslaT4", "dockerImagePinningType": "latest"}),
        ('accelerator = "NvidiaL4"', {"enableGpu": True, "machineShape": "NvidiaL4"}),
        ('accelerator = "none"', {"enableGpu": False, "machineShape": None}),
        ('image = "original"', {"dockerImagePinningType": "original", "dockerImage": None}),
        (f'image = "{IMAGE}"', {"dockerImagePinningType": None, "dockerImage": IMAGE}),
    ],
)
def test_the_machine_and_its_image_are_settings(home, table, machine):
    settings = (home / "competition.toml").read_text()
    (home / "competition.toml").write_text(settings + (f"[kaggle]\nnotebook_{table}\n" if table else ""))
    request = request_of(home, packed(home))
    assert {name: request.get(name) for name in machine} == machine


@pytest.mark.parametrize(("table", "hours"), [("", 11.5), ("[kaggle]\nnotebook_hours = 9\n", 8.5)])
def test_runs_may_last_as_long_as_a_session_except_for_half_an_hour(home, table, hours):
    (home / "competition.toml").write_text((home / "competition.toml").read_text() + table)
    packed(home)
    assert settings_of(home)["hours"] == hours


def test_a_competition_at_kaggle_is_attached(home):
    file = home / "competition.toml"
    file.write_text(file.read_text() + '[kaggle]\ncompetition = "dogs"\n')
    package = packed(home)
    assert request_of(home, package)["competitionDataSources"] == [settings_of(home)["source"]] == ["dogs"]


@pytest.mark.parametrize(
    ("competition", "slug"),
    [
        ("digits", "podium-digits"),
        ("cifar10-scratch", "podium-cifar10-scratch"),
        ("A_b", "podium-a-b-08eb65"),
        ("x" * 60, "podium-" + "x" * 30 + "-42f2d9"),
    ],
)
def test_slugs_are_allowed_by_kaggle_and_two_competitions_never_share_one(competition, slug):
    assert notebook_slug(competition, "podium") == slug
    assert notebook_slug("a.b", "podium") != notebook_slug("a-b", "podium") != notebook_slug("A_b", "podium")


def test_a_weights_file_lies_where_the_recipe_expects_it(home):
    (home / "net.toml").write_text('pretrained = "weights/net.pth"\n' + RECIPE)
    with pytest.raises(ConfigError, match="file that a recipe names is missing"):
        packed(home)
    root = home.parents[1]
    (root / "weights").mkdir()
    (root / "weights" / "net.pth").write_bytes(b"weights")
    assert content(home, packed(home))["weights/net.pth"] == b"weights"


@pytest.mark.parametrize("place", ["/somewhere/net.pth", "../net.pth"])
def test_a_weights_file_outside_the_project_is_refused(home, place):
    (home / "net.toml").write_text(f'pretrained = "{place}"\n' + RECIPE)
    with pytest.raises(ConfigError, match="cannot have this file"):
        packed(home)


def test_pseudo_labels_are_packed_and_extra_images_are_refused(home):
    (home / "net.toml").write_text('pseudo_labels = "pseudo.csv"\n' + RECIPE)
    with pytest.raises(ConfigError, match="file that a recipe names is missing"):
        packed(home)
    (home.parents[1] / "pseudo.csv").write_bytes(b"id,label\n")
    assert content(home, packed(home))["pseudo.csv"] == b"id,label\n"
    settings = (
        (home / "competition.toml").read_text().replace('source = "digits"', 'source = "folders"\nextra = ["more"]')
    )
    (home / "competition.toml").write_text(settings)
    with pytest.raises(ConfigError, match=r"would not have the extra images(?s:.*)found: +more"):
        packed(home)
    settings += '[kaggle]\ncompetition = "dogs"\n'
    (home / "competition.toml").write_text(settings)
    check_images(open_workspace("tiny", home.parents[1]), trains=False)  # the members of an ensemble are trained


def test_published_weights_are_packed_because_a_notebook_is_offline(home):
    (home / "net.toml").write_text("pretrained = true\n" + RECIPE)
    with pytest.raises(ConfigError, match="file that a recipe names is missing"):
        packed(home)
    file = home.parents[1] / ".kernel" / "published" / "timm-test_resnet.safetensors"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"weights")
    assert content(home, packed(home))["published/timm-test_resnet.safetensors"] == b"weights"


def test_a_package_with_weights_is_packed_so_that_the_notebook_finds_it_installed(home, install_package, monkeypatch):
    (home / "net.toml").write_text('pretrained = "package:toy-weights"\n' + RECIPE)
    with pytest.raises(TrainingError, match="not installed"):
        packed(home)
    folder = install_package("toy-weights", {"toy/__init__.py": b"", "toy/models/net.pth": b"weights"})
    here, package = find_weights("toy-weights"), packed(home)
    assert "src/toy/__init__.py" not in content(home, package)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path != str(folder)])
    with zipfile.ZipFile(home / "packed" / DATASET / package.archive) as archive:
        archive.extractall(home / "kaggle")
    monkeypatch.syspath_prepend(home / "kaggle" / "src")
    there = find_weights("toy-weights")
    assert there.file.read_bytes() == b"weights" and there.sha256 == here.sha256


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
        check_images(open_workspace("tiny", home.parents[1]), trains=True)
    file.write_text(file.read_text() + '[kaggle]\ncompetition = "dogs"\n')
    check_images(open_workspace("tiny", home.parents[1]), trains=True)


def test_the_archive_has_every_file_at_its_place(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "net.pth").write_text(folder)
    files = {f"weights/{folder}/net.pth": tmp_path / folder / "net.pth" for folder in ("a", "b")}
    packed = pack_dataset("me/files", tmp_path / "packed", files)
    with zipfile.ZipFile(packed) as content:
        texts = {name: content.read(name).decode() for name in content.namelist()}
    assert texts == {"weights/a/net.pth": "a", "weights/b/net.pth": "b"}
    assert {file.name for file in packed.parent.iterdir()} == {packed.name, "dataset-metadata.json"}
    metadata = json.loads((packed.parent / "dataset-metadata.json").read_text())
    assert metadata["id"] == "me/files" and len(metadata["licenses"]) == 1


def test_equal_files_give_an_equal_archive_except_for_a_new_version(tmp_path):
    (tmp_path / "a.toml").write_text("a")
    files = {"a.toml": tmp_path / "a.toml"}
    first = pack_dataset("me/files", tmp_path / "packed", files).name
    assert pack_dataset("me/files", tmp_path / "packed", files).name == first
    changed = {pack_dataset("me/files", tmp_path / "packed", files, new_version=True).name for _ in range(2)}
    assert len(changed | {first}) == 3
    (tmp_path / "a.toml").write_text("b")
    assert pack_dataset("me/files", tmp_path / "packed", files).name != first
