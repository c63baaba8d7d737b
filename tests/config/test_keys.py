"""Settings: strict, told by name, and stable under new defaults."""

from dataclasses import asdict, replace
from json import dumps, loads

import pytest

from podium.config.competition import read_competition
from podium.config.keys import Data, Recipe
from podium.config.recipe import read_recipe, recipe_of, target_faults
from podium.config.schema import stamped_keys
from podium.config.search import changed_recipe
from podium.errors import ConfigError
from podium.metrics import METRICS
from podium.plan.runs import read_recipes

RECIPE = 'architecture = "resnet34"\nepochs = 2\nlearning_rate = 0.1\n'


def recipe_file(folder, text: str):
    file = folder / "one.toml"
    file.write_text(text)
    return file


def test_a_recipe_is_read_with_its_defaults_and_cannot_be_changed(tmp_path):
    recipe = read_recipe(recipe_file(tmp_path, RECIPE + "[augment]\nshift_pixels = 4\n"))
    assert (recipe.epochs, recipe.batch_size, recipe.augment.shift_pixels) == (2, 128, 4)
    assert recipe.network_pixels == recipe.stored_pixels == 32
    with pytest.raises(AttributeError):
        recipe.epochs = 3


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("epoch = 3", "epoch: unknown key; did you mean epochs?"),
        ("[serach]\nepochs = [1, 2]", "serach: unknown key; did you mean search?"),
        ("[augment]\nshift_pixel = 3", "augment.shift_pixel: unknown key; did you mean shift_pixels?"),
        ('batch_size = "64"', "batch_size = '64': expected int"),
        ("refit = 1", "refit = 1: expected bool"),
        ("dropout = 1.5", "dropout = 1.5: expected 0 to 0.99"),
        ("dropout = nan", "dropout = nan"),
        ('schedule = "onecycle"', "did you mean one-cycle?"),
        ("seeds = []", "seeds = []: expected one or more"),
        ("seeds = [1, 1]", "each once"),
        ("seeds = [-1]", "seeds[0] = -1: expected at least 0"),
        ("seeds = 1", "seeds = 1: expected a list"),
        ("freeze_epochs = 1", "freeze_epochs without pretrained"),
        ("frozen_stages = 1", "frozen_stages without pretrained"),
        ("frozen_norms = true", "frozen_norms without pretrained"),
        ('pretrained = "package:"', "expected the name of a package after it"),
        ("muon_rate = 0.2", "muon_rate without effect"),
        ("[fastnet]\ndepth = 3", "[fastnet] without effect"),
        ("[fastnet]\nwidths = []", "fastnet.widths = []: expected one or more"),
        ("augment = 3", "expected a table"),
        ("drop_path = 0.1", 'drop_path without effect: expected architecture = "timm:<name>"'),
        ("layer_decay = 0.7", "layer_decay without effect"),
        (
            "gradient_checkpointing = true",
            'gradient_checkpointing without effect: expected architecture = "timm:<name>"',
        ),
        ("frozen_stages = 1\npretrained = true", "frozen_stages without effect: expected architecture"),
        ('interpolation = "bicubic"\naugment.crop = 0.5', "interpolation with augment.crop: random crops are bilinear"),
        ("layer_decay = 0.7\ndiscriminative_ratio = 2", "discriminative_ratio and layer_decay: expected one of them"),
        ("[augment]\nrand_augment = 9\ntrivial_augment = true", "trivial_augment: expected one of them"),
        ("stored_pixels = [32, 64]\nprogressive_pixels = [16]", "expected sides, or [height, width] in each"),
        ("stored_pixels = [32, 64]\ntraining_pixels = [0, 64]", "training_pixels = (0, 64): expected at least 1"),
        ("stored_pixels = [32]", "stored_pixels = [32]: expected 2 values"),
        ("stored_pixels = [32, 4]", "stored_pixels[1] = 4: expected 8 to 2048"),
        ('stored_pixels = "32"', "stored_pixels = '32': expected int or list"),
        ('sampling = "balanced"\nclass_weights = "balanced"', "class_weights: expected one of them"),
        ('sampling = "balanced"\nhard_share = 0.5', "hard_share: expected one of them"),
        ('head = "logistic"', 'head = "logistic" without pretrained'),
        ('head = "logistic"\npretrained = true\nfreeze_epochs = 1', "freeze_epochs without effect"),
        ('head = "boosting"', 'head = "boosting" without pretrained'),
        ('head = "boosting"\npretrained = true', 'epochs without effect: head = "boosting" trains no layer'),
    ],
)
def test_each_fault_is_told_by_name(tmp_path, line, told):
    file = recipe_file(tmp_path, RECIPE + line)
    with pytest.raises(ConfigError) as error:
        read_recipe(file)
    assert told in str(error.value) and "one.toml" in str(error.value)


