"""Every kind of task, from a competition's files to a CSV, by the commands that a user types, beside plain baselines.

    python benchmarks/layouts.py [--rows 300] [--tests 100] [--recipe lite0] [--only WORD ...] [--data FOLDER]

Each layout is that of a Kaggle competition, with real images: labelled ones of cifar10.zip and ants-bees.zip in
`--data`. Those of CIFAR-10 are enlarged to 96 pixels, except for aerial-cactus, whose own images have 32. The labels
follow from the true class, or from the pixels where the label is a number; the answers of the test rows stay here.

In an empty folder, the benchmark runs podium new, prepare, train, ensemble and check, with one recipe that make new
wrote: `--recipe`, or else lite0-logistic, and for images of 32 pixels a variant of lite0 (podium variant) that takes
seconds. It edits no file. Where make new asks what the labels or the submission are, it is run again with the options
that its screen names (TARGET=, KIND=, METRIC=). A CSV is valid if podium check accepts it, and if its header and ids
are those of the sample submission.

Scores are scikit-learn's, on the test rows. There are two baselines. Linear: scikit-learn's LogisticRegressionCV, or
RidgeCV for a number, on 16 x 16 pixels; cross-validation chooses the penalty. fastai: `fine_tune` with its defaults, as
in the documentation of `vision_learner`, from the same weights of EfficientNet-Lite0, on all labelled rows, at the side
and for the epochs of the recipe (4 epochs beside lite0-logistic, which trains no layer), in batches of 32; a number is
standardised. Seconds are of CPU: for all commands of Podium, which trains a network for each of five folds; and for
fastai's one network.
"""

import argparse
import csv
import io
import os
import resource
import subprocess
import sys
import tempfile
import time
import tomllib
import warnings
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image, ImageOps
from sklearn.linear_model import LogisticRegressionCV, RidgeCV
from sklearn.metrics import cohen_kappa_score, log_loss, roc_auc_score, root_mean_squared_error
from torch import nn

ROOT = Path(__file__).parents[1]
DATA = ROOT.parent / "shared" / "data"
HEAD = (
    "| layout | target, metric, kind and groups of make new | asks to check | answered | CSV | measured "
    "| Podium | linear | fastai | CPU s | fastai, CPU s |"
)
ANTS_BEES = ("ants", "bees")
ASKS = "please check the "  # lines of make new's screen
MOST_PIXELS = 256  # longer side of ants and bees
ROWS_OF_A_GROUP = 3
EPOCHS = 4  # of fastai beside a recipe without epochs
# Of the linear baseline: inverse penalties of the logistic regression, penalties of the ridge regression.
STRENGTHS, ALPHAS = (0.0001, 0.001, 0.01, 0.1), (1.0, 10.0, 100.0, 1000.0)
# Of CIFAR-10's classes: which a label is true for, and an order of their sizes.
LABELS = {
    "animal": ("bird", "cat", "deer", "dog", "frog", "horse"),
    "four legs": ("cat", "deer", "dog", "frog", "horse"),
    "flies": ("airplane", "bird"),
    "wheels": ("airplane", "automobile", "truck"),
}
SIZES = (("bird", "frog"), ("cat", "dog"), ("deer", "horse"), ("automobile", "truck"), ("airplane", "ship"))
CIFAR10 = tuple(name for names in SIZES for name in names)
BREEDS = ("horse", "bird", "dog", "cat", "frog", "deer")
PLANTS = ("airplane", "automobile", "frog", "ship")


@dataclass(frozen=True)
class Photo:
    """An image with its true class."""

    image: Image.Image
    label: str


@dataclass(frozen=True)
class Layout:
    """A competition's files. In patterns, `k` counts the rows of a part, `row` all rows, both from 1."""

    name: str
    measured: str  # a key of METRICS
    classes: tuple[str, ...]  # of which photos are drawn
    columns: tuple[str, ...]  # of the sample submission, beside the id
    truth: Callable[[Photo], Sequence[float]]  # the answer in these columns
    sample: str  # each cell of the sample
    ids: tuple[str, str]  # patterns for the train and the test part
    files: tuple[str, str]
    table: str = "train.csv"  # empty: the labels are in the names of files
    id_column: str = "id"
    name_column: str = ""  # of class names in the table, instead of `columns`
    others: Mapping[str, str] = field(default_factory=dict)  # more columns of the table -> patterns
    test_table: bool = False
    pixels: int = 0  # side of square images; 0: as they are
    variant: str = ""  # SET=
    recipe: str = "lite0-logistic"
    answers: Mapping[str, str] = field(default_factory=dict)  # to what make new asks: option -> value

    @property
    def archive(self) -> str:
        return "ants-bees.zip" if self.classes == ANTS_BEES else "cifar10.zip"


