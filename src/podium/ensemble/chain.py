"""The chain of a submission: CSV <- ensemble <- predictions <- recipes, weights, versions <- data.lock <- images."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from podium.data.cache import find_images
from podium.ensemble.write import overridden, write_ensemble
from podium.errors import DataError, SubmissionError
from podium.files import read_json
from podium.plan import stamp
from podium.plan.packages import version_of
from podium.plan.runs import PlannedRun
from podium.workspace import Workspace

OK, CHANGED = "ok", "changed"
ABSENT, OTHER = "not here", "other"  # not compared; not the same, but it need not be
# What the record of an ensemble has.
RECORD_KEYS = {"competition", "stamp", "lock_sha256", "inputs", "overridden", "settings", "metric", "runs"}
RECORD_KEYS |= {"csv_sha256", stamp.PROBABILITIES_KEY}
# What may differ in the record of an ensemble that is made again: of the CPU and of the library that compresses.
NOT_COMPARED = {"versions", stamp.PROBABILITIES_KEY, stamp.CONTENT_KEY}


@dataclass(frozen=True)
class Link:
    """One thing that a submission was made from, and whether it is still what it was."""

    name: str
    sha256: str  # of what was used
    state: str
    detail: str = ""
    made_from: tuple["Link", ...] = ()

    def lines(self, depth: int = 0) -> Iterator[tuple["Link", str]]:
        """Yield this link and all that it was made from, each with a line: state, hash, and name at its depth."""
        text = ": ".join(filter(None, (self.name, self.detail)))
        yield self, f"{self.state:<9} {self.sha256[:12]:<12}  {'  ' * depth}{text}"
        for link in self.made_from:
            yield from link.lines(depth + 1)


def read_chain(workspace: Workspace, file: Path, *, reads_images: bool = False) -> Link:
    """The chain of the CSV `file`; with `reads_images`, decoded images are compared with their checksums.

    Raises SubmissionError for the CSV of another competition, or where there is none although there are test images,
    and ConfigError for wrong settings.
    """
    sha256, (place, record) = stamp.file_sha256(file), find_record(workspace, file)
    if not sha256 and (record is None or record["csv_sha256"]):
        fix = f"make ensemble COMPETITION={workspace.name}"
        raise SubmissionError("There is no such submission.", file=file, fix=fix)
    if record is None:
        return Link(str(file), sha256, CHANGED, f"{place.name}, which says what made it, is missing or damaged")
    csv = _compare(str(file), sha256, record["csv_sha256"])
    content = _compare(str(place), stamp.content_sha256(record), record.get(stamp.CONTENT_KEY, ""))
    if content.state != OK:
        return replace(csv, made_from=(content,))
    if (name := record["competition"]) != workspace.name:
        what, fix = "This is a submission of another competition.", f"COMPETITION={name}"
        raise SubmissionError(what, file=file, expected=workspace.name, found=name, fix=fix)
    probabilities = file.with_suffix(".probabilities.npz")
    expected, settings = record[stamp.PROBABILITIES_KEY], _settings_link(workspace, record)
    beside = _compare(str(probabilities), stamp.file_sha256(probabilities), expected)
    lock = _lock_link(workspace, record["lock_sha256"], reads_images=reads_images)
    return replace(csv, made_from=(content, beside, settings, *_run_links(workspace, record), lock))


def find_record(workspace: Workspace, file: Path) -> tuple[Path, dict[str, Any] | None]:
    """The JSON that has the hash of the CSV, beside it or among all submissions, else the one beside it; its content.

    The content is None where that is not the record of an ensemble.
    """
    beside, sha256 = file.with_suffix(".json"), stamp.file_sha256(file)
    records = {place: read_json(place) for place in (beside, *sorted(workspace.paths.submissions.rglob("*.json")))}
    records = {place: record for place, record in records.items() if isinstance(record, dict)}
    places = (place for place, record in records.items() if record.get("csv_sha256") == sha256)
    place = next(places, beside)
    return place, records[place] if records.get(place, {}).keys() >= RECORD_KEYS else None


def remake_differences(workspace: Workspace, file: Path) -> list[str]:
    """Make the ensemble of the CSV `file` again, in a temporary folder; returns the keys of its record that differ.

    `csv_sha256` is one of them. The chain must not be broken. Raises as `write_ensemble` does.
    """
    (_, record), paths = find_record(workspace, file), replace(workspace.paths)
    with TemporaryDirectory() as folder:
        paths.submissions = Path(folder)
        written = write_ensemble(replace(workspace, paths=paths), **record["overridden"])
        made = read_json(written.json_file)
    return [key for key in made if key in record and key not in NOT_COMPARED and made[key] != record[key]]


def _compare(name: str, sha256: str, expected: str, detail: str = "") -> Link:
    """A link that holds if the hash of what is here, empty for a missing file, is the expected one."""
    state = OK if sha256 == expected else CHANGED if sha256 else ABSENT
    return Link(name, expected, state, (detail or f"now {sha256[:12]}") * (state == CHANGED))


def _differences(then: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """The keys that have another value now; a key that was not there then is none of them."""
    now = json.loads(json.dumps(now))  # with lists for tuples
    return [f"{key} = {then[key]}, now {value}" for key, value in now.items() if then.get(key, value) != value]


def _settings_link(workspace: Workspace, record: dict[str, Any]) -> Link:
    """The stamp of the ensemble, with the settings that differ."""
    competition, settings = workspace.competition, overridden(workspace, **record["overridden"])
    then, now = record["settings"] | {"metric": record["metric"]}, asdict(settings) | {"metric": competition.metric}
    same = "the settings are the same; predictions, data.lock, [submission] or Podium's ensembles are not"
    sha256 = stamp.ensemble_stamp(workspace.paths, competition, settings)
    name = f"settings: strategy {settings.strategy}, metric {then['metric']}"
    return _compare(name, sha256, record["stamp"], "; ".join(_differences(then, now)) or same)


def _run_links(workspace: Workspace, record: dict[str, Any]) -> Iterator[Link]:
    """Yield the predictions of each run, and what they were made from if they are still the same."""
    present = {file.stem for file in workspace.paths.predictions_files()}
    weights = {run["run"]: run["weight"] for run in record["runs"]}
    planned = {run.run: run for run in workspace.runs}
    for run in sorted(present | record["inputs"].keys()):
        file, expected = workspace.paths.predictions_file(run), record["inputs"].get(run, "")
        name, detail = f"{file}, weight {weights.get(run, 0):.4f}", "" if expected else "not in the ensemble"
        link = _compare(name, stamp.file_sha256(file), expected, detail)
        about = stamp.read_about(file) if link.state == OK else None
        yield replace(link, made_from=tuple(_made_from(workspace, about, planned.get(run)))) if about else link


def _made_from(workspace: Workspace, about: dict[str, Any], planned: PlannedRun | None) -> Iterator[Link]:
    """Yield the recipe with its stamp, the weights, and the versions and device of predictions."""
    if about.get("imported"):
        yield Link(f"imported, {about.get('came_as')}", "", OK)
        return
    name, sha256 = f"{about.get('recipe_name')}.toml, seed {about.get('seed')}", about.get("stamp", "")
    if not planned:
        yield Link(name, sha256, CHANGED, "there is no such recipe")
        return
    recipe = about.get("recipe", {}) | {"seeds": list(planned.recipe.seeds)}
    same = "the recipe is the same; data.lock, [data], [validation] or pseudo-labels are not"
    yield _compare(name, planned.stamp, sha256, "; ".join(_differences(recipe, asdict(planned.recipe))) or same)
    if expected := about.get("weights_sha256"):
        weights = stamp.weights_sha256(planned.recipe, workspace.paths.root)
        yield _compare(f"weights {recipe.get('pretrained')}", weights, expected)
    versions, commit = about.get("versions", {}), about.get("git_commit", "")
    named = [f"{name} {version}" for name, version in versions.items()]
    code = f"commit{' with changes' * commit.endswith('-dirty')}" if commit else "no commit"
    name = ", ".join([code, str(about.get("device")), *named])
    others = _differences(versions, {name: version_of(name) for name in versions})
    yield Link(name, commit, OTHER if others else OK, "; ".join(others))


def _lock_link(workspace: Workspace, expected: str, *, reads_images: bool) -> Link:
    """data.lock, and the decoded images that it describes."""
    link = _compare(str(workspace.paths.lock_file), stamp.lock_sha256(workspace.paths.lock_file), expected)
    try:
        lock = workspace.lock
        name, dataset = f"{len(lock.train_ids):,} + {len(lock.test_ids):,} images", find_images(workspace.paths, lock)
        images = Link(name, lock.fingerprint, OK if dataset else ABSENT)
        if dataset and reads_images:
            dataset.verify()
    except DataError as error:
        images = Link("images", "", CHANGED, error.what)
    return replace(link, made_from=(images,))
