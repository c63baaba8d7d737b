"""Reads competition.toml, and gives the columns of the submission that it describes."""

import re
from collections.abc import Sequence
from pathlib import Path

from podium.config.keys import COMPETITION_FILE, Competition, Data, Submission
from podium.config.schema import read_table, settings_of
from podium.errors import ConfigError, examples

NO_THRESHOLD = "With metric = log_loss, a threshold has no effect: the best runs of each architecture are members."
METRICS_OF_PROBABILITIES, METRICS_OF_LABELS = ("log_loss", "auc"), ("macro_f1", "qwk")


def read_competition(folder: Path) -> Competition:
    """Read `competition.toml` in a competition's folder; raises ConfigError."""
    file = folder / COMPETITION_FILE
    table = read_table(file)
    competition = settings_of(Competition, table, file)
    if faults := _competition_faults(competition, has_threshold="threshold" in table.get("ensemble", {})):
        what = "The settings of the competition are incomplete, or contradict each other."
        raise ConfigError(what, file=file, faults=faults, fix=f"edit {file}")
    return competition


def _competition_faults(competition: Competition, *, has_threshold: bool) -> list[str]:
    """Keys that contradict each other, are missing, or have no effect."""
    metric, kind, validation = competition.metric, competition.submission.kind, competition.validation
    is_other = competition.data.source not in ("folders", "names")
    scores = f'metric = "{metric}" and [submission] kind = "{kind}": this metric scores'
    faults = {
        f"{NO_THRESHOLD} Remove threshold.": metric == "log_loss" and has_threshold,
        **_data_faults(competition.data),
        '[validation] folder: expected with kind = "folder", and only with it': (
            bool(validation.folder) != (validation.kind == "folder")
        ),
        '[validation] kind = "folder": expected source = "folders" or "names", and a name for train': (
            validation.kind == "folder" and (is_other or not competition.data.train)
        ),
        "[validation] rows: missing; expected rows = the number of labelled rows to hold out": (
            validation.kind == "holdout" and validation.rows == 0
        ),
        f'{scores} probabilities; expected kind = "probability" (one column) or "probabilities" (one per class)': (
            metric in METRICS_OF_PROBABILITIES and kind == "labels"
        ),
        f'{scores} labels; expected kind = "labels"': metric in METRICS_OF_LABELS and kind != "labels",
        '[data] extra without effect: source = "digits"': competition.data.extra
        and competition.data.source == "digits",
        f'[submission] positive_class without effect: expected kind = "probability", found "{kind}"': (
            competition.submission.positive_class and kind != "probability"
        ),
    }
    return [fault for fault, applies in faults.items() if applies]


def _data_faults(data: Data) -> dict[str, object]:
    """Faults of [data], and whether they apply."""
    is_table, patterns = (
        data.source == "csv",
        {name: getattr(data, name) for name in ("label_pattern", "group_pattern")},
    )
    has_pattern = bool(data.label_pattern)
    return {
        '[data] train and test: expected a name for train where test has one; train = "" is for test = ""': (
            data.test and not data.train
        ),
        '[data] test = train: expected source = "csv", whose table says which images have labels': (
            data.is_mixed and not is_table
        ),
        "[data] sample_submission without effect: there are no test images": data.sample_submission and not data.test,
        '[data] label_pattern: expected with source = "names", and only with it': has_pattern
        != (data.source == "names"),
        '[data] group_column without effect: expected source = "csv"': data.group_column and not is_table,
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
