"""With --json, stdout is one JSON object: the result of the command, or its error; everything else is on stderr."""

import ast
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from podium.cli.printing import json_results, print_line, print_result
from podium.lock import read_lock

CLI = Path(__file__).parents[2] / "src" / "podium" / "cli"
DOCS = (Path(__file__).parents[2] / "docs" / "commands.md").read_text(encoding="utf-8")
CSV = "submissions/digits/ensemble.csv"
# What is typed, in this order: commands that need no account.
RESULTS = [
    ["init", "mine"],
    ["new", "-c", "cars", "--demo"],
    ["prepare"],
    ["check-recipes", "tiny"],
    ["estimate"],
    ["plan-cost", "runs=[3]", "devices=[1]", "seconds_per_run=9"],
    ["lr-find", "tiny"],
    ["train", "tiny"],
    ["show", "tiny"],
    ["runs"],
    ["ensemble"],
    ["suggest"],
    ["pseudo", "--threshold", "0.1"],
    ["check", CSV],
    ["why", CSV],
    ["verify"],
    ["score", CSV],
    ["report"],
    ["predict", "tiny.s1", "new"],
    ["import", "colleague.s1", "--oof", "oof.npz", "--test", "test.npz"],
]


def documented_fields(command: str) -> set[str]:
    """The names in the row of a command in the table of docs/commands.md; none where it has no row."""
    rows = re.findall(rf"^\| `{command}` \| (.*) \|$", DOCS, re.MULTILINE)
    return {name for row in rows for name in re.findall(r"`(\w+)`", row)}


@pytest.fixture(scope="module")
def folder(prepared, tmp_path_factory) -> Path:
    """A project of one recipe, with an image to predict and predictions to import."""
    folder = shutil.copytree(prepared, tmp_path_factory.mktemp("json") / "project")
    (folder / "competitions/digits/fast.toml").unlink()
    with (folder / "competitions/digits/competition.toml").open("a") as stream:
        stream.write('[ensemble]\nselect = "all"\n')
    (folder / "new").mkdir()
    Image.new("RGB", (16, 16)).save(folder / "new/a.png")
    lock = read_lock(folder / "competitions/digits/data.lock")
    for name, ids in [("oof", lock.train_ids[lock.folds >= 0]), ("test", lock.test_ids)]:
        np.savez(folder / f"{name}.npz", id=ids, **{digit: np.full(len(ids), 0.1) for digit in lock.classes})
    return folder


@pytest.mark.parametrize("words", RESULTS, ids=lambda words: words[0])
def test_each_command_prints_its_documented_fields_alone(words, folder, podium):
    done = podium(folder, *words, "--json")
    result = json.loads(done.stdout, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    fields = documented_fields(words[0]) - ({"to_check", "faults"} if "--demo" in words else set())
    assert done.returncode == 0 and result.keys() >= fields and fields, done.stderr


def test_a_command_without_a_result_gives_the_lines_that_it_prints(capsys):
    with json_results():
        print_line("wrote a file")
    assert json.loads(capsys.readouterr().out) == {"lines": ["wrote a file"]}


def test_a_text_for_other_programs_is_not_wrapped_on_a_terminal(monkeypatch, capsys):
    monkeypatch.setattr("podium.cli.printing._is_terminal", lambda: True)
    print_result({}, text=f"id,{'class ' * 50}\n")
    assert capsys.readouterr().out == f"id,{'class ' * 50}\n"


def test_nan_is_null_and_nothing_else_is_on_stdout(capsys):
    with json_results():
        print_line("progress")
        print_result({"score": float("nan"), "of": ({"rows": np.int64(3)},), "file": Path("a.csv")}, ["a table"])
    stdout, stderr = capsys.readouterr()
    assert json.loads(stdout) == {"score": None, "of": [{"rows": 3}], "file": "a.csv"} and stderr == "progress\n"


def test_every_failure_is_an_error_in_json_with_the_screen_on_stderr(folder, podium):
    for words, kind, what in [
        (["runs", "-c", "other"], "ConfigError", "There is no competition 'other'"),
        (["check", "no.csv"], "SubmissionError", "Not a submission of digits."),
        (["runs", "--colour"], "UsageError", "No such option: --colour"),
        (["train", "--engine", "pbs"], "UsageError", "pbs is neither ray nor slurm."),
    ]:
        done = podium(folder, *words, "--json")
        error = json.loads(done.stdout)["error"]
        assert done.returncode == 2 and error["kind"] == kind and what in error["what"] and what in done.stderr
    assert json.loads(podium(folder, "check", "no.csv", "--json").stdout)["error"]["faults"]


def test_a_submission_that_does_not_hold_has_exit_code_1_and_a_result(folder, podium):
    (folder / "copy.csv").write_text("id,label\n")
    done = podium(folder, "verify", "--file", "copy.csv", "--json")
    assert done.returncode == 1 and json.loads(done.stdout)["held"] is False


def test_the_commands_that_print_a_result_are_those_of_the_table():
    documented = set(re.findall(r"^\| `([\w-]+)` \| (?!to)", DOCS, re.MULTILINE))
    functions = [node for file in CLI.glob("*.py") for node in ast.parse(file.read_text(encoding="utf-8")).body]
    functions = [
        node for node in functions if isinstance(node, ast.FunctionDef) and " print_result(" in ast.unparse(node)
    ]
    names = {node.name.removesuffix("_run").replace("_", "-") for node in functions} - {"print-result", "-print-entry"}
    assert names | {"submit"} == documented