def of_class(*names: str) -> Callable[[Photo], list[int]]:
    """A single column: 1 for these classes."""
    return lambda photo: [int(photo.label in names)]


def one_hot(names: Sequence[str]) -> Callable[[Photo], list[int]]:
    """A column for each class."""
    return lambda photo: [int(photo.label == name) for name in names]


def labels_of(photo: Photo) -> list[int]:
    """A column for each of LABELS."""
    return [int(photo.label in names) for names in LABELS.values()]


def size_of(photo: Photo) -> list[int]:
    """The place of the class in SIZES."""
    return [next(place for place, names in enumerate(SIZES) if photo.label in names)]


def contrast_of(photo: Photo) -> list[float]:
    """The standard deviation of the grey values, which is no linear function of the pixels."""
    return [round(float(np.asarray(photo.image.convert("L")).std()), 2)]


LARGE = 96  # pixels to which images of CIFAR-10 are enlarged
AUC = {"KIND": "probability", "METRIC": "auc"}
KAPPA = {"TARGET": "ordinal", "METRIC": "qwk"}
LAYOUTS = (
    Layout(
        name="aerial-cactus",
        measured="AUC",
        classes=CIFAR10,
        columns=("has_cactus",),
        truth=of_class(*LABELS["animal"]),
        sample="0.5",
        ids=("c{k}.jpg", "t{k}.jpg"),
        files=("train/{id}", "test/{id}"),
        recipe="lite0",
        variant="training_pixels=64 epochs=1",
    ),
    Layout(
        name="histopathologic",
        measured="AUC",
        classes=ANTS_BEES,
        columns=("label",),
        truth=of_class("bees"),
        sample="0",
        ids=("f{k}", "t{k}"),
        files=("train/{id}.tif", "test/{id}.tif"),
        table="train_labels.csv",
        pixels=LARGE,
        answers=AUC,
    ),
    Layout(
        name="melanoma",
        measured="AUC",
        classes=ANTS_BEES,
        columns=("target",),
        truth=of_class("bees"),
        sample="0",
        ids=("ISIC_{k}", "ISIC_9{k}"),
        files=("jpeg/train/{id}.jpg", "jpeg/test/{id}.jpg"),
        id_column="image_name",
        others={"patient_id": "IP_{group}", "sex": "male", "age_approx": "45", "diagnosis": "unknown"},
        test_table=True,
        answers=AUC,
    ),
    Layout(
        name="dogs-vs-cats",
        measured="log loss",
        classes=("cat", "dog"),
        columns=("label",),
        truth=of_class("dog"),
        sample="0.5",
        ids=("{k}", "{k}"),
        files=("train/{label}.{id}.jpg", "test/{id}.jpg"),
        table="",
        pixels=LARGE,
    ),
    Layout(
        name="dog-breed",
        measured="log loss",
        classes=BREEDS,
        columns=BREEDS,
        truth=one_hot(BREEDS),
        sample="0.1666",
        ids=("b{k}", "t{k}"),
        files=("train/{id}.jpg", "test/{id}.jpg"),
        table="labels.csv",
        name_column="breed",
        pixels=LARGE,
    ),
    Layout(
        name="leaf",
        measured="log loss",
        classes=PLANTS,
        columns=PLANTS,
        truth=one_hot(PLANTS),
        sample="0.25",
        ids=("{row}", "{row}"),
        files=("images/{id}.jpg", "images/{id}.jpg"),
        name_column="species",
        others={"margin1": "0.{k}", "shape1": "0.00{k}"},
        test_table=True,
        pixels=LARGE,
    ),
    Layout(
        name="plant-pathology",
        measured="mean column AUC",
        classes=PLANTS,
        columns=PLANTS,
        truth=one_hot(PLANTS),
        sample="0.25",
        ids=("Train_{k}", "Test_{k}"),
        files=("images/{id}.jpg", "images/{id}.jpg"),
        id_column="image_id",
        test_table=True,
        pixels=LARGE,
    ),
    Layout(
        name="ranzcr-clip",
        measured="mean column AUC",
        classes=CIFAR10,
        columns=tuple(LABELS),
        truth=labels_of,
        sample="0",
        ids=("1.2.826.{k}", "1.2.827.{k}"),
        files=("train/{id}.jpg", "test/{id}.jpg"),
        id_column="StudyInstanceUID",
        others={"PatientID": "p{group}"},
        pixels=LARGE,
    ),
    Layout(
        name="aptos",
        measured="quadratic kappa",
        classes=CIFAR10,
        columns=("diagnosis",),
        truth=size_of,
        sample="0",
        ids=("a{k}", "t{k}"),
        files=("train_images/{id}.png", "test_images/{id}.png"),
        id_column="id_code",
        test_table=True,
        answers=KAPPA,
        pixels=LARGE,
    ),
    Layout(
        name="a number",
        measured="RMSE",
        classes=CIFAR10,
        columns=("contrast",),
        truth=contrast_of,
        sample="50.05",
        ids=("n{k}", "t{k}"),
        files=("train/{id}.png", "test/{id}.png"),
        pixels=LARGE,
    ),
)
# Of the answers and the cells of a CSV, both (n, columns).
METRICS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "AUC": roc_auc_score,
    "mean column AUC": roc_auc_score,
    "log loss": lambda truth, cells: log_loss(truth if truth.shape[1] == 1 else truth.argmax(axis=1), cells_of(cells)),
    "quadratic kappa": lambda truth, cells: cohen_kappa_score(
        truth[:, 0].astype(int), cells[:, 0].astype(int), weights="quadratic"
    ),
    "RMSE": root_mean_squared_error,
}


