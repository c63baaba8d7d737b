"""Targets: what labels are, how logits are scored, and every step from images and a table to a submission."""

import math
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import (
    cohen_kappa_score,
    f1_score,
    mean_absolute_error,
    r2_score,
    roc_auc_score,
    root_mean_squared_error,
)
from sklearn.metrics import log_loss as reference_log_loss

import podium
from podium.config.keys import Ensemble
from podium.ensemble.build import build_ensemble
from podium.ensemble.strategies.table import STRATEGIES
from podium.errors import ConfigError, DataError
from podium.lock import read_lock
from podium.metrics import METRICS
from podium.predictions.align import Aligned, load_runs
from podium.submission import check_submission
from podium.targets.target import CLASS, Target
from podium.workspace import open_workspace
from target_toys import ROWS, TESTS, brightness, check_everything_after, import_runs, toy_workspace
from toy_runs import pool_from

COLUMNS = ["dark", "bright", "grey"]


def multi_labels(greys: np.ndarray) -> np.ndarray:
    """(n, 3): dark and bright overlap."""
    return np.stack([greys < 140, greys > 110, (greys > 60) & (greys < 200)], axis=1).astype(np.uint8)


def multi_label_case(seed: int, *, rows: int = 80):
    draw = np.random.default_rng(seed)
    labels = (draw.random((rows, 3)) < [0.5, 0.3, 0.1]).astype(np.uint8)
    return labels * 1.5 + draw.normal(size=(rows, 3)), labels


def test_multi_label_scores_are_scikit_learns_means_over_columns():
    logits, labels = multi_label_case(0)
    target, probabilities = Target("multi-label", 3), 1 / (1 + np.exp(-logits))
    np.testing.assert_allclose(target.probabilities(logits), probabilities)
    scores = target.scores_of(logits, labels, "auc")
    assert scores["auc"] == pytest.approx(roc_auc_score(labels, probabilities, average="macro"))
    of_columns = [reference_log_loss(labels[:, k], probabilities[:, k]) for k in range(3)]
    assert scores["log_loss"] == pytest.approx(np.mean(of_columns))
    assert scores["accuracy"] == pytest.approx(((probabilities > 0.5) == labels).mean())
    assert target.row_losses(probabilities, labels).mean() == pytest.approx(np.mean(of_columns))


def test_the_mean_column_auc_leaves_out_a_column_with_one_label():
    logits, labels = multi_label_case(1)
    labels[:, 2] = 0
    expected = np.mean([roc_auc_score(labels[:, k], logits[:, k]) for k in range(2)])
    assert Target("multi-label", 3).scores_of(logits, labels, "auc")["auc"] == pytest.approx(expected)
    assert math.isnan(Target("multi-label", 3).scores_of(logits, np.zeros_like(labels), "auc")["auc"])


def test_the_mean_column_auc_of_drawn_rows_is_that_of_repeated_rows():
    logits, labels = multi_label_case(2)
    target, drawn = Target("multi-label", 3), np.random.default_rng(0).integers(80, size=80)
    values, counts = target.values(target.cells(logits)), np.bincount(drawn, minlength=80)
    score = target.metrics["auc"].of_counts(values, target.cell_labels(labels))(np.repeat(counts, 3))
    assert score == pytest.approx(target.scores_of(logits[drawn], labels[drawn], "auc")["auc"])


@pytest.mark.parametrize("average", ["macro", "micro"])
def test_f1_of_several_labels_is_scikit_learns_on_all_and_on_drawn_rows(average):
    logits, labels = multi_label_case(4)
    labels[:, 2] = 0  # predicted, but no row has it: 0
    target, drawn = Target("multi-label", 3), np.random.default_rng(0).integers(80, size=80)
    name = f"{average}_f1"
    assert target.scores_of(logits, labels, name)[name] == pytest.approx(f1_score(labels, logits > 0, average=average))
    score = target.metrics[name].of_counts(target.values(target.cells(logits)), target.cell_labels(labels))
    expected = f1_score(labels[drawn], logits[drawn] > 0, average=average)
    assert score(np.repeat(np.bincount(drawn, minlength=80), 3)) == pytest.approx(expected)
    never = np.where(np.arange(3) == 2, -9.0, logits)
    expected = f1_score(labels, never > 0, average=average, zero_division=0)
    assert target.scores_of(never, labels, name)[name] == pytest.approx(expected)


