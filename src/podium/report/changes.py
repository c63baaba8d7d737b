"""What changed since the last ensemble: its members, weights and score, on the same validation rows.

The last ensemble is the first that differs from the blend of the runs that are here now: the file in `submissions/`,
then the committed versions of it, newest first. Where predictions have been replaced since, git's version is read.
"""

import hashlib
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from podium.config.keys import Ensemble
from podium.config.schema import build
from podium.ensemble.build import EnsembleResult
from podium.ensemble.compare import bootstrap
from podium.ensemble.cross_fit import cross_fit
from podium.ensemble.pool import pool_of
from podium.errors import PredictionsError
from podium.files import parse_json, read_json
from podium.plan.stamp import file_sha256, lock_sha256
from podium.predictions.align import align
from podium.predictions.artefact import load_predictions
from podium.workspace import Workspace

MOST_COMMITS = 20
SAME_WEIGHT = 5e-4  # smaller differences are not shown
# What older versions of the file do not all have.
KEYS = {"strategy", "runs", "inputs", "settings", "metric", "honest_score", "lock_sha256"}


def find_changes(workspace: Workspace, result: EnsembleResult) -> dict[str, Any] | None:
    """The last ensemble that differs from `result`, a row for each run that differs, and the paired gain of the score.

    `gain` is (gain, low, high) by the metric, of which more is better; None where `unknown` says why it is not known.
    None where there is no such ensemble.
    """
    hashes = {run.run: file_sha256(workspace.paths.predictions_file(run.run)) for run in result.runs}
    for where, commit, record in _records(workspace):
        table = _changed_runs(record, result, hashes)
        was, now = record["strategy"]["used"], result.used.strategy
        if len(table) or was != now:
            gain, unknown = _gain(workspace, result, record, commit, hashes)
            score = record["honest_score"]["score"]
            found = {"where": where, "table": table, "gain": gain, "unknown": unknown, "score": score}
            return found | {"strategies": [] if was == now else [was, now], "metric": record["metric"]}
    return None


def _records(workspace: Workspace) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Where each version of ensemble.json is, its commit ("HEAD" of the file itself) and its content, newest first."""
    file, root = workspace.paths.submissions / "ensemble.json", workspace.paths.root
    path = file.relative_to(root).as_posix()
    log = _git(root, "log", f"-{MOST_COMMITS}", "--format=%H %cs", "--", path).decode().split()
    versions = [("the file of the last make ensemble", "HEAD", read_json(file))]
    for commit, day in zip(log[::2], log[1::2], strict=True):
        content = parse_json(_git(root, "show", f"{commit}:./{path}"))
        versions.append((f"commit {commit[:10]} of {day}", commit, content))
    return (version for version in versions if isinstance(version[2], dict) and version[2].keys() >= KEYS)


def _git(root: Path, *arguments: str) -> bytes:
    """What a command of git writes; nothing without git, without a repository, or where it fails."""
    try:
        return subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, check=False).stdout
    except FileNotFoundError:
        return b""


def _changed_runs(record: dict[str, Any], result: EnsembleResult, hashes: dict[str, str]) -> pd.DataFrame:
    """A row for each run that is new, removed, trained again, or has another weight."""
    before = {run["run"]: run["weight"] for run in record["runs"]}
    now, rows = {run.run: run.weight for run in result.runs}, []
    for run in sorted(before | now):
        weights = before.get(run, 0.0), now.get(run, 0.0)
        changes = {
            "new" if not weights[1] else "new member": run not in before,
            "removed": run not in now,
            "member": run in before and not weights[0] and weights[1] > 0,
            "no longer a member": run in now and weights[0] > 0 and not weights[1],
            "trained again": run in before and run in now and record["inputs"].get(run) != hashes[run],
        }
        text = ", ".join(name for name, holds in changes.items() if holds)
        if text or abs(weights[0] - weights[1]) >= SAME_WEIGHT:
            rows.append((run, *weights, weights[1] - weights[0], text or "other weight"))
    return pd.DataFrame(rows, columns=["run", "weight before", "weight now", "difference", "change"])


def _gain(
    workspace: Workspace, result: EnsembleResult, record: dict[str, Any], commit: str, hashes: dict[str, str]
) -> tuple[tuple[float, float, float] | None, str]:
    """The gain since an earlier blend with its 95 % interval, or why it is not known.

    The earlier blend is fitted again, cross-fitted on the same rows, from the predictions that it used.
    """
    pool, runs, faults = result.pool, [], []
    settings = build(Ensemble, record["settings"], "", faults)
    if record["metric"] != pool.metric or record["lock_sha256"] != lock_sha256(workspace.paths.lock_file):
        return None, "it was scored by another metric, or on other rows"
    if faults:
        return None, f"its settings are not those of this Podium: {faults[0]}"
    for run, sha256 in sorted(record["inputs"].items()):
        if sha256 == hashes.get(run):
            place = result.aligned.runs.index(run)
            runs.append((run, result.aligned.abouts[place], result.aligned.oof_logits[place]))
        elif found := _committed_run(workspace, run, commit, sha256):
            runs.append(found)
        else:
            return None, f"the predictions of {run} that it used are neither here nor in git"
    names, abouts, logits = zip(*runs, strict=True)
    aligned = replace(result.aligned, runs=names, abouts=abouts, oof_logits=np.stack(logits))
    earlier = pool_of(aligned, settings, metric=pool.metric)
    (fit,) = cross_fit(earlier, [(record["strategy"]["used"], record["strategy"]["average"])])
    samples = bootstrap(pool, [result.cross_fitted[None], fit.predicted[:1]], outside=False)
    gain, (low, high), _ = samples.difference(0, 1)
    return (gain, low, high), ""


def _committed_run(
    workspace: Workspace, run: str, commit: str, sha256: str
) -> tuple[str, dict[str, Any], np.ndarray] | None:
    """A run as git has it, with its description and its logits (n, outputs); None where git has not this file."""
    path = workspace.paths.predictions_file(run).relative_to(workspace.paths.root).as_posix()
    content = _git(workspace.paths.root, "show", f"{commit}:./{path}")
    if hashlib.sha256(content).hexdigest() != sha256:
        return None
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, f"{run}.npz")
        file.write_bytes(content)
        try:
            joined = align([load_predictions(file)], workspace.lock)
        except PredictionsError:
            return None
    return run, joined.abouts[0], joined.oof_logits[0]
