"""The documents: reference from the code, links, and a site without warnings."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer import main

from podium.cli.app import app

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS.glob("*.md")]


def test_the_reference_is_what_the_code_says():
    spec = importlib.util.spec_from_file_location("make_reference", DOCS / "make_reference.py")
    reference = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(reference)
    old = [name for name, page in reference.PAGES.items() if (DOCS / name).read_text() != page()]
    assert not old, "type `make docs`, and commit these pages"


def test_the_site_is_built_without_a_warning_such_as_a_broken_link(tmp_path):
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-d", tmp_path / "doctrees"]
    built = subprocess.run([*command, DOCS, tmp_path / "site"], capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    pages = {page.stem for page in (tmp_path / "site").glob("*.html")}
    assert {page.stem for page in DOCS.glob("*.md")} <= pages


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_a_link_leads_to_a_file_and_to_a_heading_of_it(name):
    missing = []
    for link in re.findall(r"\]\(([^)]+)\)", (ROOT / name).read_text()):
        file, _, heading = link.partition("#")
        if "://" not in link and not ((ROOT / file).exists() and (not heading or heading in headings(ROOT / file))):
            missing.append(link)
    assert not missing


def headings(document: Path) -> set[str]:
    """The ends of links to the headings of a document, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title).strip().lower().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda file: file.name)
def test_each_command_in_a_document_exists(document):
    makefiles = "".join((ROOT / name).read_text() for name in ("Makefile", "environment.mk", "src/podium/podium.mk"))
    goals = set(re.findall(r"[a-z][\w-]+", makefiles))  # and other words, as make's lists of goals are variables
    goals |= {recipe.stem for recipe in (ROOT / "competitions").glob("*/*.toml")}
    variables = set(re.findall(r"[A-Z_]{2,}", makefiles))
    verbs = set(main.get_command(app).commands)
    unknown = []
    for line in re.findall(r"(?:^    |`)((?:make|podium) [^`\n#]+)", document.read_text(), re.MULTILINE):
        program, *words = [word.strip("',.;:()") for word in re.sub(r"'[^']*'|<[^>]*>", "", line).split()]
        names = [word for word in words if re.fullmatch(r"[a-z][\w.-]*", word)]
        if program == "podium":
            unknown += [line] * (bool(names) and names[0] not in verbs)
        else:
            given = [word.split("=")[0] for word in words if re.match(r"\w+=", word)]
            unknown += [line] * (not {name.split(".s")[0] for name in names} <= goals or not {*given} <= variables)
    assert not unknown
