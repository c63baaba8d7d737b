"""How much pseudo-labels raise the score of the validation rows above the truth: k folds beside a holdout.

    python benchmarks/pseudo.py [--draws 20] [--rows 200] [--threshold 0.9]

scikit-learn's digits and logistic regression. Each draw has labelled rows, test rows that get pseudo-labels, and 600
further rows that only measure the true accuracy. The class of a test row comes from the mean of the models of all
folds, as `make pseudo` gives it. Every model then trains again on its rows and on the pseudo-labels. The table has the
validation score minus the true accuracy of the same models, in points, before and after.
"""

import argparse

import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold

TRUE_ROWS = 600


def fit(features: np.ndarray, labels: np.ndarray) -> LogisticRegression:
    return LogisticRegression(C=1.0, max_iter=300).fit(features, labels)


def optimism(draw: int, rows: int, threshold: float, *, folds: int, used: int) -> tuple[float, float, float]:
    """Validation score minus true accuracy without and with pseudo-labels, and the gain in true accuracy, in points.

    `used` of the folds are validated: 1 is a holdout.
    """
    features, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(draw).permutation(len(labels))
    known, truth, test = np.split(order, [rows, rows + TRUE_ROWS])
    features = features / 16
    parts = list(StratifiedKFold(folds, shuffle=True, random_state=draw).split(known, labels[known]))[:used]
    models = [fit(features[known[training]], labels[known[training]]) for training, _ in parts]
    probabilities = np.mean([model.predict_proba(features[test]) for model in models], axis=0)
    sure = probabilities.max(axis=1) >= threshold
    pseudo = np.append(features[known], features[test[sure]], axis=0)
    classes = np.append(labels[known], probabilities[sure].argmax(axis=1))
    added = np.arange(rows, len(classes))
    again = [fit(pseudo[rows_of], classes[rows_of]) for rows_of in (np.append(part, added) for part, _ in parts)]

    def scores(models: list[LogisticRegression]) -> tuple[float, float]:
        hits = [m.predict(features[known[v]]) == labels[known[v]] for m, (_, v) in zip(models, parts, strict=True)]
        true = [m.score(features[truth], labels[truth]) for m in models]
        return 100 * float(np.concatenate(hits).mean()), 100 * float(np.mean(true))

    (before, true_before), (after, true_after) = scores(models), scores(again)
    return before - true_before, after - true_after, true_after - true_before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--rows", type=int, default=200, help="labelled rows")
    parser.add_argument("--threshold", type=float, default=0.9)
    arguments = parser.parse_args()
    print("| validation | too good before | too good after | added by pseudo-labels | true gain |\n|" + " --- |" * 5)
    for name, folds, used in (("5 folds", 5, 5), ("holdout of a fifth", 5, 1)):
        values = np.array(
            [
                optimism(draw, arguments.rows, arguments.threshold, folds=folds, used=used)
                for draw in range(arguments.draws)
            ]
        )
        columns = (values[:, 0], values[:, 1], values[:, 1] - values[:, 0], values[:, 2])
        cells = [f"{v.mean():+.2f} ± {v.std(ddof=1) / len(v) ** 0.5:.2f}" for v in columns]
        print(f"| {' | '.join([name, *cells])} |", flush=True)


if __name__ == "__main__":
    main()
