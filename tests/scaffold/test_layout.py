"""What make new decides from the files alone, for the layouts of common competitions, and why a table is refused."""

import pytest

import layout_toys as layouts
from layout_toys import image, table, write
from podium.data.prepare import prepare
from podium.errors import ConfigError, DataError
from podium.plan.paths import Paths
from podium.scaffold.guess import guess_competition
from podium.scaffold.write import SMALL_PIXELS, write_competition
from podium.workspace import open_workspace

PLAIN = {"source": "folders", "train": "train", "test": "test", "group_column": ""}
DECIDED = {
    "aerial_cactus": {"source": "csv", "labels": "train.csv", "label_column": "has_cactus", "kind": "probability"},
    "histopathologic": {"source": "csv", "labels": "train_labels.csv", "kind": "probability"},
    "dogs_vs_cats": {"source": "names", "label_pattern": "^(.+)[._][0-9]+[.]", "kind": "probability"},
    "dog_breed": {"source": "csv", "labels": "labels.csv", "label_column": "breed", "kind": "probabilities"},
    "leaf": {
        "source": "csv",
        "train": "images",
        "test": "images",
        "id_column": "id",
        "label_column": "species",
        "kind": "probabilities",
    },
    "plant_pathology": {
        "source": "csv",
        "train": "images",
        "test": "images",
        "target": "class",
        "label_columns": ("healthy", "multiple_diseases", "rust", "scab"),
        "kind": "probabilities",
    },
    "ranzcr": {
        "source": "csv",
        "labels": "train.csv",
        "target": "multi-label",
        "label_columns": ("ETT - Abnormal", "NGT - Normal", "CVC - Normal"),
        "group_column": "PatientID",
        "kind": "probabilities",
    },
    "biomass": {
        "source": "csv",
        "train": "train_images",
        "test": "test_images",
        "target": "number",
        "label_column": "grams",
        "kind": "number",
    },
    "aptos": {
        "source": "csv",
        "train": "train_images",
        "test": "test_images",
        "id_column": "id_code",
        "label_column": "diagnosis",
        "target": "ordinal",
        "kind": "labels",
    },
    "melanoma": {
        "source": "csv",
        "train": "jpeg/train",
        "test": "jpeg/test",
        "id_column": "image_name",
        "label_column": "target",
        "group_column": "patient_id",
        "kind": "probability",
    },
    "tags": {
        "source": "csv",
        "train": "train_images",
        "test": "test_images",
        "target": "multi-label",
        "label_column": "labels",
        "label_separator": " ",
        "kind": "labels",
    },
    "whales": {"source": "csv", "target": "class", "label_column": "Id", "kind": "ranking"},
}
# What the files do not say.
GIVEN = {
    "histopathologic": {"metric": "auc"},
    "melanoma": {"submission.kind": "probability"},
    "aptos": {"data.target": "ordinal"},
}


def guess(tmp_path, place, given=None):
    return guess_competition(place, tmp_path / "cache", title="Miniature", given=given, command="make new DATA=x")


def prepared(tmp_path, place, given=None):
    """The lock that `make new` and `make prepare` write, without a file edited by hand."""
    paths = Paths("miniature", tmp_path / "project", tmp_path / "project")
    write_competition(paths, guess(tmp_path, place, given), gpu=False)
    return prepare(open_workspace("miniature", paths.root), data=str(place))


def question(tmp_path, place, given=None):
    """The error that asks, and the words of each command that it says to type."""
    with pytest.raises(ConfigError, match="The files do not say") as error:
        guess(tmp_path, place, given)
    _, *commands = error.value.fix.splitlines()
    assert all(command.strip().startswith("make new DATA=x ") for command in commands)
    return error.value, [command.strip().removeprefix("make new DATA=x ") for command in commands]


KEYS = {"TARGET": "data.target", "KIND": "submission.kind", "METRIC": "metric"}


