import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from podium.config.competition import read_competition
from podium.errors import ConfigError
from podium.plan import stamp as stamp_module
from podium.plan.__main__ import main, make_assignments
from podium.plan.paths import find_competition
from podium.plan.runs import check_goals, find_run, longest_first, read_plan, select_runs
from podium.plan.stamp import ensemble_stamp, git_commit

COMPETITION = """
title = "Two squares"
[data]
source = "folders"
[validation]
rows = 4
"""
RECIPE = """
architecture = "{architecture}"
seeds = {seeds}
epochs = 2
learning_rate = 0.1
"""


@pytest.fixture
def paths(tmp_path):
    folder = tmp_path / "competitions" / "toy"
    folder.mkdir(parents=True)
    (folder / "competition.toml").write_text(COMPETITION)
    write_recipe(folder / "net.toml", seeds="[1, 2]")
    write_recipe(folder / "other.toml", architecture="vgg19")
    return find_competition("toy", tmp_path)


def plan_of(paths):
    """The plan as a command reads it."""
    return read_plan(paths.name, paths.root)


def write_recipe(file, *, architecture="resnet34", seeds="[1]"):
    file.write_text(RECIPE.format(architecture=architecture, seeds=seeds))


def recipe_file(paths, name):
    return paths.folder / f"{name}.toml"


def train(paths, run, *, stamp=None, seconds=1.0):
    """What training leaves behind, as far as the plan looks at it."""
    stamp = stamp or {one.run: one.stamp for one in plan_of(paths).runs}[run]
    file = paths.predictions_file(run)
    file.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(file, about=np.array(json.dumps({"stamp": stamp, "seconds": seconds})))
    return file


def train_all(paths):
    return [train(paths, one.run) for one in plan_of(paths).runs]


def stale(paths):
    return [one.run for one in plan_of(paths).runs if one.stale]


def test_every_recipe_has_a_run_for_each_of_its_seeds(paths):
    plan = plan_of(paths)
    assert plan.name == "toy" and [one.run for one in plan.runs] == ["net.s1", "net.s2", "other.s1"]


def test_two_seeds_of_a_recipe_have_different_stamps(paths):
    assert len({run.stamp for run in plan_of(paths).runs}) == 3


def test_without_predictions_every_run_is_stale_and_with_them_none(paths):
    assert stale(paths) == ["net.s1", "net.s2", "other.s1"]
    train_all(paths)
    assert stale(paths) == []


def test_editing_one_recipe_makes_only_its_runs_stale(paths):
    train_all(paths)
    file = recipe_file(paths, "net")
    file.write_text(file.read_text().replace("epochs = 2", "epochs = 3"))
    assert stale(paths) == ["net.s1", "net.s2"]


def test_comments_blank_lines_order_and_defaults_make_nothing_stale(paths):
    train_all(paths)
    lines = recipe_file(paths, "net").read_text().split("\n")
    recipe_file(paths, "net").write_text("\n\n".join(["# a comment", "dropout = 0.0", *reversed(lines)]))
    competition = recipe_file(paths, "competition")
    competition.write_text(competition.read_text().replace("[data]", "\n# where\n[data]"))
    assert stale(paths) == []


def test_adding_a_recipe_or_a_seed_adds_stale_runs_and_no_others(paths):
    train_all(paths)
    write_recipe(recipe_file(paths, "third"))
    write_recipe(recipe_file(paths, "net"), seeds="[1, 2, 7]")
    assert stale(paths) == ["net.s7", "third.s1"]


def test_another_split_or_other_data_make_every_run_stale(paths):
    train_all(paths)
    paths.lock_file.write_text("other images")
    assert stale(paths) == ["net.s1", "net.s2", "other.s1"]
    train_all(paths)
    competition = recipe_file(paths, "competition")
    competition.write_text(competition.read_text().replace("rows = 4", "rows = 5"))
    assert stale(paths) == ["net.s1", "net.s2", "other.s1"]


def test_times_of_files_decide_nothing(paths):
    files = train_all(paths)
    os.utime(files[0], (0, 0))
    os.utime(recipe_file(paths, "net"))
    assert stale(paths) == []


