import base64
import csv
import io
import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from podium.ensemble.write import write_ensemble
from podium.errors import SubmissionError
from podium.kaggle.ledger import SCORED, Entry, ledger_file, write_ledger
from podium.lock import write_lock
from podium.plan.paths import Project
from podium.predictions.artefact import save_predictions
from podium.report.page import write_report
from podium.workspace import open_workspace
from toy_runs import SETTINGS, lock_for, random_run, save
from toy_runs import make_project as make_workspace

NASTY = ("<script>alert('bird')</script>", 'cat" onload="alert(1)', "d&og $x_1$")
CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), ""
)


def make_project(*arguments, **options):
    return Project.at(make_workspace(*arguments, **options).paths.root)


def _workspace(project):
    return open_workspace("toy", project.root)


def history(project, run, rows):
    file = project.history_file("toy", run)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("stage,epoch,epochs,training_loss,validation_accuracy\n" + "\n".join(rows) + "\n")


def decoded(project, lock, *, side=16):
    """Images for a lock, as `podium prepare` leaves them."""
    folder = project.cache_folder("toy") / "key"
    folder.mkdir(parents=True)
    draw = np.random.default_rng(0)
    counts = {"train": len(lock.train_ids), "test": len(lock.test_ids)}
    images = {part: draw.integers(0, 256, (n, side, side, 3), dtype=np.uint8) for part, n in counts.items()}
    images["test"][0] = images["train"][0]
    for part, array in images.items():
        np.save(folder / f"{part}-{side}-crop.npy", array)
    arrays = {"train_ids": lock.train_ids, "train_labels": lock.train_labels, "test_ids": lock.test_ids}
    np.savez(folder / "index.npz", **arrays, classes=np.array(lock.classes), fingerprint=np.array(lock.fingerprint))


RECIPE = """
architecture = "vgg19"
epochs = 1
learning_rate = 0.1
"""


def with_recipe(project):
    (project.competition_folder("toy") / "vgg19.toml").write_text(RECIPE)
    return project


def entry(number, cross_fitted, public):
    return Entry(
        time=f"2026-01-0{number}T00:00:00Z",
        state=SCORED,
        file="ensemble.csv",
        sha256=str(number) * 64,
        cross_fitted=cross_fitted,
        standard_error="0.01",
        public=public,
        ref=str(number),
        message="try <b>1</b>",
    )


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """Three runs of classes with nasty names, one of them without weight, and everything else that there can be."""
    runs = [random_run(f"{name}.s1", classes=NASTY, seed=k, noise=1 + k) for k, name in enumerate(("vgg19", "a", "b"))]
    lock = lock_for(random_run("any.s1", classes=NASTY))
    project = with_recipe(make_project(tmp_path_factory.mktemp("report"), runs, lock=lock))
    history(project, "vgg19.s1", ["train,1,2,1.5,0.4", "train,2,2,1.0,0.6", "refit,1,2,1.0,"])
    history(project, "a.s1", ["train fold 1/2,1,1,1.5,", "train fold 2/2,1,1,9.0,0.1"])
    finders = project.finder_folder("toy")
    finders.mkdir(parents=True)
    (finders / "vgg19.csv").write_text("learning_rate,loss\n0.001,2\n0.01,1\n0.1,3\n")
    (finders / "vgg19.json").write_text(json.dumps({"suggestions": {"valley": 0.01}}))
    (finders / "old.json").write_text("{}")
    (finders / "wild.csv").write_text("learning_rate,loss\n0,1\n0.01,inf\n0.1,nan\n1,2\n10,3\n")
    (finders / "wild.json").write_text(json.dumps({"suggestions": {"valley": "none", "steep": None}}))
    (finders / "nothing.csv").write_text("learning_rate,loss\n0,nan\n")
    (finders / "nothing.json").write_text(json.dumps({"suggestions": {}}))
    write_ledger(ledger_file(project, "toy"), [entry(k, f"0.9{k}", f"0.8{k}") for k in range(1, 6)])
    decoded(project, lock)
    write_ensemble(_workspace(project))
    return project


@pytest.fixture(scope="module")
def page(project):
    return write_report(project, "toy").read_text(encoding="utf-8")