def keys_of(words):
    """What make new gets for words such as TARGET=ordinal METRIC=qwk."""
    return {KEYS[name]: value for name, value in (word.split("=") for word in words.split())}


@pytest.mark.parametrize("name", DECIDED)
def test_the_layout_of_a_competition_is_recognised_and_prepared(tmp_path, name):
    place = tmp_path / "given"
    getattr(layouts, name)(place)
    found = guess(tmp_path, place, GIVEN.get(name))
    settings = {**vars(found.competition.data), "kind": found.competition.submission.kind}
    expected = PLAIN | DECIDED[name]
    assert {key: settings[key] for key in expected} == expected
    assert found.listing.faults == ()
    lock = prepared(tmp_path, place, GIVEN.get(name))
    assert len(lock.train_ids) + len(lock.test_ids) in (30, 36, 40, 46, 48)


def test_columns_of_a_sample_give_the_order_of_the_classes_and_of_the_submission(tmp_path):
    layouts.dog_breed(tmp_path / "given")
    found = guess(tmp_path, tmp_path / "given")
    assert found.listing.classes == ("whippet", "affenpinscher", "boxer")
    assert found.format_reason == "the sample has the columns 'whippet', 'affenpinscher', 'boxer'"
    assert prepared(tmp_path, tmp_path / "given").classes == found.listing.classes
    assert not any("format" in item for item in found.to_check)


@pytest.mark.parametrize(
    ("name", "metric", "reason"),
    [
        ("plant_pathology", "log_loss", "class: in the 4 columns of the sample, each row has one 1"),
        ("ranzcr", "auc", "multi-label: in the 3 columns of the sample, 21 of 40 rows have several 1 or none"),
        ("biomass", "rmse", "number: the labels are 40 different numbers, and not all of them are integers"),
        ("tags", "macro_f1", "multi-label: labels such as 'rust complex' have several of 4 names"),
        ("whales", "map_at_k", None),
        ("aerial_cactus", "log_loss", None),
    ],
)
def test_the_target_is_decided_by_the_labels_and_the_reason_is_printed(tmp_path, name, metric, reason):
    getattr(layouts, name)(tmp_path / "given")
    found = guess(tmp_path, tmp_path / "given")
    assert found.competition.metric == metric
    targets = [item.removeprefix("the target: ") for item in found.to_check if item.startswith("the target")]
    assert [target.startswith(reason) for target in targets] == ([] if reason is None else [True])


@pytest.mark.parametrize(
    ("name", "found", "commands"),
    [
        (
            "histopathologic",
            "the labels are 0, 1; the column of the sample has only '0'",
            ["TARGET=class KIND=labels METRIC=accuracy", "TARGET=class KIND=probability METRIC=log_loss"],
        ),
        (
            "melanoma",
            "the labels are 0, 1; the column of the sample has only '0'",
            ["TARGET=class KIND=labels METRIC=accuracy", "TARGET=class KIND=probability METRIC=log_loss"],
        ),
        (
            "aptos",
            "the labels are 0, 1, 2, 3, 4; the column of the sample has only '0'",
            [
                "TARGET=class KIND=labels METRIC=accuracy",
                "TARGET=ordinal KIND=labels METRIC=qwk",
                "TARGET=number KIND=number METRIC=rmse",
            ],
        ),
    ],
)
def test_all_that_the_files_do_not_say_is_asked_for_at_once_and_any_answer_goes_on(tmp_path, name, found, commands):
    place = tmp_path / "given"
    getattr(layouts, name)(place)
    error, asked = question(tmp_path, place)
    assert error.found == found and asked == commands
    assert not (tmp_path / "project").exists()
    for number, words in enumerate(commands):
        lock = prepared(tmp_path / str(number), place, keys_of(words))
        competition = open_workspace("miniature", tmp_path / str(number) / "project").competition
        settings = {"data.target": competition.data.target, "submission.kind": competition.submission.kind}
        settings["metric"] = competition.metric
        assert keys_of(words).items() <= settings.items() and lock.target_name == competition.data.target


