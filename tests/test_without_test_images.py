"""A competition without test images: it is trained, scored and reported, and there is nothing to submit."""

import numpy as np
import pytest

from digits_toys import RECIPE
from layout_toys import image
from podium.cli.printing import RunPrinter
from podium.data.prepare import prepare
from podium.ensemble.chain import CHANGED, read_chain, remake_differences
from podium.ensemble.text import ensemble_lines
from podium.ensemble.write import write_ensemble
from podium.errors import PredictionsError, SubmissionError
from podium.plan.stamp import ensemble_is_fresh
from podium.predictions.importing import import_predictions
from podium.report.page import write_report
from podium.submission import check_submission
from podium.training.predict import open_predictor, predict_images
from podium.training.run import train_run
from podium.workspace import open_workspace

SETTINGS = """
title = "Photos"
[data]
source = "folders"
archive = "photos"
train = ""
test = ""
[validation]
rows = 8
"""


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """A competition of class folders alone, with one trained run."""
    root = tmp_path_factory.mktemp("photos")
    for number in range(12):
        for name in ("cat", "dog"):
            image(root, f"data/photos/{name}/{number}.png")
    folder = root / "competitions/photos"
    folder.mkdir(parents=True)
    (folder / "competition.toml").write_text(SETTINGS)
    (folder / "tiny.toml").write_text(RECIPE.replace("batch_size = 64", "batch_size = 8"))
    prepare(open_workspace("photos", root))
    workspace = open_workspace("photos", root)
    (run,) = workspace.runs
    train_run(workspace, run, listener=RunPrinter(run.run))
    return open_workspace("photos", root)


def test_the_ensemble_is_scored_and_no_submission_is_written(workspace):
    written = write_ensemble(workspace)
    assert written.csv_file is None and written.json_file.is_file()
    assert sorted(file.name for file in workspace.paths.submissions.iterdir()) == ["ensemble.json"]
    assert written.result.score.test_interval is None and len(written.result.test_probabilities) == 0
    text = "\n".join(ensemble_lines(written, stale=set()))
    assert 'no submission: there are no test images ([data] test = "")' in text and "on a test of" not in text
    assert ensemble_is_fresh(workspace.paths, workspace.competition)
    csv_file = written.json_file.with_suffix(".csv")
    assert all(link.state != CHANGED for link, _ in read_chain(workspace, csv_file, reads_images=True).lines())
    assert remake_differences(workspace, csv_file) == []


def test_the_report_says_that_there_is_no_submission(workspace):
    page = write_report(workspace).read_text()
    assert "There are no test images" in page and "similar rows (95 % prediction interval)" not in page


def test_check_says_that_there_is_nothing_to_submit(workspace, tmp_path):
    with pytest.raises(SubmissionError, match="nothing to submit: the competition has no test images"):
        check_submission(tmp_path / "any.csv", lock=workspace.lock, settings=workspace.competition.submission)


def test_new_images_are_predicted(workspace):
    rows = predict_images(open_predictor(workspace, ["tiny.s1"]), workspace.paths.root / "data/photos/cat")
    assert len(rows) == 12 and {row["label"] for _, row in rows} <= {"cat", "dog"}


def test_predictions_are_imported_without_a_test_table(workspace, tmp_path):
    ids = workspace.lock.train_ids[workspace.lock.folds >= 0].tolist()
    table = tmp_path / "oof.csv"
    table.write_text("id,cat,dog\n" + "".join(f"{id_},0.5,0.5\n" for id_ in ids))
    with pytest.raises(PredictionsError, match=r"Wrong test table(.|\n)*predictions of 0 rows"):
        import_predictions(workspace, "friend.s1", oof=table, test=table)
    imported = import_predictions(workspace, "friend.s1", oof=table, test=None)
    assert imported.test_logits.shape == (0, 2) and np.isfinite(imported.oof_logits).all()
    workspace.paths.predictions_file("friend.s1").unlink()