def cells_of(cells: np.ndarray) -> np.ndarray:
    """Probabilities (n, classes); a single column is that of the second of two classes."""
    return np.hstack([1 - cells, cells]) if cells.shape[1] == 1 else cells


def read_photos(layout: Layout, data: Path, count: int) -> list[Photo]:
    """`count` labelled photos in random order, or all that there are."""
    photos = []
    with zipfile.ZipFile(data / layout.archive) as archive:
        names = [name for name in sorted(archive.namelist()) if name.endswith((".png", ".jpg", ".jpeg"))]
        names = [name for name in names if set(name.split("/")[1:3]) & set(layout.classes)]
        for name in np.random.default_rng(0).permutation(names)[:count]:
            image = Image.open(io.BytesIO(archive.read(name))).convert("RGB")
            image.thumbnail((MOST_PIXELS, MOST_PIXELS))
            image = ImageOps.fit(image, (layout.pixels, layout.pixels)) if layout.pixels else image
            photos.append(Photo(image, name.split("/")[2]))
    return photos


def write_files(layout: Layout, folder: Path, parts: Sequence[Sequence[Photo]]) -> list[list[str]]:
    """Write the competition's files, without the answers of the test; returns the sample submission."""
    header = [layout.id_column, *([layout.name_column] if layout.name_column else layout.columns), *layout.others]
    tables, row = ([header], [[layout.id_column, *layout.others]]), 0
    for photos, id_pattern, file_pattern, table in zip(parts, layout.ids, layout.files, tables, strict=True):
        for k, photo in enumerate(photos, start=1):
            row += 1
            words = {"k": k, "row": row, "group": k // ROWS_OF_A_GROUP, "label": photo.label}
            words["id"] = id_pattern.format(**words)
            file = folder / file_pattern.format(**words)
            file.parent.mkdir(parents=True, exist_ok=True)
            photo.image.save(file, quality=95)
            labels = [photo.label] if layout.name_column else layout.truth(photo)
            others = [pattern.format(**words) for pattern in layout.others.values()]
            table.append([words["id"], *(labels if table is tables[0] else []), *others])
    sample = [[layout.id_column, *layout.columns]]
    sample += [[row[0], *[layout.sample] * len(layout.columns)] for row in tables[1][1:]]
    files = {
        layout.table: tables[0],
        "test.csv": tables[1] if layout.test_table else [],
        "sample_submission.csv": sample,
    }
    for name, rows in files.items():
        if name and rows:
            with (folder / name).open("w", newline="") as stream:
                csv.writer(stream).writerows(rows)
    return sample


def run_podium(root: Path, *words: str) -> str:
    """What the command prints; raises RuntimeError with its message if it fails."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PODIUM_")}
    result = subprocess.run(
        [sys.executable, "-m", "podium", *words],
        cwd=root,
        env=environment | {"PYTHONPATH": str(ROOT / "src"), "COMPETITION": "task"},
        capture_output=True,
        text=True,
    )
    if result.returncode:
        raise RuntimeError(f"podium {' '.join(words)}: {result.stdout[-500:]}{result.stderr}")
    return result.stdout


def make_new(layout: Layout, root: Path) -> str:
    """What make new prints. Where there are answers, it must have asked for them, and not have written anything."""
    words = ["new", "--competition", "task", "--data", "data/task"]
    if not layout.answers:
        return run_podium(root, *words)
    asked: list[str] = []
    try:
        run_podium(root, *words)
    except RuntimeError as error:
        asked = str(error).split()
    assert all(value in asked or f"{name}={value}" in asked for name, value in layout.answers.items()), asked
    assert not list(root.glob("competitions/*"))
    options = [part for name, value in layout.answers.items() for part in (f"--{name.lower()}", value)]
    return run_podium(root, *words, *options)


def decided(file: Path) -> str:
    """What make new has written: target, metric, kind, groups."""
    settings = tomllib.loads(file.read_text(encoding="utf-8"))
    groups = settings["data"].get("group_column", "")
    target, kind = settings["data"].get("target", "class"), settings["submission"]["kind"]
    return ", ".join([target, settings["metric"], kind, *([groups] if groups else [])])


def run_layout(
    layout: Layout, root: Path, sample: Sequence[Sequence[str]], recipe: str
) -> tuple[list[str], np.ndarray, dict[str, Any]]:
    """Four cells of the table, the cells of the CSV (n, columns), and the keys of the recipe that was trained."""
    screen = make_new(layout, root)
    settings = root / "competitions" / "task" / "competition.toml"
    asks = [line.split(":")[0].removeprefix(ASKS) for line in screen.splitlines() if line.startswith(ASKS)]
    cells = [decided(settings), ", ".join(asks), " ".join(f"{key}={value}" for key, value in layout.answers.items())]
    run_podium(root, "prepare")
    if not recipe:
        variant = run_podium(root, "variant", layout.recipe, *layout.variant.split()) if layout.variant else ""
        recipe = variant.strip().removesuffix(".s1") or layout.recipe
    run_podium(root, "train", recipe)
    run_podium(root, "ensemble")
    csv_file = root / "submissions" / "task" / "ensemble.csv"
    run_podium(root, "check", str(csv_file))
    with csv_file.open(newline="") as stream:
        header, *rows = csv.reader(stream)
    is_valid = header == sample[0] and [row[0] for row in rows] == [row[0] for row in sample[1:]]
    keys = tomllib.loads((settings.parent / f"{recipe}.toml").read_text(encoding="utf-8"))
    cells.append("valid" if is_valid else "differs from the sample")
    return cells, np.array([row[1:] for row in rows], float), keys


def stock_fastai(
    layout: Layout, parts: Sequence[Sequence[Photo]], truth: np.ndarray, keys: Mapping[str, Any]
) -> np.ndarray:
    """The cells of the test rows (m, columns) by fastai; `keys` are those of Podium's recipe."""
    from fastai.vision import all as fastai
    from fastai.vision.learner import create_head, default_split
    from finetune import CPU, DEVIATION, MEAN, NoValidation, published_network

    fastai.set_seed(0)
    is_number = layout.measured in ("RMSE", "quadratic kappa")
    mean, deviation = (truth.mean(), truth.std()) if is_number else (0.0, 1.0)
    names = [[f"{part}-{k}.png" for k in range(len(photos))] for part, photos in enumerate(parts)]
    table = pd.DataFrame((truth - mean) / deviation, columns=layout.columns).assign(name=names[0])
    block, labels = fastai.MultiCategoryBlock(encoded=True, vocab=list(layout.columns)), list(layout.columns)
    if is_number:
        block, labels = fastai.RegressionBlock(n_out=1), layout.columns[0]
    elif truth.shape[1] == 1 or (truth.sum(axis=1) == 1).all():
        block, labels = fastai.CategoryBlock(), "class"
        table["class"] = truth.argmax(axis=1) if truth.shape[1] > 1 else truth[:, 0]
    with tempfile.TemporaryDirectory() as folder:
        for name, photo in zip([*names[0], *names[1]], [*parts[0], *parts[1]], strict=True):
            photo.image.save(Path(folder, name))
        dls = fastai.ImageDataLoaders.from_df(
            table,
            folder,
            valid_pct=0,
            fn_col="name",
            label_col=labels,
            y_block=block,
            item_tfms=fastai.Resize(keys.get("training_pixels", keys["stored_pixels"])),
            batch_tfms=[*fastai.aug_transforms(), fastai.Normalize.from_stats(MEAN, DEVIATION)],
            bs=min(32, len(table)),
            num_workers=0,
            device=CPU,
        )
        body = published_network()
        body.reset_classifier(0, "")
        network = nn.Sequential(body, create_head(body.num_features, dls.c))
        fastai.apply_init(network[1], nn.init.kaiming_normal_)
        learner = fastai.Learner(dls, network, splitter=default_split)
        with learner.no_bar(), learner.no_logging():
            learner.fine_tune((keys.get("epochs") or EPOCHS) - 1, cbs=NoValidation())
            values = learner.get_preds(dl=dls.test_dl(pd.DataFrame({"name": names[1]})))[0].numpy()
    values = values[:, 1:] if labels == "class" and truth.shape[1] == 1 else values * deviation + mean
    return np.rint(values).clip(truth.min(), truth.max()) if layout.measured == "quadratic kappa" else values


def linear_model(layout: Layout, photos: Sequence[Photo], truth: np.ndarray, tests: Sequence[Photo]) -> np.ndarray:
    """The cells of the test rows (m, columns) by a linear model of 16 x 16 pixels."""
    pixels, others = (
        np.stack([np.asarray(photo.image.resize((16, 16), Image.Resampling.BOX)).ravel() for photo in part]) / 255
        for part in (photos, tests)
    )
    if layout.measured == "RMSE":
        return RidgeCV(alphas=ALPHAS).fit(pixels, truth[:, 0]).predict(others).reshape(-1, 1)

    def fit(labels: np.ndarray) -> LogisticRegressionCV:
        return LogisticRegressionCV(Cs=STRENGTHS, cv=5, scoring="neg_log_loss", max_iter=1000).fit(pixels, labels)

    if layout.measured == "quadratic kappa":
        return fit(truth[:, 0]).predict(others)[:, None]
    if truth.shape[1] > 1 and (truth.sum(axis=1) == 1).all():
        return fit(truth.argmax(axis=1)).predict_proba(others)
    return np.stack([fit(column).predict_proba(others)[:, 1] for column in truth.T], axis=1)


def measure(layout: Layout, data: Path, rows: int, tests: int, recipe: str) -> list[str]:
    """The row of the table."""
    photos = read_photos(layout, data, rows + tests)
    parts = photos[tests:], photos[:tests]
    truths = [np.array([layout.truth(photo) for photo in part], float) for part in parts]
    score = METRICS[layout.measured]
    with tempfile.TemporaryDirectory() as folder:
        sample = write_files(layout, Path(folder, "data", "task"), parts)
        started = cpu_seconds()
        (decision, *cells), values, keys = run_layout(layout, Path(folder), sample, recipe)
        seconds = [cpu_seconds() - started]
    started = time.process_time()
    of_fastai = stock_fastai(layout, parts, truths[0], keys)
    seconds.append(time.process_time() - started)
    contenders = values, linear_model(layout, parts[0], truths[0], parts[1]), of_fastai
    scores = [f"{score(truths[1], cells_of_contender):.3f}" for cells_of_contender in contenders]
    return [layout.name, decision, *cells, layout.measured, *scores, *(f"{value:.0f}" for value in seconds)]


def cpu_seconds() -> float:
    """Of the commands that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=300, help="labelled images of a layout, where there are so many")
    parser.add_argument("--tests", type=int, default=100, help="test images of a layout")
    parser.add_argument("--recipe", default="", help="recipe of make new to train; default: see above")
    parser.add_argument("--only", nargs="+", default=[""], help="layouts whose names contain one of these words")
    parser.add_argument("--data", type=Path, default=DATA, help=f"folder of the archives; default: {DATA.name}/ beside")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    print(f"{HEAD}\n|{' --- |' * (HEAD.count('|') - 1)}", flush=True)
    for layout in LAYOUTS:
        if not any(word in layout.name for word in arguments.only):
            continue
        if not (arguments.data / layout.archive).is_file():
            print(f"{layout.name} is left out: there is no {arguments.data / layout.archive}", flush=True)
            continue
        row = measure(layout, arguments.data, arguments.rows, arguments.tests, arguments.recipe)
        print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
