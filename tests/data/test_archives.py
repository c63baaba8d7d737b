"""Archives look like folders, and cannot do harm."""

import bz2
import gzip
import io
import lzma
import os
import stat
import subprocess
import tarfile
import zipfile

import py7zr
import pytest

from podium import files as files_module
from podium.data import archives
from podium.data.archives import file_names, folder_names, is_archive, open_folder, signature, without_archive_suffix
from podium.errors import DataError

FILES = {"train/cat/1.png": b"one", "train/dog/2.png": b"two", "labels.csv": b"id,label"}


def tar(file, members, mode="w:gz"):
    with tarfile.open(file, mode) as archive:
        for member, data in members:
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return file


def tar_of(file, files, mode="w:gz"):
    return tar(file, [(tarfile.TarInfo(name), data) for name, data in files.items()], mode)


def make(toy, kind, files):
    file = toy.data / f"a{kind}"
    if kind == "":
        return toy.write(file, files)
    if kind == ".zip":
        return toy.zip(file, files)
    if kind == ".7z":
        file.write_bytes(toy.seven_zip(files))
        return file
    return tar_of(file, files, {".tar": "w", ".tgz": "w:gz", ".tar.bz2": "w:bz2", ".tar.xz": "w:xz"}[kind])


@pytest.mark.parametrize("kind", ["", ".zip", ".7z", ".tar", ".tgz", ".tar.bz2", ".tar.xz"])
def test_every_kind_of_archive_has_the_same_files(toy, kind):
    folder = open_folder(make(toy, kind, FILES), toy.data / "cache")
    assert file_names(folder) == sorted(FILES)
    assert folder_names(folder) == ["train"]
    assert {name: (folder / name).read_bytes() for name in FILES} == FILES
    assert file_names(folder / "train") == ["cat/1.png", "dog/2.png"]


@pytest.mark.parametrize("kind", ["", ".zip", ".7z", ".tar"])
def test_hidden_files_and_macos_junk_are_left_out(toy, kind):
    junk = {
        "__MACOSX/train/._1.png": b"",
        "train/.DS_Store": b"",
        "train/cat/._1.png": b"",
        ".git/x.png": b"",
    }
    folder = open_folder(make(toy, kind, FILES | junk), toy.data / "cache")
    assert file_names(folder) == sorted(FILES)
    assert folder_names(folder) == ["train"]


@pytest.mark.parametrize("kind", [".zip", ".tgz"])
def test_an_archive_is_unpacked_once_and_again_where_it_changed(toy, kind):
    file, cache = make(toy, kind, FILES), toy.data / "cache"
    (open_folder(file, cache) / "train/cat/1.png").write_bytes(b"changed")
    assert (open_folder(file, cache) / "train/cat/1.png").read_bytes() == b"changed"
    make(toy, kind, FILES | {"new.txt": b"new"})
    assert (open_folder(file, cache) / "train/cat/1.png").read_bytes() == b"one"


def test_the_folder_of_an_archive_shows_its_name(toy):
    assert open_folder(make(toy, ".zip", FILES), toy.data / "cache").name.endswith("-a.zip")


def test_an_archive_in_a_zip_is_found(toy):
    outer = toy.zip(toy.data / "a.zip", {"x/train.7z": toy.seven_zip({"1.png": b"one"})})
    inner = open_folder(outer, toy.data / "cache") / "x/train.7z"
    assert (open_folder(inner, toy.data / "cache") / "1.png").read_bytes() == b"one"


def test_names_of_a_windows_zip_have_forward_slashes(toy):
    file = toy.zip(toy.data / "a.zip", {"train\\cat\\1.png": b"one"})
    assert file_names(open_folder(file, toy.data / "cache")) == ["train/cat/1.png"]


def test_empty_folders_count(toy):
    toy.write(toy.data / "a", FILES)
    (toy.data / "a/train/bird").mkdir()
    zipped = toy.zip(toy.data / "a.zip", FILES | {"train/bird/": b""})
    assert folder_names(toy.data / "a/train") == ["bird", "cat", "dog"]
    assert folder_names(open_folder(zipped, toy.data / "cache") / "train") == ["bird", "cat", "dog"]


def test_a_circle_of_links_ends(toy):
    folder = toy.write(toy.data / "a", FILES)
    (folder / "train/cat/again").symlink_to(folder)
    assert "cat/1.png" in file_names(folder / "train")


