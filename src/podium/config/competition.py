"""Reads competition.toml, and gives the columns of the submission that it describes."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from podium.config.keys import COMPETITION_FILE, Competition, Data, Submission
from podium.config.schema import changed_keys, read_table, settings_of
from podium.errors import ConfigError, examples

NO_THRESHOLD = "With this metric, a threshold has no effect: the best runs of each architecture are members."
LESS_IS_BETTER = ("log_loss", "rmse", "mae")
METRICS_OF_PROBABILITIES = ("log_loss", "auc")
METRICS_OF_LABELS = ("balanced_accuracy", "macro_f1", "micro_f1", "qwk")
# Target -> its metrics, and its kinds of submission.
ALLOWED = {
    "class": (
        ("accuracy", "balanced_accuracy", "log_loss", "macro_f1", "qwk", "auc", "map_at_k"),
        ("labels", "probabilities", "probability", "ranking"),
    ),
    "multi-label": (("auc", "log_loss", "macro_f1", "micro_f1"), ("probabilities", "labels")),
    "ordinal": (("qwk", "accuracy", "macro_f1"), ("labels",)),
    "number": (("rmse", "mae", "r2"), ("number",)),
}
# The keys of [data] that a table of labels has, and those of each kind of [validation].
TABLE_KEYS = ("labels", "id_column", "label_column", "label_columns", "label_separator", "group_column")
VALIDATION_KEYS = {"holdout": ("rows", "seed"), "k-fold": ("folds", "seed"), "folder": ("folder",)}
# The strategies and keys of [ensemble] that targets without probabilities have.
STRATEGIES_OF_NUMBERS, PROBABILITY_KEYS = ("auto", "best", "uniform", "log-loss"), ("average", "run_temperatures")


def read_competition(folder: Path) -> Competition:
    """Read `competition.toml` in a competition's folder; raises ConfigError."""
    file = folder / COMPETITION_FILE
    table = read_table(file)
    competition = settings_of(Competition, table, file)
    if faults := _competition_faults(competition, has_threshold="threshold" in table.get("ensemble", {})):
        what = "The settings of the competition are incomplete, or contradict each other."
        raise ConfigError(what, file=file, faults=faults, fix=f"edit {file}")
    if competition.metric == "map_at_k":  # podium.metrics has one for each k
        return replace(competition, metric=f"map_at_{competition.submission.most}")
    return competition


def _competition_faults(competition: Competition, *, has_threshold: bool) -> list[str]:
    """Keys that contradict each other, are missing, or have no effect."""
    metric, kind, validation = competition.metric, competition.submission.kind, competition.validation
    is_other = competition.data.source not in ("folders", "names")
    unused = [name for name in changed_keys(validation) if name not in ("kind", *VALIDATION_KEYS[validation.kind])]
    scores = f'metric = "{metric}" and [submission] kind = "{kind}": this metric scores'
    faults = {
        f"{NO_THRESHOLD} Remove threshold.": metric in LESS_IS_BETTER and has_threshold,
        **_data_faults(competition.data),
        '[validation] folder: missing; expected with kind = "folder"': (
            validation.kind == "folder" and not validation.folder
        ),
        '[validation] kind = "folder": expected source = "folders" or "names", and a name for train': (
            validation.kind == "folder" and (is_other or not competition.data.train)
        ),
        "[validation] folder: expected another folder than train and test": (
            validation.folder and validation.folder in (competition.data.train, competition.data.test)
        ),
        **{f'[validation] {name} without effect: kind = "{validation.kind}"': True for name in unused},
        "[validation] rows: missing; expected rows = the number of labelled rows to hold out": (
            validation.kind == "holdout" and validation.rows == 0
        ),
        f'{scores} probabilities; expected kind = "probability" (one column) or "probabilities" (one per class)': (
            metric in METRICS_OF_PROBABILITIES and kind == "labels"
        ),
        f'{scores} labels; expected kind = "labels"': metric in METRICS_OF_LABELS and kind != "labels",
        f'metric = "{metric}" and [submission] kind = "{kind}": expected "map_at_k" with "ranking", and only with it': (
            (metric == "map_at_k") != (kind == "ranking")
        ),
        '[submission] most: expected a number of class names with kind = "ranking", and only with it': (
            bool(competition.submission.most) != (kind == "ranking")
        ),
        "[data] extra: expected names of folders or archives, each once": (
            len({*competition.data.extra} - {""}) < len(competition.data.extra)
        ),
        '[data] extra without effect: source = "digits"': competition.data.extra
        and competition.data.source == "digits",
        f'[submission] positive_class without effect: expected kind = "probability", found "{kind}"': (
            competition.submission.positive_class and kind != "probability"
        ),
        "[submission] separator without effect: a cell has one class name, or none": (
            competition.submission.separator and not separator_of(competition.submission, competition.data.target)
        ),
    }
    return [*_target_faults(competition), *(fault for fault, applies in faults.items() if applies)]


