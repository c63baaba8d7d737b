"""Every mode, size and orientation of an image comes out right; damaged ones are refused."""

import io

import numpy as np
import pytest
from PIL import Image

from podium.data.images import bombs_are_faults, decode, is_image
from podium.errors import DataError

RED = (255, 0, 0)


def saved(image, kind="PNG", **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def flat(mode, colour, side=8):
    return Image.new(mode, (side, side), colour)


def colour_of(content, pixels=8):
    """The one colour of a flat image."""
    array = decode(content, pixels, shape="crop")
    assert array.shape == (pixels, pixels, 3) and array.dtype == np.uint8
    assert (array == array[0, 0]).all()
    return tuple(array[0, 0].tolist())


def palette_image(transparent):
    image = flat("P", 1)
    image.putpalette([0, 0, 0, *RED])
    return saved(image, transparency=transparent) if transparent is not None else saved(image)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (saved(flat("RGB", RED)), RED),
        (saved(flat("L", 77)), (77, 77, 77)),
        (saved(flat("1", 1)), (255, 255, 255)),
        (saved(flat("LA", (0, 0))), (255, 255, 255)),
        (saved(flat("RGBA", (255, 0, 0, 0))), (255, 255, 255)),
        (saved(flat("RGBA", (255, 0, 0, 255))), RED),
        (saved(flat("RGBA", (0, 0, 0, 51))), (204, 204, 204)),
        (palette_image(None), RED),
        (palette_image(0), RED),
        (palette_image(1), (255, 255, 255)),
        (saved(flat("RGB", RED), transparency=RED), (255, 255, 255)),
        (saved(flat("I;16", 65535)), (255, 255, 255)),
        (saved(flat("I;16", 257 * 100)), (100, 100, 100)),
        (saved(flat("I;16", 257 * 100), "TIFF"), (100, 100, 100)),
        (saved(flat("I;16B", 257 * 100), "TIFF"), (100, 100, 100)),
        (b"P5 8 8 65535\n" + (257 * 100).to_bytes(2, "big") * 64, (100, 100, 100)),
        (saved(flat("CMYK", (0, 255, 255, 0)), "TIFF"), RED),
        (saved(flat("RGB", RED), "GIF"), RED),
        (saved(flat("RGB", RED), "BMP"), RED),
        (saved(flat("RGB", RED), "WEBP", lossless=True), RED),
    ],
)
def test_a_flat_image_of_every_mode_has_its_colour(content, expected):
    assert colour_of(content) == expected
    assert colour_of(content, 5) == expected


def test_a_cmyk_jpeg_is_not_inverted():
    red, green, blue = colour_of(saved(flat("CMYK", (0, 255, 255, 0)), "JPEG", quality=100))
    assert red > 250 and green < 5 and blue < 5


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_a_rotated_photograph_stands_upright(kind):
    image = Image.new("L", (16, 16), 0)
    image.paste(255, (0, 0, 16, 8))  # white on top as stored
    exif = Image.Exif()
    exif[274] = 6  # to be turned by 90 degrees clockwise: what is on top comes to the right
    array = decode(saved(image, kind, exif=exif), 16, shape="crop")
    assert array[:, 10:].mean() > 240 and array[:, :6].mean() < 15


def test_an_animation_is_its_first_frame():
    content = saved(flat("RGB", RED), "GIF", save_all=True, append_images=[flat("RGB", (0, 0, 255))])
    assert colour_of(content) == RED


def test_an_image_of_the_size_is_not_touched():
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    for shape in ("crop", "squash", "pad"):
        assert (decode(saved(Image.fromarray(pixels)), 8, shape=shape) == pixels).all()


def thirds():
    """24 x 8 pixels: red, green, blue."""
    image = Image.new("RGB", (24, 8), (0, 255, 0))
    image.paste(RED, (0, 0, 8, 8))
    image.paste((0, 0, 255), (16, 0, 24, 8))
    return saved(image)


def test_crop_keeps_the_middle():
    assert (decode(thirds(), 8, shape="crop") == (0, 255, 0)).all()