def test_a_metric_answers_where_only_one_reading_has_it(tmp_path):
    layouts.aptos(tmp_path / "given")
    for metric, target in (("rmse", "number"), ("balanced_accuracy", "class")):
        assert guess(tmp_path, tmp_path / "given", {"metric": metric}).competition.data.target == target
    _, commands = question(tmp_path, tmp_path / "given", {"metric": "qwk"})
    assert commands == ["TARGET=class KIND=labels METRIC=qwk", "TARGET=ordinal KIND=labels METRIC=qwk"]


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        ({"data.target": "ordnal"}, "data.target = 'ordnal': expected one of class, multi-label, ordinal, number; did"),
        ({"metric": "kappa"}, "metric = 'kappa': expected one of accuracy"),
        ({"submission.kind": "label"}, "did you mean labels?"),
        ({"data.target": "number", "metric": "qwk"}, "TARGET=number KIND=number METRIC=rmse or mae or r2"),
        (
            {"data.target": "ordinal", "submission.kind": "probability"},
            "TARGET=ordinal KIND=labels METRIC=qwk or",
        ),
        ({"data.target": "class", "metric": "auc"}, "TARGET=class KIND=probability METRIC=log_loss or auc or accuracy"),
        ({"data.target": "class", "validation.rows": 7}, '"k-fold"'),
    ],
)
def test_wrong_and_contradictory_answers_are_refused_and_nothing_is_written(tmp_path, given, fault):
    layouts.aptos(tmp_path / "given")
    with pytest.raises(ConfigError) as error:
        prepared(tmp_path, tmp_path / "given", given)
    assert fault in "".join(error.value.faults)
    assert error.value.fix.startswith(("correct TARGET=, METRIC=, KIND= or SET=", "type one of these"))
    assert not list((tmp_path / "project").glob("competitions/*"))


def test_other_keys_that_are_given_are_written_and_not_asked_for(tmp_path):
    layouts.melanoma(tmp_path / "given")
    given = {"metric": "auc", "data.label_column": "benign_malignant", "data.group_column": "patient_id"}
    given |= {"submission.positive_class": "malignant", "validation.folds": 3, "ensemble.strategy": "uniform"}
    found = guess(tmp_path, tmp_path / "given", given)
    competition = found.competition
    assert competition.data.label_column == "benign_malignant" and competition.submission.positive_class == "malignant"
    assert (competition.validation.folds, competition.ensemble.strategy) == (3, "uniform")
    assert not any(item.startswith(("the groups", "the column of labels", "the metric")) for item in found.to_check)
    prepared(tmp_path, tmp_path / "given", given)
    written = open_workspace("miniature", tmp_path / "project").competition
    assert (written.validation.folds, written.ensemble.strategy) == (3, "uniform")
    with pytest.raises(DataError, match="no class folders, no table of labels") as error:
        guess(tmp_path, tmp_path / "given", {"data.label_column": "benign"})
    assert "no column 'benign' beside 'image_name'" in error.value.faults[0]


def named_labels(place, labels, sample=None):
    for number in range(24):
        image(place, f"train/{number}.png")
    image(place, "test/100.png")
    table(place, "labels.csv", "id,label", [(k, labels[k % len(labels)]) for k in range(24)])
    table(place, "sample_submission.csv", "id,label", [(100, sample or labels[0])])


def test_names_with_blanks_are_classes_or_asked_for(tmp_path):
    named_labels(tmp_path / "breeds", ["golden retriever", "border collie", "poodle", "golden doodle"])
    assert guess(tmp_path, tmp_path / "breeds").competition.data.target == "class"
    fruit = [f"{colour} {name}" for colour in ("red", "green", "yellow") for name in ("apple", "pear", "plum")]
    named_labels(tmp_path / "fruit", fruit)
    _, commands = question(tmp_path, tmp_path / "fruit")
    assert commands == ["TARGET=class KIND=labels METRIC=accuracy", "TARGET=multi-label KIND=labels METRIC=macro_f1"]
    found = guess(tmp_path, tmp_path / "fruit", {"data.target": "multi-label"})
    assert found.competition.data.label_separator == " "
    assert found.listing.classes == ("apple", "green", "pear", "plum", "red", "yellow")


