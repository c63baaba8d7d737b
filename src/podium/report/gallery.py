"""Rows of validation or test, as a table and with their images; an image is embedded as a small data URL."""

import base64
import io
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from PIL import Image

from podium.report.heat import HeatMaps
from podium.report.load import ReportData

# Images up to this side are embedded without loss; larger ones are reduced to LARGEST_PIXELS and compressed.
LOSSLESS_PIXELS, LARGEST_PIXELS = 64, 224
QUALITY = 70
HEAT_PIXELS = 128  # the least length of the longer side of an image with its heat map
TOP_COLUMNS = ["predicted", "probability", "second", "probability of second"]


@dataclass(frozen=True, eq=False)
class Rows:
    """The n rows of the `part` train (those of validation) or test, and what was predicted for them."""

    data: ReportData
    part: str
    ids: np.ndarray
    logits: np.ndarray  # (runs, n, outputs)
    blend: np.ndarray  # probabilities (n, outputs)
    labels: np.ndarray | None = None

    def table(self, rows: np.ndarray) -> pd.DataFrame:
        """Id, label with its probability and loss, the blend's two most probable classes, and each run's prediction.

        `rows` are row indices.
        """
        target, classes = self.data.result.pool.target, self.data.result.aligned.classes
        known: dict[str, Any] = {"id": self.ids[rows]}
        if self.labels is not None:
            losses = target.row_losses(self.blend, self.labels)[rows]
            known["label"] = [target.label_text(label, classes) for label in self.labels[rows]]
            known["probability of label"] = np.exp(-losses) if target.has_probabilities else np.nan
            known["loss"] = losses
        top = [[cell for pair in target.top(self.blend[row], classes) for cell in pair] for row in rows]
        padded = pd.DataFrame([[*cells, None, None][:4] for cells in top], columns=TOP_COLUMNS)
        predicted = {
            run: [target.label_text(label, classes) for label in target.predicted_labels(target.probabilities(logits))]
            for run, logits in zip(self.data.result.aligned.runs, self.logits[:, rows], strict=True)
        }
        return pd.concat([pd.DataFrame(known), padded, pd.DataFrame(predicted)], axis=1)

    def gallery(self, rows: np.ndarray, heat: HeatMaps | None = None) -> list[dict[str, Any]]:
        """Id, image without and with heat map, label, two most probable classes, members' predictions of some rows.

        The members' predictions are those that the blend averages: after the run's temperature, before the blend's.
        """
        aligned, result = self.data.result.aligned, self.data.result
        target, classes = aligned.target, aligned.classes
        members = [index for index, run in enumerate(result.runs) if run.weight]
        temperatures = result.blend.temperatures[members, None, None]
        probabilities = target.probabilities(self.logits[np.ix_(members, rows)] / temperatures)
        return [
            {
                "id": str(self.ids[row]),
                "image": image_url(self.data, self.part, self.ids[row]),
                "heat": image_url(self.data, self.part, self.ids[row], heat) if heat else None,
                "label": None if self.labels is None else target.label_text(self.labels[row], classes),
                "top_classes": target.top(self.blend[row], classes),
                "members": [
                    (aligned.runs[member], *target.top(member_row, classes)[0])
                    for member, member_row in zip(members, probabilities[:, column], strict=True)
                ],
            }
            for column, row in enumerate(rows)
        ]


def image_url(data: ReportData, part: str, id_: str, heat: HeatMaps | None = None) -> str | None:
    """The image of a row of `train` or `test` as a data URL, below its heat map; None where images are not decoded.

    Raises DataError where they are damaged.
    """
    if data.images is None:
        return None
    ids = data.images.lock.train_ids if part == "train" else data.images.lock.test_ids
    row = int(np.flatnonzero(ids == id_)[0])
    data.images.verify_rows(part, [row])
    image, stream = Image.fromarray(np.asarray(data.images.arrays[part][row])), io.BytesIO()
    if heat:
        image = _with_heat(image, heat.maps[str(id_)])
    is_small = max(image.size) <= LOSSLESS_PIXELS
    if is_small:
        image.save(stream, "PNG", optimize=True)
    else:
        image.thumbnail((LARGEST_PIXELS, LARGEST_PIXELS))
        image.save(stream, "WEBP", quality=QUALITY)
    return f"data:image/{'png' if is_small else 'webp'};base64,{base64.b64encode(stream.getvalue()).decode()}"


def _with_heat(image: Image.Image, heat: np.ndarray) -> Image.Image:
    """An image in grey below its heat map (h, w) uint8, from blue to red."""
    scale = max(1, -(-HEAT_PIXELS // max(image.size)))
    size = (image.width * scale, image.height * scale)
    smooth = np.asarray(Image.fromarray(heat).resize(size, Image.Resampling.BICUBIC))
    colours = matplotlib.colormaps["turbo"](smooth, bytes=True)[..., :3]
    return Image.blend(image.convert("L").convert("RGB").resize(size), Image.fromarray(colours), 0.5)
