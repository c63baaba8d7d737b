import base64
import csv
import io
import json
import re
import shutil
import sys
import zlib
from dataclasses import replace
from html.parser import HTMLParser
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest

from podium.cli.ensemble import report
from podium.data.cache import ROWS_PER_BLOCK, find_images
from podium.ensemble.write import write_ensemble
from podium.errors import DataError, SubmissionError
from podium.kaggle.ledger import LEDGER, SCORED, Entry, write_ledger
from podium.lock import write_lock
from podium.predictions.artefact import save_predictions
from podium.report import figures, load, sections
from podium.report.load import _find_features, _read_lr_curve
from podium.report.page import write_report
from podium.workspace import open_workspace
from toy_runs import SETTINGS, lock_for, make_project, random_run, save

NASTY = ("<script>alert('bird')</script>", 'cat" onload="alert(1)', "d&og $x_1$")
CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), ""
)


def read_page(workspace):
    """Write the report from the files as they are now, and return its text."""
    return write_report(open_workspace("toy", workspace.paths.root)).read_text(encoding="utf-8")


def write_history(workspace, run, rows, *, newer=""):
    file = workspace.paths.history_file(run)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"stage,epoch,epochs,training_loss,validation_accuracy{newer}\n" + "\n".join(rows) + "\n")


def write_decoded_images(workspace, lock, *, side=16):
    """Write images for a lock as `podium prepare` does; one is in training and test."""
    folder = workspace.paths.cache / "key"
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    counts = {"train": len(lock.train_ids), "test": len(lock.test_ids)}
    images = {part: generator.integers(0, 256, (n, side, side, 3), dtype=np.uint8) for part, n in counts.items()}
    images["test"][0] = images["train"][0]
    array = np.concatenate(list(images.values()))
    np.save(folder / f"images-{side}-crop.npy", array)
    checksums = [zlib.crc32(array[row : row + ROWS_PER_BLOCK]) for row in range(0, len(array), ROWS_PER_BLOCK)]
    (folder / f"images-{side}-crop.json").write_text(json.dumps(checksums))
    write_lock(folder / "listing.lock", lock)


RECIPE = """
architecture = "vgg19"
epochs = 1
learning_rate = 0.1
"""


def make_toy(folder, runs, **options):
    """A workspace with these runs and one recipe."""
    workspace = make_project(folder, runs, **options)
    (workspace.paths.folder / "vgg19.toml").write_text(RECIPE)
    return workspace


def entry(number, cross_fitted, public):
    return Entry(
        time=f"2026-01-0{number}T00:00:00Z",
        state=SCORED,
        file="ensemble.csv",
        sha256=str(number) * 64,
        cross_fitted=cross_fitted,
        standard_error=0.01,
        public=public,
        ref=number,
        message="try <b>1</b>",
    )


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """Three runs, one without weight; class names that need escaping; every optional file of a competition."""
    runs = [random_run(f"{name}.s1", classes=NASTY, seed=k, noise=1 + k) for k, name in enumerate(("vgg19", "a", "b"))]
    lock = lock_for(random_run("any.s1", classes=NASTY))
    workspace = make_toy(tmp_path_factory.mktemp("report"), runs, lock=lock)
    rows = ["train,1,2,1.5,0.4,1.2", "train,2,2,1.0,0.6,0.9", "refit,1,2,1.0,,"]
    write_history(workspace, "vgg19.s1", rows, newer=",validation_loss")
    write_history(workspace, "a.s1", ["train fold 1/2,1,1,1.5,", "train fold 2/2,1,1,9.0,0.1"])
    folder = workspace.paths.lr_find_folder
    folder.mkdir(parents=True)
    (folder / "vgg19.csv").write_text("learning_rate,loss\n0.001,2\n0.01,1\n0.1,3\n")
    (folder / "vgg19.json").write_text(json.dumps({"suggestions": {"valley": 0.01}}))
    (folder / "old.json").write_text("{}")
    (folder / "wild.csv").write_text("learning_rate,loss\n0,1\n0.01,inf\n0.1,nan\n1,2\n10,3\n")
    (folder / "wild.json").write_text(json.dumps({"suggestions": {"valley": "none", "steep": None}}))
    (folder / "nothing.csv").write_text("learning_rate,loss\n0,nan\n")
    (folder / "nothing.json").write_text(json.dumps({"suggestions": {}}))
    write_ledger(workspace.paths.submissions / LEDGER, [entry(k, 0.9 + k / 100, 0.8 + k / 100) for k in range(1, 6)])
    write_decoded_images(workspace, lock)
    write_ensemble(workspace)
    return workspace