def _target_faults(competition: Competition) -> list[str]:
    """Metrics, kinds of submission and keys of labels that the target does not have."""
    data, metric, kind = competition.data, competition.metric, competition.submission.kind
    metrics, kinds = ALLOWED[data.target]
    given, what = f'[data] target = "{data.target}"', "labels are read from one or the other"
    of_numbers = [] if has_probabilities(competition) else changed_keys(competition.ensemble)
    faults = {
        f'{given}: expected metric = {_quoted(metrics)}, found "{metric}"': metric not in metrics,
        f'{given}: expected [submission] kind = {_quoted(kinds)}, found "{kind}"': kind not in kinds,
        f'{given}: expected source = "csv", a table of labels, found "{data.source}"': (
            data.target != "class" and data.source != "csv"
        ),
        f"[data] extra with {given}: external data have one class per image": data.extra and data.target != "class",
        f'[data] label_separator without effect: expected target = "multi-label", found "{data.target}"': (
            data.label_separator and data.target != "multi-label"
        ),
        f"[ensemble] strategy: {strategy_fault(competition, competition.ensemble.strategy)}": (
            strategy_fault(competition, competition.ensemble.strategy)
        ),
        **{f"[ensemble] {name} without effect with {given}": name in of_numbers for name in PROBABILITY_KEYS},
        f"[data] label_columns without effect with {given}: label_column has the labels": (
            data.label_columns and data.target in ("ordinal", "number")
        ),
        f"[data] label_columns and label_separator: {what}": data.label_columns and data.label_separator,
        "[data] label_columns: expected two or more, each once": (
            len({*data.label_columns}) < len(data.label_columns) or len(data.label_columns) == 1
        ),
    }
    return [fault for fault, applies in faults.items() if applies]


def _data_faults(data: Data) -> dict[str, object]:
    """Faults of [data], and whether they apply."""
    patterns = {name: getattr(data, name) for name in ("label_pattern", "group_pattern")}
    is_table, has_names = data.source == "csv", data.source == "names"
    unused = [] if is_table else [name for name in changed_keys(data) if name in TABLE_KEYS]
    return {
        '[data] train and test: expected a name for train where test has one; train = "" is for test = ""': (
            data.test and not data.train
        ),
        '[data] test = train: expected source = "csv", whose table says which images have labels': (
            data.is_mixed and not is_table
        ),
        "[data] sample_submission without effect: there are no test images": data.sample_submission and not data.test,
        '[data] label_pattern: expected with source = "names", and only with it': bool(data.label_pattern) != has_names,
        **{f'[data] {name} without effect: expected source = "csv", found "{data.source}"': True for name in unused},
        "[data] label_column without effect: label_columns has the labels": (
            data.label_columns and "label_column" in changed_keys(data)
        ),
        "[data] test_ids without effect: there are no test images": data.test_ids == "hash-order" and not data.test,
        "[data] group_column and group_pattern: expected one of them": data.group_column and data.group_pattern,
        **{
            f"[data] {name} = {pattern!r}: expected a regular expression with one group": _count_groups(pattern) != 1
            for name, pattern in patterns.items()
            if pattern
        },
    }


def _count_groups(pattern: str) -> int:
    """The number of groups of a regular expression; -1 if it is none."""
    try:
        return re.compile(pattern).groups
    except re.error:
        return -1


def has_probabilities(competition: Competition) -> bool:
    """Whether runs predict probabilities, and not numbers."""
    return competition.data.target in ("class", "multi-label")


def strategy_fault(competition: Competition, strategy: str) -> str:
    """What is wrong with a strategy for the competition's target; empty if nothing is."""
    if has_probabilities(competition) or strategy in STRATEGIES_OF_NUMBERS:
        return ""
    return f"{_quoted([strategy])} needs probabilities; expected {_quoted(STRATEGIES_OF_NUMBERS)}"


def _quoted(names: Sequence[str]) -> str:
    return " or ".join(f'"{name}"' for name in names)


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