def test_thresholds_of_labels_have_the_best_f1_of_all_thresholds():
    logits, labels = multi_label_case(5, rows=60)
    logits = np.round(logits * 2) - 6  # with equal logits, and a best threshold far from 0
    target = Target("multi-label", 3)
    cells, cell_labels = target.cells(logits), target.cell_labels(labels)
    tried = np.arange(-14, 3) + 0.5
    best = [max(f1_score(labels[:, k], logits[:, k] > cut) for cut in tried) for k in range(3)]
    values = target.values(cells, target.fit_cuts(cells, cell_labels, "macro_f1"))
    assert target.metrics["macro_f1"](values, cell_labels) == pytest.approx(np.mean(best))
    common = target.fit_cuts(cells, cell_labels, "micro_f1")
    best = max(f1_score(labels, logits > cut, average="micro") for cut in tried)
    assert target.metrics["micro_f1"](target.values(cells, common), cell_labels) == pytest.approx(best)
    assert len(common) == 1 and target.fit_cuts(cells, cell_labels, "auc") is None
    assert target.fit_cuts(cells, np.zeros(180, int), "macro_f1").tolist() == [0, 0, 0]


def test_labels_survive_the_lock_and_a_wrong_one_is_refused():
    target, (_, labels) = Target("multi-label", 3), multi_label_case(3)
    assert np.array_equal(target.read_lock_texts(target.lock_texts(labels)), labels)
    with pytest.raises(ValueError, match="neither 0 nor 1"):
        target.read_lock_texts(["012"])


def test_strata_of_several_labels_are_large_enough_and_not_too_many():
    labels = (np.random.default_rng(0).random((500, 6)) < [0.5, 0.4, 0.3, 0.2, 0.05, 0.01]).astype(np.uint8)
    for least, most in ((2, 500), (5, 500), (5, 12), (1000, 500)):
        counts = np.bincount(Target("multi-label", 6).strata(labels, least=least, most=most))
        assert counts.sum() == 500 and len(counts) <= most
        assert counts.min() >= min(least, 500)
    strata = Target("multi-label", 6).strata(labels, least=5, most=500)
    rarest = set(strata[labels[:, 5] == 1])
    assert len(rarest) == 1, "rows with the rarest label, whose combinations are rarer, are one stratum"


