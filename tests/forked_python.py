"""A stand-in for Python that forks a process which has imported torch, instead of importing it for each command.

`python forked_python.py NAME` is the process, which prints a line when it is ready; `write_client(file, name)` writes a
program that is used as Python is. Of Podium nothing is imported before the fork.
"""

import importlib
import json
import os
import runpy
import signal
import socket
import sys
import traceback
from contextlib import suppress
from pathlib import Path

LIBRARIES = (
    "fastai.vision.all",
    "timm",
    "torchvision",
    "matplotlib.pyplot",
    "pandas",
    "sklearn.linear_model",
    "optuna",
)
VERBS = ("train", "show", "estimate", "check-recipes", "rehearse", "report")
# A script of sh, which starts the same file as Python: a path in `#!` could have blanks.
CLIENT = """#!/bin/sh
''':'
exec "{python}" -SE "$0" "$@"
'''
import json, os, socket, sys
words = sys.argv[1:]
if words[:2] != ["-m", "podium"] or words[2] not in {verbs}:
    os.execv({python!r}, [{python!r}, *words])
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    request = json.dumps([words[1:], os.getcwd(), dict(os.environ)]).encode()
    socket.send_fds(server, [len(request).to_bytes(4, "big")], [0, 1, 2])
    server.sendall(request)
    sys.exit(int(server.recv(9) or 1))
"""


def write_client(file: Path, name: str) -> None:
    """Write the program that stands in for Python."""
    file.write_text(CLIENT.format(python=sys.executable, verbs=VERBS, address=f"\0{name}"))
    file.chmod(0o755)


def serve(name: str) -> None:
    """Run each command in a fork of a fork, which tells the client how it ended; ends with its parent."""
    for library in LIBRARIES:
        importlib.import_module(library)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"\0{name}")  # not a file, whose path could be too long
        listener.listen()
        signal.alarm(1800)  # so that it ends even where its parent is killed
        print(flush=True)
        while True:
            client, _ = listener.accept()
            if not os.fork():
                child = os.fork()
                if not child:
                    become(client)
                client.sendall(str(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])).encode())
                os._exit(0)
            client.close()
            with suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:  # those that have ended
                    pass


def become(client: socket.socket) -> None:
    """Run a command in this process, and end it."""
    size, descriptors, _, _ = socket.recv_fds(client, 4, 3)
    request = b""
    while len(request) < int.from_bytes(size, "big"):
        request += client.recv(1 << 16)
    client.close()
    (module, *words), folder, environment = json.loads(request)
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
    sys.stdin, sys.stdout, sys.stderr = map(os.fdopen, (0, 1, 2), "rww")
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:0] = environment["PYTHONPATH"].split(os.pathsep)
    sys.argv[1:] = words
    code: object = 0
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as ending:
        code = ending.code or 0
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 1)


if __name__ == "__main__":
    serve(sys.argv[1])
