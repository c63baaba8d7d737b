"""What goes to Kaggle: which files, under which names, and the script that is pushed."""

import ast
import hashlib
import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from kernel_bench import RECIPE, SETTINGS
from podium.errors import ConfigError, DataError
from podium.kaggle.notebooks.package import check_kernel, pack, slug_of
from podium.lock import Lock, write_lock
from podium.plan.paths import Project
from podium.plan.runs import list_runs


@pytest.fixture
def project(tmp_path):
    home = tmp_path / "competitions" / "tiny"
    home.mkdir(parents=True)
    (home / "competition.toml").write_text(SETTINGS)
    (home / "net.toml").write_text(RECIPE)
    rows = (np.array(["1", "2"]), np.array([0, 1]), np.array([0, -1]), np.array(["3"]))
    write_lock(home / "data.lock", Lock("data", ("a", "b"), *rows))
    return Project.at(tmp_path)


def packed(project, *, wheels="none", publish=None, told=None, force=False):
    return pack(
        project,
        "tiny",
        list_runs(project, "tiny"),
        user="me",
        wheels=wheels,
        publish=publish,
        tell=(told if told is not None else []).append,
        force=force,
    )


def settings_of(package):
    text = (package.script / "kernel.py").read_text()
    (found,) = (
        one.value for one in ast.parse(text).body if isinstance(one, ast.AnnAssign) and one.target.id == "SETTINGS"
    )
    return ast.literal_eval(found)


def test_the_dataset_holds_the_competition_and_podium_each_with_its_hash(project):
    package = packed(project)
    places = {one.name: one.place for one in package.brought}
    assert places == {
        "competition.toml": "competitions/tiny/competition.toml",
        "data.lock": "competitions/tiny/data.lock",
        "net.toml": "competitions/tiny/net.toml",
        "podium-0.1.0-py3-none-any.whl": "",
        package.listing: "",
    }
    for one in package.brought:
        content = (package.files / one.name).read_bytes()
        assert (hashlib.sha256(content).hexdigest(), len(content)) == (one.sha256, one.bytes)
    metadata = json.loads((package.files / "dataset-metadata.json").read_text())
    assert metadata["id"] == "me/podium-tiny-files" and 6 <= len(metadata["title"]) <= 50


def test_equal_content_has_an_equal_name_and_every_push_another(project):
    first, second = packed(project), packed(project)
    assert first.listing == second.listing and first.push != second.push
    recipe = project.competition_folder("tiny") / "net.toml"
    recipe.write_text(recipe.read_text() + "dropout = 0.1\n")
    assert packed(project).listing != first.listing
    assert packed(project, force=True).listing != packed(project, force=True).listing


def test_the_script_says_what_it_was_pushed_for_and_the_kernel_has_no_internet(project):
    package = packed(project)
    said = settings_of(package)
    assert (said["push"], said["runs"], said["source"]) == (package.push, ["net.s1", "net.s2"], "")
    assert (said["dataset"], said["listing"]) == ("me/podium-tiny-files", package.listing)
    metadata = json.loads((package.script / "kernel-metadata.json").read_text())
    assert (metadata["id"], metadata["title"], metadata["code_file"]) == ("me/podium-tiny", "podium-tiny", "kernel.py")
    assert metadata["enable_internet"] is False and metadata["is_private"] is True and metadata["enable_gpu"] is True


def test_a_competition_at_kaggle_is_attached(project):
    file = project.competition_folder("tiny") / "competition.toml"
    file.write_text(file.read_text() + '[kaggle]\ncompetition = "dogs"\n')
    package = packed(project)
    assert json.loads((package.script / "kernel-metadata.json").read_text())["competition_sources"] == ["dogs"]
    assert settings_of(package)["source"] == "dogs"