def test_multi_label_from_images_to_a_checked_submission(tmp_path):
    truths, tests = multi_labels(brightness(ROWS, seed=0)), multi_labels(brightness(TESTS, seed=1))
    labels = dict(zip(COLUMNS, truths.T.tolist(), strict=True)) | {"patient": [row // 2 for row in range(ROWS)]}
    settings = {"target": "multi-label", "metric": "auc", "kind": "probabilities"}
    workspace = toy_workspace(tmp_path, labels, **settings, data='group_column = "patient"')
    lock = workspace.lock
    order = np.argsort(lock.train_ids.astype(int))
    assert lock.classes == tuple(COLUMNS) and np.array_equal(lock.train_labels[order], truths)
    assert read_lock(workspace.paths.lock_file).target_name == "multi-label"
    pairs = set(zip(lock.groups.tolist(), lock.folds.tolist(), strict=True))
    assert min(np.bincount(lock.folds)) >= 16 and len(pairs) == ROWS / 2, "a group is in one fold"
    for fold in range(3):  # each label has its share in each fold
        np.testing.assert_allclose(lock.train_labels[lock.folds == fold].mean(axis=0), truths.mean(axis=0), atol=0.2)
    import_runs(workspace, 4 * truths - 2.0, 4 * tests - 2.0, COLUMNS)
    columns, page = check_everything_after(workspace)
    assert list(columns) == ["id", *COLUMNS] and columns["id"] == [str(row) for row in range(TESTS)]
    for place, name in enumerate(COLUMNS):
        assert roc_auc_score(tests[:, place], np.array(columns[name], float)) > 0.9
    assert "Scores by label" in page and "Confusion matrix" not in page
    assert "Scores by fold" in page and "Scores by group" in page
    frames = podium.load("toy", tmp_path)
    assert set(frames.predictions["label"]) <= {"dark", "bright", "dark, grey", "bright, grey", "dark, bright, grey"}
    assert len(frames.scores) == 3 and len(frames.test) == TESTS and "loss" in frames.errors


def test_several_names_in_a_cell_from_images_to_a_checked_submission(tmp_path, monkeypatch):
    truths, tests = multi_labels(brightness(ROWS, seed=0)), multi_labels(brightness(TESTS, seed=1))
    columns = [*COLUMNS[:2], "light grey"]
    labels = dict(zip(columns, truths.T.tolist(), strict=True))
    settings = {"target": "multi-label", "metric": "macro_f1", "kind": "labels"}
    with pytest.raises(DataError, match="separator = ' ' is in the class names light grey"):
        toy_workspace(tmp_path / "a", labels, **settings)
    workspace = toy_workspace(tmp_path, labels, **settings, submission='separator = "|"')
    less_than_half = np.array([4.0, 10.0, 7.0])  # nearly always
    import_runs(workspace, 4 * truths - less_than_half, 4 * tests - less_than_half, columns)
    written, page = check_everything_after(workspace, strategy="log-loss")
    predicted = np.array([[name in cell.split("|") for name in columns] for cell in written["label"]])
    assert f1_score(tests, predicted, average="macro") > 0.9
    assert "Scores by label" in page and "Calibration" not in page
    aligned, ensemble = load_runs(workspace), replace(workspace.competition.ensemble, strategy="log-loss")
    for metric, thresholds, least in (("micro_f1", 1, 0.75), ("macro_f1", 3, 0.9)):
        result = build_ensemble(aligned, ensemble, metric=metric, only=True)
        assert result.score.score > least > 0.6 > max(run.scores[metric] for run in result.runs), "runs alone: at 1/2"
        assert len(result.blend.cuts) == thresholds and not result.calibration
    blend = podium.load("toy", tmp_path).predictions["blend"]
    assert np.mean(blend == podium.load("toy", tmp_path).predictions["label"]) > 0.8
    monkeypatch.setattr("podium.ensemble.blend.ROWS_AT_A_TIME", 7)  # no multiple of the columns
    assert build_ensemble(aligned, ensemble, metric=metric, only=True).contributions == result.contributions
    file = workspace.paths.submissions / "ensemble.csv"
    file.write_text("id,label\n0,\n1,dark|bright\n2,dark|dark\n3,dark|gray\n4,dark bright\n")
    faults = check_submission(file, lock=workspace.lock, settings=workspace.competition.submission)
    assert faults[1:] == [
        "1 cells repeat a class name: line 4: 'dark|dark'",
        "2 class names are unknown (the classes are dark, bright, light grey): line 5: 'gray'; line 6: 'dark bright'",
    ]


def test_thresholds_are_fitted_without_the_rows_that_they_are_scored_on(tmp_path):
    labels = (np.random.default_rng(5).random((ROWS, 3)) < 0.15).astype(int)
    columns = dict(zip(COLUMNS, labels.T.tolist(), strict=True))
    workspace = toy_workspace(tmp_path, columns, target="multi-label", metric="macro_f1", kind="labels")
    noise = np.random.default_rng(6).normal(size=(ROWS, 3))
    import_runs(workspace, noise, noise[:TESTS], COLUMNS, runs=2)
    result = build_ensemble(load_runs(workspace), workspace.competition.ensemble, metric="macro_f1")
    assert result.used.in_sample["macro_f1"] > result.used.cross_fitted["macro_f1"] + 0.05, "noise cannot predict"


def test_a_multi_label_blend_is_scored_by_rows_and_is_better_than_its_members(tmp_path):
    truths = multi_labels(brightness(ROWS, seed=0))
    labels = dict(zip(COLUMNS, truths.T.tolist(), strict=True))
    workspace = toy_workspace(tmp_path, labels, target="multi-label", metric="log_loss", kind="probabilities")
    import_runs(workspace, 2.0 * truths - 1.0, 2.0 * truths[:TESTS] - 1.0, COLUMNS, runs=4)
    aligned, settings = load_runs(workspace), replace(workspace.competition.ensemble, cross_fit_repeats=1)
    result = build_ensemble(aligned, settings, metric="log_loss")
    assert len(result.aligned.oof_ids) == ROWS and result.comparisons[0].counted == "rows"
    assert result.score.score < min(run.scores["log_loss"] for run in result.runs)
    cross_fitted = aligned.target.rows(result.cross_fitted)
    assert cross_fitted.shape == (ROWS, 3) and result.test_probabilities.shape == (TESTS, 3)
    expected = np.mean([reference_log_loss(truths[:, k], by_id(aligned, cross_fitted)[:, k]) for k in range(3)])
    assert result.used.cross_fitted["log_loss"] == pytest.approx(expected, rel=1e-5)


def test_columns_that_repeat_each_other_make_no_interval_narrower():
    logits, labels = multi_label_case(4, rows=300)
    tests, intervals = np.random.default_rng(0).normal(size=(1, 200, 1)), []
    for columns in (1, 4):
        aligned = Aligned(
            runs=("a.s1",),
            abouts=({"architecture": "a"},),
            oof_ids=np.arange(300).astype(str),
            oof_logits=np.repeat(logits[None, :, :1], columns, axis=2),
            oof_labels=np.repeat(labels[:, :1], columns, axis=1),
            test_ids=np.arange(200).astype(str),
            test_logits=np.repeat(tests, columns, axis=2),
            classes=tuple("abcd"[:columns]),
            target=Target("multi-label", columns),
        )
        for metric in ("log_loss", "auc"):
            result = build_ensemble(aligned, Ensemble(select="all", strategy="uniform"), metric=metric, only=True)
            intervals.append((*result.score.interval, *result.score.test_interval))
    np.testing.assert_allclose(intervals[:2], intervals[2:], rtol=1e-4)


def by_id(aligned, values):
    """The rows of `values` in the order of integer ids."""
    return values[np.argsort(aligned.oof_ids.astype(int))]


def test_names_in_one_column_are_labels_and_an_empty_cell_is_none(tmp_path):
    truths = multi_labels(brightness(ROWS, seed=0))
    texts = ["|".join(name for name, value in zip(COLUMNS, row, strict=True) if value) for row in truths]
    texts[3] = ""
    settings = {"target": "multi-label", "metric": "auc", "kind": "probabilities"}
    workspace = toy_workspace(
        tmp_path, {"tags": texts}, **settings, data='label_column = "tags"\nlabel_separator = "|"'
    )
    lock = workspace.lock
    assert lock.classes == ("bright", "dark", "grey")
    row = {id_: label for id_, label in zip(lock.train_ids.tolist(), lock.train_labels.tolist(), strict=True)}
    assert row["3"] == [0, 0, 0] and row["5"] == truths[5][[1, 0, 2]].tolist()


def test_one_hot_columns_are_classes_and_a_row_with_two_is_a_fault(tmp_path):
    greys = brightness(ROWS, seed=0)
    one_hot = {"low": (greys < 128).astype(int).tolist(), "high": (greys >= 128).astype(int).tolist()}
    settings = {"target": "class", "metric": "accuracy", "kind": "labels", "data": 'label_columns = ["low", "high"]'}
    workspace = toy_workspace(tmp_path / "good", one_hot, **settings)
    lock = workspace.lock
    assert lock.classes == ("low", "high") and lock.target.name == "class"
    assert lock.train_labels[lock.train_ids == "0"] == [greys[0] >= 128]
    one_hot["low"][7] = one_hot["high"][7] = 1
    with pytest.raises(DataError, match="'7' has 2 of its columns with 1") as error:
        toy_workspace(tmp_path / "bad", one_hot, **settings)
    assert 'target = "multi-label"' in str(error.value)


def test_a_cell_that_is_neither_0_nor_1_is_a_fault(tmp_path):
    labels = {"a": [0] * 59 + [1], "b": [1] * 59 + ["2"]}
    with pytest.raises(DataError, match="'59' has '2' in 'b'"):
        toy_workspace(tmp_path, labels, target="multi-label", metric="auc", kind="probabilities")


def test_a_number_whose_square_overflows_is_a_fault(tmp_path):
    with pytest.raises(DataError, match=r"expected a finite number, 1e\+18 at most: '59' has '1e300'"):
        toy_workspace(tmp_path, {"label": [*range(59), "1e300"]}, target="number", metric="rmse", kind="number")


def test_an_integer_that_is_written_in_two_ways_is_not_two_classes(tmp_path):
    labels = {"label": ["0", "1", "2", "01"] * 15}
    with pytest.raises(DataError, match="an integer is written in several ways, such as 1 and 01: 0, 01, 1, 2"):
        toy_workspace(tmp_path, labels, target="ordinal", metric="qwk", kind="labels")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"metric": "accuracy"}, 'metric = "accuracy": expected "auc" or "log_loss" or "macro_f1" or "micro_f1"'),
        ({"kind": "probability"}, 'submission.kind = "probability": expected "probabilities", as metric = "auc"'),
        ({"kind": "labels"}, 'submission.kind = "labels": expected "probabilities", as metric = "auc"'),
        ({"metric": "micro_f1"}, 'submission.kind = "probabilities": expected "labels", as metric = "micro_f1"'),
        ({"target": "class", "metric": "micro_f1", "kind": "labels"}, 'metric = "micro_f1": expected'),
        (
            {"submission": 'separator = ","'},
            'submission.separator = ",": expected a kind with several class names in a cell',
        ),
        (
            {"target": "class", "data": 'label_separator = "|"'},
            'label_separator = "|": expected target = "multi-label"',
        ),
        ({"data": 'label_columns = ["a"]'}, 'label_columns = ["a"]: expected two or more'),
        (
            {"data": 'label_columns = ["a", "a", "b"]'},
            'label_columns = ["a", "a", "b"]: expected two or more, each once',
        ),
        ({"target": "number"}, 'metric = "auc": expected "rmse" or "mae" or "r2", as [data] target = "number"'),
        (
            {"target": "number", "metric": "mae"},
            'submission.kind = "probabilities": expected "number", as metric = "mae"',
        ),
        ({"target": "class", "metric": "rmse", "kind": "labels"}, 'metric = "rmse": expected'),
        (
            {"target": "ordinal", "metric": "qwk", "data": '[ensemble]\naverage = "logits"'},
            'average = "logits": expected none, as [data] target = "ordinal"',
        ),
        (
            {"target": "ordinal", "data": '[ensemble]\nrun_temperatures = "never"'},
            'run_temperatures = "never": expected none',
        ),
        ({"target": "number", "metric": "rmse", "data": "[ensemble]\nthreshold = 0.9"}, "a threshold has no effect"),
        ({"target": "number", "metric": "mae", "data": "[ensemble]\nthreshold = 0.9"}, "a threshold has no effect"),
        (
            {"target": "ordinal", "data": '[ensemble]\nstrategy = "greedy"'},
            'strategy = "greedy": expected "auto" or "best" or "uniform" or "log-loss"',
        ),
        (
            {"data": 'label_columns = ["a", "b"]\nlabel_separator = "|"'},
            'label_separator = "|": expected no label_columns',
        ),
    ],
)
def test_settings_that_contradict_the_target_are_refused(tmp_path, changed, message):
    settings = {"target": "multi-label", "metric": "auc", "kind": "probabilities"} | changed
    with pytest.raises(ConfigError) as error:
        toy_workspace(tmp_path, {"a": [0] * ROWS}, **settings)
    assert message in str(error.value)