def test_a_folders_signature_changes_with_a_file(toy):
    folder = toy.write(toy.data / "a", FILES)
    before = signature(folder)
    assert signature(folder) == before
    os.utime(folder / "labels.csv", ns=(1, 1))
    assert signature(folder) != before


@pytest.mark.parametrize("name", ["../out.png", "train/../../out.png", "/out.png"])
@pytest.mark.parametrize("kind", [".zip", ".tar", ".7z"])
def test_a_name_that_leads_out_is_refused(toy, kind, name):
    file = make(toy, kind, FILES | ({} if kind == ".7z" else {name: b"bad"}))
    if kind == ".7z":  # py7zr does not write such names
        with py7zr.SevenZipFile(file, "w") as archive:
            archive.writestr(b"bad", "1.png")
            archive.header.files_info.files[0]["filename"] = name
    with pytest.raises(DataError, match=r"not safe(.|\n)*leads out of its folder"):
        open_folder(file, toy.data / "cache")
    assert not list(toy.paths.root.rglob("out.png"))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices_in_a_tar_are_refused(toy, kind):
    link = tarfile.TarInfo("train/cat/9.png")
    link.type, link.linkname = kind, "/etc/passwd"
    file = tar(toy.data / "a.tar", [(link, b"")], "w")
    with pytest.raises(DataError, match=r"9.png: neither a file nor a folder"):
        open_folder(file, toy.data / "cache")
    assert not list((toy.data / "cache").rglob("*.png"))


def test_a_link_in_a_zip_is_refused(toy):
    link = zipfile.ZipInfo("train/cat/9.png")
    link.create_system, link.external_attr = 3, 0o120777 << 16
    with zipfile.ZipFile(toy.data / "a.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(DataError, match=r"9.png: neither a file nor a folder"):
        open_folder(toy.data / "a.zip", toy.data / "cache")


@pytest.mark.parametrize("target", ["/etc/passwd", "1.png"])
def test_a_link_in_a_7z_is_refused(toy, target):
    folder, file = toy.write(toy.data / "train", {"1.png": b"one"}), toy.data / "a.7z"
    (folder / "link").symlink_to(target)
    with py7zr.SevenZipFile(file, "w") as archive:
        archive.writeall(folder, "train")
    with pytest.raises(DataError, match=r"not safe(.|\n)*train/link: neither a file nor a folder"):
        open_folder(file, toy.data / "cache")
    assert os.listdir(toy.data / "cache" / "unpacked") == []


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        (stat.FILE_ATTRIBUTE_REPARSE_POINT, "train/link: neither a file nor a folder"),
        (stat.FILE_ATTRIBUTE_REPARSE_POINT | stat.FILE_ATTRIBUTE_DIRECTORY, "is_directory"),  # a link to a folder
        (0x8000 | stat.S_IFIFO << 16, "train/link: neither a file nor a folder"),  # a pipe of Unix
    ],
)
def test_a_link_of_windows_and_a_pipe_in_a_7z_are_refused(toy, attributes, reason):
    file = toy.data / "a.7z"
    with py7zr.SevenZipFile(file, "w") as archive:
        archive.writestr(b"1.png", "train/link")
        archive.header.files_info.files[0]["attributes"] = attributes
    with pytest.raises(DataError, match=reason):
        open_folder(file, toy.data / "cache")


@pytest.mark.parametrize("kind", [".zip", ".tgz", ".7z"])
def test_an_archive_with_too_many_empty_files_is_refused(toy, kind, monkeypatch):
    monkeypatch.setattr(archives, "MOST_EMPTY", 5)
    file = make(toy, kind, FILES | {f"train/cat/{i}.png": b"" for i in range(6)})
    with pytest.raises(DataError, match=r"more than 5 empty files and folders(.|\n)*DATA="):
        open_folder(file, toy.data / "cache")
    assert not list((toy.data / "cache").rglob("*.png"))
    assert open_folder(make(toy, kind, FILES | {"train/cat/9.png": b""}), toy.data / "cache")


@pytest.mark.parametrize("kind", [".zip", ".tgz", ".7z"])
def test_a_bomb_is_refused_before_it_is_unpacked(toy, kind, monkeypatch):
    monkeypatch.setattr(archives, "HARMLESS_BYTES", 1000)
    file = make(toy, kind, {"train/cat/1.png": b"\0" * 2_000_000})
    with pytest.raises(DataError, match="far more than its size"):
        open_folder(file, toy.data / "cache")
    assert not list((toy.data / "cache").rglob("*.png"))


