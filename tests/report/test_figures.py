import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from podium.report import figures
from podium.report.figures import Interval, Line

DRAWN = {
    "intervals": lambda: figures.intervals([Interval("best", 0.9, 0.8, 0.95, marked=True)], label="accuracy"),
    "courses": lambda: figures.courses([Line("a.s1", "a", [1, 2], [0.5, 0.4])], title="loss", shares=False),
    "finder": lambda: figures.finder("a", [1e-4, 1e-3, 1e-2], [2.0, 1.0, 3.0], {"valley": 1e-3}),
    "reliability": lambda: figures.reliability(np.array([[0.5, 0.6, 3]]), np.array([[0.6, 0.6, 3]])),
    "shares": lambda: figures.shares(["cat", "dog"], [0.5, 0.5], [0.4, 0.6]),
    "leaderboard": lambda: figures.against_leaderboard([(0.9, 0.91, 0.01), (0.92, 0.92, None)]),
}


@pytest.mark.parametrize("name", DRAWN)
def test_a_figure_is_well_formed_takes_its_colours_from_the_page_and_asks_nobody(name):
    drawn = DRAWN[name]()
    ElementTree.fromstring(drawn)
    assert "var(--ink)" in drawn and not any(colour in drawn for colour in figures.VARIABLES)
    addresses = {word for word in drawn.split('"') if "://" in word}
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}  # names, not places


@pytest.mark.parametrize("name", DRAWN)
def test_a_figure_is_the_same_each_time_it_is_drawn(name):
    assert DRAWN[name]() == DRAWN[name]()


def test_figures_of_one_page_share_no_ids():
    ids = [set(figures.re.findall(r'id="([^"]+)"', draw())) for draw in DRAWN.values()]
    assert sum(map(len, ids)) == len(set().union(*ids))


def test_names_are_drawn_as_they_are():
    names = ["<script>alert(1)</script>", "a $x^2$ b", "n" * 40, "#0072b2", ' id="foo" z']
    drawn = figures.shares(names, [0.2] * 5, [0.2] * 5)
    assert "<script>" not in drawn and "&lt;script&gt;" in drawn
    assert "#0072b2</text>" in drawn and 'id="foo" z' in drawn
    assert "a $x^2$ b" in drawn
    assert "n" * 23 + "\N{HORIZONTAL ELLIPSIS}" in drawn


def lines(count, families):
    return [Line(f"r{k % families}.s{k // families}", f"r{k % families}", [1, 2], [0.1 * k, 0.2]) for k in range(count)]


def test_few_lines_are_named_by_their_runs_many_by_their_recipes_and_more_by_nothing():
    few, many, more = (figures.courses(lines(*one), title="loss", shares=False) for one in ((4, 2), (20, 5), (40, 20)))
    assert "r1.s1" in few
    assert "r1</text>" in many and "r1.s1" not in many
    assert "r1</text>" not in more


def test_the_eighth_recipe_has_the_firsts_colour_and_another_dash(monkeypatch):
    drawn = figures.courses(lines(8, 8), title="loss", shares=False)
    first = [tag for tag in figures.re.findall(r"<path[^>]*var\(--series-1\)[^>]*>", drawn) if "none" in tag]
    assert len({"stroke-dasharray" in tag for tag in first}) == 2