def test_predictions_of_another_target_are_refused(tmp_path):
    truths = multi_labels(brightness(ROWS, seed=0))
    labels = dict(zip(COLUMNS, truths.T.tolist(), strict=True))
    workspace = toy_workspace(tmp_path, labels, target="multi-label", metric="auc", kind="probabilities")
    import_runs(workspace, truths - 0.5, truths[:TESTS] - 0.5, COLUMNS, runs=1)
    file = workspace.paths.lock_file
    file.write_text(file.read_text().replace('"target": "multi-label", ', ""))
    with pytest.raises(DataError, match="prepared for another target") as error:
        load_runs(open_workspace("toy", tmp_path))
    assert error.value.fix == "make prepare COMPETITION=toy"
    settings = workspace.paths.settings_file
    settings.write_text(settings.read_text().replace('"multi-label"', '"class"'))
    with pytest.raises(Exception, match="target: expected class, found multi-label"):
        load_runs(open_workspace("toy", tmp_path))


def test_metrics_of_numbers_are_scikit_learns_on_all_and_on_drawn_rows():
    draw = np.random.default_rng(0)
    labels, counts = draw.normal(50, 10, size=60), draw.integers(0, 3, size=60)
    values = labels[:, None] + draw.normal(size=(60, 1)) * 5
    for name, reference in (("rmse", root_mean_squared_error), ("mae", mean_absolute_error), ("r2", r2_score)):
        metric = METRICS[name]
        assert metric(values, labels) == pytest.approx(reference(labels, values[:, 0]))
        if metric.of_counts:
            drawn = metric.of_counts(values, labels)(counts.astype(float))
            assert drawn == pytest.approx(reference(labels, values[:, 0], sample_weight=counts))
        assert metric.gain(metric(values, labels)) > metric.gain(metric(values + 3, labels))
    assert math.isnan(METRICS["r2"](values, np.full(60, 3.0)))