@pytest.fixture(scope="module")
def page(workspace):
    return read_page(workspace)


class Tags(HTMLParser):
    """Every tag of a page with its attributes, and its text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.texts = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.texts.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())


def test_a_page_has_five_sections_in_order(page):
    sections = [section["id"] for section in Tags(page).all("section")]
    assert sections == ["score", "runs", "ensemble", "mistakes", "submission"]


def test_a_page_loads_nothing_from_outside(page):
    addresses = [tag.get("src") or tag.get("href") for _, tag in Tags(page).tags if tag.get("src") or tag.get("href")]
    assert addresses and all(address.startswith(("#", "data:")) for address in addresses)
    assert "@import" not in page and not re.search(r"url\((?!#)", page)


def test_names_from_data_are_escaped(page):
    tags = Tags(page)
    assert len(tags.all("script")) == 1 and not any("onload" in attributes for _, attributes in tags.tags)
    assert NASTY[0] in tags.text and "try <b>1</b>" in tags.text


def test_the_cross_fitted_score_comes_first_and_the_best_run_is_named(page, workspace):
    made = json.loads((workspace.paths.submissions / "ensemble.json").read_text())
    lead, *_ = re.findall(r'class="value">([^<]+)', page)
    assert lead == f"{made['honest_score']['score']:.4f}"
    assert f"{made['best_single_run']['run']} has the best score" in Tags(page).text


def test_every_figure_has_a_link_to_its_data(page):
    tags = re.findall(r"<figure>.*?</figure>", page, flags=re.DOTALL)
    assert len(tags) == 7 and all('class="data"' in tag for tag in tags)
    assert all(link["download"].endswith(".csv") for link in Tags(page).all("a") if link.get("class") == "data")


def table(page, name):
    """The rows of a CSV that the page carries."""
    address = next(link["href"] for link in Tags(page).all("a") if link.get("download") == f"{name}.csv")
    return list(csv.reader(io.StringIO(base64.b64decode(address.split(",")[1]).decode())))


def test_learning_curves_show_the_first_fold_and_no_refit_and_older_histories_have_no_validation_loss(page):
    assert table(page, "learning-curves")[1:] == [
        ["a.s1", "1", "train fold 1/2", "1.5", "", ""],
        ["vgg19.s1", "1", "train", "1.5", "1.2", "0.4"],
        ["vgg19.s1", "2", "train", "1", "0.9", "0.6"],
    ]
    assert 'aria-label="Validation loss over epochs' in page


@pytest.mark.usefixtures("without_figures")
def test_a_title_that_is_the_name_stands_once(small):
    assert Tags(read_page(small)).text.count("A competition made by hand") == 1
    (small.paths.settings_file).write_text(SETTINGS.replace("A competition made by hand", "toy"))
    (heading,) = re.findall(r"<header>.*?<nav", read_page(small), flags=re.DOTALL)
    assert heading.count("toy") == 1


def test_the_confusion_matrix_counts_every_validation_row(page, workspace):
    rows = table(page, "confusion")[1:]
    assert len(rows) <= 9 and sum(int(count) for _, _, count in rows) == 40


def test_rows_with_the_largest_loss_have_image_label_and_predictions_of_members(page):
    first = page.split('<ul class="gallery">')[1].split("</details>")[0]
    assert "data:image/png" in first and "label <strong>" in first and "vgg19.s1: " in first


def test_an_image_in_training_and_test_is_a_near_duplicate(page):
    header, *rows = table(page, "near-duplicates")
    assert header == ["group", "id", "part", "label"] and [row[0] for row in rows] == ["1", "1"]
    assert sorted(row[2] for row in rows) == ["test", "validation"]
    assert "1 of 30 test images have a near-duplicate among the labelled images" in page


def test_five_submissions_have_a_rank_correlation(page):
    assert "Rank correlation 1.00." in page and len(table(page, "submissions")) == 6


@pytest.mark.usefixtures("without_figures")
def test_a_submission_older_than_its_runs_is_out_of_date(workspace, page):
    assert "out of date" not in page and "There is no other ensemble to compare with" in page
    late = random_run("late.s1", classes=NASTY, seed=9)
    try:
        save(workspace, late)
        text = Tags(read_page(workspace)).text
        assert "out of date" in text and "On the same rows, this blend gains" in text
    finally:
        workspace.paths.predictions_file("late.s1").unlink()


def test_points_of_lr_find_that_cannot_be_drawn_are_left_out(page):
    assert table(page, "lr-find-wild")[1:] == [["1", "2"], ["10", "3"]]
    assert "lr-find-nothing" not in page and "lr-find-old" not in page


def test_a_curve_of_lr_find_with_a_damaged_json_file_has_no_suggestions(tmp_path):
    (tmp_path / "a.csv").write_text("learning_rate,loss\n0.1,2\n")
    for text in ("{", "[]", '{"suggestions": [0.1]}', '{"suggestions": {"valley": "none"}}'):
        (tmp_path / "a.json").write_text(text)
        curve, suggestions = _read_lr_curve(tmp_path / "a.csv")
        assert curve.values.tolist() == [[0.1, 2.0]] and suggestions == {}


@pytest.fixture
def without_figures(monkeypatch):
    """Leave the figures empty: drawing them is most of the time that a page takes."""
    monkeypatch.setattr(figures, "_svg", lambda figure: "<svg></svg>")


@pytest.fixture
def small(tmp_path, without_figures):
    """One run with its submission."""
    workspace = make_toy(tmp_path, [random_run("vgg19.s1")])
    write_ensemble(workspace)
    return workspace


def test_a_submission_of_other_rows_is_not_valid_and_shows_no_class_shares(small):
    run = random_run("vgg19.s1", tests=31)
    save(small, run)
    write_lock(small.paths.lock_file, lock_for(run))
    text = Tags(read_page(small)).text
    assert "is not a valid submission" in text and "have other rows or classes" in text


@pytest.mark.parametrize(
    "record",
    [{"strategy": "best", "honest_score": None, "runs": None}, {"runs": [1, {"weight": "much"}]}, ["a list"], "text"],
)
def test_a_damaged_json_of_the_submission_does_not_stop_the_report(small, record):
    (small.paths.submissions / "ensemble.json").write_text(json.dumps(record))
    assert "the JSON file beside the CSV is missing or damaged" in Tags(read_page(small)).text


@pytest.mark.usefixtures("without_figures")
def test_of_many_runs_only_those_with_the_largest_weights_have_correlations_and_curves(tmp_path, monkeypatch):
    for module in (sections, load):
        monkeypatch.setattr(module, "MOST_RUNS", 2)
    workspace = make_toy(tmp_path, [random_run(f"vgg19.s{seed}", seed=seed) for seed in (1, 2, 3)])
    for seed in (1, 2, 3):
        write_history(workspace, f"vgg19.s{seed}", ["train,1,1,1.5,0.4"])
    page = read_page(workspace)
    assert "Shown are the 2 of 3 runs with the largest weights" in Tags(page).text
    assert len(table(page, "error-correlation")) == 3 == len(table(page, "learning-curves"))
    assert "Shown are 2 of 3 runs" in Tags(page).text


def test_a_run_that_may_know_validation_rows_is_named_on_the_page(small):
    assert "trained on them?" not in Tags(read_page(small)).text
    run = random_run("vgg19.s1")
    run.oof_logits[:] = np.eye(3)[run.oof_labels] * 5
    save(small, run)
    assert "vgg19.s1: no error on the validation rows: trained on them?" in Tags(read_page(small)).text


def test_a_damaged_ledger_is_reported_on_the_page(small):
    (small.paths.submissions / LEDGER).write_text("what,is,this\n")
    assert "The ledger cannot be read." in Tags(read_page(small)).text


def test_runs_of_grouped_rows_have_no_interval(small):
    assert "<small>" in read_page(small)
    lock = replace(lock_for(random_run("vgg19.s1")), groups=np.array([str(k % 7) for k in range(42)]))
    write_lock(small.paths.lock_file, lock)
    assert "<small>" not in read_page(small)


@pytest.mark.usefixtures("without_figures")
@pytest.mark.parametrize("metric", ["qwk", "auc", "log_loss"])
def test_the_score_and_every_run_use_the_metric_of_the_competition(tmp_path, metric):
    settings = SETTINGS.replace("[data]", f'metric = "{metric}"\n[data]', 1)
    settings = settings.replace("threshold = 0.7\n", "")  # which log_loss does not have
    settings += f'[submission]\nkind = "{"labels" if metric == "qwk" else "probabilities"}"\n'
    workspace = make_toy(tmp_path, [random_run("vgg19.s1"), random_run("b.s1", seed=2)], settings=settings)
    made = write_ensemble(workspace).result
    page = read_page(workspace)
    assert re.findall(r'class="value">([^<]+)', page)[0] == f"{made.score.score:.4f}"
    header, *rows = table(page, "runs")
    scores = {row[0]: float(row[header.index(metric)]) for row in rows}
    assert scores == {run.run: pytest.approx(run.scores[metric], rel=1e-4) for run in made.runs}
    low, high = made.score.test_interval
    assert low >= (-1 if metric == "qwk" else 0) and (metric == "log_loss" or high <= 1)


@pytest.mark.usefixtures("without_figures")
def test_missing_images_histories_ledger_and_submission_are_reported(tmp_path):
    runs = [random_run("vgg19.s1")]
    workspace = make_toy(tmp_path, runs, settings=LOG_LOSS)
    text = Tags(read_page(workspace)).text
    assert "public score" not in text, "it is not on Kaggle"
    assert "make prepare COMPETITION=toy" in text and "Not searched: the images are not decoded" in text
    assert "No learning curves" in text and "There is no submission file yet" in text


LOG_LOSS = """
title = "A competition made by hand"
metric = "log_loss"
[data]
source = "folders"
[validation]
rows = 40
[submission]
kind = "probabilities"
"""


@pytest.mark.usefixtures("without_figures")
def test_a_report_without_heat_maps_is_written_where_their_images_cannot_be_read(tmp_path, monkeypatch, capsys):
    workspace = make_project(tmp_path, [random_run("a.s1", seed=1)])
    write_decoded_images(workspace, workspace.lock)
    file = workspace.paths.parameters_file("a.s1")
    file.parent.mkdir(parents=True)
    file.write_bytes(b"1")
    error = DataError("The images are not decoded at this recipe's size.")
    monkeypatch.setitem(sys.modules, "podium.training.heat_maps", SimpleNamespace(heat_maps=Mock(side_effect=error)))
    report(workspace)
    printed = capsys.readouterr().out
    assert f"no heat maps: {error.what}\nwrote {workspace.paths.reports / 'index.html'}" in printed


@pytest.mark.usefixtures("without_figures")
def test_heat_maps_are_drawn_once_for_the_member_whose_parameters_are_here(tmp_path):
    workspace, drawn = make_project(tmp_path, [random_run(f"a.s{seed}", seed=seed) for seed in (1, 2)]), []
    write_decoded_images(workspace, workspace.lock)

    def draw(run, rows, outputs):
        drawn.append(run)
        assert len(rows) == len(outputs) and (workspace.lock.folds[rows] == 0).all() and max(outputs) < 3
        return np.ones((len(rows), 2, 2)) if len(drawn) < 3 else None

    def count_of_heat_maps(draw):
        return write_report(workspace, draw).read_text().count('alt="Heat map"')

    assert count_of_heat_maps(draw) == 0 and not drawn  # no parameters
    file = workspace.paths.parameters_file("a.s2")
    file.parent.mkdir(parents=True)
    file.write_bytes(b"1")
    shown = count_of_heat_maps(draw)
    assert drawn == ["a.s2"] and shown > 5
    assert count_of_heat_maps(draw) == count_of_heat_maps(None) == shown and len(drawn) == 1
    file.write_bytes(b"2")
    assert count_of_heat_maps(None) == 0 and count_of_heat_maps(draw) == shown and len(drawn) == 2
    workspace.paths.reports.joinpath("heat-maps.npz").write_bytes(b"damaged")
    assert count_of_heat_maps(draw) == 0 and len(drawn) == 3


@pytest.mark.usefixtures("without_figures")
def test_damaged_images_are_not_shown(tmp_path):
    workspace = make_project(tmp_path, [random_run("a.s1")])
    for changed in (0, -1):
        shutil.rmtree(workspace.paths.cache, ignore_errors=True)
        write_decoded_images(workspace, workspace.lock)
        (file,) = workspace.paths.cache.rglob("images-16-crop.npy")
        images = np.load(file)
        images[changed] ^= 255
        np.save(file, images)
        with pytest.raises(DataError, match=r"images are damaged(.|\n)*images-16-crop.npy && make prepare .*=toy"):
            read_page(workspace)


def test_near_duplicates_across_folds_name_the_fold(tmp_path):
    run = random_run("vgg19.s1")
    holdout = lock_for(run)
    folds = np.where(np.arange(len(holdout.train_ids)) % 2, 1, 0)
    folds[-2:] = -1
    lock = replace(holdout, folds=folds)
    about = run.about | {"fold_sha256": lock.fold_sha256}
    workspace = make_toy(tmp_path, [], lock=lock)
    save_predictions(workspace.paths.predictions_file(run.run), replace(run, about=about))
    write_decoded_images(workspace, lock)
    assert {row[2] for row in table(read_page(workspace), "near-duplicates")[1:]} == {"fold 1", "test"}


def write_features(workspace, lock, features):
    """Keep features (n + m, channels) in the cache, as `podium embed` does; returns the files."""
    dataset, files = find_images(workspace.paths, lock), []
    for part, rows in zip(("train", "test"), np.split(features, [len(lock.train_ids)]), strict=True):
        stem = dataset.derived("features", part)
        stem.parent.mkdir(exist_ok=True)
        files.append(stem.with_name(f"{stem.name}-0123.npz"))
        np.savez(files[-1], features=rows.astype(np.float32))
    return files


@pytest.mark.usefixtures("without_figures")
def test_features_decide_near_duplicates_and_suspected_labels(tmp_path):
    run = random_run("vgg19.s1", noise=0.0)
    run.oof_labels[5] = (run.oof_labels[5] + 1) % 3
    lock = lock_for(run)
    workspace = make_toy(tmp_path, [run], lock=lock)
    (workspace.paths.folder / "vgg19.toml").write_text(RECIPE + "stored_pixels = 16\n")
    write_decoded_images(workspace, lock)
    page = read_page(workspace)
    assert "by the features of a pretrained network" not in page and [
        row[0] for row in table(page, "suspected-labels")[1:]
    ] == ["v5"]
    draw = np.random.default_rng(0)
    classes = np.concatenate([lock.train_labels, draw.integers(3, size=len(lock.test_ids))])
    features = 2 * np.eye(3, 40)[classes] + draw.normal(size=(len(classes), 40)) / 3
    features[-1] = features[7]
    write_features(workspace, lock, features)
    page = read_page(workspace)
    assert "by the features of a pretrained network" in page
    assert {row[1] for row in table(page, "near-duplicates")[1:]} == {"v0", "1", lock.train_ids[7], lock.test_ids[-1]}
    assert "No label is suspected to be wrong" in page  # the neighbours of v5 have its label


def test_damaged_features_and_those_of_one_part_are_not_used(tmp_path):
    workspace = make_project(tmp_path, [random_run("a.s1")])
    write_decoded_images(workspace, workspace.lock, side=32)  # the size of a competition without recipes
    features = np.arange(len(workspace.lock.train_ids) + len(workspace.lock.test_ids))[:, None] * np.ones(3)
    train, test = write_features(workspace, workspace.lock, features)
    np.testing.assert_array_equal(_find_features(workspace), features)
    test.write_bytes(train.read_bytes()[:-50])
    assert _find_features(workspace) is None
    test.unlink()
    assert _find_features(workspace) is None


def test_a_competition_without_predictions_is_refused(tmp_path):
    workspace = make_project(tmp_path, [])
    with pytest.raises(SubmissionError, match="no predictions"):
        write_report(workspace)


@pytest.fixture(scope="module")
def opened(workspace):
    """The page on a phone in dark mode, and its console messages, errors and requests."""
    if not CHROMIUM:
        pytest.skip("no Chromium here")
    from playwright.sync_api import sync_playwright

    file = write_report(workspace)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        view = browser.new_page(viewport={"width": 390, "height": 800}, color_scheme="dark")
        messages = []
        view.on("console", lambda message: messages.append(message.text))
        view.on("pageerror", lambda error: messages.append(str(error)))
        view.on("request", lambda request: messages.append(request.url) if request.url.startswith("http") else None)
        view.goto(file.resolve().as_uri())
        yield view, messages
        browser.close()


class TestInABrowser:
    def test_it_opens_without_console_messages_or_requests(self, opened):
        view, messages = opened
        assert view.title() == "toy: Podium report" and messages == []

    def test_tables_sort_by_number_and_by_name_in_both_directions(self, opened):
        view, _ = opened
        heads = view.locator("#runs table thead th")
        names = view.locator("#runs table tbody th")
        heads.nth(0).locator("button").click()
        assert names.all_inner_texts() == ["a.s1", "b.s1", "vgg19.s1"]
        heads.nth(0).locator("button").click()
        assert names.all_inner_texts() == ["vgg19.s1", "b.s1", "a.s1"]
        assert heads.nth(0).get_attribute("aria-sort") == "descending"
        heads.nth(5).locator("button").click()
        losses = [float(text) for text in view.locator("#runs table tbody td:nth-child(6)").all_inner_texts()]
        assert losses == sorted(losses, reverse=True)

    def test_a_narrow_screen_does_not_scroll_sideways(self, opened):
        view, _ = opened
        assert view.evaluate("document.documentElement.scrollWidth <= innerWidth")

    def test_dark_mode_has_a_dark_background_and_light_text(self, opened):
        view, _ = opened
        paper, ink = view.evaluate(
            "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
        )
        assert [sum(map(int, re.findall(r"\d+", colour))) > 380 for colour in (paper, ink)] == [False, True]

    def test_enter_enlarges_an_image_and_arrows_and_escape_leave_it(self, opened):
        view, _ = opened
        first = view.locator(".zoom").nth(0)
        first.focus()
        view.keyboard.press("Enter")
        copies = view.locator("dialog[open] .zoom img")
        assert copies.bounding_box()["width"] > 250 > first.locator("img").bounding_box()["width"]
        view.keyboard.press("ArrowRight")
        second = view.locator(".zoom img").nth(1).get_attribute("src")
        assert copies.get_attribute("src") == second
        view.get_by_role("button", name="Previous image").click()
        assert copies.get_attribute("src") != second
        view.keyboard.press("Escape")
        assert not view.locator("dialog[open]").count()
        assert view.evaluate("document.activeElement.className") == "zoom"

    def test_every_image_loads(self, opened):
        view, _ = opened
        assert view.evaluate(
            "[...document.images].length > 0 && [...document.images].every(image => image.naturalWidth > 0)"
        )
