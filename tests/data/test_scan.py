"""Where images are looked for, what they are called, and every fault that a listing shows."""

import http.server
import os
import threading
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from podium.data import scan as scan_module
from podium.data.listing import natural_order
from podium.data.locate import download, download_source, find_source, quiet
from podium.data.scan import scan
from podium.errors import ConfigError, DataError
from podium.plan.memory import remember

FOLDERS = 'title = "Pets"\n[data]\nsource = "folders"\n{data}\n[validation]\n{validation}\n'
HASH_ORDER = 'test_ids = "hash-order"'


def listing_of(toy, competition, data=None):
    paths = toy.workspace().paths
    source = find_source(competition, paths, data=data) or download_source(competition, paths, progress=quiet)
    listing = scan(competition, source)
    if listing.faults:
        raise DataError("faults", faults=listing.faults)
    return listing


def faults_of(toy, competition):
    with pytest.raises(DataError) as caught:
        listing_of(toy, competition)
    return sorted(fault.replace(f"{toy.data}/", "") for fault in caught.value.faults)


def check_pets(listing):
    """What the miniature of class folders must look like from every place and layout."""
    assert listing.classes == ("cat", "dog")
    ids = sorted(f"{label}/{label}_{i}" for label in ("cat", "dog") for i in range(6))
    assert [(row.id, row.label) for row in listing.rows] == [(id_, id_[:3]) for id_ in ids]
    assert list(listing.test_images) == ["1", "2", "3", "4"]


# Where


@pytest.mark.parametrize(
    ("place", "data"),
    [
        ("data/pets.zip", None),
        ("data/pets", None),
        ("data/pets/pets-1a2b3c", None),
        ("data", None),
        ("../shared/data/pets.zip", None),
        ("given/pets.zip", "given"),
        ("given/pets", "given"),
        ("given/anything.zip", "given/anything.zip"),
        ("given/anything", "given/anything"),
        ("given/anything/pets-1a2b3c", "given/anything"),
    ],
)
def test_images_are_found_in_every_place(toy, place, data):
    path = toy.paths.root / place
    write = toy.zip if place.endswith(".zip") else toy.write
    write(path, toy.folders())
    check_pets(listing_of(toy, toy.competition(), data and str(toy.paths.root / data)))


def test_an_archive_of_another_kind_than_declared_is_found(toy):
    (toy.data / "pets.7z").write_bytes(toy.seven_zip(toy.folders()))
    check_pets(listing_of(toy, toy.competition()))


def test_the_environment_names_the_first_place(toy, monkeypatch, tmp_path):
    toy.zip(tmp_path / "elsewhere/pets.zip", toy.folders())
    toy.write(toy.data, {"pets.zip": b"not looked at"})
    monkeypatch.setenv("PODIUM_DATA", str(tmp_path / "elsewhere"))
    check_pets(listing_of(toy, toy.competition()))


def test_a_place_may_begin_with_the_home_folder(toy, monkeypatch, tmp_path):
    toy.zip(tmp_path / "elsewhere/pets.zip", toy.folders())
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PODIUM_DATA", "~/elsewhere")
    check_pets(listing_of(toy, toy.competition()))


@pytest.mark.parametrize("place", ["nowhere", "~nobody-of-this-name/x"])
def test_an_environment_that_names_something_missing_is_not_skipped(toy, monkeypatch, place):
    monkeypatch.setenv("PODIUM_DATA", place)
    with pytest.raises(DataError, match=f"PODIUM_DATA= names a file or folder that does not exist(.|\n)*{place}"):
        listing_of(toy, toy.competition())


def test_data_that_names_something_missing_is_not_skipped(toy):
    toy.zip(toy.data / "pets.zip", toy.folders())
    with pytest.raises(DataError, match=r"DATA= names a file or folder that does not exist(.|\n)*nowhere"):
        listing_of(toy, toy.competition(), "nowhere")


def test_data_without_the_competition_is_not_skipped(toy, tmp_path):
    toy.zip(toy.data / "pets.zip", toy.folders())
    with pytest.raises(DataError, match=f"were not found(.|\n)*looked in {tmp_path}/empty"):
        (tmp_path / "empty").mkdir()
        listing_of(toy, toy.competition(), str(tmp_path / "empty"))