class Tags(HTMLParser):
    """Every tag of a page with its attributes, and its text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.words = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.words.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


def test_a_page_answers_the_five_questions_in_their_order(page):
    asked = [one["id"] for one in Tags(page).all("section")]
    assert asked == ["where", "runs", "ensemble", "wrong", "submission"]


def test_a_page_asks_for_nothing_outside_itself(page):
    addresses = [tag.get("src") or tag.get("href") for _, tag in Tags(page).tags if tag.get("src") or tag.get("href")]
    assert addresses and all(one.startswith(("#", "data:")) for one in addresses)
    assert "@import" not in page and not re.search(r"url\((?!#)", page)


def test_names_from_data_are_just_names(page):
    tags = Tags(page)
    assert len(tags.all("script")) == 1 and not any("onload" in one for _, one in tags.tags)
    assert NASTY[0] in tags.text and "try <b>1</b>" in tags.text


def test_the_honest_score_and_the_best_run_lead(page, project):
    made = json.loads((project.submissions_folder("toy") / "ensemble.json").read_text())
    lead, *_ = re.findall(r'class="value">([^<]+)', page)
    assert lead == f"{made['honest_score']['score']:.4f}"
    assert f"{made['best_single_run']['run']} looks best on all of them" in Tags(page).text


def test_every_figure_has_its_data_one_click_away(page):
    figures = re.findall(r"<figure>.*?</figure>", page, flags=re.DOTALL)
    assert len(figures) == 7 and all('class="data"' in one for one in figures)
    assert all(one["download"].endswith(".csv") for one in Tags(page).all("a") if one.get("class") == "data")


def table(page, name):
    """The rows of a CSV that the page carries."""
    address = next(one["href"] for one in Tags(page).all("a") if one.get("download") == f"{name}.csv")
    return list(csv.reader(io.StringIO(base64.b64decode(address.split(",")[1]).decode())))


def test_learning_curves_leave_out_the_refit_and_all_folds_but_the_first(page):
    assert table(page, "learning-curves")[1:] == [
        ["a.s1", "1", "train fold 1/2", "1.5", "nan"],
        ["vgg19.s1", "1", "train", "1.5", "0.4"],
        ["vgg19.s1", "2", "train", "1", "0.6"],
    ]


def test_the_confusion_matrix_counts_every_validation_row(page, project):
    cells = np.array([row[1:] for row in table(page, "confusion")[1:]], int)
    assert cells.shape == (3, 3) and cells.sum() == 40


def test_rows_with_the_largest_loss_are_shown_with_image_label_and_what_members_said(page):
    first = page.split('<ul class="gallery">')[1].split("</details>")[0]
    assert "data:image/png" in first and "labelled <strong>" in first and "vgg19.s1: " in first


def test_a_picture_that_is_in_training_and_test_is_found(page):
    assert len(table(page, "near-duplicates")) == 2


def test_the_leaderboard_correlates_with_the_cross_fitted_scores_of_five_submissions(page):
    assert "Rank correlation 1.00." in page and len(table(page, "submissions")) == 6


def test_a_submission_that_is_older_than_its_runs_says_so(project, page):
    assert "writes it again" not in page
    late = random_run("late.s1", classes=NASTY, seed=9)
    try:
        save(_workspace(project), late)
        assert "writes it again" in write_report(project, "toy").read_text(encoding="utf-8")
    finally:
        project.predictions_file("toy", "late.s1").unlink()


def test_points_of_a_finder_that_cannot_be_drawn_are_left_out(page):
    assert table(page, "lr-find-wild")[1:] == [["1", "2"], ["10", "3"]]
    assert "lr-find-nothing" not in page and "lr-find-old" not in page


def written_anew(project, *, lock=None, made=None):
    """A copy of the report where something about the submission is out of the ordinary."""
    if lock is not None:
        write_lock(project.lock_file("toy"), lock)
    if made is not None:
        (project.submissions_folder("toy") / "ensemble.json").write_text(json.dumps(made))
    return Tags(write_report(project, "toy").read_text(encoding="utf-8")).text


@pytest.fixture
def small(tmp_path):
    """One run with its submission."""
    project = with_recipe(make_project(tmp_path, [random_run("vgg19.s1")]))
    write_ensemble(_workspace(project))
    return project


def test_a_submission_of_other_rows_is_no_submission_and_shows_no_shares(small):
    run = random_run("vgg19.s1", tests=31)
    save(_workspace(small), run)
    text = written_anew(small, lock=lock_for(run))
    assert "no valid submission" in text and "of other rows or classes" in text


@pytest.mark.parametrize(
    "made",
    [{"strategy": "best", "honest_score": None, "runs": None}, {"runs": [1, {"weight": "much"}]}, ["a list"], "text"],
)
def test_a_damaged_account_of_the_submission_is_not_believed_and_not_missed(small, made):
    assert "made by not said" in written_anew(small, made=made)


def test_a_damaged_ledger_is_told_and_the_page_is_there(small):
    ledger_file(small, "toy").write_text("what,is,this\n")
    assert "Not a ledger of submissions." in written_anew(small)


def test_runs_of_grouped_rows_claim_no_interval_of_their_own(small):
    assert "accuracy, 95 % interval" in written_anew(small)
    run = random_run("vgg19.s1")
    lock = replace(lock_for(run), groups=np.array([str(k % 7) for k in range(42)]))
    page = (written_anew(small, lock=lock), small.report_file("toy").read_text())[1]
    assert "<small>" not in page.split('id="ensemble"')[0]


@pytest.mark.parametrize("metric", ["qwk", "macro_f1", "auc", "log_loss"])
def test_the_competitions_metric_leads_and_every_run_has_it(tmp_path, metric):
    settings = SETTINGS.replace("[data]", f'metric = "{metric}"\n[data]', 1)
    project = with_recipe(
        make_project(tmp_path, [random_run("vgg19.s1"), random_run("b.s1", seed=2)], settings=settings)
    )
    made = write_ensemble(_workspace(project)).result
    page = write_report(project, "toy").read_text(encoding="utf-8")
    assert re.findall(r'class="value">([^<]+)', page)[0] == f"{made.honest.score:.4f}"
    told = {row[0]: float(row[8]) for row in table(page, "runs")[1:]}
    assert told == {run.run: pytest.approx(run.scores[metric], rel=1e-4) for run in made.runs}
    low, high = made.honest.test_interval
    assert low >= (-1 if metric == "qwk" else 0) and (metric == "log_loss" or high <= 1)


def test_what_is_not_there_is_said_and_not_missed(tmp_path):
    runs = [random_run("vgg19.s1")]
    project = with_recipe(make_project(tmp_path, runs, settings=LOG_LOSS))
    text = Tags(write_report(project, "toy").read_text(encoding="utf-8")).text
    assert "the leaderboard is not known" in text
    assert "The images are not decoded here" in text and "Not searched: the images are not decoded here." in text
    assert "No learning curves" in text and "There is no submission yet" in text


LOG_LOSS = """
title = "A competition made by hand"
metric = "log_loss"
[data]
source = "folders"
[validation]
rows = 40
[ensemble]
threshold = 0.2
[submission]
kind = "probabilities"
"""


def test_images_of_k_folds_are_twins_across_folds(tmp_path):
    run = random_run("vgg19.s1")
    one = lock_for(run)
    folds = np.where(np.arange(len(one.train_ids)) % 2, 1, 0)
    folds[-2:] = -1
    lock = replace(one, folds=folds)
    about = run.about | {"fold_sha256": lock.fold_sha256}
    project = with_recipe(make_project(tmp_path, [], lock=lock))
    save_predictions(project.predictions_file("toy", run.run), replace(run, about=about))
    decoded(project, lock)
    assert table(write_report(project, "toy").read_text(encoding="utf-8"), "near-duplicates")[1][1] in (
        "fold 1",
        "test",
    )


def test_a_competition_without_predictions_is_one_screen(tmp_path):
    project = make_project(tmp_path, [])
    with pytest.raises(SubmissionError, match="no predictions"):
        write_report(project, "toy")


@pytest.fixture(scope="module")
def opened(project):
    """The page on a dark phone, and whatever it said or asked for."""
    if not CHROMIUM:
        pytest.skip("no Chromium here")
    from playwright.sync_api import sync_playwright

    file = write_report(project, "toy")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        view = browser.new_page(viewport={"width": 390, "height": 800}, color_scheme="dark")
        said = []
        view.on("console", lambda message: said.append(message.text))
        view.on("pageerror", lambda error: said.append(str(error)))
        view.on("request", lambda request: said.append(request.url) if request.url.startswith("http") else None)
        view.goto(file.resolve().as_uri())
        yield view, said
        browser.close()


class TestInABrowser:
    def test_it_opens_without_a_word_on_the_console_and_asks_no_server(self, opened):
        view, said = opened
        assert view.title() == "toy: where it stands" and said == []

    def test_tables_sort_by_number_and_by_name_and_turn_round(self, opened):
        view, _ = opened
        heads = view.locator("#runs table thead th")
        names = view.locator("#runs table tbody th")
        heads.nth(0).locator("button").click()
        assert names.all_inner_texts() == ["a.s1", "b.s1", "vgg19.s1"]
        heads.nth(0).locator("button").click()
        assert names.all_inner_texts() == ["vgg19.s1", "b.s1", "a.s1"]
        assert heads.nth(0).get_attribute("aria-sort") == "descending"
        heads.nth(5).locator("button").click()
        losses = [float(one) for one in view.locator("#runs table tbody td:nth-child(6)").all_inner_texts()]
        assert losses == sorted(losses, reverse=True)

    def test_a_narrow_screen_is_not_scrolled_sideways(self, opened):
        view, _ = opened
        assert view.evaluate("document.documentElement.scrollWidth <= innerWidth")

    def test_the_dark_page_is_dark_and_its_text_is_light(self, opened):
        view, _ = opened
        paper, ink = view.evaluate(
            "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
        )
        assert [sum(map(int, re.findall(r"\d+", one))) > 380 for one in (paper, ink)] == [False, True]

    def test_every_image_is_whole(self, opened):
        view, _ = opened
        assert view.evaluate(
            "[...document.images].length > 0 && [...document.images].every(one => one.naturalWidth > 0)"
        )
