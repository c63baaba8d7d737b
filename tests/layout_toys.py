"""Miniatures of the image tasks of MLE-bench Lite: their files, with 20 to 60 images of a few pixels.

Each function writes the files of one competition into a folder, as Kaggle gives them.
"""

import io
from pathlib import Path

import numpy as np
from PIL import Image


def write(file: Path, content: bytes | str) -> None:
    """Write a file and the folders that it is in."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content.encode() if isinstance(content, str) else content)


def image(place: Path, name: str, *, size: tuple[int, int] = (24, 20)) -> None:
    """Write an image of noise that no other name gives."""
    pixels = np.random.default_rng(list(name.encode())).integers(0, 256, (size[1], size[0], 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, {"jpg": "JPEG", "png": "PNG", "tiff": "TIFF"}[name.rsplit(".", 1)[-1]])
    write(place / name, stream.getvalue())


def table(place: Path, name: str, header: str, rows: list) -> None:
    """Write a CSV; each row is a tuple of cells."""
    write(place / name, "".join(f"{line}\n" for line in [header, *(",".join(map(str, row)) for row in rows)]))


def aerial_cactus(place: Path) -> None:
    """Ids with suffixes, 0 and 1 in a table, one column of probabilities."""
    for number in range(30):
        image(place, f"{'train' if number < 24 else 'test'}/c{number}.jpg")
    table(place, "train.csv", "id,has_cactus", [(f"c{k}.jpg", int(k % 4 > 0)) for k in range(24)])
    table(place, "sample_submission.csv", "id,has_cactus", [(f"c{k}.jpg", 0.5) for k in range(24, 30)])


def histopathologic(place: Path) -> None:
    """Ids without suffixes, the sample's values all 0."""
    for number in range(30):
        image(place, f"{'train' if number < 24 else 'test'}/f{number}.tiff")
    table(place, "train_labels.csv", "id,label", [(f"f{k}", k % 2) for k in range(24)])
    table(place, "sample_submission.csv", "id,label", [(f"f{k}", 0) for k in range(24, 30)])


def dogs_vs_cats(place: Path) -> None:
    """Labels in the file names, and ids that are numbers."""
    for number in range(12):
        for name in ("cat", "dog"):
            image(place, f"train/{name}.{number}.jpg")
        image(place, f"test/{number + 1}.jpg")
    table(place, "sample_submission.csv", "id,label", [(k, 0.5) for k in range(1, 13)])


def dog_breed(place: Path) -> None:
    """A column of names, and a column per breed in an order of the sample's own."""
    breeds = ["whippet", "affenpinscher", "boxer"]
    for number in range(36):
        image(place, f"{'train' if number < 30 else 'test'}/b{number}.jpg")
    table(place, "labels.csv", "id,breed", [(f"b{k}", breeds[k % 3]) for k in range(30)])
    table(place, "sample_submission.csv", ",".join(["id", *breeds]), [(f"b{k}", 0.4, 0.3, 0.3) for k in range(30, 36)])


def leaf(place: Path) -> None:
    """One folder with the labelled and the test images; the tables of both have measured columns."""
    species = ["Acer_Opalus", "Quercus_Rubra", "Tilia_Tomentosa", "Alnus_Rubra"]
    for number in range(1, 49):
        image(place, f"images/{number}.jpg")
    rows = [(k, species[k % 4], round(k / 97, 3), k % 3) for k in range(1, 41)]
    table(place, "train.csv", "id,species,margin1,shape1", rows)
    table(place, "test.csv", "id,margin1,shape1", [(k, round(k / 97, 3), k % 3) for k in range(41, 49)])
    table(place, "sample_submission.csv", ",".join(["id", *sorted(species)]), [(k, *[0.25] * 4) for k in range(41, 49)])


def plant_pathology(place: Path) -> None:
    """One folder with all images; columns of 0 and 1, of which each row has one 1."""
    classes = ["healthy", "multiple_diseases", "rust", "scab"]
    for number in range(20):
        image(place, f"images/Train_{number}.jpg")
        image(place, f"images/Test_{number}.jpg")
    header = ",".join(["image_id", *classes])
    rows = [(f"Train_{k}", *(int(k % 4 == column) for column in range(4))) for k in range(20)]
    table(place, "train.csv", header, rows)
    table(place, "test.csv", "image_id", [(f"Test_{k}",) for k in range(20)])
    table(place, "sample_submission.csv", header, [(f"Test_{k}", *[0.25] * 4) for k in range(20)])


