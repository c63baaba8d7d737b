"""`podium new`: what it prints and asks."""

import shlex

import pytest
from PIL import Image

import layout_toys as layouts

OPTIONS = {"COMPETITION": "--competition", "DATA": "--data", "TARGET": "--target", "KIND": "--kind", "SET": "--set"}
OPTIONS["METRIC"] = "--metric"


def arguments_of(command: str) -> list[str]:
    """The arguments that make hands to podium for a command that a person types."""
    make, verb, *words = shlex.split(command)
    assert (make, verb) == ("make", "new")
    return ["new", *(part for word in words for part in (OPTIONS[word.split("=")[0]], word.split("=", 1)[1]))]


def test_the_command_prints_its_guesses_and_what_to_check(tmp_path, podium):
    for number in range(24):
        layouts.image(tmp_path, f"pets/train/{'cat' if number % 2 else 'dog'}/{number}.png")
    layouts.image(tmp_path, "pets/test/100.png")
    done = podium(tmp_path, "new", "-c", "dogs", "--data", "pets")
    assert done.returncode == 0, done.stderr
    assert "24 labelled images (one folder per class), 1 test images" in done.stdout
    assert "2 classes: cat 12, dog 12" in done.stdout and "please check the metric" in done.stdout
    assert "next: check these files, then type make rehearse COMPETITION=dogs DATA=pets" in done.stdout
    assert "\n\n" not in done.stdout and "fix before" not in done.stdout


@pytest.mark.parametrize(("name", "choices"), [("histopathologic", 2), ("aptos", 3)])
def test_each_command_that_it_says_to_type_goes_on(tmp_path, podium, name, choices):
    getattr(layouts, name)(tmp_path / "my data")
    asked = podium(tmp_path, "new", "-c", "task", "--data", "my data", "--set", "validation.folds=3")
    assert asked.returncode == 2 and not (tmp_path / "competitions").exists() and not asked.stdout
    commands = [line.strip() for line in asked.stderr.splitlines() if line.strip().startswith("make new ")]
    assert len(commands) == choices and len(asked.stderr.splitlines()) < 14
    for number, command in enumerate(commands):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "my data").symlink_to(tmp_path / "my data")
        done = podium(folder, *arguments_of(command))
        assert done.returncode == 0, done.stderr
        assert "folds = 3" in (folder / "competitions/task/competition.toml").read_text()
        assert podium(folder, "prepare", "-c", "task", "--data", "my data").returncode == 0


def test_photos_have_a_recipe_for_a_first_blend_that_small_images_do_not_have(tmp_path, podium):
    for name, side in (("photos", 300), ("icons", 32)):
        for k in range(8):
            file = tmp_path / name / "train" / ("cat", "dog")[k % 2] / f"{k}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (side, side), (9 * k, 0, 0)).save(file)
        lines = podium(tmp_path, "new", "-c", name, "--data", name).stdout.splitlines()
        is_here = (tmp_path / "competitions" / name / "lite0-logistic.toml").is_file()
        assert is_here == (name == "photos")
        assert lines[-1].startswith("or next: make lite0-logistic") == is_here, lines