@pytest.mark.parametrize(("separator", "written"), [(" ", ""), ("|", "|")])
def test_a_ranking_has_the_number_of_names_and_the_separator_of_the_sample(tmp_path, separator, written):
    named_labels(tmp_path / "given", ["a", "b", "c", "d"], separator.join("abc"))
    submission = guess(tmp_path, tmp_path / "given").competition.submission
    assert (submission.kind, submission.most, submission.separator) == ("ranking", 3, written)


@pytest.mark.parametrize("missing", ["nan", "NA", "n/a", "NULL"])
def test_a_missing_number_is_a_fault_and_no_class(tmp_path, missing):
    named_labels(tmp_path / "two", [*"0101010", missing], "0.5")
    found = guess(tmp_path, tmp_path / "two")
    assert found.competition.submission.positive_class == "1"
    text = f"labels.csv: 3 wrong cell(s); expected a label; all others are numbers: '7' has '{missing}'; "
    assert [text in fault for fault in found.listing.faults] == [True]
    named_labels(tmp_path / "many", [*(f"{k}.5" for k in range(23)), missing], "4.4")
    found = guess(tmp_path, tmp_path / "many")
    assert found.competition.data.target == "number" and found.labels_text == "numbers from 0.5 to 22.5"
    assert f"'23' has '{missing}'" in found.listing.faults[0]
    named_labels(tmp_path / "class", ["cat", "dog", missing])  # among names, it may be one
    assert guess(tmp_path, tmp_path / "class").listing.faults == ()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("biomass", "numbers from 20 to 68.75"),
        ("ranzcr", "3 classes: CVC - Normal 24, ETT - Abnormal 20, NGT - Normal 14"),
        ("aptos", "5 classes: 0 8, 1 8, 2 8, 3 8, 4 8"),
    ],
)
def test_labels_are_counted_for_people(tmp_path, name, text):
    getattr(layouts, name)(tmp_path / "given")
    assert guess(tmp_path, tmp_path / "given", GIVEN.get(name)).labels_text == text


def test_many_integers_are_a_number_where_the_sample_has_a_fraction_and_else_asked_for(tmp_path):
    place = tmp_path / "given"
    for number in range(46):
        image(place, f"{'train' if number < 40 else 'test'}/{number}.png")
    table(place, "train.csv", "id,age", [(k, 20 + k % 20) for k in range(40)])
    table(place, "sample_submission.csv", "id,age", [(k, "41.5") for k in range(40, 46)])
    found = guess(tmp_path, place)
    assert found.competition.data.target == "number"
    assert "the target: number: the labels are 20 different numbers, and the sample has 41.5" in found.to_check
    table(place, "sample_submission.csv", "id,age", [(k, 30) for k in range(40, 46)])
    assert question(tmp_path, place)[1] == [
        "TARGET=class KIND=labels METRIC=accuracy",
        "TARGET=number KIND=number METRIC=rmse",
    ]


def test_class_folders_with_numbers_as_names_are_classes(tmp_path):
    for number in range(12):
        image(tmp_path / "given", f"train/{number % 4}/{number}.png")
    assert guess(tmp_path, tmp_path / "given").competition.data.target == "class"


def test_recipes_for_small_images_fit_an_ordered_target(tmp_path):
    layouts.aptos(tmp_path / "given")
    found = guess(tmp_path, tmp_path / "given", GIVEN["aptos"])
    assert found.median_side <= SMALL_PIXELS
    write_competition(Paths("miniature", tmp_path, tmp_path), found, gpu=False)
    assert set(open_workspace("miniature", tmp_path).recipes) == {"fastnet", "resnet34", "lite0"}