def ranzcr(place: Path) -> None:
    """Columns of 0 and 1, of which a row has several 1, groups, and a second table with several rows per image."""
    classes = ["ETT - Abnormal", "NGT - Normal", "CVC - Normal"]
    for number in range(46):
        image(place, f"{'train' if number < 40 else 'test'}/1.2.826.{number}.jpg")
    header = ",".join(["StudyInstanceUID", *classes])
    rows = [(f"1.2.826.{k}", k % 2, int(k % 3 == 0), int(k % 5 > 1), f"p{k // 3}") for k in range(40)]
    table(place, "train.csv", f"{header},PatientID", rows)
    annotations = [(f"1.2.826.{k // 2}", classes[k % 3], k) for k in range(60)]
    table(place, "train_annotations.csv", "StudyInstanceUID,label,data", annotations)
    table(place, "sample_submission.csv", header, [(f"1.2.826.{k}", 0, 0, 0) for k in range(40, 46)])
    write(place / "train_tfrecords/00-1338.tfrec", b"")


def aptos(place: Path) -> None:
    """Grades from 0 to 4, and the same in the sample."""
    for number in range(46):
        image(place, f"{'train_images' if number < 40 else 'test_images'}/a{number}.png")
    table(place, "train.csv", "id_code,diagnosis", [(f"a{k}", k % 5) for k in range(40)])
    table(place, "test.csv", "id_code", [(f"a{k}",) for k in range(40, 46)])
    table(place, "sample_submission.csv", "id_code,diagnosis", [(f"a{k}", 0) for k in range(40, 46)])


def melanoma(place: Path) -> None:
    """Photos in jpeg/ beside DICOM files of the same names, patients, and two columns that say the same."""
    for number in range(46):
        part = "train" if number < 40 else "test"
        image(place, f"jpeg/{part}/ISIC_{number}.jpg")
        write(place / part / f"ISIC_{number}.dcm", b"DICM")
    rows = []
    for k in range(40):
        kind = ("benign", "malignant")[k % 2]
        rows.append((f"ISIC_{k}", f"IP_{k // 3}", "male", 45, "torso", "unknown", kind, k % 2))
    header = "image_name,patient_id,sex,age_approx,anatom_site_general_challenge,diagnosis,benign_malignant,target"
    table(place, "train.csv", header, rows)
    table(place, "test.csv", "image_name,patient_id", [(f"ISIC_{k}", f"IP_{k}") for k in range(40, 46)])
    table(place, "sample_submission.csv", "image_name,target", [(f"ISIC_{k}", 0) for k in range(40, 46)])


def tags(place: Path) -> None:
    """Several names in a cell of the table, as in a cell of the sample."""
    names = ["healthy", "scab", "rust", "scab rust", "rust complex", "complex"]
    for number in range(46):
        image(place, f"{'train_images' if number < 40 else 'test_images'}/t{number}.png")
    table(place, "train.csv", "image,labels", [(f"t{k}.png", names[k % 6]) for k in range(40)])
    table(place, "sample_submission.csv", "image,labels", [(f"t{k}.png", "healthy") for k in range(40, 46)])


def whales(place: Path) -> None:
    """A class per image, and several class names in each cell of the sample."""
    names = ["new_whale", "w_1", "w_2", "w_3", "w_4", "w_5"]
    for number in range(46):
        image(place, f"{'train' if number < 40 else 'test'}/h{number}.jpg")
    table(place, "train.csv", "Image,Id", [(f"h{k}.jpg", names[k % 6]) for k in range(40)])
    table(place, "sample_submission.csv", "Image,Id", [(f"h{k}.jpg", " ".join(names[:5])) for k in range(40, 46)])


def biomass(place: Path) -> None:
    """A number to predict, and its mean in the sample."""
    for number in range(46):
        image(place, f"{'train_images' if number < 40 else 'test_images'}/b{number}.png")
    table(place, "train.csv", "image,grams", [(f"b{k}", round(20 + k * 1.25, 2)) for k in range(40)])
    table(place, "sample_submission.csv", "image,grams", [(f"b{k}", 44.4) for k in range(40, 46)])