def test_a_number_survives_the_lock_bit_for_bit():
    labels = np.random.default_rng(0).normal(size=50) * 1e-7
    target = Target("number", 1)
    assert np.array_equal(target.read_lock_texts(target.lock_texts(labels)), labels)


def test_the_weights_of_numbers_are_those_of_least_squares_on_the_simplex():
    draw = np.random.default_rng(1)
    labels = draw.normal(size=4000)
    numbers = np.stack([labels + draw.normal(size=4000) * noise for noise in (0.5, 1.0, 2.0)])[:, :, None]
    pool = pool_from(numbers, labels, metric="rmse", target=Target("number", 1))
    weights, biases = STRATEGIES["log-loss"](pool, "logits")
    errors = numbers[:, :, 0] - labels
    inverse = np.linalg.solve(errors @ errors.T, np.ones(3))  # here no weight is at its bound
    np.testing.assert_allclose(weights, inverse / inverse.sum(), atol=0.01)
    assert biases is None and weights.sum() == pytest.approx(1)


def numbers_of(greys: np.ndarray) -> np.ndarray:
    return 20 + greys / 2.55


def test_a_number_from_images_to_a_checked_submission(tmp_path):
    truths, tests = numbers_of(brightness(ROWS, seed=0)), numbers_of(brightness(TESTS, seed=1))
    settings = {
        "metric": "rmse",
        "kind": "number",
        "data": 'label_column = "age"',
        "submission": 'label_column = "age"',
    }
    workspace = toy_workspace(tmp_path, {"age": truths.tolist()}, target="number", **settings)
    lock = workspace.lock
    assert np.array_equal(lock.train_labels[np.argsort(lock.train_ids.astype(int))], truths)
    for fold in range(3):
        assert lock.train_labels[lock.folds == fold].mean() == pytest.approx(truths.mean(), abs=5)
    import_runs(workspace, truths[:, None], tests[:, None], ["age"])
    columns, page = check_everything_after(workspace)
    assert list(columns) == ["id", "age"]
    written = np.array(columns["age"], float)
    assert root_mean_squared_error(tests, written) < 0.85, "three runs with errors of 1"
    assert (
        "Errors by label" in page
        and "Residuals" in page
        and "Confusion matrix" not in page
        and "Calibration" not in page
    )
    result = build_ensemble(load_runs(workspace), workspace.competition.ensemble, metric="rmse")
    assert result.score.score < min(run.scores["rmse"] for run in result.runs) and not result.calibration
    assert {score.strategy for score in result.strategies} == {"best", "uniform", "log-loss"}
    assert result.pool.error_correlation[0, 1] < 0.5
    assert result.pool.disagreement[0, 1] == pytest.approx(1.13, abs=0.4)
    assert list(podium.load("toy", tmp_path).scores)[:3] == ["architecture", "rmse", "mae"]
    file = workspace.paths.submissions / "ensemble.csv"
    file.write_text(file.read_text().replace(columns["age"][0], "old"))
    faults = check_submission(file, lock=lock, settings=workspace.competition.submission)
    assert faults == ["1 cells are not finite numbers: line 2: 'old' for age"]


