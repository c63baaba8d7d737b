"""Rows with their images for the page; each image is embedded as a data URL of a few kilobytes."""

import base64
import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from podium.data.cache import Dataset
from podium.metrics import softmax
from podium.report.load import ReportData

# Images up to this side are embedded without loss; larger ones are reduced to THUMBNAIL pixels and compressed.
LOSSLESS_PIXELS, THUMBNAIL_PIXELS = 64, 128
JPEG_QUALITY = 80


@dataclass(frozen=True)
class GalleryRow:
    """A row with its image (a data URL, or None), its label (None in the test set) and its predictions."""

    id: str
    image: str | None
    label: str | None
    top_classes: list[tuple[str, float]]  # the blend's two most probable classes
    members: list[tuple[str, str, float]]  # each member's name, its class and the probability of the class


class Images:
    """Finds images by id; every URL is None where the images are not decoded."""

    def __init__(self, dataset: Dataset | None):
        self.images: dict[str, np.ndarray] = {}
        self.index: dict[str, dict[str, int]] = {}
        if dataset is not None:
            self.images = {"train": dataset.train_images, "test": dataset.test_images}
            ids = {"train": dataset.train_ids, "test": dataset.test_ids}
            self.index = {part: {id_: row for row, id_ in enumerate(ids[part].tolist())} for part in ids}

    def url(self, part: str, id_: str) -> str | None:
        """The image of a row of `train` or `test` as a data URL."""
        return data_url(self.images[part][self.index[part][id_]]) if self.images else None


def data_url(pixels: np.ndarray) -> str:
    """A data URL of pixels (side, side, 3) uint8."""
    image, stream = Image.fromarray(np.asarray(pixels)), io.BytesIO()
    is_small = image.width <= LOSSLESS_PIXELS
    if is_small:
        image.save(stream, "PNG", optimize=True)
    else:
        image.thumbnail((THUMBNAIL_PIXELS, THUMBNAIL_PIXELS))
        image.save(stream, "JPEG", quality=JPEG_QUALITY)
    return f"data:image/{'png' if is_small else 'jpeg'};base64,{base64.b64encode(stream.getvalue()).decode()}"


def gallery_rows(
    data: ReportData, images: Images, rows: np.ndarray, *, part: str, blend: np.ndarray
) -> list[GalleryRow]:
    """Gallery rows for row indices of the part `oof` or `test`; `blend` holds that part's probabilities (n, classes).

    The members' predictions are those that the blend averages: after the run's temperature, before the blend's.
    """
    aligned, classes = data.aligned, data.aligned.classes
    ids, logits = (aligned.oof_ids, aligned.oof_logits) if part == "oof" else (aligned.test_ids, aligned.test_logits)
    probabilities = softmax(logits[:, rows] / data.result.blend.temperatures[:, None, None])
    gallery = []
    for column, row in enumerate(rows):
        members = [
            (run.run, classes[int(run_probabilities.argmax())], float(run_probabilities.max()))
            for run, run_probabilities in zip(data.result.runs, probabilities[:, column], strict=True)
            if run.weight
        ]
        top_classes = [(classes[k], float(blend[row, k])) for k in np.argsort(-blend[row], kind="stable")[:2]]
        label = classes[aligned.oof_labels[row]] if part == "oof" else None
        image = images.url("train" if part == "oof" else "test", str(ids[row]))
        gallery.append(GalleryRow(str(ids[row]), image, label, top_classes, members))
    return gallery
