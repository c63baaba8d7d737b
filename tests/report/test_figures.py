import xml.etree.ElementTree as ElementTree

import numpy as np
import pandas as pd
import pytest

from podium.report import figures

STRATEGIES = pd.DataFrame(
    {"strategy": ["best", "stack"], "cross-fitted": 0.9, "low": [0.8, None], "high": [0.95, None]}
)
EPOCHS = pd.DataFrame({"run": "a.s1", "epoch": [1, 2], "training loss": [0.5, 0.4]})
CURVE = pd.DataFrame({"learning rate": [1e-4, 1e-3, 1e-2], "loss": [2.0, 1.0, 3.0]})
BINS = pd.DataFrame({"confidence": [0.5], "accuracy": [0.6], "rows": [3]})
SHARES = pd.DataFrame({"class": ["cat", "dog"], "training": [0.5, 0.5], "predicted": [0.4, 0.6]})
SCORES = pd.DataFrame({"cross-fitted": [0.9, 0.92], "public": [0.91, 0.92], "standard error": [0.01, None]})
DRAWN = {
    "intervals": lambda: figures.interval_chart(STRATEGIES, highlighted="best", metric="accuracy"),
    "learning curves": lambda: figures.learning_curves(EPOCHS, "training loss"),
    "lr_find": lambda: figures.lr_curve("a", CURVE, {"valley": 1e-3}),
    "reliability": lambda: figures.reliability_diagram(BINS, BINS),
    "shares": lambda: figures.class_shares(SHARES),
    "leaderboard": lambda: figures.leaderboard_chart(SCORES),
}


@pytest.mark.parametrize("name", DRAWN)
def test_a_figure_is_well_formed_uses_colours_of_the_page_and_loads_nothing(name):
    drawn = DRAWN[name]()
    ElementTree.fromstring(drawn)
    assert "var(--ink)" in drawn and not any(colour in drawn for colour in figures.VARIABLES)
    addresses = {word for word in drawn.split('"') if "://" in word}
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}  # names of XML namespaces


@pytest.mark.parametrize("name", DRAWN)
def test_tick_labels_are_not_formulas(name):
    assert "$" not in DRAWN[name]()


def test_ticks_of_lr_find_do_not_overlap_and_equal_suggestions_are_both_visible():
    rates = np.geomspace(1e-7, 10, 50)
    drawn = figures.lr_curve("a", pd.DataFrame({"learning rate": rates, "loss": 2.0}), {"valley": 1e-3, "steep": 1e-3})
    texts = figures.re.findall(r">([^<]+)</text>", drawn)
    assert 3 <= texts.index("learning rate") <= 6  # labels of that axis come first
    assert drawn.index("fill-opacity: 0; stroke: var(--series-3)") < drawn.index("fill: var(--series-2)")


@pytest.mark.parametrize("name", DRAWN)
def test_a_figure_is_the_same_each_time_it_is_drawn(name):
    assert DRAWN[name]() == DRAWN[name]()


def test_two_figures_never_have_the_same_id():
    ids = [set(figures.re.findall(r'id="([^"]+)"', draw())) for draw in DRAWN.values()]
    assert sum(map(len, ids)) == len(set().union(*ids))


def test_names_are_drawn_literally():
    names = ["<script>alert(1)</script>", "a $x^2$ b", "n" * 40, "#0072b2", ' id="foo" z']
    drawn = figures.class_shares(pd.DataFrame({"class": names, "training": 0.2, "predicted": 0.2}))
    assert "<script>" not in drawn and "&lt;script&gt;" in drawn
    assert "#0072b2</text>" in drawn and 'id="foo" z' in drawn
    assert "a $x^2$ b" in drawn
    assert "n" * 23 + "\N{HORIZONTAL ELLIPSIS}" in drawn


def drawn_curves(count, recipes):
    runs = [f"r{k % recipes}.s{k // recipes}" for k in range(count)]
    epochs = pd.concat(pd.DataFrame({"run": run, "epoch": [1, 2], "loss": [0.1, 0.2]}) for run in runs)
    return figures.learning_curves(epochs, "loss")


def test_the_legend_names_runs_or_recipes_or_nothing_by_the_number_of_curves():
    few, many, more = (drawn_curves(*size) for size in ((4, 2), (20, 5), (40, 20)))
    assert "r1.s1" in few
    assert "r1</text>" in many and "r1.s1" not in many
    assert "r1</text>" not in more


def test_the_eighth_recipe_has_the_colour_of_the_first_with_other_dashes(monkeypatch):
    drawn = drawn_curves(8, 8)
    first = [tag for tag in figures.re.findall(r"<path[^>]*var\(--series-1\)[^>]*>", drawn) if "none" in tag]
    assert len({"stroke-dasharray" in tag for tag in first}) == 2
