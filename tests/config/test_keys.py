"""Settings: strict, told by name, and stable under new defaults."""

from dataclasses import asdict, replace
from json import dumps, loads

import pytest

from podium.config.competition import read_competition
from podium.config.keys import Data, Recipe, Validation
from podium.config.recipe import read_recipe, recipe_of
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
        ("freeze_epochs = 1", "freeze_epochs = 1: expected pretrained weights"),
        ("frozen_stages = 1", "frozen_stages = 1: expected pretrained weights"),
        ("frozen_norms = true", "frozen_norms = true: expected pretrained weights"),
        ('pretrained = "package:"', "expected the name of a package after it"),
        ("muon_rate = 0.2", 'muon_rate = 0.2: expected optimiser = "muon"'),
        ("[fastnet]\ndepth = 3", 'fastnet.depth = 3: expected architecture = "fastnet"'),
        ("[fastnet]\nwidths = []", "fastnet.widths = []: expected one or more"),
        ("augment = 3", "expected a table"),
        ("drop_path = 0.1", 'drop_path = 0.1: expected architecture = "timm:<name>"'),
        ("layer_decay = 0.7", 'layer_decay = 0.7: expected architecture = "timm:<name>"'),
        ("gradient_checkpointing = true", 'gradient_checkpointing = true: expected architecture = "timm:<name>"'),
        ("frozen_stages = 1\npretrained = true", "frozen_stages = 1: expected architecture"),
        (
            'interpolation = "bicubic"\naugment.crop = 0.5',
            'interpolation = "bicubic": expected "bilinear", because the random crops',
        ),
        (
            "layer_decay = 0.7\ndiscriminative_ratio = 2",
            "layer_decay = 0.7: expected no discriminative_ratio beside it",
        ),
        (
            "[augment]\nrand_augment = 9\ntrivial_augment = true",
            "trivial_augment = true: expected no augment.rand_augment",
        ),
        (
            "stored_pixels = [32, 64]\nprogressive_pixels = [16]",
            "progressive_pixels = [16]: expected sides in all sizes, or [height, width] in all",
        ),
        ("stored_pixels = [32, 64]\ntraining_pixels = [0, 64]", "training_pixels = [0, 64]: expected at least 1"),
        ("stored_pixels = [32]", "stored_pixels = [32]: expected 2 values"),
        ("stored_pixels = [32, 4]", "stored_pixels[1] = 4: expected 8 to 2048"),
        ('stored_pixels = "32"', "stored_pixels = '32': expected int or a list"),
        ('sampling = "balanced"\nclass_weights = "balanced"', 'class_weights = "balanced": expected sampling = "all"'),
        ('sampling = "balanced"\nshuffle = "blocks"', 'shuffle = "blocks": expected sampling = "all"'),
        ('sampling = "balanced"\nhard_share = 0.5', 'hard_share = 0.5: expected sampling = "all"'),
        ('head = "logistic"', 'head = "logistic": expected pretrained weights'),
        ('head = "logistic"\npretrained = true\nfreeze_epochs = 1', "freeze_epochs = 1: expected 0, because head"),
        ('head = "boosting"', 'head = "boosting": expected pretrained weights'),
        ('head = "boosting"\npretrained = true', 'epochs = 2: expected 0, because head = "boosting" trains no layer'),
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
        ("label_smoothing = 0.1", "label_smoothing"),
    ],
)
def test_keys_that_are_for_classes_are_told_for_a_number(tmp_path, line, name):
    recipe_file(tmp_path, RECIPE + line)
    with pytest.raises(ConfigError) as error:
        read_recipes(tmp_path, target="number")
    (fault,) = error.value.faults
    assert fault.startswith(name) and ': expected [data] target = "class"' in fault and 'found "number"' in fault
    assert list(read_recipes(tmp_path, target="class")) == ["one"]