def test_numeric_ids_are_ordered_as_numbers_with_and_without_a_sample(tmp_path):
    layouts.dogs_vs_cats(tmp_path / "given")
    ids = [str(number) for number in range(1, 13)]
    assert list(guess(tmp_path, tmp_path / "given").listing.test_images) == ids
    (tmp_path / "given/sample_submission.csv").unlink()
    assert list(guess(tmp_path, tmp_path / "given").listing.test_images) == ids


def class_folders(place, train="train/", count=12):
    for number in range(count):
        for name in ("ants", "bees"):
            image(place, f"{train}{name}/{number}.png")


@pytest.mark.parametrize("train", ["train/", "photos/", "", "all/train/"])
def test_class_folders_without_a_test_are_a_competition(tmp_path, train):
    class_folders(tmp_path / "given", train)
    found = guess(tmp_path, tmp_path / "given")
    assert (found.competition.data.train, found.competition.data.test) == (train.split("/")[-2] if train else "", "")
    assert any("there are none" in item for item in found.to_check)
    assert any("set group_pattern" in item for item in found.to_check)
    lock = prepared(tmp_path, tmp_path / "given")
    assert lock.classes == ("ants", "bees") and len(lock.train_ids) == 24 and len(lock.test_ids) == 0


def test_a_sample_without_test_images_is_named_and_not_used(tmp_path):
    class_folders(tmp_path / "given")
    table(tmp_path / "given", "sample_submission.csv", "id,label", [(1, "ants")])
    found = guess(tmp_path, tmp_path / "given")
    assert found.competition.data.sample_submission == ""
    assert any("sample_submission.csv is not used" in item for item in found.to_check)


def test_a_folder_of_validation_images_is_held_out(tmp_path):
    place = tmp_path / "given"
    class_folders(place)
    for name in ("ants", "bees"):
        for number in range(4):  # the same file names as in train/
            image(place, f"val/{name}/{number}.png")
    found = guess(tmp_path, place)
    assert (found.competition.validation.kind, found.competition.validation.folder) == ("folder", "val")
    assert "the validation: the 8 images of val are held out, and train no model" in found.to_check
    lock = prepared(tmp_path, place)
    held_out = lock.train_ids[lock.folds == 0].tolist()
    assert held_out == sorted(f"val/{name}/{number}" for name in ("ants", "bees") for number in range(4))
    assert len(lock.train_ids) == 32 and set(lock.folds.tolist()) == {-1, 0}


def test_a_folder_of_validation_images_without_labels_is_not_left_out_silently(tmp_path):
    class_folders(tmp_path / "given")
    image(tmp_path / "given", "val/1.png")
    found = guess(tmp_path, tmp_path / "given")
    assert found.competition.validation.kind == "k-fold"
    assert "the validation: the 1 images of val are not used: their labels are not known" in found.to_check


def labelled_images(place):
    for number in range(24):
        image(place, f"train/{number}.png")
    image(place, "test/100.png")


def test_images_without_a_label_are_the_test_and_are_named(tmp_path):
    labelled_images(tmp_path / "given")
    (tmp_path / "given/test/100.png").unlink()
    table(tmp_path / "given", "labels.csv", "id,label", [(k, "ab"[k % 2]) for k in range(20)])
    found = guess(tmp_path, tmp_path / "given")
    assert found.competition.data.test == "train"
    text = "the test images: 4 of 24 images in train have no label in labels.csv, so they are the test"
    assert text in found.to_check


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("id,label\n0,a\n1,b\n".encode("utf-16"), "not a CSV table in UTF-8"),
        ("id;label\n0;a\n1;b\n", "its columns are separated by ';'; expected commas"),
        ("0,a\n1,b\n2,a\n", "its first line names the image '0'; expected a header"),
        ("id,label\nx/0,a\nx/1,b\n", "names 0 images; 'x/0' has no image in "),
        ("id\n0\n1\n", "no column beside 'id': expected a column of labels"),
        ("id,label\n", "no rows"),
    ],
)
def test_why_a_table_was_not_taken_is_told(tmp_path, content, reason):
    labelled_images(tmp_path / "given")
    write(tmp_path / "given/labels.csv", content)
    with pytest.raises(DataError, match="no class folders, no table of labels, and no classes in the file") as error:
        guess(tmp_path, tmp_path / "given")
    (fault,) = error.value.faults
    assert fault.startswith(f"{tmp_path}/given/labels.csv: ") and reason in fault


