"""The wheel: built, installed into a folder, and used in a folder of one's own, without a clone."""

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# In place of the nine networks of the demo.
RECIPE = (
    'architecture = "fastnet"\nepochs = 1\nlearning_rate = 0.01\nstored_pixels = 16\n[fastnet]\nwidths = [16, 16]\n'
)


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """A folder with the wheel and the source archive."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "uv", "build", "--quiet", "--offline", "--no-build-isolation"]
    subprocess.run([*command, "--python", sys.executable, "--out-dir", str(folder), str(ROOT)], check=True)
    return folder


@pytest.fixture
def run(built, tmp_path):
    """Runs a command in an own folder; Python has the installed wheel before all else."""
    wheel, installed, folder = next(built.glob("*.whl")), tmp_path / "my packages", tmp_path / "my dogs"
    command = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--offline", "--no-deps", "--target"]
    subprocess.run([*command, str(installed), str(wheel)], check=True)
    folder.mkdir()
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "COVERAGE_"))}

    def run_command(*words: str) -> str:
        environment = {**kept, "PYTHONPATH": str(installed)}
        done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    where = run_command(sys.executable, "-c", "import podium; print(podium.__file__)")
    assert Path(where.strip()).is_relative_to(installed)
    return run_command


def test_the_wheel_and_the_source_archive_have_all_of_the_package_and_nothing_else(built):
    names = {str(file.relative_to(ROOT / "src")) for file in (ROOT / "src/podium").rglob("*") if file.is_file()}
    names = {name for name in names if "__pycache__" not in name}
    wheel, archive = next(built.glob("*.whl")), next(built.glob("*.tar.gz"))
    with zipfile.ZipFile(wheel) as opened:
        in_wheel = {name for name in opened.namelist() if not name.endswith("/")}
    assert {name for name in in_wheel if ".dist-info/" not in name} == names
    with tarfile.open(archive) as opened:
        files = [member.name.split("/", 1)[1] for member in opened if member.isfile()]
    assert {name.removeprefix("src/") for name in files if name.startswith("src/")} == names
    assert not [name for name in files if name.startswith(("oof", "data", "submissions", "competitions"))]
    assert max(wheel.stat().st_size, archive.stat().st_size) < 600_000


def test_the_demo_runs_from_the_wheel_in_a_folder_of_ones_own(run, tmp_path):
    folder = tmp_path / "my dogs"
    run(sys.executable, "-m", "podium", "init")
    assert "demo" in run("make")
    run(sys.executable, "-m", "podium", "new", "--competition", "digits", "--demo")
    settings = folder / "competitions" / "digits"
    for recipe in set(settings.glob("*.toml")) - {settings / "competition.toml"}:
        recipe.unlink()
    (settings / "tiny.toml").write_text(RECIPE)
    printed = run("make", "demo")
    assert "withheld test images" in printed and (folder / "submissions/digits/ensemble.csv").is_file()
    assert "up to date" in run("make", "runs") and "are up to date" in run("make", "all")  # the only competition
    assert "a valid submission of digits" in run("make", "check")
