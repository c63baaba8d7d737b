import tracemalloc

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score, f1_score, precision_recall_fscore_support, roc_auc_score

from podium.report import mistakes as mistakes_module
from podium.report.mistakes import (
    class_scores,
    column_scores,
    confused_pairs,
    confusion,
    group_scores,
    largest_losses,
    neighbour_shares,
    number_scores,
    part_scores,
    reliability,
    shown_confusion,
    suspected_labels,
)
from podium.targets.target import CLASS
from toy_runs import pool_from

NAMES = ("bird", "cat", "dog")
COUNTS = np.array([[1, 1, 0], [0, 1, 2], [0, 0, 1]])  # rows: labels
LABELS, PREDICTED = (np.repeat(places, COUNTS.ravel()) for places in np.indices(COUNTS.shape).reshape(2, -1))


def confident(predicted, share=0.9, classes=3):
    """Probabilities that give `share` to the predicted class, and equal parts of the rest to the other classes."""
    rest = (1 - share) / (classes - 1)
    return np.where(np.eye(classes, dtype=bool)[list(predicted)], share, rest)


def test_class_scores_are_recall_precision_and_their_harmonic_mean_worst_first():
    worst, *_, best = class_scores(PREDICTED, LABELS, NAMES).to_dict("records")
    assert (worst["class"], worst["rows"], worst["F1"]) == ("cat", 3, pytest.approx(0.4))
    assert (worst["recall"], worst["precision"]) == (pytest.approx(1 / 3), pytest.approx(1 / 2))
    assert best["class"] == "bird" and best["F1"] == pytest.approx(2 / 3)


def test_a_class_without_rows_has_no_score_and_comes_last():
    last = class_scores(PREDICTED, LABELS, (*NAMES, "yak")).iloc[-1]
    assert last["class"] == "yak" and last["rows"] == 0 and np.isnan(last["F1"])


def test_the_confusion_matrix_shows_the_classes_with_the_most_mistakes_in_their_order():
    names = np.array([*NAMES, "yak"])
    pairs = confusion(PREDICTED, LABELS, names)
    assert pairs.values.tolist() == [
        ["bird", "bird", 1],
        ["bird", "cat", 1],
        ["cat", "cat", 1],
        ["cat", "dog", 2],
        ["dog", "dog", 1],
    ]
    assert shown_confusion(pairs, names, most=3).values.tolist() == COUNTS.tolist()
    two = shown_confusion(pairs, names, most=2)
    assert list(two.index) == list(two.columns) == ["cat", "dog"] and two.values.tolist() == [[1, 2], [0, 1]]


def test_mistakes_in_20_000_classes_need_no_confusion_matrix():
    names, labels = np.array([f"class{k}" for k in range(20_000)]), np.array([3, 3, 19_999])
    tracemalloc.start()
    pairs = confusion(labels - 1, labels, names)
    shown, scores = shown_confusion(pairs, names, most=2), class_scores(labels - 1, labels, names)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert list(shown.index) == ["class2", "class3"] and len(scores) == 20_000
    assert confused_pairs(pairs, most=1).values.tolist() == [["class3", "class2", 2, 1.0]]
    assert peak < 50e6  # the matrix has 3.2 GB


def test_column_scores_are_scikit_learns_at_one_half_lowest_auc_first():
    draw = np.random.default_rng(0)
    labels, probabilities = draw.integers(2, size=(50, 3)), draw.random((50, 3))
    table = column_scores(probabilities, labels, NAMES).set_index("label").loc[list(NAMES)]
    of_columns = precision_recall_fscore_support(labels, probabilities > 0.5, average=None)
    for name, expected in zip(("precision", "recall", "F1", "rows"), of_columns, strict=True):
        np.testing.assert_allclose(table[name], expected)
    np.testing.assert_allclose(table["AUC"], roc_auc_score(labels, probabilities, average=None))
    np.testing.assert_allclose(table["AP"], average_precision_score(labels, probabilities, average=None))
    for place, name in enumerate(NAMES):
        predicted = probabilities[:, [place]] > np.append(probabilities[:, place], table.loc[name, "best threshold"])
        scores = [f1_score(labels[:, place], column) for column in predicted.T]
        assert scores[-1] == pytest.approx(max(scores))


def test_equal_probabilities_count_together_in_the_average_precision():
    labels, values = (
        np.array([[1, 0], [0, 0], [1, 0], [0, 0]]),
        np.array([[0.5], [0.5], [0.2], [0.1]]).repeat(2, axis=1),
    )
    table = column_scores(values, labels, ["some", "none"]).set_index("label")
    assert table.loc["some", "AP"] == pytest.approx((1 / 2 + 2 / 3) / 2) and np.isnan(table.loc["none", "AP"])


def test_a_single_label_is_scored_as_a_label_and_not_as_a_class():
    table = column_scores(np.array([[0.9], [0.2], [0.7]]), np.array([[1], [0], [0]]), ["only"])
    assert table[["rows", "recall", "precision"]].values.tolist() == [[1, 1, 0.5]]