def truncated(whole):
    return whole[: len(whole) // 2]


def without_about(whole):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("classes.npy", b"")
    return stream.getvalue()


@pytest.mark.parametrize("damage", [truncated, without_about, lambda whole: b"", lambda whole: b"no zip"])
def test_predictions_that_cannot_be_read_are_stale(paths, damage):
    file, *_ = train_all(paths)
    file.write_bytes(damage(file.read_bytes()))
    assert stale(paths) == ["net.s1"]


@pytest.mark.parametrize("about", ["[]", '"text"', "null"])
def test_a_file_that_says_nothing_of_itself_is_stale(paths, about):
    file, *_ = train_all(paths)
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("about.npy", b"\x93NUMPY" + bytes([1, 0, 2, 0]) + b" \n" + about.encode("utf-32-le"))
    assert stale(paths) == ["net.s1"]


def test_a_damaged_byte_anywhere_leaves_a_plan(paths):
    file, *_ = train_all(paths)
    whole = file.read_bytes()
    for place in range(0, len(whole), 3):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        assert set(stale(paths)) <= {"net.s1"}


def test_another_weights_file_makes_its_runs_stale_and_a_missing_one_does_not(paths):
    weights = paths.root / "start.safetensors"
    weights.write_bytes(b"one")
    recipe_file(paths, "other").write_text(
        RECIPE.format(architecture="vgg19", seeds="[1]") + 'pretrained = "start.safetensors"'
    )
    train_all(paths)  # says nothing of the weights that it started from
    assert stale(paths) == ["other.s1"]
    weights.unlink()
    assert stale(paths) == []


def test_stale_runs_start_with_those_that_took_longest_and_unknown_ones_first(paths):
    write_recipe(recipe_file(paths, "unknown"))
    train(paths, "net.s1", stamp="old", seconds=5)
    train(paths, "other.s1", stamp="old", seconds=60)
    ordered = longest_first(plan_of(paths).runs)
    assert [one.run for one in ordered] == ["unknown.s1", "other.s1", "net.s1", "net.s2"]


def test_among_runs_that_were_never_trained_those_with_the_most_training_pixels_start_first(paths):
    recipes = {
        "a": "epochs = 2",
        "b": "epochs = 9",
        "c": "epochs = 9\nhard_share = 0.5",
        "d": "epochs = 2\ntraining_pixels = 128",
    }
    for name, keys in recipes.items():
        text = f'architecture = "resnet34"\nseeds = [1]\nlearning_rate = 0.1\n{keys}\n'
        recipe_file(paths, name).write_text(text)
    names = [run.recipe_name for run in longest_first(plan_of(paths).runs) if run.recipe_name in recipes]
    assert names == ["d", "b", "c", "a"]


def test_the_plan_reads_the_description_of_each_run_once(paths, monkeypatch, capsys):
    train_all(paths)
    opened, open_archive = [], stamp_module.open_archive
    monkeypatch.setattr(stamp_module, "open_archive", lambda file: opened.append(file.stem) or open_archive(file))
    monkeypatch.chdir(paths.root)
    assert main(["toy", "all train", "all train"]) == 0
    assert sorted(opened) == ["net.s1", "net.s2", "other.s1"]


def test_the_plan_is_one_make_assignment_a_word(paths):
    train(paths, "net.s1")
    assert make_assignments(plan_of(paths)) == [
        "RECIPES+=net", "RECIPES+=other",
        "RUNS+=net.s1", "RUNS+=net.s2", "RUNS+=other.s1",
        "RUNS_net+=net.s1", "RUNS_net+=net.s2", "RUNS_other+=other.s1",
        "STALE+=other.s1", "STALE+=net.s2",
        "ENSEMBLE_STALE=yes",
    ]  # fmt: skip


def fits_of(capsys, *goals, to_train=""):
    main(["toy", " ".join(goals), "all train", to_train])
    return [word.removeprefix("FITS+=") for word in capsys.readouterr().out.split() if word.startswith("FITS")]


def test_fits_are_trained_side_by_side_where_the_stale_runs_would_leave_cores_idle(paths, monkeypatch, capsys):
    monkeypatch.chdir(paths.root)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1})
    k_fold = 'kind = "k-fold"\nfolds = 3\n'
    paths.settings_file.write_text(f'title = "Toy"\n[data]\nsource = "digits"\n[validation]\n{k_fold}')
    three = ["fold0", "fold1", "fold2"]
    assert fits_of(capsys, "all") == []  # three runs for two cores
    train(paths, "net.s1")
    assert fits_of(capsys, "all") == []
    assert fits_of(capsys, "net") == fits_of(capsys, "train", to_train="net") == [f"net.s2/{fit}" for fit in three]
    train(paths, "net.s2")
    assert fits_of(capsys, "all") == [f"other.s1/{fit}" for fit in three]
    with recipe_file(paths, "other").open("a") as stream:
        stream.write("refit = true\n")
    assert fits_of(capsys, "all") == [f"other.s1/{fit}" for fit in (*three, "refit")]
    with recipe_file(paths, "other").open("a") as stream:
        stream.write("threads = 2\n")
    assert fits_of(capsys, "all") == []


