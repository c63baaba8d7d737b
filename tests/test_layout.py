"""The shape of the repository: sizes of files and functions."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
MOST_LINES_OF_A_FILE, MOST_LINES_OF_A_FUNCTION, MOST_WORDS_OF_THE_README = 300, 50, 900


def test_a_source_file_has_at_most_300_lines():
    long = [file for file in SOURCES if len(file.read_text().splitlines()) > MOST_LINES_OF_A_FILE]
    assert not long


def test_a_function_has_at_most_50_lines():
    long = [
        f"{file.name}:{node.lineno} {node.name}"
        for file in SOURCES
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.FunctionDef) and node.end_lineno - node.lineno >= MOST_LINES_OF_A_FUNCTION
    ]
    assert not long


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().split()) <= MOST_WORDS_OF_THE_README
