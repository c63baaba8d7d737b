"""The credentials of the kaggle CLI: which settings it may see, and which texts must never be printed."""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from podium.errors import KaggleError

# Settings that the CLI may see; it would read any other KAGGLE_X as its setting x.
KEPT = {"API_TOKEN", "USERNAME", "KEY", "CONFIG_DIR", "API_ENVIRONMENT", "PROXY", "SSL_CA_CERT"}
PRINTS_TOKEN = {"VERBOSE", "VERBOSE_OUTPUT"}
FILES = ("access_token", "access_token.txt", "kaggle.json", "credentials.json")
JSON_SECRET = re.compile(r'"[^"]*(?:key|token)[^"]*"\s*:\s*"([^"]+)"', re.IGNORECASE)
# A shorter text is not a secret: masking "a" would mask every a.
MIN_SECRET_LENGTH = 6


def cli_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment without settings that print the token or choose another host or competition."""
    host = environment.get("KAGGLE_API_ENVIRONMENT", "")
    if host not in ("", "PROD", "LOCALHOST"):
        fix = "unset KAGGLE_API_ENVIRONMENT"
        raise KaggleError("Wrong KAGGLE_API_ENVIRONMENT.", expected="PROD or LOCALHOST", found=host, fix=fix)
    return {
        name: value
        for name, value in environment.items()
        if name not in PRINTS_TOKEN and (not name.startswith("KAGGLE_") or name.removeprefix("KAGGLE_") in KEPT)
    }


def has_credentials(environment: Mapping[str, str]) -> bool:
    """Whether there are credentials where the CLI looks for them."""
    if environment.get("KAGGLE_API_TOKEN") or (environment.get("KAGGLE_USERNAME") and environment.get("KAGGLE_KEY")):
        return True
    return any(os.path.isfile(file) for file in _files(environment))


def without_secrets(text: str, environment: Mapping[str, str]) -> str:
    """The text, with every token that the CLI may have read replaced by [token]."""
    for secret in sorted(set(_secrets(environment)), key=len, reverse=True):
        if len(secret) >= MIN_SECRET_LENGTH:
            text = text.replace(secret, "[token]")
    return text


def _secrets(environment: Mapping[str, str]) -> Iterator[str]:
    token = environment.get("KAGGLE_API_TOKEN", "")  # the token, or the path of a file that contains it
    yield from (token, environment.get("KAGGLE_KEY", ""), _read(Path(token)))
    for file in _files(environment):
        text = _read(file)
        yield from JSON_SECRET.findall(text) if file.suffix == ".json" else [text]


def _files(environment: Mapping[str, str]) -> list[Path]:
    """Every file that the CLI may read credentials from, whether or not it exists."""
    home = Path(environment.get("HOME") or Path.home())
    folders = [home / ".kaggle", home / ".config" / "kaggle"]
    if "KAGGLE_CONFIG_DIR" in environment:
        folders.append(Path(environment["KAGGLE_CONFIG_DIR"]))
    return [folder / name for folder in folders for name in FILES]


def _read(file: Path) -> str:
    """The text of a file; empty where it cannot be read."""
    try:
        return file.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:  # also a token that is longer than a file name may be
        return ""
