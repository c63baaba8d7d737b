"""What a blend predicts wrongly: scores by class, confused classes, rows with a large loss, suspected labels."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from podium.ensemble.pool import Pool
from podium.ensemble.strategies.calibrate import BINS
from podium.metrics import METRICS, hits
from podium.targets.cut_points import best_f1_cut
from podium.targets.target import CLASS, Target

# Rows with a smaller loss (a probability of the label above 0.9) are not shown among the largest losses.
SMALL_LOSS = 0.1
NUMBER_PARTS = 5
NEIGHBOURS = 10
MOST_GROUPS = 50


def confusion(predicted: np.ndarray, labels: np.ndarray, classes: np.ndarray) -> pd.DataFrame:
    """The pairs of label and prediction that rows have, and how many; `predicted` and `labels` (n,) index `classes`.

    Of 20,000 classes, a confusion matrix would have 400 million cells.
    """
    pairs, rows = np.unique(labels.astype(np.int64) * len(classes) + predicted, return_counts=True)
    columns = {"label": classes[pairs // len(classes)], "predicted": classes[pairs % len(classes)], "rows": rows}
    return pd.DataFrame(columns)


def class_scores(predicted: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> pd.DataFrame:
    """Rows, recall, precision and F1 of each class, lowest F1 first; NaN without rows."""
    counts = [np.bincount(rows, minlength=len(classes)) for rows in (labels[predicted == labels], labels, predicted)]
    return pd.DataFrame({"class": classes, **_scores(*counts)}).sort_values("F1", kind="stable")


def column_scores(probabilities: np.ndarray, labels: np.ndarray, columns: Sequence[str]) -> pd.DataFrame:
    """AUC, AP, recall, precision and F1 at a probability of 1/2, best threshold, of (n, columns), lowest AUC first.

    `rows` have the label 1; the AUC is NaN if all labels of a column are equal, the AP if none is 1. The threshold has
    the best F1 on these rows.
    """
    from sklearn.metrics import average_precision_score

    pairs = list(zip(probabilities.T, labels.T, strict=True))
    predicted, labelled = probabilities > 0.5, labels > 0
    scores = _scores((predicted & labelled).sum(axis=0), labelled.sum(axis=0), predicted.sum(axis=0))
    known = {"label": columns, "rows": scores.pop("rows")}
    known["AUC"] = [METRICS["auc"](np.stack([1 - values, values], axis=1), truth) for values, truth in pairs]
    known["AP"] = [average_precision_score(truth, values) if truth.any() else np.nan for values, truth in pairs]
    best = {"best threshold": [best_f1_cut(values - 0.5, truth) + 0.5 for values, truth in pairs]}
    return pd.DataFrame(known | scores | best).sort_values("AUC", kind="stable")


def part_scores(pool: Pool, values: dict[str, np.ndarray], parts: np.ndarray) -> pd.DataFrame:
    """The metric of each of `values` (cells, values) in each part of the rows, a row per part, by rising part.

    `parts` (n,) are numbers from 0; NaN where a part has no score.
    """
    cells = np.repeat(parts, pool.target.cells_per_row)
    with np.errstate(invalid="ignore", divide="ignore"):
        scores = {
            name: [pool.measure(of_rows[cells == part], pool.labels[cells == part]) for part in np.unique(parts)]
            for name, of_rows in values.items()
        }
    return pd.DataFrame(scores)


def group_scores(pool: Pool, values: np.ndarray, losses: np.ndarray, groups: pd.DataFrame) -> pd.DataFrame:
    """Rows, metric, mean loss and share of all loss of each group of rows, those with the largest share first.

    `values` (cells, values), `losses` (n,); `groups` has a column for each way to group the n rows. The metric is known
    for the first MOST_GROUPS.
    """
    tables = []
    for name, column in groups.items():
        sums = pd.DataFrame({"group": column.to_numpy(), "loss": losses}).groupby("group")["loss"].agg(["size", "sum"])
        columns = {"grouped by": name, "group": sums.index.astype(str), "rows": sums["size"].to_numpy()}
        columns |= {"mean loss": (sums["sum"] / sums["size"]).to_numpy(), "share of loss": sums["sum"].to_numpy()}
        tables.append(pd.DataFrame(columns).assign(score=np.nan))
    table = pd.concat(tables, ignore_index=True)
    table["share of loss"] /= max(losses.sum(), 1e-12)
    table = table.sort_values("share of loss", ascending=False, kind="stable", ignore_index=True)
    for row, (name, group) in enumerate(zip(table["grouped by"][:MOST_GROUPS], table["group"], strict=False)):
        outside = groups[name].astype(str).to_numpy() != group
        table.loc[row, "score"] = part_scores(pool, {"blend": values}, outside)["blend"].iloc[0]
    return table.rename(columns={"score": pool.metric.replace("_", " ")})


def _scores(correct: np.ndarray, labelled: np.ndarray, predicted: np.ndarray) -> dict[str, np.ndarray]:
    with np.errstate(invalid="ignore", divide="ignore"):
        recall, precision, f1 = correct / labelled, correct / predicted, 2 * correct / (labelled + predicted)
    return {"rows": labelled, "recall": recall, "precision": precision, "F1": f1}


def confused_pairs(pairs: pd.DataFrame, *, most: int) -> pd.DataFrame:
    """The pairs of label and wrong prediction with the most rows, of what `confusion` gives."""
    shares = pairs["rows"] / pairs.groupby("label")["rows"].transform("sum")
    wrong = pairs.assign(share=shares)[pairs["label"] != pairs["predicted"]]
    return wrong.sort_values("rows", ascending=False, kind="stable")[:most]


def shown_confusion(pairs: pd.DataFrame, classes: np.ndarray, *, most: int) -> pd.DataFrame:
    """The confusion matrix of the classes with the most mistakes, in their order, of what `confusion` gives."""
    wrong = pairs[pairs["label"] != pairs["predicted"]]
    mistakes = sum(wrong.groupby(side)["rows"].sum().reindex(classes, fill_value=0) for side in ("label", "predicted"))
    shown = classes[np.sort(np.argsort(-mistakes.to_numpy(), kind="stable")[:most])]
    inside = pairs[pairs["label"].isin(shown) & pairs["predicted"].isin(shown)]
    matrix = inside.pivot(index="label", columns="predicted", values="rows")
    return matrix.reindex(index=shown, columns=shown).fillna(0).astype(int)


def number_scores(values: np.ndarray, labels: np.ndarray) -> pd.DataFrame:
    """The errors of numbers (n,) in five parts of equal size, by their labels (n,); the bias is predicted - true."""
    table = pd.DataFrame({"label": labels, "bias": values - labels, "error": np.abs(values - labels)})
    places = table["label"].rank(method="first") - 1
    groups = table.groupby((places * NUMBER_PARTS // len(labels)).to_numpy())
    columns = {"lowest label": ("label", "min"), "highest label": ("label", "max"), "rows": ("label", "size")}
    return groups.agg(**columns, **{"mean absolute error": ("error", "mean"), "bias": ("bias", "mean")})


def largest_losses(probabilities: np.ndarray, labels: np.ndarray, *, most: int, target: Target = CLASS) -> np.ndarray:
    """Row indices by falling loss, at most `most`, without rows whose loss is small."""
    losses = target.row_losses(probabilities, labels)
    rows = np.argsort(-losses, kind="stable")[:most]
    return rows[losses[rows] > SMALL_LOSS]


def suspected_labels(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Indices of rows whose label may be wrong, most likely first.

    The rule of confident learning (Northcutt et al., arXiv:1911.00068): the threshold of a class is its mean
    probability in the rows that have it as their label. A row is suspected if, among the classes that reach their
    threshold in it, the most probable one is not its label.
    """
    own = probabilities[np.arange(len(labels)), labels]
    count = np.bincount(labels, minlength=probabilities.shape[1])
    thresholds = np.bincount(labels, weights=own, minlength=len(count)) / np.maximum(count, 1)
    thresholds[count == 0] = np.inf
    confident = np.where(probabilities >= thresholds, probabilities, 0)
    suspected = np.flatnonzero((confident.max(axis=1) > 0) & (confident.argmax(axis=1) != labels))
    margin = own[suspected] - probabilities[suspected].max(axis=1)
    return suspected[np.argsort(margin, kind="stable")]


