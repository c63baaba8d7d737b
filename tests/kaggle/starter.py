"""Runs Python commands of the package kaggle without its start, which takes most of the time of a short command.

A process imports what the package kaggle imports, once for all tests, and is forked for each command. As in a process
of its own, the command imports the package kaggle anew, with its own environment, arguments and files. It ends without
the clean-up of the interpreter, another tenth of a second.
"""

import functools
import importlib
import io
import json
import os
import runpy
import select
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, redirect_stdout
from pathlib import Path
from subprocess import DEVNULL, PIPE, CompletedProcess, TimeoutExpired
from types import SimpleNamespace
from typing import Any


class Starter:
    """Stands in for the module `subprocess` where the kaggle CLI is run; ends with its context."""

    DEVNULL, PIPE, TimeoutExpired = DEVNULL, PIPE, TimeoutExpired

    def __init__(self):
        self.process: subprocess.Popen | None = None
        self.folder = tempfile.TemporaryDirectory()

    def __enter__(self) -> "Starter":
        return self

    def __exit__(self, *_: object) -> None:
        if self.process:
            self.process.stdin.close()
            self.process.wait()
        self.folder.cleanup()

    def run(self, command: Sequence[str], *, env: Mapping[str, str], timeout: float, **_: object) -> CompletedProcess:
        """What `subprocess.run` returns for `python -P FILE ...` and `python -P -m MODULE ...`."""
        if self.process is None:
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
            kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
            environment = {**kept, "HOME": self.folder.name}
            self.process = subprocess.Popen([sys.executable, "-P", __file__], env=environment, **pipes)
        files = [str(Path(self.folder.name, name)) for name in ("stdout", "stderr")]
        request = {"words": command[2:], "environment": dict(env), "files": files, "seconds": timeout}
        self.process.stdin.write(json.dumps(request | {"folder": os.getcwd()}) + "\n")
        self.process.stdin.flush()
        code = json.loads(self.process.stdout.readline())
        if code is None:
            raise TimeoutExpired(command, timeout)
        return CompletedProcess(command, code, *(Path(file).read_text(errors="replace") for file in files))

    def start(self, command: Sequence[str], *, env: Mapping[str, str], **_: object) -> AbstractContextManager:
        """A process that has ended already, with its stdout."""
        lines = self.run(command, env=env, timeout=60).stdout.splitlines(keepends=True)
        return nullcontext(SimpleNamespace(stdout=lines, kill=lambda: None))

    Popen = start


def serve() -> None:
    """Run the commands that stdin has, one a line, and print their exit codes; null for one that took too long."""
    requests = os.fdopen(os.dup(0))  # the package closes sys.stdin where it finds no account
    with redirect_stdout(io.StringIO()):
        importlib.import_module("kaggle.cli")
    for name in [name for name in sys.modules if name.partition(".")[0] == "kaggle"]:
        del sys.modules[name]
    for line in requests:
        request = json.loads(line)
        child = os.fork()
        if not child:
            become(request)
        descriptor = os.pidfd_open(child)
        in_time, _, _ = select.select([descriptor], [], [], request["seconds"])
        os.close(descriptor)
        if not in_time:
            os.kill(child, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        print(json.dumps(code if in_time else None), flush=True)


def pause(sleep: Callable[[float], None], seconds: float) -> None:
    """Sleep for a hundredth of a second at most."""
    sleep(min(seconds, 0.01))


def become(request: Mapping[str, Any]) -> None:
    """Run a command in this process, and end it."""
    os.setsid()
    os.chdir(request["folder"])
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    for number, file in enumerate((os.devnull, *request["files"])):
        os.dup2(os.open(file, flags if number else os.O_RDONLY), number)
    sys.stdin, sys.stdout, sys.stderr = map(os.fdopen, (0, 1, 2), "rww")
    os.environ.clear()
    os.environ.update(request["environment"])
    if "output" in request["words"]:  # from 2.2.5 on the CLI pauses for minutes between its attempts to download
        time.sleep = functools.partial(pause, time.sleep)
    first, *words = request["words"]
    code: object = 0
    try:
        if first == "-m":
            module, *sys.argv[1:] = words
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        else:
            sys.argv[:] = [first, *words]
            runpy.run_path(first, run_name="__main__")
    except SystemExit as ending:
        code = ending.code or 0
    except BaseException:
        traceback.print_exc()
        code = 1
    if not isinstance(code, int):
        print(code, file=sys.stderr)
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    serve()