def test_height_and_width_survive_a_change_and_a_file(tmp_path):
    lines = "stored_pixels = [32, 64]\ntraining_pixels = [24, 48]\nprogressive_pixels = [[8, 16], [16, 32]]\n"
    recipe = read_recipe(recipe_file(tmp_path, RECIPE + lines))
    assert recipe.stage_pixels == [(8, 16), (16, 32), (24, 48)] and recipe.stored_pixels == (32, 64)
    assert changed_recipe(recipe, {"epochs": 2}, tmp_path) == recipe
    assert recipe_of(loads(dumps(asdict(recipe))), tmp_path) == recipe


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ('class_weights = "balanced"', "class_weights"),
        ("focal_gamma = 2", "focal_gamma"),
        ('sampling = "balanced"', "sampling"),
        ('pseudo_labels = "pseudo.csv"', "pseudo_labels"),
        ("label_smoothing = 0.1", "label_smoothing"),
        ('pretrained = true\nhead = "boosting"', 'head = "boosting"'),
    ],
)
def test_keys_that_are_for_classes_are_told_for_another_target(tmp_path, line, name):
    start = RECIPE[:26] if "boosting" in line else RECIPE
    recipe = read_recipe(recipe_file(tmp_path, start + line))
    assert target_faults(recipe, "ordinal") == [f'{name} is for target = "class", found "ordinal"']
    assert target_faults(recipe, "class") == []


LOGISTIC = 'architecture = "resnet34"\npretrained = true\nhead = "logistic"\n'


def test_a_logistic_head_needs_no_epochs(tmp_path):
    recipe = read_recipe(recipe_file(tmp_path, LOGISTIC + 'training_pixels = 24\nshape = "squash"\nseeds = [2]\n'))
    assert recipe.epochs == 0 and read_recipe(recipe_file(tmp_path, LOGISTIC + RECIPE[26:])).epochs == 2


@pytest.mark.parametrize(
    "line", ["learning_rate = 0.1", "weight_decay = 0.1", "seeds = [1, 2]", "[augment]\ncrop = 0.5"]
)
def test_without_epochs_the_keys_of_the_training_are_refused(tmp_path, line):
    with pytest.raises(ConfigError, match="without effect: expected epochs"):
        read_recipe(recipe_file(tmp_path, LOGISTIC + line))


@pytest.mark.parametrize(
    ("lines", "values"),
    [
        ("", ("logistic", 0, 128, 0.0)),
        ("epochs = 2", ("logistic", 2, 32, 0.0003)),
        ('epochs = 2\nhead = "linear"\nbatch_size = 64', ("linear", 2, 64, 0.0003)),
        ("epochs = 2\nfreeze_epochs = 1\nlearning_rate = 0.1", ("linear", 2, 32, 0.1)),
    ],
)
def test_with_pretrained_weights_a_recipe_has_the_defaults_for_fine_tuning(tmp_path, lines, values):
    recipe = read_recipe(recipe_file(tmp_path, f'architecture = "resnet34"\npretrained = true\n{lines}'))
    assert (recipe.head, recipe.epochs, recipe.batch_size, recipe.learning_rate) == values
    assert changed_recipe(recipe, {"seeds": [7]}, tmp_path) == replace(recipe, seeds=(7,))


