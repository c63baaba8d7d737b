"""The page: one file with nothing from outside, names escaped, every trial in it."""

import re
from html.parser import HTMLParser

from podium.tune import trials as trials_module
from podium.tune.page import importances, write_page
from podium.tune.task import FAILED, PRUNED, Judged
from podium.tune.trials import Budget, judge_again, run_trials
from tune_toys import RECIPE, SEARCH, Inline, Remembering


class Reader(HTMLParser):
    """Rows of the tables, and every attribute that could fetch something."""

    def __init__(self):
        super().__init__()
        self.rows, self.addresses, self.circles = 0, [], 0

    def handle_starttag(self, tag, attributes):
        self.rows += tag == "tr"
        self.circles += tag == "circle"
        self.addresses += [value for name, value in attributes if name in ("src", "href", "xlink:href", "action")]


def searched(house, trials):
    tuning = house.open()
    run_trials(tuning, Budget(trials=trials), pool=Inline(), onlooker=Remembering())
    return tuning, judge_again(tuning, pool=Inline(), onlooker=Remembering())


def read(file):
    reader, text = Reader(), file.read_text()
    reader.feed(text)
    return reader, text


def test_the_page_shows_every_trial_the_best_and_which_key_matters(house, judged_by_rate, monkeypatch):
    right, answers = trials_module.judge, iter([None, Judged(FAILED, reason="it <diverged>"), Judged(PRUNED)])
    monkeypatch.setattr(trials_module, "judge", lambda task: next(answers, None) or right(task))
    tuning, again = searched(house, 14)
    file = write_page(tuning, again)
    assert file == house.project.root / "reports" / "digits" / "tune" / "tiny" / "index.html"
    reader, text = read(file)
    assert reader.addresses == [] and "http" not in text and "@import" not in text and len(text) < 100_000
    assert "prefers-color-scheme: dark" in text
    shares = importances(tuning)
    assert next(iter(shares)) == "learning_rate" and sum(shares.values()) > 0.99
    assert reader.rows == 1 + 14 + len(shares)
    assert reader.circles == 12 * 4  # in order, and by each of three keys
    assert "it &lt;diverged&gt;" in text and "it <diverged>" not in text
    assert f"{tuning.best.value:.4f}" in text and "the recipe as it is" in text and "validation rows are not" in text
    assert not re.search(r"nan|None<", text)


def test_names_are_escaped(house, judged_by_rate):
    tuning, _ = searched(house, 2)
    object.__setattr__(tuning, "recipe_name", "<b>&")
    _, text = read(write_page(tuning, None))
    assert "<b>&" not in text and "&lt;b&gt;&amp;" in text


def test_a_search_without_a_score_has_a_page_too(house, judged_by_rate):
    _, text = read(write_page(house.open(), None))
    assert "No trial has come to a score yet." in text and "Too few trials to say." in text


def test_equal_scores_and_few_trials_say_nothing_of_keys(house, judged_by_rate):
    house.recipe_file.write_text(
        RECIPE + SEARCH.replace("learning_rate = { low = 0.0002, high = 0.2, log = true }", "")
    )
    tuning, again = searched(house, 9)
    assert len({trial.value for trial in tuning.study.trials}) == 1
    reader, _ = read(write_page(tuning, again))
    assert reader.circles == 9 * 3
