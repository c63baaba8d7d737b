"""Where files are: an unknown competition, places of images and of the cache, folders that cannot be written."""

import os
from pathlib import Path

import pytest

from podium.config.keys import Competition, Data
from podium.errors import ConfigError
from podium.plan.paths import Paths, find_competition
from podium.plan.stamp import ensemble_stamp


def test_an_unknown_competition_is_refused_with_the_nearest_name(tmp_path):
    with pytest.raises(
        ConfigError, match=r"no competition here(?s:.*)expected: +a folder in competitions/(?s:.*)fix: +make new"
    ):
        find_competition("pets", tmp_path)
    for name in ("pets", "cars"):
        (tmp_path / "competitions" / name).mkdir(parents=True)
        (tmp_path / "competitions" / name / "competition.toml").touch()
    with pytest.raises(ConfigError, match=r"one of cars, pets(?s:.*)fix: +COMPETITION=pets"):
        find_competition("pest", tmp_path)
    paths = find_competition("pets", tmp_path)
    assert paths.settings_file.is_file() and paths.predictions_folder == tmp_path / "oof" / "pets"


def test_the_cache_is_below_the_project_or_where_podium_cache_says(monkeypatch, tmp_path):
    monkeypatch.delenv("PODIUM_CACHE", raising=False)
    assert Paths("pets", tmp_path, tmp_path).cache == tmp_path / ".cache" / "pets"
    monkeypatch.setenv("PODIUM_CACHE", "/large")
    assert Paths("pets", tmp_path, tmp_path).cache == Path("/large/pets")


@pytest.mark.parametrize("blocked", ["oof", "models"])
def test_folders_of_results_are_made_and_one_that_cannot_be_written_is_refused(tmp_path, blocked):
    paths = Paths("pets", tmp_path, tmp_path)
    (tmp_path / blocked).touch()  # a file in the place of the folder
    with pytest.raises(ConfigError, match=rf"cannot be written(?s:.*){blocked}/pets"):
        paths.check_writable()
    (tmp_path / blocked).unlink()
    paths.check_writable()
    assert paths.predictions_folder.is_dir() and not list(paths.predictions_folder.iterdir())


def test_files_of_predictions_are_sorted_and_none_without_their_folder(tmp_path):
    paths = Paths("toy", tmp_path, tmp_path)
    assert paths.predictions_files() == []
    paths.predictions_folder.mkdir(parents=True)
    for name in ("b.s1.npz", "a.s1.npz", ".a.s1.npz.1-2.tmp", "notes.txt"):
        (paths.predictions_folder / name).touch()
    assert [file.name for file in paths.predictions_files()] == ["a.s1.npz", "b.s1.npz"]


def test_a_folder_of_predictions_that_cannot_be_read_is_an_error(tmp_path, monkeypatch):
    """Path.glob takes it as an empty folder, so that an ensemble of no runs would be stale."""
    paths = Paths("toy", tmp_path, tmp_path)

    def refuse(folder):
        raise PermissionError(13, "Permission denied", str(folder))

    for module in (os, getattr(Path, "_accessor", os)):
        for name in ("listdir", "scandir"):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, refuse)
    paths.predictions_folder.mkdir(parents=True)
    with pytest.raises(PermissionError):
        paths.predictions_files()
    with pytest.raises(PermissionError):
        ensemble_stamp(paths, Competition(title="Toy", data=Data(source="folders")))