@pytest.mark.parametrize("kind", [".zip", ".tgz", ".7z"])
def test_an_archive_larger_than_the_disk_is_refused(toy, kind, monkeypatch):
    monkeypatch.setattr(files_module, "RESERVE_BYTES", 1 << 60)
    with pytest.raises(DataError, match="do not fit on the disk"):
        open_folder(make(toy, kind, FILES), toy.data / "cache")


@pytest.mark.parametrize("kind", [".zip", ".tgz", ".tar.xz", ".7z"])
def test_a_truncated_archive_is_named(toy, kind):
    noise = {"train/cat/1.png": os.urandom(20_000), "train/cat/2.png": os.urandom(20_000)}
    file = make(toy, kind, noise)
    file.write_bytes(file.read_bytes()[:15_000])
    with pytest.raises(DataError, match=f"damaged or truncated(.|\n)*a{kind}"):
        open_folder(file, toy.data / "cache")
    assert not list((toy.data / "cache").rglob("*.png"))


SQUEEZERS = {".tar": bytes, ".tgz": gzip.compress, ".tar.bz2": bz2.compress, ".tar.xz": lzma.compress}
# Three headers, each with a block of content, then zeros: each cut is at another block.
PLAIN_BYTES = 3 * 2 * tarfile.BLOCKSIZE


def plain_tar(toy):
    """The bytes of a .tar of FILES."""
    return bytearray(tar_of(toy.data / "plain.tar", FILES, "w").read_bytes())


@pytest.mark.parametrize("kind", SQUEEZERS)
@pytest.mark.parametrize("length", [1024, 1024 + 200, 2048, PLAIN_BYTES, PLAIN_BYTES + 100])
def test_a_tar_that_is_cut_between_its_files_is_refused(toy, kind, length):
    file = toy.data / f"a{kind}"
    file.write_bytes(SQUEEZERS[kind](bytes(plain_tar(toy)[:length])))
    with pytest.raises(DataError, match=r"damaged or truncated(.|\n)*end mark"):
        open_folder(file, toy.data / "cache")
    assert not list((toy.data / "cache").rglob("*.png"))


@pytest.mark.parametrize("kind", SQUEEZERS)
@pytest.mark.parametrize("place", [1024, 2048 + 150, PLAIN_BYTES + 600, 10_239])
def test_a_tar_with_a_damaged_header_or_something_after_its_end_is_refused(toy, kind, place):
    content, file = plain_tar(toy), toy.data / f"a{kind}"
    content[place] ^= 64
    file.write_bytes(SQUEEZERS[kind](bytes(content)))
    with pytest.raises(DataError, match=r"damaged or truncated(.|\n)*neither a header nor the end"):
        open_folder(file, toy.data / "cache")


@pytest.mark.parametrize(("kind", "place"), [(".tgz", -6), (".tar.bz2", -4), (".tar.xz", -40)])
def test_a_wrong_checksum_of_a_packed_tar_is_noticed(toy, kind, place):
    content, file = bytearray(SQUEEZERS[kind](bytes(plain_tar(toy)))), toy.data / f"a{kind}"
    content[place] ^= 1
    file.write_bytes(content)
    with pytest.raises(DataError, match="damaged or truncated"):
        open_folder(file, toy.data / "cache")


@pytest.mark.parametrize("kind", SQUEEZERS)
@pytest.mark.parametrize("zeros", [512, 1024, 10_240, 100_000])
def test_a_tar_may_end_with_any_number_of_zero_blocks(toy, kind, zeros):
    file = toy.data / f"a{kind}"
    file.write_bytes(SQUEEZERS[kind](bytes(plain_tar(toy)[:PLAIN_BYTES]) + bytes(zeros)))
    assert file_names(open_folder(file, toy.data / "cache")) == sorted(FILES)


@pytest.mark.parametrize("form", ["gnu", "pax", "ustar", "v7"])
@pytest.mark.parametrize("kind", SQUEEZERS)
def test_what_tar_writes_is_read(toy, kind, form):
    folder, file = toy.write(toy.data / "given", FILES), toy.data / f"a{kind}"
    done = subprocess.run(["tar", f"--format={form}", "-c", "-C", folder, "."], capture_output=True, check=True)
    file.write_bytes(SQUEEZERS[kind](done.stdout))
    assert file_names(open_folder(file, toy.data / "cache")) == sorted(FILES)


