"""Variants: a new recipe file, named after what it changes, whose runs are runs like any other."""

import pytest

from podium.config.keys import Competition
from podium.config.recipe import read_recipe
from podium.errors import ConfigError
from podium.plan.runs import read_plan
from podium.scaffold.variant import parse_assignments, write_variant

COMPETITION = 'title = "Toy"\n[data]\nsource = "folders"\n[validation]\nrows = 4\n'
RECIPE = """# Reaches 0.9.
architecture = "resnet34"
seeds = [1, 2]
epochs = 3  # few
learning_rate = 0.1

[augment]
flip = "horizontal"

[search]
epochs = [3, 4]
"""


@pytest.fixture
def plan(tmp_path):
    folder = tmp_path / "competitions" / "toy"
    folder.mkdir(parents=True)
    (folder / "competition.toml").write_text(COMPETITION)
    (folder / "net.toml").write_text(RECIPE)
    return read_plan("toy", tmp_path)


def names(plan):
    return sorted(run.run for run in read_plan("toy", plan.paths.root).runs)


def test_a_variant_is_a_recipe_with_the_changed_keys_in_its_name_its_runs_and_their_stamps(plan):
    assert write_variant(plan, "net.s2", "epochs=5 learning_rate=0.001") == ["net-epochs5-learning_rate0.001.s2"]
    file = plan.paths.recipe_file("net-epochs5-learning_rate0.001")
    recipe, text = read_recipe(file), file.read_text()
    assert (recipe.epochs, recipe.learning_rate, recipe.seeds, recipe.augment.flip) == (5, 0.001, (2,), "horizontal")
    assert "Made by `make train RUN=net.s2 SET='epochs=5 learning_rate=0.001' COMPETITION=toy`" in text
    assert "epochs = 5  # few" in text and "[search]" not in text
    (run,) = [run for run in read_plan("toy", plan.paths.root).runs if run.run.startswith("net-")]
    assert run.stale and run.stamp not in [run.stamp for run in plan.runs] and run.recipe.epochs == 5


def test_a_variant_of_a_recipe_has_all_its_seeds_and_one_of_another_run_adds_its_seed(plan):
    assert write_variant(plan, "net.s2", "epochs=5") == ["net-epochs5.s2"]
    assert write_variant(plan, "net.s1", "epochs=5") == ["net-epochs5.s1"]
    assert names(plan) == ["net-epochs5.s1", "net-epochs5.s2", "net.s1", "net.s2"]
    assert write_variant(plan, "net", "epochs=6") == ["net-epochs6.s1", "net-epochs6.s2"]
    before = plan.paths.recipe_file("net-epochs6").read_text()
    assert write_variant(plan, "net.s1", "epochs=6") == ["net-epochs6.s1"]
    assert plan.paths.recipe_file("net-epochs6").read_text() == before  # it has both seeds already


@pytest.mark.parametrize(
    ("assignments", "name"),
    [
        ("augment.shift_pixels=4", "net-augment.shift_pixels4"),
        ("optimiser=sgd", "net-optimiser-sgd"),
        ('optimiser="sgd"', "net-optimiser-sgd"),
        ("deterministic=true", "net-deterministic-true"),
        ("progressive_pixels=[16,24]", "net-progressive_pixels-16-24"),
        ("architecture=timm:resnet18 dropout=0.1", "net-architecture-timm-resnet18-dropout0.1"),
    ],
)
def test_names_are_readable_and_valid(plan, assignments, name):
    assert write_variant(plan, "net.s1", assignments) == [f"{name}.s1"]
    assert f"{name}.s1" in names(plan)


def test_a_value_may_have_blanks(plan):
    assert write_variant(plan, "net.s1", "progressive_pixels=[16, 24]  epochs=5") == [
        "net-progressive_pixels-16-24-epochs5.s1"
    ]


@pytest.mark.parametrize("assignment", ["epochs=true", "epochs=1.0", "epochs=3.5"])
def test_a_value_of_another_type_is_refused_also_where_python_calls_it_equal(plan, assignment):
    file = plan.paths.recipe_file("net")
    file.write_text(RECIPE.replace("epochs = 3  #", "epochs = 1  #").replace("[3, 4]", "[1, 4]"))
    with pytest.raises(ConfigError) as error:
        write_variant(read_plan("toy", plan.paths.root), "net.s1", assignment)
    (fault,) = error.value.faults
    assert fault.startswith("epochs = ") and fault.endswith(": expected int")


def test_keys_of_a_competition_have_the_name_of_their_table_and_texts_need_no_quotes():
    text = "metric=auc data.label_column=my column submission.positive_class=1 validation.folds=3"
    assert parse_assignments(text, Competition) == {
        "metric": "auc",
        "data.label_column": "my column",
        "submission.positive_class": "1",
        "validation.folds": 3,
    }
    with pytest.raises(ConfigError, match=r"did you mean data\.label_column\?(?s:.*)SET='data\.group_column=patient'"):
        parse_assignments("label_column=age", Competition)


@pytest.mark.parametrize(
    ("assignments", "text"),
    [
        ("", "SET= does not give other values"),
        ("epochs", "epochs: expected <key>=<value>"),
        ("epocks=5", "epocks: unknown key; did you mean epochs?"),
        ("shift_pixels=4", r"did you mean augment\.shift_pixels\?"),
        ("epochs=-5", "epochs = -5: expected at least 0"),
        ("epochs=many", "epochs = 'many': expected int"),
        ("optimiser=sdg", "did you mean sgd"),
        ("pretrained=true head=logistic freeze_epochs=1", "freeze_epochs = 1: expected 0"),
        ("muon_rate=0.3", "muon_rate = 0.3: expected optimiser"),
        ("epochs=3", "the recipe has this value"),
        ("epochs=5 epochs=6", "epochs: two values"),
        ("seeds=[3]", "RUN= names the run"),
        ("epochs=5 x=1 y=2", r"x: unknown(?s:.*)y: unknown"),
    ],
)
def test_a_wrong_assignment_is_refused_and_nothing_is_written(plan, assignments, text):
    with pytest.raises(ConfigError, match=rf"{text}(?s:.*)fix: +correct SET=, as in"):
        write_variant(plan, "net.s1", assignments)
    assert names(plan) == ["net.s1", "net.s2"]


def test_a_variant_does_not_replace_another_recipe(plan):
    write_variant(plan, "net.s1", "epochs=5")
    file = plan.paths.recipe_file("net")
    file.write_text(RECIPE.replace("0.1", "0.2"))
    with pytest.raises(ConfigError, match=r"another recipe with the name(?s:.*)RUN=net-epochs5, which"):
        write_variant(read_plan("toy", plan.paths.root), "net.s1", "epochs=5")
    with pytest.raises(ConfigError, match=r"no run or recipe 'nett(?s:.*)RUN=net"):
        write_variant(plan, "nett", "epochs=6")
