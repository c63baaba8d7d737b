"""The benchmark beside other tools: its scripts parse, their lines are counted, and the page has what it prints."""

import ast
import importlib.util
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
spec = importlib.util.spec_from_file_location("bench_all", ROOT / "benchmarks" / "all.py")
bench = importlib.util.module_from_spec(spec)
spec.loader.exec_module(bench)


def test_lines_are_counted_without_docstring_comments_and_empty_lines():
    assert bench.count_lines('"""What.\n\nWhy.\n"""\n\nimport sys\n# comment\nfor i in sys.argv:\n    print(i)\n') == 3
    assert bench.count_lines("# typed\npodium init .\n\nmake new DATA=..\n") == 2


@pytest.mark.parametrize("tool", bench.ALL_TOOLS, ids=lambda tool: tool.name)
def test_the_script_of_each_tool_parses(tool):
    script = bench.TOOLS / tool.script
    if script.suffix == ".py":
        ast.parse(script.read_text())
    else:
        subprocess.run(["bash", "-n", script], check=True)


def test_a_csv_is_graded_by_its_ids_and_must_have_all_of_them(tmp_path):
    file = tmp_path / "submission.csv"
    file.write_text("id,label\nb,bee\na,bee\n")
    assert bench.grade(file, {"a": "ant", "b": "bee"}) == "50.0 ± 35.4"
    with pytest.raises(AssertionError, match="ids of the test images"):
        bench.grade(file, {"a": "ant", "c": "bee"})


def test_test_images_are_written_without_their_class_which_only_the_answers_have(tmp_path):
    images = [("train", "ant", "a.png", b"a"), ("val", "bee", "b.png", b"b"), ("test", "bee", "c.png", b"c")]
    assert bench.write_task(tmp_path, iter(images)) == {"c": "bee"}
    files = [str(file.relative_to(tmp_path / "images")) for file in tmp_path.rglob("*.png")]
    assert sorted(files) == ["test/c.png", "train/ant/a.png", "val/bee/b.png"]


def test_the_page_has_the_table_that_the_benchmark_prints():
    """Each task and tool once, in the order of the script, with the lines that the scripts have now."""
    table = [line for line in (ROOT / "docs" / "benchmarks.md").read_text().split("\n") if line.startswith("| ")]
    assert table[0] == bench.HEAD
    rows = [line.strip("| ").split(" | ") for line in table[2:]]
    counted = {tool.name: bench.count_lines((bench.TOOLS / tool.script).read_text()) for tool in bench.ALL_TOOLS}
    assert [(task, tool) for task, tool, *_ in rows] == [(task, tool) for task in bench.SIDES for tool in counted]
    assert all(int(lines) == counted[tool] for _, tool, *_, lines in rows)