def test_a_damaged_file_in_a_7z_is_named(toy):
    file = toy.data / "a.7z"
    with py7zr.SevenZipFile(file, "w", filters=[{"id": py7zr.FILTER_COPY}]) as archive:
        archive.writestr(b"one", "cat/1.png")
    file.write_bytes(file.read_bytes().replace(b"one", b"two", 1))
    with pytest.raises(DataError, match=r"found: +wrong checksum of cat/1.png"):
        open_folder(file, toy.data / "cache")


@pytest.mark.parametrize("header", [False, True])
def test_an_encrypted_7z_is_called_encrypted(toy, header):
    with py7zr.SevenZipFile(toy.data / "a.7z", "w", password="x", header_encryption=header) as archive:
        archive.writestr(b"one", "1.png")
    with pytest.raises(DataError, match=r"encrypted(.|\n)*unpack it with its password"):
        open_folder(toy.data / "a.7z", toy.data / "cache")


def refuse(*arguments, **keys):
    """What the operating system does where a person may not read."""
    raise PermissionError(13, "Permission denied", "the/place")


@pytest.mark.parametrize(("kind", "opener"), [(".zip", "zipfile.ZipFile"), (".tgz", "tarfile.open")])
def test_an_archive_that_may_not_be_read_is_not_called_damaged(toy, kind, opener, monkeypatch):
    file = make(toy, kind, FILES)
    monkeypatch.setattr(opener, refuse)
    with pytest.raises(DataError, match=r"cannot be read(.|\n)*the/place\n +found: +Permission denied\n"):
        open_folder(file, toy.data / "cache")


@pytest.mark.parametrize("function", [file_names, folder_names, signature])
def test_a_folder_that_may_not_be_read_is_named(toy, function, monkeypatch):
    folder = toy.write(toy.data / "a", FILES)
    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DataError, match=r"cannot be read(.|\n)*the/place\n +found: +Permission denied\n"):
        function(folder)


def test_broken_links_are_named_at_once(toy):
    folder = toy.write(toy.data / "a", FILES)
    for name in ("train/cat/9.png", "train/bird"):
        (folder / name).symlink_to("gone")
    with pytest.raises(DataError, match=r"links are broken(.|\n)*a/train/bird(.|\n)*a/train/cat/9.png"):
        file_names(folder)


@pytest.mark.parametrize("kind", [".zip", ".tgz", ".7z"])
def test_a_file_that_only_looks_like_an_archive_is_named(toy, kind):
    file = toy.data / f"a{kind}"
    file.write_bytes(b"<html>Please log in</html>")
    with pytest.raises(DataError, match=f"damaged or truncated(.|\n)*a{kind}"):
        open_folder(file, toy.data / "cache")


def test_a_damaged_file_in_a_zip_is_named(toy):
    file = toy.data / "a.zip"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("train/cat/1.png", "one")
    file.write_bytes(file.read_bytes().replace(b"one", b"two", 1))
    with pytest.raises(DataError, match=r"damaged(.|\n)*a.zip/train/cat/1.png"):
        open_folder(file, toy.data / "cache")
    assert not list((toy.data / "cache").rglob("*.png"))


def test_a_name_twice_in_an_archive_is_refused(toy):
    with zipfile.ZipFile(toy.data / "a.zip", "w") as archive:
        archive.writestr("1.png", "one")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("1.png", "two")
    tar(toy.data / "a.tar", [(tarfile.TarInfo("1.png"), b"one"), (tarfile.TarInfo("1.png"), b"two")], "w")
    for name in ("a.zip", "a.tar"):
        with pytest.raises(DataError, match=r"1.png: several times"):
            open_folder(toy.data / name, toy.data / "cache")


def test_an_encrypted_zip_is_called_encrypted(toy):
    file = toy.zip(toy.data / "a.zip", {"1.png": b"one"})
    content = bytearray(file.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1  # the flag, in the directory at the end
    file.write_bytes(content)
    with pytest.raises(DataError, match=r"encrypted(.|\n)*unpack it with its password"):
        open_folder(file, toy.data / "cache")


def test_other_files_are_no_archives(toy):
    (toy.data / "a.rar").write_bytes(b"")
    with pytest.raises(DataError, match=r"Not an archive(.|\n)*\.zip"):
        open_folder(toy.data / "a.rar", toy.data / "cache")


def test_suffixes_of_archives_are_known_in_any_case():
    assert is_archive("Train.ZIP") and is_archive("a.tar.gz") and not is_archive("a.png")
    assert without_archive_suffix("train.tar.gz") == without_archive_suffix("train.7z") == "train"
    assert without_archive_suffix("v1.2/train") == "v1.2/train"
