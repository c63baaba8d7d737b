"""Where files are: an unknown competition, places of images and of the cache, folders that cannot be written."""

from pathlib import Path

import pytest

from podium.errors import ConfigError
from podium.plan.paths import Paths, find_competition


def test_an_unknown_competition_is_refused_with_the_nearest_name(tmp_path):
    with pytest.raises(ConfigError, match=r"expected: +a folder in competitions/(?s:.*)fix: +ls competitions/"):
        find_competition("pets", tmp_path)
    for name in ("pets", "cars"):
        (tmp_path / "competitions" / name).mkdir(parents=True)
        (tmp_path / "competitions" / name / "competition.toml").touch()
    with pytest.raises(ConfigError, match=r"one of cars, pets(?s:.*)fix: +COMPETITION=pets"):
        find_competition("pest", tmp_path)
    paths = find_competition("pets", tmp_path, tmp_path / "elsewhere")
    assert paths.settings_file.is_file() and paths.predictions_folder == tmp_path / "elsewhere" / "oof" / "pets"


def test_images_are_looked_for_in_podium_data_first(monkeypatch, tmp_path):
    paths = Paths("pets", tmp_path / "project", tmp_path)
    monkeypatch.delenv("PODIUM_DATA", raising=False)
    places = [tmp_path / "project" / "data", tmp_path / "shared" / "data"]
    assert paths.image_places() == places
    monkeypatch.setenv("PODIUM_DATA", "~/images")
    assert paths.image_places() == [Path.home() / "images", *places]


def test_the_cache_is_below_the_project_or_where_podium_cache_says(monkeypatch, tmp_path):
    paths = Paths("pets", tmp_path, tmp_path)
    monkeypatch.delenv("PODIUM_CACHE", raising=False)
    assert paths.cache == tmp_path / ".cache" / "pets"
    monkeypatch.setenv("PODIUM_CACHE", "/large")
    assert paths.cache == Path("/large/pets")


@pytest.mark.parametrize("blocked", ["oof", "models"])
def test_folders_of_results_are_made_and_one_that_cannot_be_written_is_refused(tmp_path, blocked):
    paths = Paths("pets", tmp_path, tmp_path)
    (tmp_path / blocked).touch()  # a file in the place of the folder
    with pytest.raises(ConfigError, match=rf"cannot be written(?s:.*){blocked}/pets"):
        paths.check_writable()
    (tmp_path / blocked).unlink()
    paths.check_writable()
    assert paths.predictions_folder.is_dir() and not list(paths.predictions_folder.iterdir())
