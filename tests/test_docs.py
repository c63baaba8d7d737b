"""The documents: reference from the code, links, and a site without warnings."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


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
