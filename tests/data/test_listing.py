"""The ids of images that are predicted are those that a submission would have."""

import pytest

from podium.data.listing import ids_of


@pytest.mark.parametrize(
    ("names", "with_suffix", "ids"),
    [
        (["test/1.jpg", "2.png"], False, ["1", "2"]),
        (["test/1.jpg", "2.png"], True, ["1.jpg", "2.png"]),
        (["a/1.jpg", "b/1.jpg"], False, ["a/1", "b/1"]),
        (["1.jpg", "1.png"], False, ["1.jpg", "1.png"]),
        (["v1.2/image.4.jpg"], False, ["image.4"]),
    ],
)
def test_ids_have_neither_folders_nor_suffixes_unless_they_need_them(names, with_suffix, ids):
    assert ids_of(names, with_suffix=with_suffix) == ids
