"""Parameters at half their size, where a rehearsal has shown that the labels stay the same."""

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from notebook_toys import write_competition
from podium.kaggle.notebooks.float16 import halve, record_rehearsal, rehearsed_precision
from podium.workspace import open_workspace


def test_matrices_are_halved_and_vectors_integers_and_the_description_stay(tmp_path):
    kept = {"bias": np.float32([1 / 3]), "count": np.array([[7]]), "variance": np.float32([1e-9, 1e9])}
    tensors = kept | {"weight": np.float32([[1 / 3, 2]]), "kernel": np.full((1, 1, 3, 3), 1e9, np.float32)}
    save_file(tensors, tmp_path / "net.safetensors", {"about": "{}"})
    file = halve(tmp_path / "net.safetensors", tmp_path / "halves" / "net.safetensors")
    halved = load_file(file)
    assert {name for name, tensor in halved.items() if tensor.dtype == np.float16} == {"weight", "kernel"}
    assert all(np.array_equal(halved[name], tensor) for name, tensor in kept.items())
    np.testing.assert_allclose(halved["weight"], tensors["weight"], rtol=1e-3)
    with safe_open(file, framework="np") as parameters:
        assert parameters.metadata() == {"about": "{}"}


@pytest.fixture
def workspace(tmp_path):
    write_competition(tmp_path)
    return open_workspace("tiny", tmp_path)


def test_only_the_files_that_were_rehearsed_and_gave_the_same_submission_are_packed_as_float16(workspace, tmp_path):
    files = [tmp_path / "a", tmp_path / "b"]
    for file in files:
        file.write_text(file.name)
    assert rehearsed_precision(workspace, files) == "float32"
    record_rehearsal(workspace, files, is_equal=True)
    assert rehearsed_precision(workspace, files) == "float16"
    files[1].write_text("other parameters")
    assert rehearsed_precision(workspace, files) == "float32"
    record_rehearsal(workspace, files, is_equal=False)
    assert rehearsed_precision(workspace, files) == "float32"