@pytest.mark.parametrize(
    ("target", "fitting"),
    [
        ("multi-label", {"class_weights", "focal_gamma", "label_smoothing"}),
        ("ordinal", {"class_weights", "sampling"}),
    ],
)
def test_other_targets_have_the_keys_of_classes_that_make_sense_for_them(tmp_path, target, fitting):
    lines = "focal_gamma = 2\nlabel_smoothing = 0.1\n"
    refused = set()
    for one in ('class_weights = "balanced"', 'sampling = "balanced"'):
        recipe_file(tmp_path, RECIPE + lines + one)
        try:
            read_recipes(tmp_path, target=target)
        except ConfigError as error:
            refused |= {fault.split()[0] for fault in error.faults}
    keys = {"class_weights", "focal_gamma", "label_smoothing", "sampling"}
    assert keys - refused == fitting


BOOSTING = RECIPE[:26] + 'pretrained = true\nhead = "boosting"\n'


def test_metadata_columns_are_for_a_head_on_features_alone(tmp_path):
    for text in (BOOSTING, BOOSTING.replace("boosting", "logistic")):
        recipe = read_recipe(recipe_file(tmp_path, text + 'metadata_columns = ["age", "sex"]'))
        assert recipe.metadata_columns == ("age", "sex")
    with pytest.raises(ConfigError, match="names of columns, each once"):
        read_recipe(recipe_file(tmp_path, BOOSTING + 'metadata_columns = ["age", "age"]'))
    with pytest.raises(ConfigError, match=r"metadata_columns = \[\"age\"\]: expected no epochs"):
        read_recipe(recipe_file(tmp_path, RECIPE + 'metadata_columns = ["age"]'))


LOGISTIC = 'architecture = "resnet34"\npretrained = true\nhead = "logistic"\n'


def test_a_logistic_head_needs_no_epochs(tmp_path):
    recipe = read_recipe(recipe_file(tmp_path, LOGISTIC + 'training_pixels = 24\nshape = "squash"\nseeds = [2]\n'))
    assert recipe.epochs == 0 and read_recipe(recipe_file(tmp_path, LOGISTIC + RECIPE[26:])).epochs == 2


@pytest.mark.parametrize(
    "line", ["learning_rate = 0.1", "weight_decay = 0.1", "seeds = [1, 2]", "[augment]\ncrop = 0.5"]
)
def test_without_epochs_the_keys_of_the_training_are_refused(tmp_path, line):
    with pytest.raises(ConfigError, match="expected epochs of 1 or more"):
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
    with pytest.raises(ConfigError, match=r"cannot be read(?s:.*)competition\.toml"):
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
    with pytest.raises(ConfigError, match=r'data\.train = "": expected a name, as test has one'):
        read_competition(tmp_path)


def test_a_holdout_needs_rows(tmp_path):
    (tmp_path / "competition.toml").write_text('title = "x"\n[data]\nsource = "digits"\n')
    with pytest.raises(ConfigError, match=r"validation\.rows: missing; expected the number of labelled rows"):
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
        ("auc", "labels", 'submission.kind = "labels": expected "probability" or "probabilities", as metric = "auc"'),
        ("log_loss", "labels", 'kind = "labels": expected "probability" or "probabilities", as metric = "log_loss"'),
        ("qwk", "probabilities", 'submission.kind = "probabilities": expected "labels", as metric = "qwk"'),
        ("balanced_accuracy", "probabilities", 'expected "labels", as metric = "balanced_accuracy"'),
        ("map_at_k", "labels", 'submission.kind = "labels": expected "ranking", as metric = "map_at_k"'),
        ("macro_f1", "probability", 'submission.kind = "probability": expected "labels", as metric = "macro_f1"'),
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
    with pytest.raises(ConfigError, match=r'submission\.kind = "ranking": expected "labels" or .* metric = "accuracy"'):
        read_competition(competition_file(tmp_path, "accuracy", 'kind = "ranking"\nmost = 5'))
    with pytest.raises(ConfigError, match=r"submission\.most: missing; expected a number of class names"):
        read_competition(competition_file(tmp_path, "map_at_k", 'kind = "ranking"'))
    with pytest.raises(ConfigError, match=r'submission\.most = 5: expected kind = "ranking", found "labels"'):
        read_competition(competition_file(tmp_path, "accuracy", "most = 5"))