def test_a_run_of_one_fit_and_one_that_computes_features_once_are_not_split(paths, monkeypatch, capsys):
    monkeypatch.chdir(paths.root)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)))
    assert fits_of(capsys, "all") == []
    with recipe_file(paths, "net").open("a") as stream:
        stream.write("refit = true\n")
    assert fits_of(capsys, "all") == [f"net.s{seed}/{fit}" for seed in (1, 2) for fit in ("fold0", "refit")]
    with recipe_file(paths, "net").open("a") as stream:
        stream.write('head = "logistic"\npretrained = true\n')
    assert fits_of(capsys, "all") == []


def test_the_ensemble_is_stale_until_it_was_made_of_the_runs_that_are_there(paths, monkeypatch):
    train_all(paths)
    assert "ENSEMBLE_STALE=yes" in make_assignments(plan_of(paths))
    monkeypatch.setattr("podium.plan.__main__.ensemble_is_fresh", lambda paths, competition: True)
    assert "ENSEMBLE_STALE=yes" not in make_assignments(plan_of(paths))
    paths.predictions_file("net.s1").unlink()
    assert "ENSEMBLE_STALE=yes" in make_assignments(plan_of(paths))


@pytest.mark.parametrize("name", ["two words", "a$b", "100%", "-n", "net.s1"])
def test_a_recipe_whose_name_make_would_misread_is_refused(paths, name):
    write_recipe(recipe_file(paths, name))
    with pytest.raises(ConfigError, match="cannot be the name of a recipe"):
        _ = plan_of(paths).runs


def test_a_recipe_named_like_a_target_is_refused():
    with pytest.raises(ConfigError, match="recipe 'test' has the name of a make target"):
        check_goals(["all"], ["all", "test"], ["test", "test.s1"])


def test_the_faults_of_all_recipes_are_told_at_once(paths):
    recipe_file(paths, "net").write_text("epocks = 3")
    recipe_file(paths, "other").write_text("= nonsense")
    with pytest.raises(ConfigError, match=r"(?s)net.toml: epocks: unknown .* epochs.*other.toml: Invalid statement"):
        _ = plan_of(paths).runs


def test_a_competition_without_recipes_has_no_runs_and_cannot_be_trained(paths, monkeypatch, capsys):
    for name in ("net", "other"):
        recipe_file(paths, name).unlink()
    plan = plan_of(paths)
    assert plan.recipes == {} and plan.runs == () and make_assignments(plan) == ["ENSEMBLE_STALE=yes"]
    with pytest.raises(ConfigError, match=r"without a recipe(?s:.*)toy/<recipe>.toml"):
        _ = plan.trainable_runs
    monkeypatch.chdir(paths.root)
    assert main(["toy", "all", "all train"]) == 0
    assert main(["toy", "train", "all train"]) == 2 and "without a recipe" in capsys.readouterr().err


