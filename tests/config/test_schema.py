"""Tables into frozen classes: strict, every fault by name, and stable under new defaults."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from podium.config.schema import changed_keys, check_keys, flat_keys, key, read_table, settings_of
from podium.errors import ConfigError

FILE = Path("house.toml")


@dataclass(frozen=True, kw_only=True)
class Door:
    colour: Literal["red", "green"] = key("paint", "red")


@dataclass(frozen=True, kw_only=True)
class House:
    rooms: int = key("how many", low=1, high=9)
    height: float | str = key("metres, or a word", 2.5)
    doors: tuple[int, ...] = key("widths", (1,), low=1)
    front: Door = key("the first", Door())


@dataclass(frozen=True, kw_only=True)
class Garden:
    trees: int = key("how many", 1)
    pond: str = key("what is in it", "dry")
    owner: str = key("whose", "")
    gate: Door = key("the way in", Door())


def faults_of(table: dict, **keys) -> list[str]:
    with pytest.raises(ConfigError) as error:
        settings_of(House, table, FILE, **keys)
    assert error.value.file == FILE
    return error.value.faults


def test_what_is_given_is_taken_and_the_rest_has_its_default():
    house = settings_of(House, {"rooms": 3, "height": 2, "doors": [2, 3], "front": {"colour": "green"}}, FILE)
    assert house == House(rooms=3, height=2.0, doors=(2, 3), front=Door(colour="green"))
    assert settings_of(House, {"rooms": 1}, FILE) == House(rooms=1)


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ({}, "rooms: missing; expected how many"),
        ({"rooms": 10}, "rooms = 10: expected 1 to 9"),
        ({"rooms": True}, "rooms = True: expected int"),
        ({"rooms": 1, "doors": [2, 0]}, "doors[1] = 0: expected at least 1"),
        ({"rooms": 1, "front": {"colour": "gren"}}, "front.colour = 'gren': expected one of red, green; did you mean"),
        ({"rooms": 1, "front": {"color": "red"}}, "front.color: unknown key; did you mean colour?"),
        ({"rooms": 1, "front": 3}, "front = 3: expected a table"),
        ({"rooms": 1, "xyz": 3}, "xyz: unknown key; known here: rooms, height, doors, front"),
    ],
)
def test_a_fault_is_told_with_its_key_and_what_was_expected(table, told):
    (fault,) = faults_of(table)
    assert fault.startswith(told)


def test_a_table_that_others_read_is_known_to_whoever_misspells_it():
    (fault,) = faults_of({"rooms": 1, "gardn": {}}, other_tables=["garden"])
    assert fault == "gardn: unknown key; did you mean garden?"


def test_all_faults_are_told_at_once():
    assert len(faults_of({"rooms": 0, "height": [], "roof": 1})) == 3


def test_changed_keys_leave_defaults_out_so_that_new_keys_make_nothing_stale():
    assert changed_keys(House(rooms=3, height=2.5, doors=(1, 2))) == {"rooms": 3, "doors": [1, 2]}
    assert changed_keys(House(rooms=3, front=Door(colour="green"))) == {"rooms": 3, "front": {"colour": "green"}}


def test_a_rule_is_about_changed_keys_and_a_required_one_about_its_key_whatever_the_value():
    garden = Garden(trees=3, gate=Door(colour="green"))
    rules = [("trees pond", False, "no shade"), ("gate", False, "a wall"), ("trees", True, "nothing")]
    required = [("owner", False, "a name"), ("pond", False, "water"), ("owner", True, "nothing")]
    with pytest.raises(ConfigError) as error:
        check_keys(garden, rules, required=required, file=FILE)
    assert error.value.file == FILE and list(error.value.faults) == [
        "owner: missing; expected a name",
        'pond = "dry": expected water',
        "trees = 3: expected no shade",
        'gate.colour = "green": expected a wall',
    ]
    check_keys(Garden(), rules, required=required[2:], file=FILE)
    with pytest.raises(ConfigError, match="trees = 0: expected no shade"):  # given, so not missing
        check_keys(Garden(trees=0), rules, required=[], file=FILE)


def test_keys_of_nested_tables_have_the_name_of_their_table():
    assert list(flat_keys(House)) == ["rooms", "height", "doors", "front.colour"]


def test_what_is_not_toml_or_not_there_is_told_by_file(tmp_path):
    (tmp_path / "a.toml").write_text("rooms = ")
    with pytest.raises(ConfigError, match="Not a TOML file"):
        read_table(tmp_path / "a.toml")
    with pytest.raises(ConfigError, match=r"cannot be read[\s\S]*b\.toml[\s\S]*No such file"):
        read_table(tmp_path / "b.toml")
