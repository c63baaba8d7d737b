"""Makers of miniature competitions: a few images of 8 x 8 pixels in every layout that Podium reads."""

import hashlib
import io
import zipfile
from pathlib import Path

import numpy as np
import py7zr
import pytest
from PIL import Image

from podium.config.competition import read_competition
from podium.config.keys import Competition
from podium.data.prepare import prepare
from podium.lock import Lock
from podium.plan.paths import Paths
from podium.workspace import Workspace, open_workspace

FOLDERS = """
title = "Cats and dogs"
[data]
source = "folders"
archive = "pets.zip"
{data}
[validation]
{validation}
"""
TABLE = """
title = "Cats and dogs, by a table"
[data]
source = "csv"
archive = "pets.zip"
train = "train.7z"
test = "test.7z"
labels = "trainLabels.csv"
sample_submission = "sampleSubmission.csv"
{data}
[validation]
{validation}
"""
CLASSES = ("cat", "dog")


def png(number: int, side: int = 8) -> bytes:
    """A PNG of noise that no other number gives."""
    pixels = np.random.default_rng(number).integers(0, 256, (side, side, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def seven_zip(files: dict[str, bytes]) -> bytes:
    """Files as the bytes of a .7z."""
    stream = io.BytesIO()
    with py7zr.SevenZipFile(stream, "w") as archive:
        for name, data in files.items():
            archive.writestr(data, name)
    return stream.getvalue()


class ToyCompetition:
    """A project in a scratch folder, with what writes competitions and images into it."""

    classes = CLASSES
    png = staticmethod(png)
    seven_zip = staticmethod(seven_zip)

    def __init__(self, root: Path):
        self.paths = Paths("pets", root, root)
        self.data = root / "data"
        self.data.mkdir(parents=True)

    def competition(self, settings: str = FOLDERS, *, data: str = "", validation: str = "rows = 4") -> Competition:
        """Write `competitions/pets/competition.toml`."""
        folder = self.paths.folder
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "competition.toml").write_text(settings.format(data=data, validation=validation))
        return read_competition(folder)

    def workspace(self) -> Workspace:
        """The competition, read anew."""
        return open_workspace("pets", self.paths.root)

    def prepare(self, **options) -> Lock:
        """Prepare the competition."""
        return prepare(self.workspace(), **options)

    def table_competition(self, **settings: str) -> Competition:
        """The same for labels in a CSV."""
        return self.competition(TABLE, **settings)

    @staticmethod
    def folders(images: int = 6, tests: int = 4) -> dict[str, bytes]:
        """`train/<class>/<name>.png` and `test/<id>.png`, ids by the order of the files' hashes."""
        files = {
            f"train/{label}/{label}_{i}.png": png(100 * k + i) for k, label in enumerate(CLASSES) for i in range(images)
        }
        ordered = sorted((png(900 + i) for i in range(tests)), key=lambda data: hashlib.sha256(data).digest())
        return files | {f"test/{i}.png": data for i, data in enumerate(ordered, 1)}

    @staticmethod
    def repository(images: int = 6, tests: int = 4) -> dict[str, bytes]:
        """The same images as a public repository has them: wrapped, test images in class folders."""
        files = ToyCompetition.folders(images, tests)
        train = {f"pets-1a2b3c/{name}": data for name, data in files.items() if name.startswith("train/")}
        test = {f"pets-1a2b3c/test/{CLASSES[i % 2]}/{CLASSES[i % 2]}_{i}.png": png(900 + i) for i in range(tests)}
        return train | test | {"pets-1a2b3c/README.md": b"# pets"}

    @staticmethod
    def table(images: int = 12, tests: int = 3) -> dict[str, bytes]:
        """Kaggle's way: flat archives, a table of labels, a sample submission from the last id down."""
        labels = [f"{i},{CLASSES[i % 2]}" for i in range(1, images + 1)]
        sample = [f"{i},cat" for i in range(tests, 0, -1)]
        return {
            "train.7z": seven_zip({f"train/{i}.png": png(i) for i in range(1, images + 1)}),
            "test.7z": seven_zip({f"test/{i}.png": png(500 + i) for i in range(1, tests + 1)}),
            "trainLabels.csv": "\n".join(["id,label", *labels]).encode(),
            "sampleSubmission.csv": "\n".join(["id,label", *sample]).encode(),
        }

    @staticmethod
    def write(folder: Path, files: dict[str, bytes]) -> Path:
        """Write files into a folder."""
        for name, data in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
        return folder

    @staticmethod
    def zip(file: Path, files: dict[str, bytes]) -> Path:
        """Write files into a zip."""
        file.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in files.items():
                archive.writestr(name, data)
        return file


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ToyCompetition:
    """An empty project that looks for images nowhere else and caches beside itself."""
    monkeypatch.delenv("PODIUM_CACHE", raising=False)
    monkeypatch.delenv("PODIUM_DATA", raising=False)
    return ToyCompetition(tmp_path / "toy")
