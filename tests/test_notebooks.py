"""The one-cell notebooks: executed here, in the kernel of this Python."""

import os
import subprocess
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
# In place of the nine networks of the demo.
RECIPE = (
    'architecture = "fastnet"\nepochs = 1\nlearning_rate = 0.01\nstored_pixels = 16\n[fastnet]\nwidths = [16, 16]\n'
)


def notebook_of(place):
    return nbformat.read(ROOT / "notebooks" / f"{place}.ipynb", as_version=4)


def test_the_notebook_of_colab_installs_the_wheel_and_runs_the_demo(tmp_path, monkeypatch):
    """With uv in the place of pip, because there is no network."""
    build = [sys.executable, "-m", "uv", "build", "--quiet", "--wheel", "--offline", "--no-build-isolation"]
    subprocess.run([*build, "--python", sys.executable, "--out-dir", str(tmp_path), str(ROOT)], check=True)
    installed, commands = tmp_path / "installed", tmp_path / "bin"
    commands.mkdir()
    options = f"--offline --no-deps --python '{sys.executable}' --target '{installed}'"
    (commands / "pip").write_text(f"#!/bin/sh\nexec '{sys.executable}' -m uv pip \"$@\" {options}\n")
    (commands / "pip").chmod(0o755)
    for name in [name for name in os.environ if name.startswith(("MAKE", "COVERAGE_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PATH", os.pathsep.join([str(commands), str(installed / "bin"), os.environ["PATH"]]))
    monkeypatch.setenv("PYTHONPATH", str(installed))
    settings = tmp_path / "podium" / "competitions" / "digits"
    settings.mkdir(parents=True)
    demo = ROOT / "src" / "podium" / "scaffold" / "digits" / "competition.toml"
    (settings / "competition.toml").write_bytes(demo.read_bytes())
    (settings / "tiny.toml").write_text(RECIPE)

    notebook = notebook_of("colab")
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    printed = "".join(output["text"] for output in notebook.cells[0].outputs)
    assert "withheld test images" in printed and (tmp_path / "podium/submissions/digits/ensemble.csv").is_file()
    assert (installed / "podium" / "__init__.py").is_file()


def test_the_notebook_of_kaggle_is_that_of_colab_but_for_where_the_wheel_is():
    notebooks = [notebook_of(place) for place in ("colab", "kaggle")]
    assert all(len(notebook.cells) == 1 and not notebook.cells[0].outputs for notebook in notebooks)
    colab, kaggle = ([line for line in one.cells[0].source.splitlines() if line[0] != "#"] for one in notebooks)
    assert [line.replace("/kaggle/input/*/", "") for line in kaggle] == colab
