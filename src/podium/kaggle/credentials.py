"""What the kaggle CLI may know of this environment, and what of it nobody may see."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from podium.errors import KaggleError

# What the CLI may know; everything else that begins so would become a setting of it.
KEPT = {"API_TOKEN", "USERNAME", "KEY", "CONFIG_DIR", "API_ENVIRONMENT", "PROXY", "SSL_CA_CERT"}
# These print the token.
LOUD = {"VERBOSE", "VERBOSE_OUTPUT"}
SECRETS = ("KAGGLE_API_TOKEN", "KAGGLE_KEY")
TOKEN_FILES = ("access_token", "access_token.txt")
JSON_FILES = ("kaggle.json", "credentials.json")
# Shorter ones are no secrets: without this, "a" in a file would hide every a.
SHORTEST_SECRET = 6


def scrubbed(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment for the CLI: no setting that prints the token, none that aims it elsewhere."""
    where = environment.get("KAGGLE_API_ENVIRONMENT", "")
    if where not in ("", "PROD", "LOCALHOST"):
        fix = "unset KAGGLE_API_ENVIRONMENT"
        raise KaggleError("Not a place for the kaggle CLI.", expected="PROD or LOCALHOST", found=where, fix=fix)
    kept = {name: value for name, value in environment.items() if name not in LOUD}
    return {
        name: value
        for name, value in kept.items()
        if not name.startswith("KAGGLE_") or name.removeprefix("KAGGLE_") in KEPT
    }


def has_credentials(environment: Mapping[str, str]) -> bool:
    """Whether there is anything that the CLI would log in with."""
    if environment.get("KAGGLE_API_TOKEN") or (environment.get("KAGGLE_USERNAME") and environment.get("KAGGLE_KEY")):
        return True
    return any(True for _ in _files(environment, (*TOKEN_FILES, *JSON_FILES)))


def without_secrets(text: str, environment: Mapping[str, str]) -> str:
    """The text without any token that the CLI may have read: from the environment or from a file."""
    for secret in sorted(set(_secrets(environment)), key=len, reverse=True):
        if len(secret) >= SHORTEST_SECRET:
            text = text.replace(secret, "[token]")
    return text


def _secrets(environment: Mapping[str, str]) -> Iterator[str]:
    given = [environment[name] for name in SECRETS if environment.get(name)]
    yield from given
    named = Path(environment.get("KAGGLE_API_TOKEN") or ".")  # the token, or a file with it
    for file in [*([named] if _is_file(named) else []), *_files(environment, TOKEN_FILES)]:
        yield _text(file).strip()
    for file in _files(environment, JSON_FILES):
        try:
            told = json.loads(_text(file))
        except ValueError:
            continue
        if isinstance(told, dict):
            values = (value for name, value in told.items() if "key" in name.lower() or "token" in name.lower())
            yield from (value for value in values if isinstance(value, str))


def _files(environment: Mapping[str, str], names: tuple[str, ...]) -> Iterator[Path]:
    """The files of these names that the CLI may read."""
    home = Path(environment.get("HOME") or Path.home())
    folders = [home / ".kaggle", home / ".config" / "kaggle"]
    if moved := environment.get("KAGGLE_CONFIG_DIR"):
        folders.append(Path(moved))
    return (folder / name for folder in folders for name in names if _is_file(folder / name))


def _is_file(file: Path) -> bool:
    try:
        return file.is_file()
    except OSError:  # a token is longer than a name may be
        return False


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
