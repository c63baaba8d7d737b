"""Groups of near-duplicates in several of training, validation and test, which make a score too good or too bad."""

from typing import Any

import numpy as np
import pandas as pd

from podium.data.duplicates import duplicate_lines, kept_duplicates, mixed_groups
from podium.report.gallery import image_url
from podium.report.load import ReportData

MOST_GROUPS, MOST_IMAGES = 12, 4


def find_duplicates(data: ReportData) -> dict[str, Any]:
    """Groups of near-duplicates in different parts of the data, those with different labels first.

    `lines` say what they do to the scores, `table` has a row per image, `shown` has images of the first groups: at most
    one of each part and label.
    """
    lock, dataset = data.workspace.lock, data.images
    dataset.verify()
    groups, folds = kept_duplicates(dataset, data.features), lock.folds
    fold_names = ["validation"] if folds.max() == 0 else [f"fold {k + 1}" for k in range(folds.max() + 1)]
    parts = np.concatenate([folds + 1, np.full(len(lock.test_ids), folds.max() + 2)])
    labels = [lock.target.label_text(label, lock.classes) for label in lock.train_labels]
    table = pd.DataFrame(
        {
            "id": np.concatenate([lock.train_ids, lock.test_ids]),
            "part": np.array(["training", *fold_names, "test"])[parts],
            "label": pd.Series([*labels, *[None] * len(lock.test_ids)], dtype=object),
        }
    )
    mixed = [table.iloc[rows] for rows in mixed_groups(groups, parts)]
    mixed.sort(key=_labels_differ, reverse=True)  # stable
    return {
        "lines": duplicate_lines(lock, groups),
        "table": pd.concat([table[:0], *mixed], keys=range(len(mixed) + 1), names=["group"]).reset_index("group"),
        "with_different_labels": sum(map(_labels_differ, mixed)),
        "shown": [_shown(data, group) for group in mixed[:MOST_GROUPS]],
    }


def _labels_differ(group: pd.DataFrame) -> bool:
    return group["label"].nunique() > 1  # None does not count


def _shown(data: ReportData, group: pd.DataFrame) -> list[dict[str, Any]]:
    rows = group.drop_duplicates(["part", "label"])[:MOST_IMAGES].to_dict("records")
    return [row | {"image": image_url(data, "test" if row["part"] == "test" else "train", row["id"])} for row in rows]
