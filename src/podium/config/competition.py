"""Reads competition.toml, and gives the columns of the submission that it describes."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from podium.config.keys import COMPETITION_FILE, SCORED_BY, Competition, Kaggle, Submission
from podium.config.schema import check_keys, quoted, read_table, settings_of
from podium.errors import ConfigError, examples

NO_THRESHOLD = "With this metric, a threshold has no effect: the best runs of each architecture are members."
LESS_IS_BETTER = ("log_loss", "rmse", "mae")
HAVE_PROBABILITIES, STRATEGIES_OF_NUMBERS = ("class", "multi-label"), ("auto", "best", "uniform", "log-loss")
IMAGE = re.compile(r"latest|original|\S+@sha256:[0-9a-f]{64}")
IMAGES = "latest, original or a docker image, such as gcr.io/kaggle-images/python@sha256:<64 digits>"
TABLE_KEYS = "data.target data.label_column data.label_columns data.label_separator"


def read_competition(folder: Path) -> Competition:
    """Read `competition.toml` in a competition's folder; raises ConfigError."""
    file = folder / COMPETITION_FILE
    competition = settings_of(Competition, read_table(file), file)
    _check_keys(competition, file)
    if competition.metric == "map_at_k":  # podium.metrics has one for each k
        return replace(competition, metric=f"map_at_{competition.submission.most}")
    return competition


def _check_keys(competition: Competition, file: Path) -> None:
    """Raise ConfigError for keys that are missing, contradict each other, or have no effect."""
    data, validation, submission = competition.data, competition.validation, competition.submission
    metric, source, target, split, kind = competition.metric, data.source, data.target, validation.kind, submission.kind
    metrics = {name: None for (of, _), names in SCORED_BY.items() if of == target for name in names}
    kinds = [name for (of, name), names in SCORED_BY.items() if of == target and metric in names] or [kind]
    is_table, strategy_fits = source == "csv", not strategy_fault(competition, competition.ensemble.strategy)
    has_probabilities, has_folders = target in HAVE_PROBABILITIES, data.train and source in ("folders", "names")
    required = [
        ("metric", metric in metrics, f'{quoted(metrics)}, as [data] target = "{target}"'),
        ("submission.kind", kind in kinds, f'{quoted(kinds)}, as metric = "{metric}"'),
        ("submission.most", submission.most or kind != "ranking", 'a number of class names, as kind = "ranking"'),
        ("data.train", data.train or not data.test, "a name, as test has one"),
        ("data.label_pattern", data.label_pattern or source != "names", 'a regular expression, as source = "names"'),
        ("validation.rows", validation.rows or split != "holdout", "the number of labelled rows to hold out"),
        ("validation.folder", validation.folder or split != "folder", 'a name, as kind = "folder"'),
    ]
    rules = [
        (TABLE_KEYS, is_table, f'source = "csv", a table of labels, found "{source}"'),
        ("data.labels", is_table or data.group_column, f'source = "csv", or group_column, found "{source}"'),
        ("data.id_column", is_table or data.group_column or data.metadata, 'source = "csv", group_column or metadata'),
        ("data.metadata", len(data.metadata) <= 2 and "" not in data.metadata, "one table, or two"),
        ("data.test", is_table or not data.is_mixed, 'another name than train, or source = "csv", a table of labels'),
        ("data.sample_submission data.test_ids", data.test, "test images, a name for test"),
        ("data.extra", len({*data.extra} - {""}) == len(data.extra), "names of folders or archives, each once"),
        ("data.extra data.group_column data.metadata", source != "digits", 'another source than "digits"'),
        ("data.label_pattern", source == "names", f'source = "names", found "{source}"'),
        ("data.label_pattern", _count_groups(data.label_pattern) == 1, "a regular expression with one group"),
        ("data.group_pattern", _count_groups(data.group_pattern) == 1, "a regular expression with one group"),
        ("data.group_pattern", not data.group_column, "no group_column beside it"),
        ("data.label_column data.label_separator", not data.label_columns, "no label_columns beside it"),
        ("data.label_columns", has_probabilities, f'target = "class" or "multi-label", found "{target}"'),
        ("data.label_columns", 1 < len({*data.label_columns}) == len(data.label_columns), "two or more, each once"),
        ("data.label_separator", target == "multi-label", f'target = "multi-label", found "{target}"'),
        ("validation.kind", split != "folder" or has_folders, '[data] source = "folders" or "names", and train'),
        ("validation.rows", split == "holdout", f'kind = "holdout", found "{split}"'),
        ("validation.folds", split == "k-fold", f'kind = "k-fold", found "{split}"'),
        ("validation.seed validation.groups", split != "folder", f'kind = "holdout" or "k-fold", found "{split}"'),
        ("validation.folder", split == "folder", f'kind = "folder", found "{split}"'),
        ("validation.folder", validation.folder not in (data.train, data.test), "another folder than train and test"),
        ("submission.most", kind == "ranking", f'kind = "ranking", found "{kind}"'),
        ("submission.positive_class", kind == "probability", f'kind = "probability", found "{kind}"'),
        ("submission.separator", separator_of(submission, target), "a kind with several class names in a cell"),
        ("ensemble.threshold", metric not in LESS_IS_BETTER, f"none. {NO_THRESHOLD}"),
        ("ensemble.strategy", strategy_fits, f"{quoted(STRATEGIES_OF_NUMBERS)}, which need no probabilities"),
        ("ensemble.average ensemble.run_temperatures", has_probabilities, f'none, as [data] target = "{target}"'),
    ]
    check_keys(competition, rules + _kaggle_rules(competition.kaggle), required=required, file=file)


