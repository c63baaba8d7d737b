"""Credentials of the package kaggle: which settings its processes may see, and which texts are never printed."""

import re
from collections.abc import Collection, Mapping
from pathlib import Path

# Settings that the package may see; it would read any other KAGGLE_X as its setting x.
KEPT = {"API_TOKEN", "USERNAME", "KEY", "CONFIG_DIR", "API_ENVIRONMENT", "PROXY", "SSL_CA_CERT"}
PRINTS_TOKEN = {"VERBOSE", "VERBOSE_OUTPUT"}
FILES = ("access_token", "access_token.txt", "kaggle.json", "credentials.json")
JSON_SECRET = re.compile(r'"[^"]*(?:key|token)"\s*:\s*"([^"]+)"', re.IGNORECASE)
# A shorter text is not a secret: masking "a" would mask every a.
MIN_SECRET_LENGTH = 6


def cleaned_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment without settings that print the token or choose another competition."""
    return {
        name: value
        for name, value in environment.items()
        if name not in PRINTS_TOKEN and (not name.startswith("KAGGLE_") or name.removeprefix("KAGGLE_") in KEPT)
    }


def find_secrets(environment: Mapping[str, str]) -> set[str]:
    """Every token and key that the package may have read, from the environment or from a file."""
    token = environment.get("KAGGLE_API_TOKEN", "")  # the token, or the path of a file with the token
    secrets = {token, environment.get("KAGGLE_KEY", ""), _read(Path(token))}
    home = Path(environment.get("HOME") or Path.home())
    folders = [
        home / ".kaggle",
        home / ".config" / "kaggle",
        Path(environment.get("KAGGLE_CONFIG_DIR") or home / ".kaggle"),
    ]
    for file in (folder / name for folder in folders for name in FILES):
        text = _read(file)
        secrets.update(JSON_SECRET.findall(text) if file.suffix == ".json" else [text])
    return {secret for secret in secrets if len(secret) >= MIN_SECRET_LENGTH}


def masked(text: str, secrets: Collection[str]) -> str:
    """The text with every secret replaced by [token]."""
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, "[token]")
    return text


def _read(file: Path) -> str:
    """The text of a file; empty where it cannot be read."""
    try:
        return file.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:  # also a token that is longer than a file name may be
        return ""
