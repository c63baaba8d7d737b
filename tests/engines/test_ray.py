"""Fits trained on a Ray cluster of three nodes on this machine, one of which is lost while it trains."""

import hashlib
import re
import tempfile
import threading
import time
from contextlib import contextmanager
from importlib.util import find_spec

import pytest

from digits_toys import RECIPE, digits_workspace
from engine_toys import in_sequence, results_of
from podium.engines import ray as ray_module
from podium.engines.ray import SentFile, fetch, saved_elsewhere
from podium.engines.train import train_elsewhere
from podium.errors import ConfigError
from podium.training.progress import Listener
from podium.training.run import train_run
from podium.training.session import unfinished_fits

needs_ray = pytest.mark.skipif(not find_spec("ray"), reason="needs the extra `ray`")


@contextmanager
def cluster_of(folder, count):
    """A head without cores, and nodes of one core, each with a temporary folder of its own."""
    from ray.cluster_utils import Cluster

    # The path of a socket has at most 107 bytes, which pytest's temporary folders leave no room for.
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as sockets, pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_TMPDIR", sockets)
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        try:
            for number in range(count):
                temporary = folder / f"node{number}"
                temporary.mkdir()
                cluster.add_node(num_cpus=1, memory=4 << 30, env_vars={"TMPDIR": str(temporary)})
            yield cluster
        finally:
            cluster.shutdown()


def another_timm(folder):
    """A folder that makes Python believe that another timm is installed."""
    (folder / "timm-0.1.dist-info").mkdir(parents=True)
    (folder / "timm-0.1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: timm\nVersion: 0.1\n")
    return str(folder)


@needs_ray
def test_of_three_nodes_one_is_lost_and_one_refused_and_the_bytes_are_those_of_a_training_in_sequence(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("PODIUM_RAY_COPIES", "1")
    monkeypatch.setenv("RAY_worker_niceness", "0")  # beside other tests, niced trainings would take minutes
    settings = {"validation": 'kind = "k-fold"\nfolds = 2', "recipe": RECIPE}
    workspace = digits_workspace(tmp_path / "project", **settings)
    (run,) = workspace.runs
    lines, lost = [], threading.Event()
    with cluster_of(tmp_path, 2) as cluster:
        cluster.add_node(num_cpus=8, memory=16 << 30, env_vars={"PYTHONPATH": another_timm(tmp_path / "other")})

        def note(line):
            lines.append(line)
            if "fold1: running" in line and not lost.is_set():
                lost.set()
                node = re.search(r"node (\w+)\)", line)[1]
                (victim,) = [one for one in cluster.worker_nodes if one.node_id.startswith(node)]
                cluster.remove_node(victim, allow_graceful=False)

        failed = train_elsewhere(workspace, [run], engine="ray", address=cluster.address, note=note)
    assert failed == {} and unfinished_fits(workspace, run) == []
    assert re.fullmatch(r"not used: .*: timm: expected [0-9.]+, found 0.1", lines[1])
    assert len({line for line in lines if "fold1: running" in line}) == 2  # on the lost node, and on another
    assert lines[-1].endswith("done (2 done)")
    train_run(workspace, run, listener=Listener())
    assert results_of(workspace) == results_of(in_sequence(tmp_path / "sequence", **settings))


@needs_ray
@pytest.mark.parametrize("address", ["nonsense://here", "127.0.0.1:1"])
def test_a_cluster_that_is_not_there_is_one_screen(tmp_path, address):
    workspace = digits_workspace(tmp_path)
    with pytest.raises(ConfigError, match=r"(?s)Ray cannot be started.*fix:.*ADDRESS="):
        train_elsewhere(workspace, workspace.runs, engine="ray", address=address)


def reader(file):
    """Reads a file in chunks of 3 bytes; keeps the offsets."""
    offsets = []

    def read(source, offset):
        assert source == str(file)
        offsets.append(offset)
        return file.read_bytes()[offset : offset + 3]

    return read, offsets


def test_a_file_is_copied_in_chunks_and_once(tmp_path):
    file, target = tmp_path / "a", tmp_path / "node" / "b"
    file.write_bytes(b"12345678")
    sent = SentFile(str(file), 8, "b", hashlib.sha256(b"12345678").hexdigest())
    read, offsets = reader(file)
    fetch(sent, target, read)
    fetch(sent, target, read)
    assert target.read_bytes() == b"12345678" and offsets == [0, 3, 6]


@pytest.mark.parametrize("content", [b"1234567", b"12345679"], ids=["shorter", "other"])
def test_a_file_that_arrives_damaged_is_not_kept(tmp_path, content):
    file, target = tmp_path / "a", tmp_path / "node" / "b"
    file.write_bytes(content)
    with pytest.raises(OSError, match="changed, or arrived damaged"):
        fetch(SentFile(str(file), 8, "b", hashlib.sha256(b"12345678").hexdigest()), target, reader(file)[0])
    assert not target.exists()


def test_a_checkpoint_is_brought_copied_while_it_changes_and_removed_at_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr(ray_module, "SAVE_SECONDS", 0.01)
    elsewhere, file = tmp_path / "shared" / "run.pt", tmp_path / "node" / "run.pt"
    elsewhere.parent.mkdir()
    elsewhere.write_bytes(b"of a lost node")
    with saved_elsewhere(file, str(elsewhere)):
        assert file.read_bytes() == b"of a lost node"
        file.write_bytes(b"an epoch later")
        deadline = time.monotonic() + 20
        while elsewhere.read_bytes() != b"an epoch later" and time.monotonic() < deadline:
            time.sleep(0.01)
        assert elsewhere.read_bytes() == b"an epoch later"
    assert list(elsewhere.parent.iterdir()) == []
    with pytest.raises(KeyError), saved_elsewhere(file, str(elsewhere)):
        elsewhere.write_bytes(b"kept")
        raise KeyError
    assert elsewhere.read_bytes() == b"kept"