def _kaggle_rules(kaggle: Kaggle) -> list[tuple[str, object, str]]:
    has_names = len({*kaggle.files} - {""}) == len(kaggle.files)
    return [
        ("kaggle.files", has_names and kaggle.competition, "names, each once, and competition beside them"),
        ("kaggle.notebook_image", IMAGE.fullmatch(kaggle.notebook_image), IMAGES),
    ]


def _count_groups(pattern: str) -> int:
    """The number of groups of a regular expression; -1 if it is none."""
    try:
        return re.compile(pattern).groups
    except (re.error, OverflowError, RecursionError):
        return -1


def strategy_fault(competition: Competition, strategy: str) -> str:
    """What is wrong with a strategy for the competition's target; empty if nothing is."""
    if competition.data.target in HAVE_PROBABILITIES or strategy in STRATEGIES_OF_NUMBERS:
        return ""
    return f'"{strategy}" needs probabilities; expected {quoted(STRATEGIES_OF_NUMBERS)}'


def separator_of(settings: Submission, target: str) -> str:
    """What is between the class names in a cell of a submission; empty if a cell never has several."""
    has_several = settings.kind == "ranking" or (settings.kind == "labels" and target == "multi-label")
    return (settings.separator or " ") if has_several else ""


def expected_columns(settings: Submission, classes: Sequence[str]) -> list[str]:
    """The header of a submission; raises ConfigError where these classes do not allow its kind."""
    if settings.kind == "probability":
        positive_index(settings, classes)
    return [settings.id_column, *(classes if settings.kind == "probabilities" else [settings.label_column])]


def positive_index(settings: Submission, classes: Sequence[str]) -> int:
    """Index of the class whose probability is the only column; raises ConfigError unless it is one of two."""
    name = settings.positive_class or classes[-1]
    if len(classes) != 2 or name not in classes:
        raise ConfigError(
            'One column of probabilities, kind = "probability" under [submission], needs two classes.',
            expected="2 classes" + (f", one of them positive_class = {name!r}" if settings.positive_class else ""),
            found=f"{len(classes)} classes: {examples(classes)}",
            fix='with more classes, kind = "probabilities" writes a column per class, kind = "labels" class names',
        )
    return list(classes).index(name)