def test_cut_points_find_the_classes_of_shifted_numbers_and_are_the_middles_where_these_are_perfect():
    draw = np.random.default_rng(0)
    target, labels = Target("ordinal", 5), draw.integers(5, size=1000)
    exact = labels[:, None] + draw.uniform(-0.3, 0.3, size=(1000, 1))
    assert target.fit_cuts(exact, labels, "qwk").tolist() == [0.5, 1.5, 2.5, 3.5]
    shifted = exact * 0.5 + 1.2  # as networks predict that shrink towards the mean
    rounded, fitted = target.values(shifted), target.values(shifted, target.fit_cuts(shifted, labels, "qwk"))
    assert METRICS["qwk"](rounded, labels) < 0.9 < 0.99 < METRICS["qwk"](fitted, labels)
    assert METRICS["accuracy"](fitted, labels) > 0.95


def test_an_ordinal_from_images_to_a_checked_submission(tmp_path):
    grades, tests = brightness(ROWS, seed=0) // 64, brightness(TESTS, seed=1) // 64
    settings = {
        "metric": "qwk",
        "kind": "labels",
        "data": 'label_column = "grade"',
        "submission": 'label_column = "grade"',
    }
    workspace = toy_workspace(tmp_path, {"grade": grades.tolist()}, target="ordinal", **settings)
    assert workspace.lock.classes == ("0", "1", "2", "3") and workspace.lock.target.outputs == 1
    import_runs(workspace, (grades * 0.5 + 1.5)[:, None], (tests * 0.5 + 1.5)[:, None], ["grade"], scale=0.1)
    columns, page = check_everything_after(workspace)
    assert cohen_kappa_score(tests, np.array(columns["grade"], int), weights="quadratic") > 0.9
    assert "Confusion matrix" in page and "Calibration" not in page and "Suspected labels" not in page
    aligned, ensemble = load_runs(workspace), workspace.competition.ensemble
    result = build_ensemble(aligned, ensemble, metric="qwk")
    assert len(result.blend.cuts) == 3 and result.cross_fitted.shape == (ROWS, 4)
    assert result.score.score > max(run.scores["qwk"] for run in result.runs), "runs alone are rounded"
    frames = podium.load("toy", tmp_path)
    assert set(frames.test["label"]) <= set("0123") and (frames.errors["label"] != frames.errors["blend"]).all()


