"""The score of a CSV by given answers: each kind of submission against scikit-learn; medals; what is refused."""

from types import SimpleNamespace

import numpy as np
import pytest
from sklearn import metrics as reference

from podium.config.keys import Competition, Data, Submission
from podium.errors import SubmissionError
from podium.grade import grade
from podium.lock import Lock

IDS, CLASSES = ("c", "a", "b", "d"), ("bird", "cat", "dog")
LABELS = "id,label\nc,dog\na,cat\nb,bird\nd,dog\n"
ANSWERS = "id,label\na,cat\nb,dog\nc,dog\nd,dog\n"  # in another order
P = np.array([[0.1, 0.2, 0.7], [0.3, 0.6, 0.1], [0.5, 0.2, 0.3], [0.2, 0.3, 0.5]])


def toy(metric="accuracy", *, kind="labels", target="class", classes=CLASSES, data=None, **submission):
    """A competition with four test images; grading reads nothing else of a workspace."""
    data = Data(source="csv", target=target, **(data or {}))
    settings = Submission(kind=kind, **submission)
    lock = Lock("data", classes, np.array(["t"]), np.array([0]), np.array([0]), np.array(IDS), target_name=target)
    competition = Competition(title="toy", data=data, metric=metric, submission=settings)
    return SimpleNamespace(name="toy", competition=competition, lock=lock)


@pytest.fixture
def graded(tmp_path):
    """Grades a CSV by answers, both as texts."""

    def run(workspace, csv, answers=ANSWERS, **thresholds):
        files = tmp_path / "some.csv", tmp_path / "answers.csv"
        for file, text in zip(files, (csv, answers), strict=True):
            file.write_text(text)
        return grade(workspace, files[0], answers=files[1], thresholds=thresholds)

    return run


def csv_of(values, header):
    rows = zip(IDS, np.asarray(values).reshape(len(IDS), -1).tolist(), strict=True)
    return header + "\n" + "".join(f"{id_},{','.join(map(str, row))}\n" for id_, row in rows)


def test_labels_are_joined_by_id_and_scored_with_an_interval(graded):
    result = graded(toy(), LABELS)
    assert (result.score, result.rows, result.medal) == (0.75, 4, None)
    assert result.interval[0] < 0.75 < result.interval[1]


def test_answers_of_some_rows_score_those_rows(graded):
    result = graded(toy(), LABELS, "id,label,Usage\nb,dog,Private\nc,dog,Public\n")
    assert (result.score, result.rows) == (0.5, 2)


@pytest.mark.parametrize("answers", [ANSWERS, "id,bird,cat,dog\nc,0,0,1\na,0,1,0\nb,0,0,1\nd,0,0,1\n"])
def test_probabilities_of_classes_are_scored_as_scikit_learn_does(graded, answers):
    text, labels = csv_of(P, "id,bird,cat,dog"), [2, 1, 2, 2]
    result = graded(toy("log_loss", kind="probabilities"), text, answers)
    assert result.score == pytest.approx(reference.log_loss(labels, P, labels=[0, 1, 2]))
    assert not result.greater_is_better and result.interval is None


def test_the_auc_of_one_column_of_probabilities(graded):
    workspace = toy("auc", kind="probability", classes=("0", "1"), label_column="sick", positive_class="1")
    result = graded(workspace, csv_of([0.9, 0.2, 0.6, 0.4], "id,sick"), "id,sick\nc,1\na,0\nb,0\nd,1\n")
    assert result.score == pytest.approx(reference.roc_auc_score([1, 0, 0, 1], [0.9, 0.2, 0.6, 0.4])) == 0.75


def test_a_name_that_a_ranking_lacks_is_no_hit(graded):
    workspace = toy("map_at_2", kind="ranking", most=2)
    ranked = "id,label\nc,dog\na,bird cat\nb,cat bird\nd,cat\n"
    assert graded(workspace, ranked, "id,label\nc,dog\na,cat\nb,dog\nd,bird\n").score == (1 + 1 / 2 + 0 + 0) / 4


