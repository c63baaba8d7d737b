"""Metrics worked out by hand, and held against scikit-learn on random arrays."""

import math
import tracemalloc

import numpy as np
import pytest
from sklearn import metrics as reference

from podium.metrics import METRICS, accuracy, log_loss, softmax, wilson_interval

METRICS_OF_CLASSES = [METRICS[name] for name in ("accuracy", "balanced_accuracy", "log_loss", "macro_f1", "qwk", "auc")]
balanced_accuracy, macro_f1, qwk, auc = (
    METRICS["balanced_accuracy"],
    METRICS["macro_f1"],
    METRICS["qwk"],
    METRICS["auc"],
)


def one_hot(predicted, classes):
    return np.eye(classes)[predicted]


def random_case(seed, *, rows=200, classes=4, ties=False):
    draw = np.random.default_rng(seed)
    probabilities = softmax(draw.normal(size=(rows, classes)))
    if ties:
        probabilities = np.round(probabilities, 1)
    return probabilities, draw.integers(classes, size=rows)


def test_softmax_of_equal_logits_is_uniform_and_huge_ones_do_not_overflow():
    np.testing.assert_allclose(
        softmax(np.array([[5.0, 5.0], [1e30, -1e30], [-1e30, -1e30]])), [[0.5, 0.5], [1, 0], [0.5, 0.5]]
    )


def test_softmax_works_in_double_precision_and_leaves_its_input_alone():
    logits = np.array([[1, 2]], dtype=np.float16)
    assert softmax(logits).dtype == np.float64
    np.testing.assert_array_equal(logits, np.array([[1, 2]], dtype=np.float16))


def test_accuracy_counts_the_most_probable_class_and_of_equal_ones_the_first():
    probabilities = np.array([[0.6, 0.4], [0.5, 0.5], [0.1, 0.9], [0.5, 0.5]])
    assert accuracy(probabilities, np.array([0, 0, 0, 1])) == 0.5


def test_log_loss_of_a_coin_is_log_two_and_of_a_sure_mistake_finite():
    assert log_loss(np.full((3, 2), 0.5), np.array([0, 1, 1])) == pytest.approx(math.log(2))
    assert log_loss(np.array([[1.0, 0.0]]), np.array([1])) == pytest.approx(36.04, abs=0.01)


def test_macro_f1_by_hand_and_without_classes_that_nobody_names():
    # class 0: 1 correct, 1 missed -> 2/3; class 1: 1 correct, 1 too many -> 2/3; class 2: no rows.
    assert macro_f1(one_hot([0, 1, 1], 3), np.array([0, 0, 1])) == pytest.approx(2 / 3)


@pytest.mark.parametrize("metric", [macro_f1, balanced_accuracy])
def test_a_metric_of_20_000_classes_needs_no_confusion_matrix(metric):
    probabilities, labels = np.zeros((4, 20_000)), np.array([0, 5, 5, 19_999])
    probabilities[np.arange(4), [0, 5, 7, 19_999]] = 1
    tracemalloc.start()
    score = metric(probabilities, labels)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert score == pytest.approx((1 + 2 / 3 + 0 + 1) / 4 if metric is macro_f1 else (1 + 1 / 2 + 1) / 3)
    assert peak < 10e6  # the matrix has 3.2 GB


def test_balanced_accuracy_is_the_mean_recall_of_the_classes_that_labels_have():
    # class 0: 2 of 4; class 1: 1 of 1; class 2 is predicted once, but no row has it.
    assert balanced_accuracy(one_hot([0, 0, 1, 2, 1], 3), np.array([0, 0, 0, 0, 1])) == 3 / 4


def test_qwk_is_one_for_agreement_minus_one_for_the_reverse_and_zero_for_a_constant():
    labels = np.array([0, 1, 2, 0, 1, 2])
    assert qwk(one_hot(labels, 3), labels) == 1.0
    assert qwk(one_hot(2 - labels, 3), labels) == pytest.approx(-1.0)
    assert qwk(one_hot(np.ones(6, int), 3), labels) == pytest.approx(0.0)
    assert qwk(one_hot([1, 1], 3), np.array([1, 1])) == 1.0


def test_qwk_knows_the_distance_between_classes_although_one_between_is_missing():
    labels, predicted = np.array([0, 0, 3, 3]), np.array([0, 1, 3, 3])
    expected = reference.cohen_kappa_score(labels, predicted, weights="quadratic", labels=range(4))
    assert qwk(one_hot(predicted, 4), labels) == pytest.approx(expected)


def test_auc_by_hand_counts_a_tie_as_half():
    # pairs (positive, negative): 0.8 > 0.1, 0.8 > 0.4, 0.4 > 0.1, 0.4 = 0.4 -> 3.5 of 4.
    scores = np.array([0.1, 0.4, 0.4, 0.8])
    probabilities = np.stack([1 - scores, scores], axis=1)
    assert auc(probabilities, np.array([0, 0, 1, 1])) == 3.5 / 4