def test_sides_are_said_to_be_those_of_a_sample(tmp_path):
    labelled_images(tmp_path / "given")
    table(tmp_path / "given", "labels.csv", "id,label", [(k, "ab"[k % 2]) for k in range(24)])
    assert any(
        line.startswith("sides of all 24 labelled images: ") for line in guess(tmp_path, tmp_path / "given").lines
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("podium.scaffold.guess.SAMPLED_IMAGES", 8)
        lines = guess(tmp_path, tmp_path / "given").lines
    assert any(line.startswith("sides of 8 of 24 labelled images: ") for line in lines)


@pytest.mark.parametrize("end", ["", ","])
def test_a_row_without_its_last_cell_is_named_and_decides_nothing(tmp_path, end):
    for name, row in (("several", lambda k: f"{k},{k % 2},1"), ("number", lambda k: f"{k},{k * 1.5}")):
        place = tmp_path / name
        labelled_images(place)
        lines = [row(k) for k in range(23)]
        columns = "id,a,b"[: 2 * lines[0].count(",") + 2]
        lines[3] = lines[3].rsplit(",", 1)[0] + end
        write(place / "labels.csv", "\n".join([columns, *lines]))
        write(place / "sample_submission.csv", f"{columns}\n100{',0.5' * columns.count(',')}\n")
        found = guess(tmp_path, place)
        assert found.competition.data.target == {"several": "multi-label", "number": "number"}[name]
        assert any("labels.csv line 5: " in fault and fault.endswith(" is empty") for fault in found.listing.faults)


def test_a_table_with_stray_spaces_and_a_missing_image_is_taken_and_the_image_is_named(tmp_path):
    labelled_images(tmp_path / "given")
    rows = [(f" {k}", f"{'ab'[k % 2]} ") for k in range(25)]
    table(tmp_path / "given", "labels.csv", " id, label", rows)
    found = guess(tmp_path, tmp_path / "given")
    assert (found.competition.data.id_column, found.competition.data.label_column) == ("id", "label")
    (fault,) = found.listing.faults
    assert fault.endswith(f"labels.csv line 26: '24' has no image in {tmp_path}/given/train")


@pytest.mark.parametrize(
    ("column", "values", "chosen", "asked"),
    [
        ("lesion_id", [f"L{k // 2}" for k in range(24)], "lesion_id", ""),
        ("site", [f"s{k // 2}" for k in range(24)], "", "values repeat in 'site'"),
        ("age", [40 + k // 2 for k in range(24)], "", "set group_column in [data]"),
        ("patient", [k % 2 for k in range(24)], "", "set group_column in [data]"),  # as few as the classes
        ("patient", [f"p{k}" for k in range(24)], "", "set group_column in [data]"),
    ],
)
def test_a_column_of_groups_is_found_by_its_name_and_values(tmp_path, column, values, chosen, asked):
    labelled_images(tmp_path / "given")
    table(tmp_path / "given", "labels.csv", f"id,label,{column}", [(k, "ab"[k % 2], values[k]) for k in range(24)])
    found = guess(tmp_path, tmp_path / "given")
    assert found.competition.data.group_column == chosen
    (item,) = [item for item in found.to_check if item.startswith("the groups")]
    assert item.endswith(asked) or chosen in item
