"""Which changed copies of images are found as near-duplicates, how many other images are, and how long it takes.

    python benchmarks/duplicates.py cifar10.zip --pixels 32 [--images 3000] [--limits 0.93 0.95]
    python benchmarks/duplicates.py cifar10.zip --pixels 32 --time 100000

The images are a random part of those of the archive, as `make prepare` stores them. Each is changed in each way; the
table has the share of copies that are in the group of their original, for each smallest correlation. "others" are the
images that are in a group with another one than their copy. `--time` measures the search in so many different images,
random crops of those of the archive.
"""

import argparse
import io
import resource
import time
import zipfile

import numpy as np
from PIL import Image, ImageEnhance

from podium.data import duplicates
from podium.data.images import decode, is_image


def jpeg(image: Image.Image, quality: int = 50) -> Image.Image:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return Image.open(stream)


def resized(image: Image.Image, factor: float) -> Image.Image:
    return image.resize([max(8, round(side * factor)) for side in image.size], Image.Resampling.BILINEAR)


def cropped(image: Image.Image, share: float, draw: np.random.Generator) -> Image.Image:
    """A random box without this share of width and height."""
    width, height = (round(side * (1 - share)) for side in image.size)
    left, top = draw.integers(image.width - width + 1), draw.integers(image.height - height + 1)
    return image.crop((left, top, left + width, top + height))


def mirrored(image: Image.Image) -> Image.Image:
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


CHANGES = {
    "resized to 1/2": lambda image, draw: resized(image, 0.5),
    "resized to 3/2": lambda image, draw: resized(image, 1.5),
    "JPEG of quality 50": lambda image, draw: jpeg(image),
    "JPEG of quality 20": lambda image, draw: jpeg(image, 20),
    "brightness x 0.7": lambda image, draw: ImageEnhance.Brightness(image).enhance(0.7),
    "brightness x 1.3": lambda image, draw: ImageEnhance.Brightness(image).enhance(1.3),
    "contrast x 0.7": lambda image, draw: ImageEnhance.Contrast(image).enhance(0.7),
    "grey": lambda image, draw: image.convert("L"),
    "5 % cropped": lambda image, draw: cropped(image, 0.05, draw),
    "10 % cropped": lambda image, draw: cropped(image, 0.1, draw),
    "mirrored": lambda image, draw: mirrored(image),
    "mirrored, 5 % cropped, JPEG of quality 50": lambda image, draw: jpeg(cropped(mirrored(image), 0.05, draw)),
    "rotated by 3 degrees": lambda image, draw: image.rotate(3, Image.Resampling.BICUBIC),
}


def stored(images: list[Image.Image], pixels: int) -> np.ndarray:
    """The images as the cache has them, (n, pixels, pixels, 3) uint8."""

    def content(image: Image.Image) -> bytes:
        stream = io.BytesIO()
        image.save(stream, "BMP")
        return stream.getvalue()

    return np.stack([decode(content(image), pixels, shape="crop") for image in images])


def crops(images: list[Image.Image], count: int, pixels: int) -> np.ndarray:
    """So many different images: boxes of half the sides."""
    draw, array = np.random.default_rng(1), np.empty((count, pixels, pixels, 3), np.uint8)
    for row in range(count):
        array[row] = cropped(images[row % len(images)], 0.5, draw).resize((pixels, pixels))
    return array


def peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive")
    parser.add_argument("--pixels", type=int, default=192)
    parser.add_argument("--images", type=int, default=3000)
    parser.add_argument("--limits", type=float, nargs="+", default=[duplicates.LEAST_CORRELATION])
    parser.add_argument("--time", type=int, default=0)
    arguments = parser.parse_args()
    draw = np.random.default_rng(0)
    with zipfile.ZipFile(arguments.archive) as archive:
        names = sorted(filter(is_image, archive.namelist()))
        names = draw.choice(names, min(arguments.images, len(names)), replace=False)
        images = [Image.open(io.BytesIO(archive.read(name))).convert("RGB") for name in names]
    if arguments.time:
        array = crops(images, arguments.time, arguments.pixels)
        memory, cpu, started = peak_megabytes(), time.process_time(), time.perf_counter()
        groups = duplicates.near_duplicates(array)
        in_groups = (np.bincount(groups, minlength=len(groups))[groups] > 1).sum()
        print(f"{len(array):,} images, {in_groups:,} in groups: {time.perf_counter() - started:.1f} s", end=", ")
        print(f"{time.process_time() - cpu:.1f} CPU seconds, {peak_megabytes() - memory:,.0f} MB beside the images")
        return
    originals = stored(images, arguments.pixels)
    print(f"| {len(images):,} images, change |", " | ".join(map(str, arguments.limits)), "|")
    print("|" + " --- |" * (1 + len(arguments.limits)))
    for name, change in CHANGES.items():
        copies = stored([change(image, draw) for image in images], arguments.pixels)
        cells = []
        for duplicates.LEAST_CORRELATION in arguments.limits:
            groups = duplicates.near_duplicates(np.concatenate([originals, copies]))
            cells.append(f"{100 * (groups[: len(images)] == groups[len(images) :]).mean():.1f} %")
        print(f"| {name} |", " | ".join(cells), "|", flush=True)
    cells = []
    for duplicates.LEAST_CORRELATION in arguments.limits:
        groups = duplicates.near_duplicates(originals)
        cells.append(f"{(np.bincount(groups, minlength=len(groups))[groups] > 1).sum()}")
    print("| others, images |", " | ".join(cells), "|")


if __name__ == "__main__":
    main()
