"""Rows with their images for the page; each image is embedded as a data URL of a few kilobytes."""

import base64
import io
from typing import Any

import numpy as np
from PIL import Image

from podium.report.load import ReportData

# Images up to this side are embedded without loss; larger ones are reduced to THUMBNAIL pixels and compressed.
LOSSLESS_PIXELS, THUMBNAIL_PIXELS = 64, 128
JPEG_QUALITY = 80


def gallery_rows(data: ReportData, rows: np.ndarray, *, part: str, blend: np.ndarray) -> list[dict[str, Any]]:
    """Id, image, label, the blend's two most probable classes and the members' predictions of some rows.

    `rows` are row indices of the part `oof` or `test`; `blend` holds the part's probabilities (n, classes). The
    members' predictions are those that the blend averages: after the run's temperature, before the blend's.
    """
    aligned, classes = data.aligned, data.aligned.classes
    ids, logits = (aligned.oof_ids, aligned.oof_logits) if part == "oof" else (aligned.test_ids, aligned.test_logits)
    members = [index for index, run in enumerate(data.result.runs) if run.weight]
    temperatures = data.result.blend.temperatures[members, None, None]
    probabilities = aligned.target.probabilities(logits[members][:, rows] / temperatures)
    return [
        {
            "id": str(ids[row]),
            "image": image_url(data, "train" if part == "oof" else "test", ids[row]),
            "label": aligned.target.label_text(aligned.oof_labels[row], classes) if part == "oof" else None,
            "top_classes": aligned.target.top(blend[row], classes),
            "members": [
                (aligned.runs[member], *aligned.target.top(member_row, classes)[0])
                for member, member_row in zip(members, probabilities[:, column], strict=True)
            ],
        }
        for column, row in enumerate(rows)
    ]


def image_url(data: ReportData, part: str, id_: str) -> str | None:
    """The image of a row of `train` or `test` as a data URL; None where the images are not decoded.

    Raises DataError where they are damaged.
    """
    if data.images is None:
        return None
    ids = data.images.lock.train_ids if part == "train" else data.images.lock.test_ids
    row = int(np.flatnonzero(ids == id_)[0])
    data.images.verify_rows(part, [row])
    return data_url(data.images.arrays[part][row])


def data_url(pixels: np.ndarray) -> str:
    """A data URL of pixels (height, width, 3) uint8."""
    image, stream = Image.fromarray(np.asarray(pixels)), io.BytesIO()
    is_small = max(image.size) <= LOSSLESS_PIXELS
    if is_small:
        image.save(stream, "PNG", optimize=True)
    else:
        image.thumbnail((THUMBNAIL_PIXELS, THUMBNAIL_PIXELS))
        image.save(stream, "JPEG", quality=JPEG_QUALITY)
    return f"data:image/{'png' if is_small else 'jpeg'};base64,{base64.b64encode(stream.getvalue()).decode()}"