@pytest.mark.parametrize("missing", ["epochs = 2\n", "learning_rate = 0.1\n"])
def test_other_recipes_need_epochs_and_a_learning_rate(tmp_path, missing):
    with pytest.raises(ConfigError, match=f"{missing.split()[0]}: missing"):
        read_recipe(recipe_file(tmp_path, RECIPE.replace(missing, "")))


def test_all_faults_of_a_file_are_told_at_once(tmp_path):
    with pytest.raises(ConfigError) as error:
        read_recipe(recipe_file(tmp_path, "epochs = -1\nlearning_rate = 0.1\nbatchsize = 3\n"))
    assert len(error.value.faults) == 3  # epochs, batchsize, no architecture


@pytest.mark.parametrize("rate", ['"find"', "1", "0.5"])
def test_a_learning_rate_is_a_number_or_find(tmp_path, rate):
    read_recipe(recipe_file(tmp_path, RECIPE.replace("0.1", rate)))


@pytest.mark.parametrize("rate", ['"fnid"', "0", "-1", "inf", "nan"])
def test_no_other_learning_rate_is_taken(tmp_path, rate):
    with pytest.raises(ConfigError, match="learning_rate"):
        read_recipe(recipe_file(tmp_path, RECIPE.replace("0.1", rate)))


def test_what_is_not_toml_or_not_there_is_told_by_file(tmp_path):
    with pytest.raises(ConfigError, match="Not a TOML file"):
        read_recipe(recipe_file(tmp_path, "architecture = "))
    with pytest.raises(ConfigError, match="missing"):
        read_competition(tmp_path)


def test_no_setting_is_infinite(tmp_path):
    with pytest.raises(ConfigError, match=r"gradient_clip = inf: expected at least 0"):
        read_recipe(recipe_file(tmp_path, RECIPE + "gradient_clip = inf\n"))


def test_a_folder_where_a_recipe_should_be_is_told_and_an_editors_lock_is_not_a_recipe(tmp_path):
    (tmp_path / ".#one.toml").symlink_to("nowhere")
    assert read_recipes(tmp_path) == {}
    (tmp_path / "one.toml").mkdir()
    with pytest.raises(ConfigError, match="Is a directory"):
        read_recipe(tmp_path / "one.toml")


def test_images_need_a_place(tmp_path):
    text = 'title = "x"\n[data]\nsource = "folders"\ntrain = ""\n[validation]\nrows = 3\n'
    (tmp_path / "competition.toml").write_text(text)
    with pytest.raises(ConfigError, match="train and test"):
        read_competition(tmp_path)


def test_a_holdout_needs_rows(tmp_path):
    (tmp_path / "competition.toml").write_text('title = "x"\n[data]\nsource = "digits"\n')
    with pytest.raises(ConfigError, match="rows = "):
        read_competition(tmp_path)


def test_a_recipe_comes_back_from_what_a_trained_run_says_of_it(tmp_path):
    recipe = Recipe(architecture="resnet34", epochs=3, learning_rate="find", seeds=(1, 2))
    assert recipe_of(loads(dumps(asdict(recipe))), tmp_path) == recipe


def test_the_competitions_file_is_no_recipe(tmp_path):
    recipe_file(tmp_path, RECIPE)
    (tmp_path / "competition.toml").write_text("")
    assert list(read_recipes(tmp_path)) == ["one"]