def test_cut_points_are_fitted_without_the_rows_that_they_are_scored_on(tmp_path):
    grades = np.random.default_rng(5).integers(3, size=ROWS)
    workspace = toy_workspace(tmp_path, {"label": grades.tolist()}, target="ordinal", metric="qwk", kind="labels")
    noise = np.random.default_rng(6).normal(1, 1, size=(ROWS, 1))
    import_runs(workspace, noise, noise[:TESTS], ["label"], runs=2)
    result = build_ensemble(load_runs(workspace), workspace.competition.ensemble, metric="qwk")
    assert result.used.in_sample["qwk"] > result.used.cross_fitted["qwk"] + 0.05, "noise cannot predict"


def test_a_label_that_is_no_number_is_a_fault(tmp_path):
    with pytest.raises(DataError, match="'59' has 'old'"):
        toy_workspace(tmp_path / "a", {"label": [1.5] * 59 + ["old"]}, target="number", metric="mae", kind="number")
    with pytest.raises(DataError, match=r"'59' has '1\.5'"):
        toy_workspace(tmp_path / "b", {"label": [1] * 59 + [1.5]}, target="ordinal", metric="qwk", kind="labels")


def test_grades_with_a_gap_are_refused_because_each_is_one_class_from_the_next(tmp_path):
    settings = {"target": "ordinal", "metric": "qwk", "kind": "labels"}
    toy_workspace(tmp_path / "tens", {"label": [10, 20, 30] * 20}, **settings)
    with pytest.raises(DataError, match="equal steps, as 0 to 4 have; found 0, 1, 4"):
        toy_workspace(tmp_path / "gap", {"label": [0, 1, 4] * 20}, **settings)


def test_label_smoothing_of_a_number_is_refused(tmp_path):
    workspace = toy_workspace(
        tmp_path, {"label": [float(row) for row in range(ROWS)]}, target="number", metric="mae", kind="number"
    )
    file = workspace.paths.recipe_file("tiny")
    file.write_text(file.read_text() + "label_smoothing = 0.1\n")
    with pytest.raises(ConfigError, match=r'label_smoothing = 0\.1: expected .* target = "class"'):
        _ = open_workspace("toy", tmp_path).runs


def test_a_class_target_is_one_cell_for_each_row():
    logits = np.random.default_rng(0).normal(size=(2, 5, 3))
    assert CLASS.cells(logits) is logits and CLASS.rows(logits) is logits