def test_each_part_has_the_metric_of_its_rows_and_a_part_without_a_score_is_nan():
    labels, predicted = np.array([0, 1, 1, 1]), np.array([0, 1, 0, 1])
    pool = pool_from([np.log(confident(predicted, classes=2))], labels)
    parts = np.array([0, 0, 1, 1])
    assert part_scores(pool, {"a": confident(predicted, classes=2)}, parts)["a"].tolist() == [1, 0.5]
    pool = pool_from([np.log(confident(predicted, classes=2))], labels, metric="auc")
    assert np.isnan(part_scores(pool, {"a": confident(predicted, classes=2)}, parts)["a"].iloc[1])


def test_groups_with_the_largest_share_of_the_loss_come_first(monkeypatch):
    labels, predicted = np.array([0, 1, 1, 0]), np.array([0, 1, 0, 1])
    pool = pool_from([np.log(confident(predicted, classes=2))], labels)
    groups = pd.DataFrame({"group": ["a", "a", "b", "b"], "sex": ["f", "m", "m", "m"]})
    losses = np.array([0.0, 1.0, 3.0, 4.0])
    table = group_scores(pool, confident(predicted, classes=2), losses, groups)
    assert table.values.tolist() == [
        ["sex", "m", 3, 8 / 3, 1.0, 1 / 3],
        ["group", "b", 2, 3.5, 7 / 8, 0.0],
        ["group", "a", 2, 0.5, 1 / 8, 1.0],
        ["sex", "f", 1, 0.0, 0.0, 1.0],
    ]
    monkeypatch.setattr(mistakes_module, "MOST_GROUPS", 1)
    assert group_scores(pool, confident(predicted, classes=2), losses, groups)["accuracy"].count() == 1


def test_numbers_are_scored_in_parts_of_equal_size_by_their_labels():
    labels, errors = np.array([7.0, 1, 2, 3, 4, 5, 6, 8, 9, 10]), np.tile([1.0, -3.0], 5)
    table = number_scores(labels + errors, labels)
    assert table["rows"].tolist() == [2] * 5 and table["lowest label"].tolist() == [1, 3, 5, 7, 9]
    assert table["highest label"].tolist() == [2, 4, 6, 8, 10]
    assert table["mean absolute error"].iloc[1] == 2 and table["bias"].iloc[1] == -1
    assert len(number_scores(labels[:2], labels[:2])) == 2


def test_confused_pairs_have_a_direction_and_at_least_one_row():
    pairs = confused_pairs(confusion(PREDICTED, LABELS, np.array(NAMES)), most=9)
    assert pairs.values.tolist() == [["cat", "dog", 2, pytest.approx(2 / 3)], ["bird", "cat", 1, pytest.approx(1 / 2)]]


def test_the_largest_loss_is_the_most_confident_mistake():
    probabilities = np.vstack([confident([0], 0.9), confident([1], 0.5), confident([1], 0.99)])
    assert largest_losses(probabilities, np.array([0, 0, 0]), most=2).tolist() == [2, 1]


def test_rows_with_a_small_loss_are_left_out():
    assert largest_losses(
        np.vstack([confident([0], 0.95), confident([0], 0.6)]), np.array([0, 0]), most=9
    ).tolist() == [1]


def test_the_least_certain_row_has_the_smallest_probability_of_its_class():
    probabilities = np.array([[0.9, 0.05, 0.05], [0.45, 0.44, 0.11], [0.4, 0.3, 0.3]])
    assert CLASS.confidences(probabilities).argsort().tolist() == [2, 1, 0]


def test_a_label_is_suspected_where_another_class_reaches_its_threshold():
    labels = np.repeat([0, 1, 2], 10)
    predicted = labels.copy()
    predicted[3] = 1
    probabilities = confident(predicted, 0.8)
    probabilities[3] = [0.01, 0.98, 0.01]
    assert suspected_labels(probabilities, labels).tolist() == [3]


def test_an_uncertain_mistake_does_not_make_the_label_suspect():
    labels = np.repeat([0, 1, 2], 10)
    predicted = labels.copy()
    predicted[3] = 1
    probabilities = confident(predicted, 0.8)
    probabilities[3] = [0.4, 0.5, 0.1]
    assert suspected_labels(probabilities, labels).tolist() == []


def test_a_class_without_rows_suspects_no_label():
    labels = np.repeat([0, 1], 10)
    assert suspected_labels(confident(labels, 0.8), labels).tolist() == []


def test_shares_of_neighbours_leave_out_the_image_itself():
    angles = np.concatenate([np.linspace(0, 0.5, 12), np.linspace(2, 2.5, 12)])
    features = 7 * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    labels = np.repeat([0, 1], 12)
    labels[5] = 1  # among images of class 0
    shares = neighbour_shares(features, labels, np.array([5, 3, 20]), classes=3)
    np.testing.assert_allclose(shares, [[1, 0, 0], [0.9, 0.1, 0], [0, 1, 0]])


def test_of_fewer_images_than_neighbours_all_others_are_neighbours():
    shares = neighbour_shares(np.eye(4), np.array([0, 0, 0, 1]), np.arange(4), classes=2)
    np.testing.assert_allclose(shares, [[2 / 3, 1 / 3]] * 3 + [[1, 0]])


def test_reliability_has_confidence_accuracy_and_rows_of_each_bin_with_rows():
    bins = reliability(np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4]]), np.array([0, 1, 0]))
    assert bins["rows"].tolist() == [1, 2] and bins["accuracy"].tolist() == [1.0, 0.5]
    assert bins["confidence"].tolist() == [pytest.approx(0.6), pytest.approx(0.9)]
