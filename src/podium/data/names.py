"""Names of images: how tables name them, ids that occur twice, and files that are no images or of another part."""

from collections.abc import Iterable, Sequence

from podium.data.archives import Files, Folder
from podium.data.images import is_image
from podium.data.listing import is_harmless


def base_name(name: str) -> str:
    """A file name without its folders."""
    return name.rsplit("/", 1)[-1]


def stem(name: str) -> str:
    """The name of an image without its suffix."""
    return name.rsplit(".", 1)[0] if is_image(name) else name


def names_by_id(names: Sequence[str]) -> dict[str, str]:
    """Each way in which a table may name an image (path, file name, file name without suffix) -> its path."""
    by_id = {name: name for name in names}
    for name in names:
        by_id.setdefault(base_name(name), name)
        by_id.setdefault(stem(base_name(name)), name)
    return by_id


def repeated_ids(pairs: Iterable[tuple[str, str]]) -> list[str]:
    """Faults for ids that occur several times, from pairs (id, place)."""
    places: dict[str, list[str]] = {}
    for id_, place in pairs:
        places.setdefault(id_, []).append(place)
    repeated = {id_: where for id_, where in places.items() if len(where) > 1}
    return [f"{', '.join(where)}: the id {id_!r} occurs {len(where)} times" for id_, where in repeated.items()]


def unreadable_files(files: Files, names: Iterable[str]) -> list[str]:
    """Faults of files, among these names, that Podium cannot read as images, and of all broken links of their part."""
    others = [name for name in names if not is_image(name) and not is_harmless(name)]
    return [
        *(f"{files.where(name)}: not an image that Podium can read" for name in others),
        *(f"{files.where(name)}: a broken link" for name in files.broken_links() if not is_harmless(name)),
    ]


def shared_files(first: Files, second: Files, second_title: str) -> list[str]:
    """Faults of files that are in both parts, because a link leads from one into the other."""
    if not (isinstance(first, Folder) and isinstance(second, Folder)):
        return []  # an archive with links is refused
    return [
        f"{files.where(name)}: a link to the {title} images"
        for files, other, title in ((first, second, second_title), (second, first, "labelled"))
        for name in files.names_inside(other)
    ]
