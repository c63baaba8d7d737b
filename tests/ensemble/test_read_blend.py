"""The blend in the JSON of an ensemble gives new rows what it gave the test rows."""

import json

import numpy as np
import pytest

from podium.ensemble.write import read_blend, write_ensemble
from podium.errors import SubmissionError
from podium.predictions.align import load_runs
from target_toys import ROWS, TESTS, brightness, import_runs, toy_workspace
from toy_runs import SETTINGS, make_project, random_run, save

RUNS = ("resnet34.s1", "resnet34.s2", "vgg19.s1")


def project(folder, **settings):
    keys = "".join(f"{name} = {json.dumps(value)}\n" for name, value in settings.items())
    runs = [random_run(name, seed=seed) for seed, name in enumerate(RUNS)]
    return make_project(folder, runs, settings=SETTINGS + keys)


@pytest.mark.parametrize("average", ["probabilities", "logits"])
@pytest.mark.parametrize("strategy", ["best", "uniform", "log-loss", "greedy", "stack"])
def test_the_recorded_blend_gives_the_probabilities_of_the_ensemble(tmp_path, strategy, average):
    workspace = project(tmp_path, average=average, run_temperatures="always")
    expected = write_ensemble(workspace, strategy=strategy, out="try2").result.test_probabilities
    members, blend = read_blend(workspace, "try2")
    aligned = load_runs(workspace)
    logits = aligned.test_logits[[aligned.runs.index(run) for run in members]]
    assert blend.of_rows(logits) == pytest.approx(expected, abs=1e-6)
    assert np.array_equal(blend.of_rows(logits).argmax(axis=1), expected.argmax(axis=1))


def test_only_members_are_needed(tmp_path):
    workspace = project(tmp_path)
    write_ensemble(workspace, strategy="best")
    (member,), _ = read_blend(workspace)
    for run in set(RUNS) - {member}:
        workspace.paths.predictions_file(run).unlink()
    assert read_blend(workspace)[0] == (member,)


def test_members_that_were_trained_again_are_named(tmp_path):
    workspace = project(tmp_path)
    write_ensemble(workspace, strategy="uniform")
    save(workspace, random_run("vgg19.s1", seed=9))
    with pytest.raises(SubmissionError, match=r"(?s)trained again.*other predictions of vgg19\.s1.*make ensemble"):
        read_blend(workspace)
    for run in RUNS:  # as in a notebook at Kaggle
        workspace.paths.predictions_file(run).unlink()
    assert read_blend(workspace)[0] == RUNS


def test_a_missing_or_edited_ensemble_is_refused(tmp_path):
    workspace = project(tmp_path)
    with pytest.raises(SubmissionError, match=r"(?s)no ensemble here.*make ensemble COMPETITION=toy"):
        read_blend(workspace)
    file = write_ensemble(workspace).json_file
    file.write_text(file.read_text().replace('"temperature": ', '"temperature": 1'))
    with pytest.raises(SubmissionError, match="was changed"):
        read_blend(workspace)


GREYS = brightness(ROWS, seed=0)
LABELS = {
    "multi-label": {"dark": (GREYS < 128).astype(int).tolist(), "light": (GREYS > 90).astype(int).tolist()},
    "ordinal": {"label": (GREYS // 64).tolist()},
    "number": {"label": GREYS.tolist()},
}


@pytest.mark.parametrize(
    ("target", "metric", "kind"),
    [("multi-label", "macro_f1", "labels"), ("ordinal", "qwk", "labels"), ("number", "rmse", "number")],
)
def test_thresholds_cut_points_and_numbers_are_recorded_too(tmp_path, target, metric, kind):
    labels = LABELS[target]
    workspace = toy_workspace(tmp_path, labels, target=target, metric=metric, kind=kind)
    truths = np.array(list(labels.values()), float).T * 0.8 - 0.3  # so that cut points are not the usual ones
    import_runs(workspace, truths, truths[:TESTS], list(labels), scale=0.2)
    result = write_ensemble(workspace).result
    members, blend = read_blend(workspace)
    aligned = load_runs(workspace)
    logits = aligned.test_logits[[aligned.runs.index(run) for run in members]]
    assert (blend.cuts is None) == (target == "number")
    assert blend.of_rows(logits) == pytest.approx(result.test_probabilities, rel=1e-6, abs=1e-6)
