import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from podium.report import figures

DRAWN = {
    "intervals": lambda: figures.interval_chart([("best", 0.9, 0.8, 0.95)], highlighted="best", label="accuracy"),
    "learning curves": lambda: figures.learning_curves({"a.s1": [(1, 0.5), (2, 0.4)]}, title="loss", percent=False),
    "lr_find": lambda: figures.lr_curve("a", [(1e-4, 2.0), (1e-3, 1.0), (1e-2, 3.0)], {"valley": 1e-3}),
    "reliability": lambda: figures.reliability_diagram(np.array([[0.5, 0.6, 3]]), np.array([[0.6, 0.6, 3]])),
    "shares": lambda: figures.class_shares(["cat", "dog"], [0.5, 0.5], [0.4, 0.6]),
    "leaderboard": lambda: figures.leaderboard_chart([(0.9, 0.91, 0.01), (0.92, 0.92, float("nan"))]),
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


@pytest.mark.parametrize("name", DRAWN)
def test_a_figure_is_the_same_each_time_it_is_drawn(name):
    assert DRAWN[name]() == DRAWN[name]()


def test_two_figures_never_have_the_same_id():
    ids = [set(figures.re.findall(r'id="([^"]+)"', draw())) for draw in DRAWN.values()]
    assert sum(map(len, ids)) == len(set().union(*ids))


def test_names_are_drawn_literally():
    names = ["<script>alert(1)</script>", "a $x^2$ b", "n" * 40, "#0072b2", ' id="foo" z']
    drawn = figures.class_shares(names, [0.2] * 5, [0.2] * 5)
    assert "<script>" not in drawn and "&lt;script&gt;" in drawn
    assert "#0072b2</text>" in drawn and 'id="foo" z' in drawn
    assert "a $x^2$ b" in drawn
    assert "n" * 23 + "\N{HORIZONTAL ELLIPSIS}" in drawn


def curves(count, recipes):
    return {f"r{k % recipes}.s{k // recipes}": [(1, 0.1 * k), (2, 0.2)] for k in range(count)}


def test_the_legend_names_runs_or_recipes_or_nothing_by_the_number_of_curves():
    few, many, more = (
        figures.learning_curves(curves(*size), title="loss", percent=False) for size in ((4, 2), (20, 5), (40, 20))
    )
    assert "r1.s1" in few
    assert "r1</text>" in many and "r1.s1" not in many
    assert "r1</text>" not in more


def test_the_eighth_recipe_has_the_colour_of_the_first_with_other_dashes(monkeypatch):
    drawn = figures.learning_curves(curves(8, 8), title="loss", percent=False)
    first = [tag for tag in figures.re.findall(r"<path[^>]*var\(--series-1\)[^>]*>", drawn) if "none" in tag]
    assert len({"stroke-dasharray" in tag for tag in first}) == 2
