"""What labels and a submission are: decided by their texts, or asked for with the commands to type."""

from collections.abc import Iterable, Mapping, Set
from dataclasses import replace
from typing import Any

from podium.config.keys import SCORED_BY, Competition, Submission
from podium.config.schema import flat_keys
from podium.data.labels import without_missing
from podium.data.listing import natural_order, numbers_in
from podium.data.tables import Table
from podium.errors import ConfigError, examples

Reading = tuple[str, str]  # the target, and the kind of submission

SEPARATORS = ("|", ";", ",", " ")
# More integers than these may be a number, fewer may be grades.
MOST_GRADES = 10
OPTIONS = {"TARGET": "data.target", "KIND": "submission.kind"}
FIX = "correct TARGET=, METRIC=, KIND= or SET="


class Texts:
    """The different texts of the labels, but for missing ones, and a sample submission.

    `cells` are the different cells in the only column of the sample beside the ids. `separator` is between the `names`
    in labels that have several; without it, the names are the labels.
    """

    def __init__(self, labels: Iterable[str], sample: Table):
        self.labels, self.sample, self.columns = without_missing(labels) - {""}, sample, sample.header[1:]
        self.cells = set(sample.columns[self.columns[0]]) if len(self.columns) == 1 else set()
        self.separator, self.names = "", self.labels
        for separator in reversed(SEPARATORS):
            names = {name for row in _split(self.labels, separator) for name in row}
            if len(names) < len(self.labels):
                self.separator, self.names = separator, names

    @property
    def sample_text(self) -> str:
        """What the sample has beside its ids."""
        if not self.columns:
            return "there is no sample submission"
        if not self.cells:
            return f"the sample has the columns {examples(map(repr, self.columns), most=6)}"
        only = "only " if len(self.cells) == 1 else ""
        return f"the column of the sample has {only}{examples(map(repr, sorted(self.cells)))}"

    def targets(self) -> tuple[list[str], str]:
        """What the labels may be, and why, where they are no classes."""
        numbers = sorted(numbers_in(self.labels))
        if set(self.columns) == self.labels or len(numbers) in (1, 2) or not (numbers or self.separator):
            return ["class"], ""
        if not numbers:
            is_sure = self.names <= self.labels or self.names == set(self.columns)
            reason = f"labels such as {max(self.labels, key=len)!r} have several of {len(self.names):,} names"
            return ["multi-label", *([] if is_sure else ["class"])], reason
        has_fractions, is_few = not all(map(float.is_integer, numbers)), len(numbers) <= MOST_GRADES
        others = [value for value in numbers_in(self.cells) if not value.is_integer()]
        if others or (has_fractions and not is_few):
            found = "not all of them are integers" if has_fractions else f"the sample has {others[0]:g}"
            return ["number"], f"the labels are {len(numbers):,} different numbers, and {found}"
        return ["class", *(["ordinal"] if is_few and not has_fractions else []), "number"], ""

    def kinds(self, target: str) -> list[str]:
        """What the cells of a submission like the sample may be."""
        if target in ("number", "ordinal"):
            return [kind for name, kind in SCORED_BY if name == target]
        if len(self.columns) > 1 or (target == "multi-label" and not self.columns):
            return ["probabilities"]
        if target == "class" and self._ranked(self.labels)[1]:
            return ["ranking"]
        numbers = numbers_in(self.cells)
        is_share = target == "class" and len(self.labels) == 2 and numbers and 0 <= min(numbers) <= max(numbers) <= 1
        if not is_share or (self.cells <= self.labels and len(self.cells) > 1):
            return ["labels"]
        return ["labels", "probability"] if all(map(float.is_integer, numbers)) else ["probability"]

    def submission(self, target: str, kind: str) -> tuple[Submission, str]:
        """The settings of [submission], and what a person should check, or ""."""
        columns = ("id_column",) if kind == "probabilities" else ("id_column", "label_column")
        settings = Submission(kind=kind, **dict(zip(columns, self.sample.header, strict=False)))
        if kind == "probability":
            *others, positive = natural_order(self.labels)
            text = f"it is the probability of {positive!r}; positive_class can be {examples(map(repr, others))}"
            return replace(settings, positive_class=positive), "" if self.labels == {"0", "1"} else text
        classes = self.names if target == "multi-label" else self.labels
        separator, most = self._ranked(classes)
        if kind == "ranking" or (target == "multi-label" and kind == "labels"):
            settings = replace(settings, separator=separator.strip(), most=most if kind == "ranking" else 0)
            return settings, f"at most {most} names in a cell" if most else ""
        is_unknown = kind == "labels" and not self.cells <= classes
        return settings, f"{self.sample_text}, and not only class names" if is_unknown else ""

    def _ranked(self, classes: Set[str]) -> tuple[str, int]:
        """What separates the class names in cells of the sample that have several, and how many there are; or "", 0."""
        for separator in SEPARATORS:
            rows = _split(self.cells - classes, separator)
            if any(len(row) > 1 and classes.intersection(row) for row in rows):
                return separator, max(map(len, rows))
        return "", 0


def choose_reading(texts: Texts, given: Mapping[str, Any], *, command: str) -> tuple[Reading, str]:
    """How the labels and the sample are read, and the reason for the target, or "".

    `given` has the keys that the user has set. Raises ConfigError where several readings are left: its fix is
    `command` with the words that decide.
    """
    targets, reason = ([given["data.target"]], "") if "data.target" in given else texts.targets()
    metric, kind = given.get("metric"), given.get("submission.kind")
    fitting = [
        reading
        for reading, metrics in SCORED_BY.items()
        if reading[0] in targets
        and reading[1] in ([kind] if kind else texts.kinds(reading[0]))
        and metric in (None, *metrics)
    ]
    if len(fitting) == 1:
        return fitting[0], reason
    keys, commands = flat_keys(Competition), ["type one of these, with the metric of the competition"]
    lines = [f"{name}= {keys[key].metadata['meaning']}" for name, key in OPTIONS.items()]
    for reading in fitting or [reading for reading in SCORED_BY if reading[0] in targets]:
        words, metrics = "TARGET={} KIND={}".format(*reading), SCORED_BY[reading]
        lines.append(f"{words} METRIC={' or '.join(metrics)}")
        commands.append(f"{command} {words} METRIC={metric if metric in metrics else metrics[0]}")
    asked = "The files do not say what the labels and the submission are."
    raise ConfigError(
        asked if fitting else "TARGET=, KIND= and METRIC= do not fit each other, or not the files.",
        found=f"the labels are {examples(natural_order(texts.labels), most=6)}; {texts.sample_text}",
        faults=lines,
        fix="\n            ".join(commands),
    )


def _split(texts: Iterable[str], separator: str) -> list[list[str]]:
    return [[name.strip() for name in text.split(separator) if name.strip()] for text in texts]
