"""The competition and the images that an earlier command named."""

import pytest

from podium.errors import ConfigError
from podium.plan.__main__ import main
from podium.plan.memory import MEMORY_FILE, pick_competition, remember, remembered_place


def picked(root, **options):
    """The competition, and whether it is said that an earlier command named it."""
    notes = []
    return pick_competition(root, note=notes.append, **options), bool(notes)


@pytest.fixture
def root(tmp_path):
    for name in ("cars", "dogs"):
        folder = tmp_path / "competitions" / name
        folder.mkdir(parents=True)
        (folder / "competition.toml").write_text(f'title = "{name}"\n[data]\nsource = "folders"\n')
    return tmp_path


def test_the_last_competition_is_used_then_the_default_then_the_only_one(root):
    with pytest.raises(ConfigError, match=r"(?s)Which competition\?.*one of cars, dogs.*COMPETITION=cars"):
        pick_competition(root)
    assert picked(root, default="cars") == ("cars", False)
    remember(root, "dogs")
    assert picked(root, default="cars") == ("dogs", True)
    (root / "competitions" / "dogs" / "competition.toml").unlink()
    assert picked(root) == ("cars", False)
    (root / "competitions" / "cars" / "competition.toml").unlink()
    with pytest.raises(ConfigError, match=r"(?s)no competition here.*make new"):
        pick_competition(root, default="cars")


def test_each_competition_has_its_own_place_of_images_while_that_exists(root, monkeypatch):
    monkeypatch.chdir(root)
    (root / "my $photos").mkdir()
    remember(root, "dogs", data="my $photos")
    remember(root, "cars")
    assert remembered_place(root, "dogs") == root / "my $photos" and remembered_place(root, "cars") is None
    (root / "my $photos").rmdir()
    assert remembered_place(root, "dogs") is None


@pytest.mark.parametrize("content", ["", "[]", '{"competition": 3, "data": [1]}', '{"data": {"dogs": 1}}', "\0"])
def test_a_damaged_memory_is_no_memory(root, content):
    (root / ".podium").mkdir()
    (root / MEMORY_FILE).write_text(content)
    assert picked(root, default="cars") == ("cars", False)
    assert remembered_place(root, "dogs") is None
    remember(root, "dogs")
    assert picked(root) == ("dogs", True)


def test_a_memory_that_cannot_be_written_stops_no_command(root, monkeypatch):
    def full(file, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("podium.plan.memory.write_file", full)
    remember(root, "dogs")
    assert picked(root, default="cars") == ("cars", False)


def test_what_make_asks_prints_the_name_and_remembers_only_a_typed_one_that_exists(root, monkeypatch, capsys):
    monkeypatch.chdir(root)
    assert main(["", "", "", "", "cars", ""]) == 0
    assert capsys.readouterr() == ("COMPETITION=cars\n", "")
    assert main(["cats", "", "", "", "cars", "line0"]) == 2
    assert "COMPETITION=cars" in capsys.readouterr().err
    assert main(["dogs", "", "", "", "cars", ""]) == 0 and not (root / MEMORY_FILE).exists()
    assert main(["dogs", "", "", "", "cars", "line0"]) == 0
    assert capsys.readouterr().out == "COMPETITION=dogs\n" * 2
    assert main(["", "", "", "", "cars", ""]) == 0
    assert capsys.readouterr() == ("COMPETITION=dogs\n", "COMPETITION=dogs, as in an earlier command\n")