def test_a_threshold_for_log_loss_is_refused(tmp_path):
    text = 'title = "Toy"\nmetric = "{}"\n[data]\nsource = "folders"\n[validation]\nrows = 9\n'
    text += '[ensemble]\nthreshold = 0.9\n[submission]\nkind = "probabilities"\n'
    (tmp_path / "competition.toml").write_text(text.format("accuracy"))
    assert read_competition(tmp_path).ensemble.threshold == 0.9
    (tmp_path / "competition.toml").write_text(text.format("log_loss"))
    with pytest.raises(ConfigError, match="a threshold has no effect"):
        read_competition(tmp_path)


def competition_file(folder, metric, submission):
    """competition.toml with this metric and these lines of [submission]."""
    text = f'title = "Toy"\nmetric = "{metric}"\n[data]\nsource = "folders"\n[validation]\nrows = 9\n'
    (folder / "competition.toml").write_text(f"{text}[submission]\n{submission}")
    return folder


@pytest.mark.parametrize(
    ("metric", "kind", "fault"),
    [
        ("auc", "labels", 'metric = "auc" and [submission] kind = "labels": this metric scores probabilities'),
        ("log_loss", "labels", 'kind = "labels": this metric scores probabilities; expected kind = "probability"'),
        ("qwk", "probabilities", 'kind = "probabilities": this metric scores labels; expected kind = "labels"'),
        ("balanced_accuracy", "probabilities", 'metric = "balanced_accuracy" and [submission] kind = "probabilities"'),
        (
            "map_at_k",
            "labels",
            'metric = "map_at_k" and [submission] kind = "labels": expected "map_at_k" with "ranking"',
        ),
        ("macro_f1", "probability", 'kind = "probability": this metric scores labels; expected kind = "labels"'),
    ],
)
def test_a_metric_and_a_submission_that_contradict_each_other_are_refused(tmp_path, metric, kind, fault):
    with pytest.raises(ConfigError) as error:
        read_competition(competition_file(tmp_path, metric, f'kind = "{kind}"'))
    (found,) = error.value.faults
    assert fault in found and error.value.file == tmp_path / "competition.toml"


@pytest.mark.parametrize(
    ("metric", "kinds"),
    [
        ("accuracy", ["labels", "probability", "probabilities"]),
        ("auc", ["probability", "probabilities"]),
        ("log_loss", ["probability", "probabilities"]),
        ("qwk", ["labels"]),
        ("macro_f1", ["labels"]),
        ("balanced_accuracy", ["labels"]),
    ],
)
def test_a_metric_that_fits_the_submission_is_read(tmp_path, metric, kinds):
    for kind in kinds:
        assert read_competition(competition_file(tmp_path, metric, f'kind = "{kind}"')).submission.kind == kind


def test_the_k_of_map_at_k_is_the_number_of_names_in_a_ranking(tmp_path):
    competition = read_competition(competition_file(tmp_path, "map_at_k", 'kind = "ranking"\nmost = 5'))
    assert competition.metric == "map_at_5" and competition.metric in METRICS
    with pytest.raises(ConfigError, match=r'"accuracy" and .* kind = "ranking": expected "map_at_k" with "ranking"'):
        read_competition(competition_file(tmp_path, "accuracy", 'kind = "ranking"\nmost = 5'))
    for submission in ('kind = "ranking"', "most = 5"):
        with pytest.raises(ConfigError, match=r"\[submission\] most: expected a number of class names"):
            read_competition(competition_file(tmp_path, "map_at_k", submission))


def test_a_positive_class_without_its_kind_and_other_faults_are_listed_at_once(tmp_path):
    with pytest.raises(ConfigError) as error:
        read_competition(competition_file(tmp_path, "auc", 'positive_class = "dog"'))
    assert [fault.split(":")[0] for fault in error.value.faults] == [
        'metric = "auc" and [submission] kind = "labels"',
        "[submission] positive_class without effect",
    ]