def test_runs_are_selected_by_their_names_or_those_of_their_recipes(paths):
    runs = plan_of(paths).runs
    selected = {
        names: [one.run for one in select_runs(runs, names)] for names in ((), ("net",), ("other.s1", "net.s2"))
    }
    assert list(selected.values()) == [["net.s1", "net.s2", "other.s1"], ["net.s1", "net.s2"], ["net.s2", "other.s1"]]
    with pytest.raises(ConfigError, match=r"no run or recipe 'net\.s3'(?s:.*)RUN=net\.s"):
        select_runs(runs, ["net", "net.s3"])


def test_a_message_names_only_some_of_a_thousand_runs(paths):
    write_recipe(recipe_file(paths, "net"), seeds=list(range(1, 1000)))
    with pytest.raises(ConfigError) as error:
        select_runs(plan_of(paths).runs, ["net.s1000"])
    assert len(str(error.value)) < 1000 and "RUN=net.s100" in str(error.value)
    with pytest.raises(ConfigError) as error:
        check_goals(["net.s1000"], ["all"], [run.run for run in plan_of(paths).runs])
    assert len(str(error.value)) < 1000


def test_an_unknown_goal_is_refused_with_the_nearest_spelling():
    with pytest.raises(ConfigError, match=r"'resnet43'(?s:.*)fix: +make resnet34"):
        check_goals(["resnet43"], ["all", "train"], ["resnet34", "resnet34.s1"])
    check_goals(["all", "resnet34.s1", "oof/toy/any.npz"], ["all"], ["resnet34", "resnet34.s1"])


def test_planning_imports_only_the_standard_library():
    code = "import sys, podium.plan.__main__; print(*{name.partition('.')[0] for name in sys.modules})"
    source = Path(__file__).parents[2] / "src"
    answer = subprocess.run(
        [sys.executable, "-S", "-c", code],
        env={**os.environ, "PYTHONPATH": str(source)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert set(answer.stdout.split()) - set(sys.stdlib_module_names) == {"podium", "__main__"}


def test_a_run_is_named_by_itself_or_by_its_recipe(paths):
    runs = plan_of(paths).runs
    assert [find_run(runs, name, option="RUN").run for name in ("net.s2", "net", "other")] == [
        "net.s2",
        "net.s1",
        "other.s1",
    ]
    assert find_run(runs, "net", option="RECIPE").run == "net.s1"


@pytest.mark.parametrize(
    ("name", "option", "told"),
    [
        ("net.s3", "RUN", r"(?s)no run or recipe 'net\.s3'.*net\.s1, net\.s2, other.*RUN=net\.s2"),
        ("othr", "RUN", "RUN=other"),
        ("net.s1", "RECIPE", r"(?s)no recipe 'net\.s1'.*RECIPE=net$"),
        ("", "RECIPE", r"(?s)Which recipe\?.*one of net, other.*RECIPE=net$"),
        ("", "RUN", r"Which run or recipe\?"),
    ],
)
def test_a_name_that_nothing_has_is_answered_with_the_nearest(paths, name, option, told):
    with pytest.raises(ConfigError, match=told):
        find_run(plan_of(paths).runs, name, option=option)


def test_outside_a_checkout_the_commit_is_what_the_environment_says(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.setenv("PODIUM_COMMIT", "abc-dirty")
    assert git_commit(tmp_path) == "abc-dirty"
    monkeypatch.delenv("PODIUM_COMMIT")
    assert git_commit(tmp_path) == ""
    monkeypatch.setenv("PATH", "")
    assert git_commit(tmp_path) == ""


@pytest.mark.parametrize(("line", "changed"), [("", {}), ('positive_class = "b"', {"positive_class": "b"})])
def test_an_ensemble_stays_up_to_date_when_a_key_is_declared_that_is_empty(paths, monkeypatch, line, changed):
    (paths.folder / "competition.toml").write_text(f'{COMPETITION}[submission]\nkind = "probability"\n{line}')
    monkeypatch.setattr(stamp_module, "_digest", lambda **content: content)
    hashed = ensemble_stamp(paths, read_competition(paths.folder))["submission"]
    assert hashed == {"kind": "probability", "id_column": "id", "label_column": "label"} | changed