def test_auc_of_a_constant_is_a_half_and_without_a_second_class_undefined():
    assert auc(np.full((4, 2), 0.5), np.array([0, 1, 1, 0])) == 0.5
    assert math.isnan(auc(np.full((2, 2), 0.5), np.array([1, 1])))


def test_auc_leaves_out_a_class_without_rows():
    probabilities, labels = random_case(3, classes=3)
    labels[labels == 2] = 0
    areas = [reference.roc_auc_score(labels == k, probabilities[:, k]) for k in (0, 1)]
    assert auc(probabilities, labels) == pytest.approx(np.mean(areas))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("classes", [2, 3, 10])
def test_metrics_equal_those_of_scikit_learn(seed, ties, classes):
    probabilities, labels = random_case(seed, classes=classes, ties=ties)
    predicted = probabilities.argmax(axis=1)
    assert accuracy(probabilities, labels) == pytest.approx(reference.accuracy_score(labels, predicted))
    assert macro_f1(probabilities, labels) == pytest.approx(reference.f1_score(labels, predicted, average="macro"))
    recall = reference.balanced_accuracy_score(labels, predicted)
    assert balanced_accuracy(probabilities, labels) == pytest.approx(recall)
    kappa = reference.cohen_kappa_score(labels, predicted, weights="quadratic", labels=range(classes))
    assert qwk(probabilities, labels) == pytest.approx(kappa)
    if ties:  # rounded rows no longer sum to 1: scikit-learn accepts only one class at a time
        columns = [1] if classes == 2 else range(classes)
        area = np.mean([reference.roc_auc_score(labels == k, probabilities[:, k]) for k in columns])
    else:
        assert log_loss(probabilities, labels) == pytest.approx(reference.log_loss(labels, probabilities))
        given = probabilities[:, 1] if classes == 2 else probabilities
        area = reference.roc_auc_score(labels, given, multi_class="ovr")
    assert auc(probabilities, labels) == pytest.approx(area)


def test_map_at_k_by_hand_is_the_mean_of_one_by_rank_and_zero_beyond_k():
    # ranks of the labels: 1; 2, as the first of equal ones is ahead; 3
    probabilities = np.array([[0.5, 0.3, 0.2], [0.4, 0.4, 0.2], [0.5, 0.3, 0.2]])
    labels = np.array([0, 1, 2])
    for k, expected in ((1, 1 / 3), (2, 1 / 2), (3, 11 / 18), (5, 11 / 18)):
        assert METRICS[f"map_at_{k}"](probabilities, labels) == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(3))
def test_map_at_k_equals_scikit_learns_ranking_precision_and_top_k_accuracies(seed):
    probabilities, labels = random_case(seed, classes=6)
    precision = reference.label_ranking_average_precision_score(one_hot(labels, 6), probabilities)
    assert METRICS["map_at_6"](probabilities, labels) == pytest.approx(precision)
    top = [0, *(reference.top_k_accuracy_score(labels, probabilities, k=k, labels=range(6)) for k in (1, 2, 3))]
    assert METRICS["map_at_3"](probabilities, labels) == pytest.approx(np.diff(top) @ [1, 1 / 2, 1 / 3])


def test_the_order_of_rows_changes_no_metric():
    probabilities, labels = random_case(7)
    order = np.random.default_rng(1).permutation(len(labels))
    for metric in METRICS_OF_CLASSES:
        assert metric(probabilities[order], labels[order]) == pytest.approx(metric(probabilities, labels))


def test_more_gain_is_better_for_every_metric():
    labels = np.array([0, 1, 2, 0])
    good, bad = softmax(one_hot(labels, 3) * 2), softmax(one_hot((labels + 1) % 3, 3) * 2)
    for metric in METRICS_OF_CLASSES:
        assert metric.gain(metric(good, labels)) > metric.gain(metric(bad, labels))


def test_wilson_interval_equals_the_published_one():
    # Newcombe (1998), table I: 81 of 263 and 0 of 20 and 1 of 29.
    np.testing.assert_allclose(wilson_interval(81, 263), (0.2553, 0.3662), atol=1e-4)
    np.testing.assert_allclose(wilson_interval(0, 20), (0, 0.1611), atol=1e-4)
    np.testing.assert_allclose(wilson_interval(1, 29), (0.0061, 0.1718), atol=1e-4)


def test_wilson_interval_stays_within_zero_and_one_and_mirrors():
    low, high = wilson_interval(3, 50)
    assert wilson_interval(47, 50) == pytest.approx((1 - high, 1 - low))
    assert wilson_interval(50, 50)[1] == 1.0


@pytest.mark.parametrize(("correct", "rows"), [(0, 0), (3, 2), (-1, 2)])
def test_wilson_interval_of_impossible_counts_is_refused(correct, rows):
    with pytest.raises(ValueError, match="0 <= correct <= rows"):
        wilson_interval(correct, rows)
