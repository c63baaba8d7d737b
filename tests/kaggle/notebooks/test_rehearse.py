"""The packed script runs here, offline, and its output is imported."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import podium
from digits_toys import prepare_digits
from notebook_toys import FILES, RECIPE, write_competition
from podium.data.prepare import prepare
from podium.errors import KaggleError
from podium.kaggle.notebooks import rehearse
from podium.kaggle.notebooks.rehearse import rehearse_training, run_script
from podium.kaggle.waiting import one_process
from podium.workspace import open_workspace


@pytest.fixture
def folder(tmp_path):
    prepare_digits(tmp_path, "tiny", FILES)
    return tmp_path


@pytest.fixture
def folder_of_images(tmp_path):
    """A competition on Kaggle, prepared: two classes of random images in data/dogs/."""
    draw = np.random.default_rng(0)
    files = [f"train/{name}/{row}.png" for name in ("cat", "dog") for row in range(20)]
    for name in [*files, *(f"test/{row}.png" for row in range(4))]:
        file = tmp_path / "data" / "dogs" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw.integers(256, size=(16, 16, 3), dtype=np.uint8)).save(file)
    home = write_competition(tmp_path)
    data = '[data]\nsource = "folders"\narchive = "dogs"\n[validation]\nrows = 8\n[kaggle]\ncompetition = "dogs"\n'
    (home / "competition.toml").write_text(f'title = "dogs"\n{data}')
    (home / "net.toml").write_text(RECIPE.replace("batch_size = 256", "batch_size = 8"))
    prepare(open_workspace("tiny", tmp_path))
    return tmp_path


def test_what_would_be_pushed_trains_a_run_here_and_its_output_is_imported(folder_of_images):
    folder = folder_of_images
    code = "from podium.cli.app import main; main()"
    environment = {"PYTHONPATH": str(Path(podium.__file__).parents[1]), "PATH": "/usr/bin:/bin", "HOME": str(folder)}
    command = [sys.executable, "-c", code, "rehearse-kernel", "--competition", "tiny"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "imported: net.s1; next: make kernel COMPETITION=tiny" in done.stdout
    file = folder / ".rehearsal" / "oof" / "tiny" / "net.s1.npz"
    target = open_workspace("tiny", folder).paths.predictions_file("net.s1")
    assert not target.exists()
    target.parent.mkdir(parents=True)
    file.rename(target)
    assert [run.run for run in open_workspace("tiny", folder).stale_runs] == ["net.s2"]


def rehearsed(folder, monkeypatch, run_script):
    monkeypatch.setattr(rehearse, "run_script", run_script)
    workspace = open_workspace("tiny", folder)
    return rehearse_training(workspace, workspace.runs[:1], images=folder / "images")


def test_images_are_attached_as_those_of_the_competition(folder, monkeypatch):
    file = folder / "competitions" / "tiny" / "competition.toml"
    file.write_text(file.read_text() + '[kaggle]\ncompetition = "dogs"\n')
    (folder / "images").mkdir()
    (folder / "images" / "1.png").write_bytes(b"png")
    attached = []
    with pytest.raises(KaggleError, match="script failed") as refusal:
        rehearsed(folder, monkeypatch, lambda script, root: attached.extend(root.glob("kaggle/input/*/*/*")) or 3)
    assert "exit code 3" in refusal.value.found
    assert [file.parts[-3:] for file in attached if file.suffix == ".png"] == [("competitions", "dogs", "1.png")]
    assert any(list(file.glob("podium-*.pyz")) for file in attached)


def test_a_run_that_fails_in_the_rehearsal_is_named(folder, monkeypatch):
    def fail(script, root):
        output = root / "kaggle" / "working"
        output.mkdir(parents=True)
        (output / "podium-output.json").write_text('{"trained": [], "failed": ["net.s1"], "left": [], "files": {}}')
        return 0

    (folder / "images").mkdir()
    with pytest.raises(KaggleError, match="Not every run") as refusal:
        rehearsed(folder, monkeypatch, fail)
    assert refusal.value.faults == ("net.s1: its training failed; see above",)


def test_two_rehearsals_never_share_a_folder(folder, monkeypatch):
    lock = folder / ".rehearsal" / ".kernel" / "tiny" / ".lock"
    with one_process(lock, "first"), pytest.raises(KaggleError, match="Another rehearsal"):
        rehearsed(folder, monkeypatch, None)


def test_the_script_is_offline_and_knows_no_account(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("KAGGLE_API_TOKEN", "secret")
    script = tmp_path / "script.py"
    script.write_text(
        "import os\nfrom urllib.request import urlopen\nprint(sorted(os.environ))\nurlopen('http://localhost:1/')"
    )
    assert run_script(script, tmp_path) == 1
    printed = capfd.readouterr()
    assert "PODIUM_NOTEBOOK_ROOT" in printed.out and "KAGGLE" not in printed.out and "refused" in printed.err
