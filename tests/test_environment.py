"""What Podium needs stands in pyproject.toml; the lock pins it, environment.yml says the same to conda."""

import json
import re
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCK = (ROOT / "requirements.lock").read_text()


def needed():
    """All requirements; one on extras of the project itself stands for those of the extras."""
    extras = PROJECT["optional-dependencies"]
    texts = [*PROJECT["dependencies"], *extras["dev"], *extras["onnx"], *extras["weights"]]
    own = [text for text in texts if Requirement(text).name == PROJECT["name"]]
    names = sorted(name for text in own for name in Requirement(text).extras)  # a set: each process has another order
    return [*(text for text in texts if text not in own), *(text for name in names for text in extras[name])]


def locked():
    """Each entry of the lock with its hashes, in the order of the file."""
    entries = []
    for line in LOCK.splitlines():
        if line and line[0] not in " #":
            entries.append((Requirement(line.removesuffix("\\")), []))
        elif found := re.fullmatch(r"    --hash=sha256:([0-9a-f]{64})(?: \\)?", line):
            entries[-1][1].append(found[1])
    return entries


def conda():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    *packages, pip = environment["dependencies"]
    return environment, packages, pip["pip"]


@pytest.mark.parametrize("text", needed())
def test_a_requirement_has_a_lower_bound_that_every_locked_version_meets(text):
    requirement = Requirement(text)
    assert any(one.operator == ">=" for one in requirement.specifier)
    name = canonicalize_name(requirement.name)
    versions = [next(iter(one.specifier)).version for one, _ in locked() if canonicalize_name(one.name) == name]
    assert versions
    assert all(requirement.specifier.contains(version) for version in versions)


def test_every_locked_entry_is_one_version_with_its_hashes():
    for requirement, hashes in locked():
        assert [one.operator for one in requirement.specifier] == ["=="], requirement
        assert hashes, requirement
        assert requirement.url is None


def test_the_lock_names_no_address():
    assert not re.search(r"://|--(extra-)?index-url|--find-links", LOCK)


def test_one_machine_gets_one_version_of_a_package():
    here = [canonicalize_name(one.name) for one, _ in locked() if not one.marker or one.marker.evaluate()]
    assert len(here) == len(set(here))


def test_the_lock_says_how_it_is_made_again():
    assert "make lock" in LOCK.splitlines()[1]


def test_what_builds_podium_is_installed_with_it():
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    assert set(build) <= set(PROJECT["optional-dependencies"]["dev"])


def test_conda_is_told_the_same_as_pip():
    environment, packages, by_pip = conda()
    assert environment["name"] == PROJECT["name"]
    assert packages == [f"python{PROJECT['requires-python']}", "pip"]
    assert by_pip == [*sorted(needed()), "-e ."]


def test_the_image_is_made_from_files_that_are_there_and_sent_to_its_builder():
    dockerfile, ignored = ((ROOT / name).read_text() for name in ("Dockerfile", ".dockerignore"))
    copied = [word for line in re.findall(r"^COPY --chown=podium (.*) \S+$", dockerfile, re.M) for word in line.split()]
    sent = [line.removeprefix("!") for line in ignored.splitlines() if line.startswith("!")]
    assert all((ROOT / file).exists() for file in [*copied, *sent])
    assert all(file == "." or file.split("/")[0] in sent for file in copied)
    assert {"Makefile", "environment.mk", "requirements.lock", "competitions", "src"} <= set(sent)
    devcontainer = ROOT / ".devcontainer" / "devcontainer.json"
    build = json.loads(devcontainer.read_text())["build"]
    assert (devcontainer.parent / build["dockerfile"]).resolve() == ROOT / "Dockerfile"
