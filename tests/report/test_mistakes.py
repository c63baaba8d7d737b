import numpy as np
import pytest

from podium.report.mistakes import (
    class_scores,
    confused_pairs,
    confusion,
    largest_losses,
    least_certain,
    reliability,
    suspected_labels,
)

NAMES = ("bird", "cat", "dog")
LABELS = np.array([0, 0, 1, 1, 1, 2])
SAID = np.array([0, 1, 1, 2, 2, 2])


def sure(said, share=0.9, classes=3):
    """Probabilities that give `share` to what is said, the rest to the others alike."""
    rest = (1 - share) / (classes - 1)
    return np.where(np.eye(classes, dtype=bool)[list(said)], share, rest)


def test_confusion_counts_labels_by_row_and_what_was_said_by_column():
    assert confusion(LABELS, SAID, 3).tolist() == [[1, 1, 0], [0, 1, 2], [0, 0, 1]]


def test_class_scores_are_recall_precision_and_their_harmonic_mean_worst_first():
    worst, *_, best = class_scores(confusion(LABELS, SAID, 3), NAMES)
    assert (worst.name, worst.rows, worst.f1) == ("cat", 3, pytest.approx(0.4))
    assert (worst.recall, worst.precision) == (pytest.approx(1 / 3), pytest.approx(1 / 2))
    assert best.name == "bird" and best.f1 == pytest.approx(2 / 3)


def test_a_class_without_rows_has_no_score_and_comes_last():
    last = class_scores(confusion(LABELS, SAID, 4), (*NAMES, "yak"))[-1]
    assert last.name == "yak" and last.rows == 0 and np.isnan(last.f1)


def test_confused_pairs_have_a_direction_and_leave_out_what_never_happened():
    pairs = confused_pairs(confusion(LABELS, SAID, 3), NAMES, most=9)
    assert [(one.label, one.said, one.rows) for one in pairs] == [("cat", "dog", 2), ("bird", "cat", 1)]
    assert pairs[0].share == pytest.approx(2 / 3)


def test_the_largest_loss_is_the_surest_mistake():
    probabilities = np.vstack([sure([0], 0.9), sure([1], 0.5), sure([1], 0.99)])
    assert largest_losses(probabilities, np.array([0, 0, 0]), most=2).tolist() == [2, 1]


def test_a_row_whose_label_is_nearly_sure_is_no_loss_to_look_at():
    assert largest_losses(np.vstack([sure([0], 0.95), sure([0], 0.6)]), np.array([0, 0]), most=9).tolist() == [1]


def test_the_least_certain_row_is_where_two_classes_are_nearest_to_each_other():
    probabilities = np.array([[0.9, 0.05, 0.05], [0.45, 0.44, 0.11], [0.4, 0.3, 0.3]])
    assert least_certain(probabilities, most=2).tolist() == [1, 2]


def test_a_label_is_suspected_where_another_class_is_surer_than_in_its_own_rows():
    labels = np.repeat([0, 1, 2], 10)
    said = labels.copy()
    said[3] = 1
    probabilities = sure(said, 0.8)
    probabilities[3] = [0.01, 0.98, 0.01]
    assert suspected_labels(probabilities, labels).tolist() == [3]


def test_an_unsure_mistake_is_no_suspicion_against_the_label():
    labels = np.repeat([0, 1, 2], 10)
    said = labels.copy()
    said[3] = 1
    probabilities = sure(said, 0.8)
    probabilities[3] = [0.4, 0.5, 0.1]
    assert suspected_labels(probabilities, labels).tolist() == []


def test_a_class_that_no_row_has_suspects_nothing():
    labels = np.repeat([0, 1], 10)
    assert suspected_labels(sure(labels, 0.8), labels).tolist() == []


def test_reliability_holds_confidence_against_accuracy_in_each_bin_with_rows():
    bins = reliability(np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4]]), np.array([0, 1, 0]))
    assert bins[:, 2].tolist() == [1, 2]
    assert bins[:, :2].tolist() == [[pytest.approx(0.6), 1.0], [pytest.approx(0.9), 0.5]]