def test_a_positive_class_without_its_kind_and_other_faults_are_listed_at_once(tmp_path):
    with pytest.raises(ConfigError) as error:
        read_competition(competition_file(tmp_path, "auc", 'positive_class = "dog"'))
    assert [fault.split(":")[0] for fault in error.value.faults] == [
        'submission.kind = "labels"',
        'submission.positive_class = "dog"',
    ]


@pytest.mark.parametrize(
    ("data", "validation", "fault"),
    [
        ('source = "names"', "rows = 3", 'label_pattern: missing; expected a regular expression, as source = "names"'),
        ('source = "folders"\nlabel_pattern = "(a)"', "rows = 3", 'label_pattern = "(a)": expected source = "names"'),
        (
            'source = "names"\nlabel_pattern = "("',
            "rows = 3",
            'label_pattern = "(": expected a regular expression with',
        ),
        (
            'source = "names"\nlabel_pattern = "a"',
            "rows = 3",
            'label_pattern = "a": expected a regular expression with',
        ),
        (
            'source = "csv"\ngroup_pattern = "a"',
            "rows = 3",
            'group_pattern = "a": expected a regular expression with one',
        ),
        ('source = "digits"\ngroup_column = "who"', "rows = 3", 'group_column = "who": expected another source'),
        (
            'source = "folders"',
            'kind = "folder"\nfolder = "val"\ngroups = "duplicates"',
            'groups = "duplicates": expected kind = "holdout" or "k-fold", found "folder"',
        ),
        (
            'source = "csv"\ngroup_column = "who"\ngroup_pattern = "(a)"',
            "rows = 3",
            "expected no group_column beside it",
        ),
        (
            'source = "folders"\ntest = "train"',
            "rows = 3",
            'test = "train": expected another name than train, or source',
        ),
        ('source = "folders"\ntest = ""\nsample_submission = "s.csv"', "rows = 3", '"s.csv": expected test images'),
        ('source = "csv"\nlabel_column = "a"\nlabel_columns = ["a", "b"]', "rows = 3", "no label_columns beside it"),
        (
            'source = "names"\nlabel_pattern = "(a)"\nid_column = "x"',
            "rows = 3",
            'id_column = "x": expected source = "csv"',
        ),
        (
            'source = "folders"\ntest = ""\ntest_ids = "hash-order"',
            "rows = 3",
            'test_ids = "hash-order": expected test',
        ),
        ('source = "folders"', 'kind = "folder"', 'validation.folder: missing; expected a name, as kind = "folder"'),
        ('source = "folders"', 'rows = 3\nfolder = "val"', 'folder = "val": expected kind = "folder", found "holdout"'),
        ('source = "folders"', 'kind = "k-fold"\nrows = 3', 'rows = 3: expected kind = "holdout", found "k-fold"'),
        ('source = "folders"', "rows = 3\nfolds = 4", 'folds = 4: expected kind = "k-fold", found "holdout"'),
        ('source = "folders"', 'kind = "folder"\nfolder = "val"\nseed = 1', 'seed = 1: expected kind = "holdout" or'),
        (
            'source = "csv"',
            'kind = "folder"\nfolder = "val"',
            'expected [data] source = "folders" or "names", and train',
        ),
        ('source = "folders"', 'kind = "folder"\nfolder = "train"', "expected another folder than train and test"),
        ('source = "folders"', 'kind = "folder"\nfolder = "test"', "expected another folder than train and test"),
        ('source = "folders"', 'kind = "folder"\nfolder = "val"\nrows = 9', 'rows = 9: expected kind = "holdout"'),
        ('source = "folders"\nextra = ["a", "a"]', "rows = 3", "expected names of folders or archives, each once"),
        ('source = "folders"\nextra = [""]', "rows = 3", "expected names of folders or archives, each once"),
        (
            'source = "folders"',
            'rows = 3\n[kaggle]\nfiles = ["a"]',
            'kaggle.files = ["a"]: expected names, each once, and',
        ),
        (
            'source = "folders"',
            'rows = 3\n[kaggle]\ncompetition = "x"\nfiles = ["a", "a"]',
            "expected names, each once, and competition beside them",
        ),
        ('source = "folders"\ntrain = ""', "rows = 3", 'data.train = "": expected a name, as test has one'),
        ('source = "folders"\ntrain = ""\ntest = ""', 'kind = "folder"\nfolder = "val"', 'or "names", and train'),
        (
            'source = "folders"\nlabel_columns = ["a", "b"]',
            "rows = 3",
            'label_columns = ["a", "b"]: expected source = "csv"',
        ),
        ('source = "csv"\nlabel_columns = ["a"]', "rows = 3", 'label_columns = ["a"]: expected two or more, each once'),
        ('source = "csv"\nlabel_separator = "|"', "rows = 3", 'label_separator = "|": expected target = "multi-label"'),
        ('source = "digits"\nextra = ["a"]', "rows = 3", 'extra = ["a"]: expected another source than "digits"'),
        ('source = "csv"\ntarget = "number"', "rows = 3", 'metric = "accuracy": expected "rmse" or "mae" or "r2"'),
        ('source = "folders"\ntarget = "multi-label"', "rows = 3", 'expected source = "csv", a table of labels'),
        ('source = "csv"\ntarget = "ordinal"\nlabel_columns = ["a", "b"]', "rows = 3", 'expected target = "class" or'),
    ],
)
def test_keys_of_the_layout_that_contradict_each_other_are_refused(tmp_path, data, validation, fault):
    (tmp_path / "competition.toml").write_text(f'title = "x"\n[data]\n{data}\n[validation]\n{validation}\n')
    with pytest.raises(ConfigError) as error:
        read_competition(tmp_path)
    assert any(fault in text for text in error.value.faults), error.value.faults


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ('[ensemble]\nstrategy = "greedy"', 'ensemble.strategy = "greedy": expected "auto" or "best" or "uniform"'),
        ('[ensemble]\naverage = "logits"', 'ensemble.average = "logits": expected none, as [data] target = "number"'),
        ('[ensemble]\nrun_temperatures = "never"', 'ensemble.run_temperatures = "never": expected none'),
        ('separator = ","', 'submission.separator = ",": expected a kind with several class names in a cell'),
    ],
)
def test_keys_without_effect_on_numbers_are_refused(tmp_path, line, fault):
    text = 'title = "x"\nmetric = "mae"\n[data]\nsource = "csv"\ntarget = "number"\n[validation]\nrows = 3\n'
    text += f'[submission]\nkind = "number"\n{line}\n'
    (tmp_path / "competition.toml").write_text(text)
    with pytest.raises(ConfigError) as error:
        read_competition(tmp_path)
    assert len(error.value.faults) == 1 and error.value.faults[0].startswith(fault)


def test_a_key_that_was_declared_later_is_in_a_stamp_only_if_it_is_changed(tmp_path):
    assert "label_pattern" not in stamped_keys(Data(source="folders"))
    assert stamped_keys(Data(source="names", label_pattern="(a)"))["label_pattern"] == "(a)"
    assert "metadata" not in stamped_keys(Data(source="folders"))
    assert "group_column" in stamped_keys(Data(source="folders"))
    assert "groups" not in stamped_keys(Validation(rows=3)) and "groups" in stamped_keys(
        Validation(groups="duplicates")
    )