def neighbour_shares(features: np.ndarray, labels: np.ndarray, rows: np.ndarray, *, classes: int) -> np.ndarray:
    """The shares of the classes (len(rows), classes) among the NEIGHBOURS images whose features are most similar.

    `features` (n, channels) and `labels` (n,) are those of all labelled images, `rows` the positions of some of them.
    Similarity is the cosine; an image is not its own neighbour.
    """
    from sklearn.neighbors import NearestNeighbors

    vectors = features / np.linalg.norm(features, axis=1, keepdims=True)
    count = min(NEIGHBOURS + 1, len(vectors))
    nearest = NearestNeighbors(n_neighbors=count).fit(vectors).kneighbors(vectors[rows], return_distance=False)
    shares = np.zeros((len(rows), classes))
    np.add.at(shares, (np.arange(len(rows))[:, None], labels[nearest]), nearest != rows[:, None])
    return shares / shares.sum(axis=1, keepdims=True)


def reliability(probabilities: np.ndarray, labels: np.ndarray) -> pd.DataFrame:
    """Mean confidence, accuracy and number of rows of each of equal bins of confidence that has rows."""
    confidence = probabilities.max(axis=1)
    table = pd.DataFrame({"confidence": confidence, "accuracy": hits(probabilities, labels)})
    groups = table.groupby(np.minimum((confidence * BINS).astype(int), BINS - 1))
    return groups.mean().assign(rows=groups.size())