@pytest.mark.parametrize(
    ("data", "validation", "fault"),
    [
        ('source = "names"', "rows = 3", "label_pattern: expected with source"),
        ('source = "folders"\nlabel_pattern = "(a)"', "rows = 3", "label_pattern: expected with source"),
        (
            'source = "names"\nlabel_pattern = "("',
            "rows = 3",
            "label_pattern = '(': expected a regular expression with one",
        ),
        (
            'source = "names"\nlabel_pattern = "a"',
            "rows = 3",
            "label_pattern = 'a': expected a regular expression with",
        ),
        (
            'source = "folders"\ngroup_column = "who"',
            "rows = 3",
            'group_column without effect: expected source = "csv"',
        ),
        ('source = "csv"\ngroup_column = "who"\ngroup_pattern = "(a)"', "rows = 3", "group_column and group_pattern"),
        ('source = "folders"\ntest = "train"', "rows = 3", 'test = train: expected source = "csv"'),
        ('source = "folders"\ntest = ""\nsample_submission = "s.csv"', "rows = 3", "there are no test images"),
        ('source = "csv"\nlabel_column = "a"\nlabel_columns = ["a", "b"]', "rows = 3", "label_column without effect"),
        ('source = "names"\nlabel_pattern = "(a)"\nid_column = "x"', "rows = 3", "id_column without effect: expected"),
        ('source = "folders"\ntest = ""\ntest_ids = "hash-order"', "rows = 3", "test_ids without effect"),
        ('source = "folders"', 'kind = "folder"', '[validation] folder: missing; expected with kind = "folder"'),
        ('source = "folders"', 'rows = 3\nfolder = "val"', 'folder without effect: kind = "holdout"'),
        ('source = "folders"', 'kind = "k-fold"\nrows = 3', 'rows without effect: kind = "k-fold"'),
        ('source = "folders"', "rows = 3\nfolds = 4", 'folds without effect: kind = "holdout"'),
        ('source = "csv"', 'kind = "folder"\nfolder = "val"', 'expected source = "folders" or "names"'),
        (
            'source = "folders"',
            'kind = "folder"\nfolder = "train"',
            "folder: expected another folder than train and test",
        ),
        (
            'source = "folders"',
            'kind = "folder"\nfolder = "test"',
            "folder: expected another folder than train and test",
        ),
        ('source = "folders"', 'kind = "folder"\nfolder = "val"\nrows = 9', 'rows without effect: kind = "folder"'),
        ('source = "folders"\nextra = ["a", "a"]', "rows = 3", "extra: expected names of folders or archives, each"),
        ('source = "folders"\nextra = [""]', "rows = 3", "extra: expected names of folders or archives, each once"),
        ('source = "folders"\ntrain = ""', "rows = 3", "expected a name for train where test has one"),
        ('source = "folders"\ntrain = ""\ntest = ""', 'kind = "folder"\nfolder = "val"', "and a name for train"),
        ('source = "folders"\nlabel_columns = ["a", "b"]', "rows = 3", "label_columns without effect: expected source"),
        ('source = "folders"\ntarget = "multi-label"', "rows = 3", 'expected source = "csv", a table of labels'),
        ('source = "csv"\ntarget = "ordinal"\nextra = ["a"]', "rows = 3", "external data have one class per image"),
        ('source = "csv"\ntarget = "ordinal"\nlabel_columns = ["a", "b"]', "rows = 3", "label_column has the labels"),
    ],
)
def test_keys_of_the_layout_that_contradict_each_other_are_refused(tmp_path, data, validation, fault):
    (tmp_path / "competition.toml").write_text(f'title = "x"\n[data]\n{data}\n[validation]\n{validation}\n')
    with pytest.raises(ConfigError) as error:
        read_competition(tmp_path)
    assert any(fault in text for text in error.value.faults), error.value.faults


def test_a_key_that_was_declared_later_is_in_a_stamp_only_if_it_is_changed(tmp_path):
    assert "label_pattern" not in stamped_keys(Data(source="folders"))
    assert stamped_keys(Data(source="names", label_pattern="(a)"))["label_pattern"] == "(a)"
    assert "group_column" in stamped_keys(Data(source="folders"))
