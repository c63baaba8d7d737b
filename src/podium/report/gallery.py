"""Images for a page: each a few kilobytes inside it."""

import base64
import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from podium.data.cache import Dataset
from podium.metrics import softmax
from podium.report.gather import Gathered

# Up to this side an image is shown pixel by pixel; larger ones are shrunk to SHOWN and compressed.
PIXEL_BY_PIXEL, SHOWN = 64, 128
JPEG_QUALITY = 80


@dataclass(frozen=True)
class Said:
    """What one member said of a row."""

    run: str
    name: str
    probability: float


@dataclass(frozen=True)
class Shown:
    """A row with its image (an address inside the page, or none), its label where it has one, and what was said."""

    id: str
    image: str | None
    label: str | None
    said: list[tuple[str, float]]  # the blend's most probable classes
    members: list[Said]


class Images:
    """The images by id; none where they are not decoded here."""

    def __init__(self, dataset: Dataset | None):
        self.dataset = dataset
        self.place: dict[str, dict[str, int]] = {}
        if dataset is not None:
            ids = {"train": dataset.train_ids, "test": dataset.test_ids}
            self.place = {part: {one: row for row, one in enumerate(some.tolist())} for part, some in ids.items()}

    def address(self, part: str, one: str) -> str | None:
        """The image of a labelled (`train`) or a `test` row as a data address."""
        if self.dataset is None:
            return None
        array = self.dataset.train_images if part == "train" else self.dataset.test_images
        return address_of(array[self.place[part][one]])


def address_of(pixels: np.ndarray) -> str:
    """A data address of pixels (side, side, 3) uint8."""
    image, stream = Image.fromarray(np.asarray(pixels)), io.BytesIO()
    if image.width <= PIXEL_BY_PIXEL:
        image.save(stream, "PNG", optimize=True)
        kind = "png"
    else:
        image.thumbnail((SHOWN, SHOWN))
        image.save(stream, "JPEG", quality=JPEG_QUALITY)
        kind = "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(stream.getvalue()).decode()}"


def shown_rows(found: Gathered, images: Images, rows: np.ndarray, *, part: str, blend: np.ndarray) -> list[Shown]:
    """Rows of the validation (`oof`) or the `test`, as the joined runs have them; `blend` (all of them, classes).

    What members said is as the blend took it in, before its own temperature.
    """
    aligned, classes = found.aligned, found.aligned.classes
    ids, logits = getattr(aligned, f"{part}_ids"), getattr(aligned, f"{part}_logits")
    members = softmax(logits[:, rows] / found.result.blend.temperatures[:, None, None])
    shown = []
    for number, row in enumerate(rows):
        said = [
            Said(run.run, classes[int(own.argmax())], float(own.max()))
            for run, own in zip(found.result.runs, members[:, number], strict=True)
            if run.weight
        ]
        two = [(classes[k], float(blend[row, k])) for k in np.argsort(-blend[row], kind="stable")[:2]]
        label = classes[aligned.oof_labels[row]] if part == "oof" else None
        image = images.address("test" if part == "test" else "train", str(ids[row]))
        shown.append(Shown(str(ids[row]), image, label, two, said))
    return shown