def test_squash_keeps_everything():
    row = decode(thirds(), 24, shape="squash")[12]
    assert row[2].tolist() == [255, 0, 0] and row[12].tolist() == [0, 255, 0] and row[21].tolist() == [0, 0, 255]


def test_pad_mirrors_the_edges():
    image = Image.fromarray(np.repeat(np.arange(4, dtype=np.uint8)[:, None] * 60, 8, axis=1))
    column = decode(saved(image), 8, shape="pad")[:, 0, 0]
    assert column.tolist() == [120, 60, 0, 60, 120, 180, 120, 60]


def test_height_and_width_are_filled_as_a_square_is():
    assert (decode(thirds(), (8, 24), shape="crop") == decode(thirds(), (8, 24), shape="squash")).all()
    assert (decode(thirds(), (4, 4), shape="pad") == decode(thirds(), 4, shape="pad")).all()
    row = decode(thirds(), (4, 12), shape="pad")[2]
    assert row[1].tolist() == [255, 0, 0] and row[6].tolist() == [0, 255, 0] and row[10].tolist() == [0, 0, 255]
    wide = decode(thirds(), (8, 40), shape="pad")  # the sides are mirrored: 8 pixels of red and of blue
    assert wide.shape == (8, 40, 3) and (wide[:, 1:16] == RED).all() and (wide[:, 24:39] == (0, 0, 255)).all()
    assert (decode(thirds(), (8, 8), shape="crop") == (0, 255, 0)).all()
    column = decode(thirds(), (24, 8), shape="squash")
    assert column.shape == (24, 8, 3) and (column[0] == column[-1]).all()


@pytest.mark.parametrize("shape", ["crop", "squash", "pad"])
@pytest.mark.parametrize("size", [(1, 1), (1, 500), (3000, 2), (7, 8)])
def test_any_size_becomes_square(shape, size):
    assert (decode(saved(Image.new("RGB", size, RED)), 8, shape=shape) == RED).all()


def test_a_large_image_is_averaged_not_sampled():
    board = np.indices((64, 64)).sum(0) % 2 * 255
    array = decode(saved(Image.fromarray(board.astype(np.uint8))), 8, shape="crop")
    assert abs(array.astype(int) - 127).max() <= 2


NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"])
@pytest.mark.parametrize("share", [0.0, 0.2, 0.6, 0.9])
def test_a_truncated_image_is_refused(kind, share):
    content = saved(NOISE, kind)
    with pytest.raises(DataError, match="not a whole image"):
        decode(content[: int(len(content) * share)], 8, shape="crop")


def test_a_png_without_its_end_is_refused():
    with pytest.raises(DataError, match="not a whole image"):
        decode(saved(NOISE)[:-12], 8, shape="crop")


@pytest.mark.parametrize("place", [20, 60, 1000])
def test_a_flipped_bit_in_a_png_is_refused(place):
    content = bytearray(saved(NOISE))
    content[place] ^= 1
    with pytest.raises(DataError, match="not a whole image"):
        decode(bytes(content), 8, shape="crop")


@pytest.mark.parametrize(
    "content", [b"", b"not an image", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n"]
)
def test_what_is_no_image_is_refused(content):
    with pytest.raises(DataError, match=r"not in any format that is read here\n"):
        decode(content, 8, shape="crop")


@pytest.mark.parametrize("content", [saved(flat("F", 0.5), "TIFF"), saved(flat("I", 100_000), "TIFF")])
def test_grey_without_a_known_white_is_refused(content):
    with pytest.raises(DataError, match="no defined white"):
        decode(content, 8, shape="crop")


def test_an_image_of_too_many_pixels_is_a_fault(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40)  # 64 pixels: Pillow itself would only warn
    with bombs_are_faults(), pytest.raises(DataError, match="exceeds limit of 40 pixels"):
        decode(saved(flat("RGB", RED)), 8, shape="crop")


def test_images_are_known_by_suffix_in_any_case():
    assert all(map(is_image, ["a.png", "a/b.JPEG", "1.2.WebP", "x.tif", "x.pgm", "x.jpg", "x.bmp", "x.gif"]))
    assert not any(map(is_image, ["a.csv", "png", "a.eps", "a.psd", "readme", "a.pdf", "a.png/readme"]))
