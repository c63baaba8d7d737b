"""What changed since the last ensemble: its file, or git's version of it."""

import json
import subprocess

import pytest

import toy_runs
from podium.ensemble.build import build_ensemble
from podium.ensemble.write import write_ensemble
from podium.predictions.align import load_runs
from podium.report.changes import find_changes
from podium.workspace import open_workspace
from toy_runs import make_project, random_run, save

SETTINGS = f'{toy_runs.SETTINGS}strategy = "uniform"\n'


def blend_of(workspace):
    settings = workspace.competition
    return build_ensemble(load_runs(workspace), settings.ensemble, metric=settings.metric, only=True)


def changes_of(workspace):
    workspace = open_workspace("toy", workspace.paths.root)
    return find_changes(workspace, blend_of(workspace))


def commit(workspace):
    git = ["git", "-C", workspace.paths.root, "-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "x"]):
        subprocess.run([*git, *command], check=True)


@pytest.fixture
def workspace(tmp_path):
    runs = [random_run(f"a.s{seed}", seed=seed, noise=2) for seed in (1, 2)]
    workspace = make_project(tmp_path, runs, settings=SETTINGS)
    write_ensemble(workspace, strategy="uniform")
    return workspace


def test_without_another_ensemble_there_are_no_changes(workspace):
    assert changes_of(workspace) is None
    commit(workspace)
    assert changes_of(workspace) is None


def test_new_and_removed_runs_are_named_before_the_ensemble_is_written_again(workspace):
    save(workspace, random_run("b.s1", seed=3, noise=0.1))
    found = changes_of(workspace)
    assert found["where"] == "the file of the last make ensemble" and found["gain"][0] > 0
    rows = found["table"].set_index("run")
    assert rows.loc["b.s1", "change"] == "new member" and rows.loc["b.s1", "weight before"] == 0
    assert rows["difference"].sum() == pytest.approx(0, abs=1e-6)
    workspace.paths.predictions_file("a.s2").unlink()
    found = changes_of(workspace)
    assert found["table"].set_index("run").loc["a.s2", "change"] == "removed"
    assert found["gain"] is None and "predictions of a.s2 that it used are neither here nor in git" in found["unknown"]


def test_a_committed_ensemble_is_compared_row_by_row_with_the_predictions_that_git_has(workspace):
    before = blend_of(workspace)
    commit(workspace)
    save(workspace, random_run("a.s2", seed=9, noise=0.1))
    write_ensemble(workspace, strategy="uniform")  # the file has the present blend
    found, now = changes_of(workspace), blend_of(workspace)
    assert found["where"].startswith("commit ") and found["score"] == before.score.score
    assert found["table"][["run", "change"]].values.tolist() == [["a.s2", "trained again"]]
    gain, low, high = found["gain"]
    scores = [result.pool.scores(result.cross_fitted)["accuracy"] for result in (before, now)]
    assert low <= gain <= high and gain == pytest.approx(scores[1] - scores[0], abs=1e-6) and gain > 0


def test_a_committed_file_that_is_no_json_is_left_out(workspace):
    file = workspace.paths.submissions / "ensemble.json"
    text = file.read_text()
    file.write_text(f"<<<<<<< HEAD\n{text}")
    commit(workspace)
    file.write_text(text)
    assert changes_of(workspace) is None


def test_other_rows_or_another_metric_are_not_compared(workspace):
    file = workspace.paths.submissions / "ensemble.json"
    record = json.loads(file.read_text())
    save(workspace, random_run("b.s1", seed=3))
    for change, why in (
        ({"lock_sha256": "other"}, "another metric, or on other rows"),
        ({"metric": "log_loss"}, "another metric, or on other rows"),
        ({"settings": {"colour": 1}}, "settings are not those"),
    ):
        file.write_text(json.dumps(record | change))
        assert why in changes_of(workspace)["unknown"]
    file.write_text("{}")
    assert changes_of(workspace) is None