def test_several_labels_as_names_and_as_probabilities(graded):
    truth = np.array([[1, 0, 1], [0, 0, 0], [0, 1, 0], [0, 0, 1]])
    columns = csv_of(truth, "id,bird,cat,dog")
    probabilities = toy("auc", kind="probabilities", target="multi-label")
    expected = reference.roc_auc_score(truth, P, average="macro")
    assert graded(probabilities, csv_of(P, "id,bird,cat,dog"), columns).score == pytest.approx(expected)
    names = toy("micro_f1", target="multi-label", data={"label_separator": "|"})
    predicted = "id,label\nc,bird dog\na,cat\nb,\nd,dog\n"
    expected = reference.f1_score(truth, [[1, 0, 1], [0, 1, 0], [0, 0, 0], [0, 0, 1]], average="micro")
    for answers in (columns, "id,label\nc,bird|dog\na,\nb,cat\nd,dog\n"):
        assert graded(names, predicted, answers).score == pytest.approx(expected)


def test_grades_and_numbers(graded):
    grades = toy("qwk", target="ordinal", classes=("0", "1", "2", "3"))
    answers = csv_of([0, 3, 3, 1], "id,label")  # 2 is missing
    expected = reference.cohen_kappa_score([0, 3, 3, 1], [0, 3, 1, 1], weights="quadratic", labels=range(4))
    assert graded(grades, csv_of([0, 3, 1, 1], "id,label"), answers).score == pytest.approx(expected)
    numbers = toy("rmse", kind="number", target="number", classes=("age",), label_column="age")
    assert graded(numbers, csv_of([1.0, 2, 3, 4], "id,age"), csv_of([1, 2, 3, 6.0], "id,age")).score == 1


def test_a_score_as_good_as_a_threshold_gets_the_medal(graded):
    for gold, silver, medal in [(0.7, 0.6, "gold"), (0.75, 0.7, "gold"), (0.8, 0.75, "silver"), (0.9, 0.8, None)]:
        assert graded(toy(), LABELS, gold=gold, silver=silver).medal == medal
    numbers = toy("rmse", kind="number", target="number", classes=("age",), label_column="age")
    for gold, medal in [(1.5, "gold"), (1.0, "gold"), (0.5, None)]:
        result = graded(numbers, csv_of([1.0, 2, 3, 4], "id,age"), csv_of([1, 2, 3, 6.0], "id,age"), gold=gold)
        assert result.medal == medal


@pytest.mark.parametrize(
    ("answers", "fault"),
    [
        ("id,label\na,cat\nz,dog\n", "'z' is no test image"),
        ("id,label\na,cat\na,dog\n", "the id 'a' occurs 2 times"),
        ("id,label\na,Cat\n", "Cat: no class of the labelled images"),
        ("id,label\na,\n", "label is empty"),
        ("id,class\na,cat\n", "no column 'label'"),
        ("image,label\na,cat\n", "no column 'id'"),
        ("id,label\n", "no rows"),
    ],
)
def test_answers_with_a_fault_are_refused_with_their_line(answers, fault, graded):
    with pytest.raises(SubmissionError) as raised:
        graded(toy(), LABELS, answers)
    assert fault in str(raised.value)


def test_the_answers_are_opened_only_for_a_valid_submission(tmp_path, monkeypatch):
    file = tmp_path / "some.csv"
    file.write_text(LABELS.replace("dog", "Dog"))
    monkeypatch.setattr("podium.grade.read_test_labels", lambda *_: pytest.fail("the answers were opened"))
    with pytest.raises(SubmissionError, match="line 2: 'Dog'"):
        grade(toy(), file, answers=tmp_path / "answers.csv")


def test_without_answers_only_digits_are_scored(tmp_path):
    file = tmp_path / "some.csv"
    file.write_text(LABELS)
    with pytest.raises(SubmissionError, match="--answers"):
        grade(toy(), file)