@pytest.mark.parametrize(
    ("competition", "slug"),
    [
        ("digits", "podium-digits"),
        ("cifar10-cpu", "podium-cifar10-cpu"),
        ("A_b", "podium-a-b-08eb65"),
        ("x" * 60, "podium-" + "x" * 30 + "-42f2d9"),
    ],
)
def test_names_are_what_kaggle_makes_of_titles_and_two_competitions_never_share_one(competition, slug):
    assert slug_of(competition) == slug and slug_of("a.b") != slug_of("a-b") != slug_of("A_b")


def test_a_weights_file_goes_along_and_lies_where_the_recipe_says(project):
    recipe = project.competition_folder("tiny") / "net.toml"
    recipe.write_text('pretrained = "weights/net.safetensors"\n' + recipe.read_text())
    with pytest.raises(ConfigError, match="weights file is missing"):
        packed(project)
    (project.root / "weights").mkdir()
    save_file({"body": np.zeros(2)}, project.root / "weights" / "net.safetensors")
    (one,) = (one for one in packed(project).brought if one.name.startswith("weights-"))
    assert one.place == "weights/net.safetensors" and one.name.endswith(".safetensors")


def test_two_weights_files_that_are_equal_lie_both_where_the_recipes_say(project):
    home = project.competition_folder("tiny")
    for name in ("a", "b"):
        (home / f"{name}.toml").write_text(f'pretrained = "{name}.pth"\n{RECIPE}')
        (project.root / f"{name}.pth").write_bytes(b"weights")
    assert {one.place for one in packed(project).brought if one.name.startswith("weights-")} == {"a.pth", "b.pth"}


@pytest.mark.parametrize("place", ["/somewhere/net.pth", "../net.pth"])
def test_a_weights_file_outside_the_project_is_refused(project, place):
    recipe = project.competition_folder("tiny") / "net.toml"
    recipe.write_text(f'pretrained = "{place}"\n' + recipe.read_text())
    with pytest.raises(ConfigError, match="that a kernel cannot have"):
        packed(project)


def test_published_weights_go_along_because_a_kernel_cannot_download_them(project):
    recipe = project.competition_folder("tiny") / "net.toml"
    recipe.write_text("pretrained = true\n" + recipe.read_text())
    asked = []

    def publish(recipe, file):
        asked.append(recipe.architecture)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"weights")

    (one,) = (one for one in packed(project, publish=publish).brought if one.name.startswith("published-"))
    assert (one.name, one.place) == (
        "published-timm-test_resnet.safetensors",
        "published/timm-test_resnet.safetensors",
    )
    assert asked == ["timm:test_resnet"]  # once for both runs


def test_wheels_come_from_a_folder_that_is_named(project, tmp_path):
    with pytest.raises(ConfigError, match="WHEELS= names no folder"):
        packed(project, wheels=str(tmp_path))
    (tmp_path / "some-1.0-py3-none-any.whl").write_bytes(b"wheel")
    assert "some-1.0-py3-none-any.whl" in packed(project, wheels=str(tmp_path)).sizes


def test_wheels_are_fetched_where_nothing_is_said(project, monkeypatch):
    asked = []
    monkeypatch.setattr("podium.kaggle.notebooks.package.fetch_wheels", lambda folder, tell: asked.append(folder) or [])
    packed(project, wheels="")
    assert asked == [project.root / ".kernel" / "wheels"]


def test_data_that_are_not_prepared_are_told_before_anything_is_packed(project):
    project.lock_file("tiny").unlink()
    with pytest.raises(DataError, match="not prepared yet"):
        check_kernel(project, "tiny")


def test_only_what_kaggle_attaches_or_what_is_bundled_can_be_trained_in_a_kernel(project):
    check_kernel(project, "tiny")
    file = project.competition_folder("tiny") / "competition.toml"
    file.write_text(SETTINGS.replace('"digits"\n[val', '"folders"\n[val'))
    with pytest.raises(ConfigError, match="would have no images"):
        check_kernel(project, "tiny")
    file.write_text(file.read_text() + '[kaggle]\ncompetition = "dogs"\n')
    check_kernel(project, "tiny")
