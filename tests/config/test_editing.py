"""A recipe's file with another learning rate: every other byte as it was."""

import os
import stat
import tomllib

import pytest

from podium.config.editing import check_editable, write_learning_rate
from podium.config.keys import read_recipe
from podium.errors import ConfigError

REASON = "lr_find's valley, 2026-11-24, batch 128, 40,000 rows"
RECIPE = """# Mine: learning_rate = 9 was too much
architecture = "resnet34"

epochs = 3   # few
learning_rate = 0.2
[augment]
flip = "horizontal"
"""


def written(folder, text, rate=0.0012345):
    file = folder / "mine.toml"
    file.write_bytes(text.encode())
    check_editable(file)
    write_learning_rate(file, rate, REASON)
    return file.read_bytes().decode()


def test_one_line_changes_and_every_other_byte_stays(tmp_path):
    expected = RECIPE.replace("learning_rate = 0.2\n", f"learning_rate = 0.0012  # {REASON}\n")
    assert written(tmp_path, RECIPE) == expected
    assert read_recipe(tmp_path / "mine.toml").learning_rate == 0.0012
    assert [file.name for file in tmp_path.iterdir()] == ["mine.toml"]


def test_windows_line_ends_stay(tmp_path):
    text = RECIPE.replace("\n", "\r\n")
    assert written(tmp_path, text) == text.replace("rate = 0.2\r\n", f"rate = 0.0012  # {REASON}\r\n")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('learning_rate = "find"', "learning_rate = 0.0012  # {}"),
        ("learning_rate=2e-1#high", "learning_rate=0.0012  # {}  #high"),
        ('\t"learning_rate"   =  1', '\t"learning_rate"   =  0.0012  # {}'),
        ("learning_rate = 0.2  # mine", "learning_rate = 0.0012  # {}  # mine"),
    ],
)
def test_odd_spellings_keep_theirs_and_a_persons_comment_stays(tmp_path, line, expected):
    text = RECIPE.replace("learning_rate = 0.2", line)
    assert written(tmp_path, text) == RECIPE.replace("learning_rate = 0.2", expected.format(REASON))


def test_a_second_finding_takes_the_place_of_the_first_and_of_its_reason(tmp_path):
    once = written(tmp_path, RECIPE.replace("rate = 0.2\n", "rate = 0.2 # mine\n"))
    assert written(tmp_path, once) == once
    assert "rate = 0.5  # lr_find" in written(tmp_path, once, rate=0.5)


@pytest.mark.parametrize("end", ["\n", ""])
def test_what_only_looks_like_the_line_is_left_alone(tmp_path, end):
    text = f'pretrained = """\nlearning_rate = 1{end}"""\n{RECIPE}'
    assert written(tmp_path, text) == text.replace("rate = 0.2\n", f"rate = 0.0012  # {REASON}\n")


def test_a_line_that_cannot_be_told_is_left_to_a_person(tmp_path):
    file = tmp_path / "mine.toml"
    text = RECIPE.replace("learning_rate", '"learning\\u005frate"')
    assert tomllib.loads(text)["learning_rate"] == 0.2
    file.write_text(text)
    with pytest.raises(ConfigError, match="line of its own"):
        check_editable(file)
    with pytest.raises(ConfigError, match=r"(?s)learning_rate = 0\.5  # lr_find.*by hand"):
        write_learning_rate(file, 0.5, REASON)
    assert file.read_text() == text


def test_a_file_that_may_not_be_written_is_told_and_stays(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text(RECIPE)
    file.chmod(0o444)
    for change in (check_editable, lambda one: write_learning_rate(one, 0.5, REASON)):
        with pytest.raises(ConfigError, match=r"(?s)may not be written.*chmod u\+w"):
            change(file)
    assert file.read_text() == RECIPE


def test_a_links_target_is_written_with_the_rights_it_had(tmp_path):
    target, link = tmp_path / "shared.toml", tmp_path / "mine.toml"
    target.write_text(RECIPE)
    target.chmod(0o640)
    os.symlink(target, link)
    write_learning_rate(link, 0.5, REASON)
    assert link.is_symlink() and "learning_rate = 0.5 " in target.read_text()
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
