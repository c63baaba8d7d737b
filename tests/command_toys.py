"""The `podium` command in this process."""

import io
import signal
import sys
import warnings
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from podium.cli.app import main


def run_podium(folder: Path, *arguments: str, **environment: str) -> CompletedProcess:
    """Run `podium` in a folder, in this process: torch is imported once for all tests."""
    stdout, stderr, code = io.StringIO(), io.StringIO(), 0
    streams = redirect_stdout(stdout), redirect_stderr(stderr)
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings(), streams[0], streams[1]:
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["podium", *arguments])
        patch.setattr(signal, "signal", lambda *_: None)
        patch.setenv("COLUMNS", "200")
        patch.setenv("COMPETITION", "digits")
        patch.setenv("OPENBLAS_NUM_THREADS", "1")
        patch.delenv("PODIUM_CACHE", raising=False)
        for name, value in environment.items():
            patch.setenv(name, value)
        try:
            main()
        except SystemExit as ending:
            code = ending.code or 0
    return CompletedProcess(arguments, code, stdout.getvalue(), stderr.getvalue())