def test_nothing_found_lists_every_place_and_what_to_type(toy, monkeypatch, tmp_path):
    monkeypatch.setenv("PODIUM_DATA", str(tmp_path))
    with pytest.raises(DataError, match=r"not found(.|\n)*DATA=") as caught:
        listing_of(toy, toy.competition())
    assert len(caught.value.faults) == 3


def test_another_competitions_folder_is_not_taken(toy):
    toy.write(toy.data / "birds", toy.folders())
    with pytest.raises(DataError, match="not found"):
        listing_of(toy, toy.competition())


# Download


@pytest.fixture
def served(tmp_path):
    """A loopback server: its folder, its address."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

    folder = tmp_path / "served"
    folder.mkdir()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_what_is_not_found_is_downloaded_once(toy, served):
    folder, address = served
    toy.zip(folder / "pets-1a2b3c.zip", toy.repository())
    competition = toy.competition(data=f'{HASH_ORDER}\ndownload = "{address}/pets-1a2b3c.zip"')
    check_pets(listing_of(toy, competition))
    (folder / "pets-1a2b3c.zip").unlink()
    check_pets(listing_of(toy, competition))
    assert [file.name for file in toy.data.iterdir() if not file.name.startswith(".")] == ["pets.zip"]


def test_an_archive_in_a_folder_is_downloaded_into_it(toy, served):
    folder, address = served
    toy.zip(folder / "pets.zip", toy.folders())
    keys = f'archive = "a/pets.zip"\ndownload = "{address}/pets.zip"'
    competition = toy.competition(FOLDERS, data=keys)
    check_pets(listing_of(toy, competition))
    assert (toy.data / "a/pets.zip").is_file()


def test_progress_of_a_download_ends_at_its_size(toy, served):
    folder, address = served
    (folder / "a.zip").write_bytes(b"x" * 600_000)
    calls = []
    download(f"{address}/a.zip", toy.data / "a.zip", progress=lambda *call: calls.append(call))
    assert calls[-1] == ("download a.zip", 600_000, 600_000) and len(calls) > 1


@pytest.mark.parametrize("address", ["{served}/missing.zip", "http://127.0.0.1:9/pets.zip"])
def test_a_failed_download_says_where_to_put_the_file(toy, served, address):
    address = address.format(served=served[1])
    with pytest.raises(DataError, match=f"{address}(.|\n)*put it at .*pets.zip"):
        listing_of(toy, toy.competition(data=f'download = "{address}"'))
    assert not (toy.data / "pets.zip").exists()


def test_a_download_that_breaks_off_leaves_nothing(toy, served):
    class Short(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"x" * 10)

        def log_message(self, *arguments):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Short)
    threading.Thread(target=server.handle_request, daemon=True).start()
    with pytest.raises(DataError, match=r"cannot be downloaded(.|\n)*10 of 1,000"):
        download(f"http://127.0.0.1:{server.server_port}/a.zip", toy.data / "a.zip", progress=quiet)
    server.server_close()
    assert list(toy.data.iterdir()) == []


# Class folders


def test_test_images_of_a_repository_are_numbered_by_their_hashes(toy):
    competition = toy.competition(data=HASH_ORDER)
    ours = listing_of(toy, competition, str(toy.zip(toy.data / "a/pets.zip", toy.folders())))
    theirs = listing_of(toy, competition, str(toy.zip(toy.data / "b/pets.zip", toy.repository())))
    check_pets(theirs)
    for listing in (ours, theirs):
        assert list(listing.test_images) == ["1", "2", "3", "4"]
    contents = [[Path(file).read_bytes() for file in listing.test_images.values()] for listing in (ours, theirs)]
    assert contents[0] == contents[1]


def test_the_sample_submissions_order_rules(toy):
    toy.write(toy.data / "pets", toy.folders() | {"sample.csv": b"id,label\n3,cat\n1,cat\n4,cat\n2,cat\n"})
    listing = listing_of(toy, toy.competition(data='sample_submission = "sample.csv"'))
    assert list(listing.test_images.items()) == [(id_, f"{toy.data}/pets/test/{id_}.png") for id_ in "3142"]


def test_without_a_sample_integer_ids_go_by_value(toy):
    toy.write(toy.data / "pets", toy.folders(tests=12))
    assert list(listing_of(toy, toy.competition()).test_images) == [str(i) for i in range(1, 13)]


def test_natural_order_is_numeric_only_where_all_are_integers():
    assert natural_order(["10", "9", "-1"]) == ["-1", "9", "10"]
    assert natural_order(["10", "9", "x"]) == ["10", "9", "x"]


def test_integer_classes_go_by_value(toy):
    toy.write(toy.data / "pets", {f"train/{i}/{i}.png": toy.png(i) for i in (2, 10)} | {"test/1.png": b""})
    assert listing_of(toy, toy.competition()).classes == ("2", "10")


def test_archives_of_train_and_test_in_an_archive_are_found(toy):
    files = toy.folders()
    parts = {
        "train.zip": {name: data for name, data in files.items() if name.startswith("train/")},
        "test.zip": {name[5:]: data for name, data in files.items() if name.startswith("test/")},
    }
    inner = {name: toy.zip(toy.data / name, part).read_bytes() for name, part in parts.items()}
    outer = toy.zip(toy.paths.root / "given/pets.zip", {f"pets/{name}": data for name, data in inner.items()})
    check_pets(listing_of(toy, toy.competition(), str(outer)))


def test_faults_of_class_folders_are_listed_at_once(toy):
    bad = {
        "train/stray.png": toy.png(1),
        "train/cat/cat_0.jpg": toy.png(2),
        "train/bird/notes.txt": b"none yet",
        "test/sub/1.webp": toy.png(3),
        "train/cat/labels.txt": b"ignored",
    }
    toy.write(toy.data / "pets", toy.folders() | bad)
    (toy.data / "pets/train/fish").mkdir()
    assert faults_of(toy, toy.competition()) == [
        "pets/test/1.png, pets/test/sub/1.webp: the id '1' occurs 2 times",
        "pets/train/bird: a class without images; it holds 1 other file(s), such as bird/notes.txt",
        "pets/train/cat/cat_0.jpg, pets/train/cat/cat_0.png: the id 'cat/cat_0' occurs 2 times",
        "pets/train/fish: a class without images",
        "pets/train/stray.png: this image is not in a class folder",
    ]


def test_files_that_may_be_images_and_are_not_read_are_faults(toy):
    bad = {
        "train/cat/IMG_1.heic": b"",
        "train/dog/7": b"",
        "test/8.heic": b"",
        "train/cat/Thumbs.db": b"",
        "train/cat/notes.txt": b"",
        "test/index.HTML": b"",
        "train/LICENSE": b"",
    }
    toy.write(toy.data / "pets", toy.folders() | bad)
    assert faults_of(toy, toy.competition()) == [
        "pets/test/8.heic: not an image that Podium can read",
        "pets/train/cat/IMG_1.heic: not an image that Podium can read",
        "pets/train/dog/7: not an image that Podium can read",
    ]


def test_broken_links_are_named(toy):
    toy.write(toy.data / "pets", toy.folders())
    for name in ("train/cat/9.png", "train/bird"):
        (toy.data / "pets" / name).symlink_to("gone")
    broken = [f"pets/{name}" for name in ("train/bird", "train/cat/9.png")]
    assert faults_of(toy, toy.competition(data=HASH_ORDER)) == broken


def test_links_to_folders_and_files_elsewhere_are_followed(toy):
    folder, elsewhere = toy.write(toy.data / "pets", toy.folders()), toy.data / "elsewhere"
    (folder / "train").rename(elsewhere)
    (folder / "train").symlink_to(elsewhere)
    (folder / "test/1.png").rename(toy.data / "blob")
    (folder / "test/1.png").symlink_to(toy.data / "blob")
    check_pets(listing_of(toy, toy.competition()))


def test_of_two_archives_side_by_side_none_is_taken_silently(toy):
    competition = toy.competition()
    for name in ("pets.tar.gz", "pets.7z"):
        (toy.data / name).write_bytes(b"")
    with pytest.raises(DataError, match=r"Several archives(.|\n)*pets\.7z, pets\.tar\.gz(.|\n)*keep one"):
        listing_of(toy, competition)
    toy.zip(toy.data / "pets.zip", toy.folders())
    check_pets(listing_of(toy, competition))  # competition.toml has its whole name


@pytest.mark.parametrize("inside", [False, True])
def test_of_two_archives_of_one_part_none_is_taken_silently(toy, inside):
    files = toy.folders()
    files = {name: content for name, content in files.items() if name.startswith("test/")}
    files |= {"train.zip": b"", "train.7z": b""}
    toy.zip(toy.data / "pets.zip", files) if inside else toy.write(toy.data / "pets", files)
    with pytest.raises(DataError, match=r"Several archives(.|\n)*train\.zip, train\.7z"):
        listing_of(toy, toy.competition())


def test_many_empty_classes_are_listed_in_linear_time(toy, monkeypatch):
    folders, files = [], toy.folders() | {f"train/{i}/": b"" for i in range(50)}
    toy.zip(toy.data / "pets.zip", files)
    names_of = scan_module.file_names
    monkeypatch.setattr(scan_module, "file_names", lambda folder: folders.append(folder.name) or names_of(folder))
    assert len(faults_of(toy, toy.competition())) == 50
    assert sorted(folders) == sorted(["train", "test", *map(str, range(50))])


def test_names_that_no_csv_and_no_lock_can_hold_are_listed_at_once(toy):
    bad = ["train/ fish/1.png", "train/cat/a\rb.png", "train/cat/c .png", "test/ 5.png", "test/ .png", "test/a\nb.png"]
    bad += [os.fsdecode(b"test/caf\xe9.png"), "test/id.png"]
    toy.write(toy.data / "pets", toy.folders() | {name: toy.png(50 + i) for i, name in enumerate(bad)})
    assert faults_of(toy, toy.competition()) == [
        "pets/test: the test id ' ' is blank",
        "pets/test: the test id ' 5' starts or ends with a space",
        r"pets/test: the test id 'a\nb' contains a control character",
        r"pets/test: the test id 'caf\udce9' is not UTF-8",
        "pets/train: the class ' fish' starts or ends with a space",
        r"pets/train: the id 'cat/a\rb' contains a control character",
        "pets/train: the id 'cat/c ' starts or ends with a space",
        "the test id 'id' has the name of the submission's id column",
    ]


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ('kind = "probabilities"\nid_column = "cat"', "the class 'cat' has the name of the submission's id column"),
        ('kind = "probability"\nlabel_column = "id"', "[submission] id_column and label_column are both 'id'"),
        ('id_column = "image"\nlabel_column = "image"', "[submission] id_column and label_column are both 'image'"),
    ],
)
def test_columns_of_the_submission_that_share_a_name_are_a_fault(toy, settings, fault):
    toy.write(toy.data / "pets", toy.folders())
    competition = toy.competition(validation=f"rows = 4\n[submission]\n{settings}")
    assert faults_of(toy, competition) == [fault]


@pytest.mark.parametrize("kind", ["labels", "probability"])
@pytest.mark.parametrize("sample", [b"id,cat,dog\n", b"id,target\n", b"id,label,other\n"])
def test_a_sample_with_other_columns_than_the_submission_is_a_fault(toy, kind, sample):
    toy.write(toy.data / "pets", toy.folders() | {"sample.csv": sample + b"1,0,0\n2,0,0\n3,0,0\n4,0,0\n"})
    validation = f'rows = 4\n[submission]\nkind = "{kind}"'
    competition = toy.competition(data='sample_submission = "sample.csv"', validation=validation)
    (fault,) = faults_of(toy, competition)
    assert fault.startswith("pets/sample.csv: its columns are id, ")
    assert fault.endswith("; a submission would have id, label")


def test_class_columns_of_the_sample_give_the_order_of_the_classes_and_blank_cells_are_no_fault(toy):
    toy.write(toy.data / "pets", toy.folders() | {"sample.csv": b"id, dog,cat\n1,,\n2,,\n3,,\n4,,\n"})
    validation = 'rows = 4\n[submission]\nkind = "probabilities"'
    listing = listing_of(toy, toy.competition(data='sample_submission = "sample.csv"', validation=validation))
    assert listing.classes == ("dog", "cat") and len(listing.rows) == 12


def test_one_column_of_probabilities_for_three_classes_is_refused(toy):
    toy.write(toy.data / "pets", toy.folders() | {"train/bird/1.png": toy.png(1)})
    competition = toy.competition(validation='rows = 4\n[submission]\nkind = "probability"')
    with pytest.raises(ConfigError, match="needs two classes"):
        listing_of(toy, competition)


def test_a_metric_of_ordered_classes_is_refused_for_names(toy):
    toy.write(toy.data / "pets", toy.folders())
    competition = replace(toy.competition(), metric="qwk")
    fault = 'metric = "qwk" needs classes in an order: expected integers, found cat, dog'
    assert faults_of(toy, competition) == [fault]


def test_a_control_character_in_a_table_is_a_fault(toy):
    labels = b'id,label,who\n1,"a\tb",x\n2,b,x\n3,b,"y\nz"\n4,b,y\n'
    toy.write(toy.data / "pets", table_files(toy, labels))
    assert faults_of(toy, toy.table_competition(data='group_column = "who"')) == [
        r"pets/train: the class 'a\tb' contains a control character",
        r"pets/train: the group 'y\nz' contains a control character",
    ]


def test_one_class_is_too_few(toy):
    toy.write(toy.data / "pets", {"train/cat/1.png": toy.png(1), "test/1.png": toy.png(2)})
    assert faults_of(toy, toy.competition()) == ["pets/train: 1 class(es) with images; expected 2 or more"]


def test_a_missing_test_folder_is_named(toy):
    toy.write(toy.data / "pets", {"train/cat/1.png": b"", "tset/1.png": b""})
    with pytest.raises(DataError, match=r"'test' is missing(.|\n)*found: *train/, tset/"):
        listing_of(toy, toy.competition())


def test_a_test_folder_without_images_is_a_fault(toy):
    toy.write(toy.data / "pets", toy.folders(tests=0) | {"test/readme.txt": b""})
    assert faults_of(toy, toy.competition()) == ["pets/test: no images"]


@pytest.mark.parametrize(
    ("sample", "faults"),
    [
        (
            b"id,label\n1,cat\n2,cat\n3,cat\n9,cat\n",
            ["line 5: '9' has no image in pets/test", "pets/test/4.png: a test image that is not in"],
        ),
        (b"id,label\n1,a\n1.png,a\n2,a\n3,a\n4,a\n", ["sample.csv line 3: the id '1.png' occurs 2 times"]),
        (b"image,label\n1,cat\n", ["no column 'id'; it has 'image', 'label'"]),
        (b"", ["no rows"]),
        (b"id,label\n", ["no rows"]),
        (b"\xff\xfe\x00", ["not a CSV table in UTF-8"]),
    ],
)
def test_a_sample_that_does_not_fit_is_a_fault(toy, sample, faults):
    toy.write(toy.data / "pets", toy.folders() | {"sample.csv": sample})
    found = "\n".join(faults_of(toy, toy.competition(data='sample_submission = "sample.csv"')))
    assert all(fault in found for fault in faults), found


def test_a_sample_that_is_declared_and_missing_is_a_fault(toy):
    toy.write(toy.data / "pets", toy.folders())
    assert faults_of(toy, toy.competition(data='sample_submission = "sample.csv"')) == ["pets/sample.csv: missing"]


def test_a_sample_of_numbered_images_may_be_missing_but_must_fit(toy):
    competition = toy.competition(data=f'{HASH_ORDER}\nsample_submission = "sample.csv"')
    toy.write(toy.data / "pets", toy.folders())
    check_pets(listing_of(toy, competition))
    (toy.data / "pets/sample.csv").write_text("id,label\n1,cat\n")
    assert len(faults_of(toy, competition)) == 3


# A table of labels


def test_kaggles_layout_is_read(toy):
    toy.write(toy.data / "cifar", toy.table())
    listing = listing_of(toy, toy.table_competition(), str(toy.data / "cifar"))
    assert listing.classes == ("cat", "dog")
    ids = sorted(str(i) for i in range(1, 13))
    assert [(row.id, row.label) for row in listing.rows] == [(id_, ("cat", "dog")[int(id_) % 2]) for id_ in ids]
    assert list(listing.test_images) == ["3", "2", "1"]
    assert Path(listing.test_images["3"]).read_bytes() == toy.png(503)


def test_kaggles_layout_in_its_one_archive_is_the_same(toy):
    toy.zip(toy.data / "pets.zip", toy.table())
    listing = listing_of(toy, toy.table_competition())
    assert list(listing.test_images) == ["3", "2", "1"] and len(listing.rows) == 12


def table_files(toy, labels, images=(1, 2, 3, 4)):
    train = {f"train/{i}.png": toy.png(i) for i in images}
    return train | {
        "test/7.png": toy.png(7),
        "trainLabels.csv": labels,
        "sampleSubmission.csv": b"id,label\n7,a\n",
    }


def test_a_table_of_measurements_is_refused_and_one_of_few_grades_or_of_integers_is_read(toy):
    images = range(1, 13)
    for values in (["0.5", "1.0", "1.5"] * 4, list(map(str, images))):
        rows = "".join(f"{image},{value}\n" for image, value in zip(images, values, strict=True))
        toy.write(toy.data / "pets", table_files(toy, f"id,label\n{rows}".encode(), images))
        assert len(listing_of(toy, toy.table_competition()).classes) == len(set(values))
    rows = "".join(f"{image},{image + 0.25}\n" for image in images)
    toy.write(toy.data / "pets", table_files(toy, f"id,label\n{rows}".encode(), images))
    with pytest.raises(DataError, match="look like a number") as error:
        listing_of(toy, toy.table_competition())
    assert error.value.found == "12 distinct numbers in 'label', such as 1.25, 10.25, 11.25, ..."


def test_ids_with_suffixes_match_and_stay_as_written(toy):
    toy.write(toy.data / "pets", table_files(toy, b"\xef\xbb\xbfid,label\n1.png,a\n2.png,b\n3.png,a\n4.png,b\n"))
    listing = listing_of(toy, toy.table_competition())
    names = ["1.png", "2.png", "3.png", "4.png"]
    assert [(row.id, row.file) for row in listing.rows] == [(name, f"{toy.data}/pets/train/{name}") for name in names]


def test_ids_may_be_paths_without_suffix(toy):
    files = table_files(toy, b"id,label\nx/1,a\nx/2,b\ny/3,a\ny/4,b\n", ())
    images = {f"train/{name}.png": toy.png(number) for number, name in enumerate(("x/1", "x/2", "y/3", "y/4"))}
    toy.write(toy.data / "pets", files | images)
    listing = listing_of(toy, toy.table_competition())
    assert [row.id for row in listing.rows] == ["x/1", "x/2", "y/3", "y/4"] and not listing.faults


def test_the_place_of_an_earlier_command_is_searched_before_data_and_after_podium_data(toy, tmp_path, monkeypatch):
    for folder in ("named", "elsewhere", toy.data):
        toy.zip(tmp_path / folder / "pets.zip", toy.folders())
    named = tmp_path / "named"
    remember(toy.paths.root, "cars", data=str(tmp_path / "elsewhere"))
    assert find_source(toy.competition(), toy.paths, data=None).path == toy.data / "pets.zip"
    remember(toy.paths.root, "pets", data=str(named))
    assert find_source(toy.competition(), toy.paths, data=None).path == named / "pets.zip"
    monkeypatch.setenv("PODIUM_DATA", str(tmp_path / "elsewhere"))
    assert find_source(toy.competition(), toy.paths, data=None).path == tmp_path / "elsewhere" / "pets.zip"
    monkeypatch.delenv("PODIUM_DATA")
    (named / "pets.zip").unlink()  # the images may be deleted after make prepare
    assert find_source(toy.competition(), toy.paths, data=None).path == toy.data / "pets.zip"
    named.rmdir()
    toy.write(named, toy.folders())  # a folder without the name of the competition
    assert find_source(toy.competition(), toy.paths, data=None).path == named


def test_groups_follow_their_rows(toy):
    toy.write(toy.data / "pets", table_files(toy, b"who,id,label\nx,4,a\ny,3,b\nx,2,a\ny,1,b\n"))
    listing = listing_of(toy, toy.table_competition(data='group_column = "who"'))
    assert [(row.id, row.group) for row in listing.rows] == [("1", "y"), ("2", "x"), ("3", "y"), ("4", "x")]


def test_faults_of_a_table_are_listed_at_once(toy):
    files = table_files(toy, b"id,label\n1,a\n2,\n3,b\n3,b\n9,a\n,b\n")
    toy.write(toy.data / "pets", files | {"train/sub/1.png": toy.png(1)})
    assert faults_of(toy, toy.table_competition()) == [
        "pets/train/1.png, pets/train/sub/1.png: the id '1' occurs 2 times",
        "pets/train/4.png: an image without a label",
        "pets/train/sub/1.png: an image without a label",
        "pets/trainLabels.csv line 3: label is empty",
        "pets/trainLabels.csv line 4, pets/trainLabels.csv line 5: the id '3.png' occurs 2 times",
        "pets/trainLabels.csv line 6: '9' has no image in pets/train",
        "pets/trainLabels.csv line 7: id is empty",
    ]


def test_missing_columns_are_named_beside_those_found(toy):
    toy.write(toy.data / "pets", table_files(toy, b"image,breed\n1,a\n"))
    assert "no column 'id', 'label'; it has 'image', 'breed'" in faults_of(toy, toy.table_competition())[1]


def test_columns_that_share_a_name_are_a_fault(toy):
    toy.write(toy.data / "pets", table_files(toy, b"id,a,b,a\n1,1,0,0\n2,0,1,1\n3,1,0,0\n4,0,1,1\n"))
    faults = faults_of(toy, toy.table_competition(data='label_column = "a"'))
    assert "pets/trainLabels.csv: several columns are called 'a'" in faults


def test_a_number_of_more_digits_than_python_reads_is_a_class(toy):
    huge = b"9" * 5000
    toy.write(toy.data / "pets", table_files(toy, b"id,label\n1,%b\n2,7\n3,%b\n4,7\n" % (huge, huge)))
    assert len(listing_of(toy, toy.table_competition()).classes) == 2


def test_a_missing_table_is_a_fault(toy):
    files = table_files(toy, b"")
    del files["trainLabels.csv"]
    toy.write(toy.data / "pets", files)
    assert "pets/trainLabels.csv: missing" in faults_of(toy, toy.table_competition())


def test_files_beside_labelled_images_that_the_table_does_not_name_are_ignored(toy):
    files = table_files(toy, b"id,label\n1,a\n2,b\n3,b\n4,b\n") | {"train/1.npy": b"", "train/notes.txt": b""}
    toy.write(toy.data / "pets", files)
    assert [row.id for row in listing_of(toy, toy.table_competition()).rows] == ["1", "2", "3", "4"]


# Labels and groups in file names, one folder of all images, validation images in a folder

NAMES = 'title = "Pets"\n[data]\nsource = "names"\n{data}\n[validation]\n{validation}\n'
CAT_0 = 'label_pattern = "^([a-z]+)[.]"'


def named_files(toy):
    files = {f"train/{name}.{i}.png": toy.png(10 * i + len(name)) for i in range(2) for name in ("cat", "horse")}
    return files | {"test/1.png": toy.png(900)}


def test_classes_are_read_from_file_names(toy):
    toy.write(toy.data / "pets", named_files(toy))
    listing = listing_of(toy, toy.competition(NAMES, data=CAT_0))
    assert [(row.id, row.label) for row in listing.rows] == [
        *(("cat.0", "cat"), ("cat.1", "cat"), ("horse.0", "horse"), ("horse.1", "horse"))
    ]


def test_names_without_a_class_and_files_that_are_no_images_are_faults(toy):
    toy.write(
        toy.data / "pets",
        named_files(toy) | {"train/7.png": toy.png(7), "train/cat.2.heic": b"", "train/cat.0.jpg": b""},
    )
    assert faults_of(toy, toy.competition(NAMES, data=CAT_0)) == [
        "pets/train/7.png: label_pattern finds nothing in this name",
        "pets/train/cat.0.jpg, pets/train/cat.0.png: the id 'cat.0' occurs 2 times",
        "pets/train/cat.2.heic: not an image that Podium can read",
    ]


def test_groups_of_class_folders_are_read_from_file_names(toy):
    toy.write(toy.data / "pets", toy.folders())
    listing = listing_of(toy, toy.competition(data='group_pattern = "_([0-9])[.]"'))
    assert {(row.id, row.group) for row in listing.rows} == {
        (f"{k}/{k}_{i}", str(i)) for k in toy.classes for i in range(6)
    }
    assert len(faults_of(toy, toy.competition(data='group_pattern = "cat_([0-9])[.]"'))) == 6


MIXED = (
    'title = "x"\n[data]\nsource = "csv"\narchive = "pets"\ntrain = "all"\ntest = "all"\n{data}\n[validation]\nrows = 2'
)


def mixed_files(toy, sample=b"id,label\n9,a\n7,a\n"):
    images = {f"all/{i}.png": toy.png(i) for i in (1, 2, 3, 4, 7, 9)}
    return images | {"train.csv": b"id,label\n1,a\n2,b\n3,a\n4,b\n", "sample.csv": sample}


def test_in_a_folder_of_all_images_those_without_a_label_are_the_test(toy):
    toy.write(toy.data / "pets", mixed_files(toy))
    assert list(listing_of(toy, toy.competition(MIXED)).test_images) == ["7", "9"]
    listing = listing_of(toy, toy.competition(MIXED, data='sample_submission = "sample.csv"'))
    assert list(listing.test_images) == ["9", "7"] and len(listing.rows) == 4


def test_in_a_folder_of_all_images_each_is_labelled_or_in_the_sample_and_not_both(toy):
    toy.write(toy.data / "pets", mixed_files(toy, sample=b"id,label\n9,a\n4,a\n"))
    assert faults_of(toy, toy.competition(MIXED, data='sample_submission = "sample.csv"')) == [
        "pets/all/7.png: a test image that is not in pets/sample.csv",
        "pets/sample.csv line 3: '4' has no image without a label in pets/all",
    ]


BY_FOLDER = 'kind = "folder"\nfolder = "val"'


def test_a_class_folder_may_have_the_name_of_the_folder_of_all_classes(toy):
    files = {f"pets/{name}/{i}.png": toy.png(10 * i + len(name)) for i in range(2) for name in ("horse", "pets")}
    place = toy.write(toy.paths.root / "given", files) / "pets"
    competition = toy.competition(data='train = ""\ntest = ""')
    for given in (place, place.parent):
        assert listing_of(toy, competition, str(given)).classes == ("horse", "pets")


def test_images_of_a_validation_folder_are_held_out_and_read_from_it(toy):
    held_out = {f"val/{name}/{name}_0.png": toy.png(700 + len(name)) for name in toy.classes}
    toy.write(toy.data / "pets", toy.folders() | held_out)
    listing = listing_of(toy, toy.competition(validation=BY_FOLDER))
    assert [row.id for row in listing.rows if row.is_held_out] == ["val/cat/cat_0", "val/dog/dog_0"]
    rows = {row.id: row for row in listing.rows}
    assert Path(rows["val/cat/cat_0"].file).read_bytes() == toy.png(703)
    assert Path(rows["cat/cat_0"].file).read_bytes() == toy.png(0)


def test_a_validation_folder_without_images_is_a_fault(toy):
    folder = toy.write(toy.data / "pets", toy.folders())
    (folder / "val").mkdir()
    assert faults_of(toy, toy.competition(validation=BY_FOLDER)) == ["pets/val: no labelled images"]


def test_a_class_with_the_name_of_the_validation_folder_may_repeat_its_ids(toy):
    files = {"train/val/cat/1.png": toy.png(701), "val/cat/1.png": toy.png(702)}
    toy.write(toy.data / "pets", toy.folders() | files)
    faults = faults_of(toy, toy.competition(validation=BY_FOLDER))
    assert any("the id 'val/cat/1' occurs 2 times" in fault for fault in faults)


def test_a_change_of_the_validation_folder_is_seen(toy):
    held_out = {f"val/{name}/{name}_0.png": toy.png(700 + len(name)) for name in toy.classes}
    folder = toy.write(toy.data / "pets", toy.folders() | held_out)
    toy.competition(validation=BY_FOLDER)
    assert toy.prepare().folds.tolist() == [-1] * 12 + [0] * 2
    toy.write(folder, {"val/cat/cat_1.png": toy.png(711)})
    with pytest.raises(DataError, match="not those that its runs were trained on"):
        toy.prepare()
