"""The `podium` command: all commands, and how it ends."""

import io
import signal
import sys
import warnings
from contextlib import nullcontext
from dataclasses import asdict
from typing import Any

import typer

from podium.cli import ensemble, kaggle, predict, recipes, train
from podium.cli.live import cleared, close_table
from podium.cli.printing import json_results
from podium.errors import PodiumError
from podium.files import os_error_as

JSON, STOPPED = "--json", "Stopped. What was finished is kept."
# Each command imports what it needs when it runs: `podium ensemble` starts without torch.
app = typer.Typer(
    help="From labelled images to a submission that can be trusted. Run it where competitions/ is. "
    f"With {JSON}, each command prints its result as JSON.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for module in (train, predict, recipes, ensemble, kaggle):  # the order of `podium --help`
    app.add_typer(module.commands)
for command in (command for group in app.registered_groups for command in group.typer_instance.registered_commands):
    command.epilog = f"With {JSON}, the result is printed as JSON."
# Typer has a Click of its own: this is its class of whatever is wrong with the words of a command.
UsageError = typer.BadParameter.__base__


def main() -> None:
    """Run the command line; what the user can fix is one screen and exit code 2, never a traceback."""
    if not sys.warnoptions:  # what libraries warn of is not for users; `python -W default -m podium` shows it
        warnings.simplefilter("ignore")
    if isinstance(sys.stdout, io.TextIOWrapper):  # a file name may have bytes that are not text
        sys.stdout.reconfigure(errors="backslashreplace")
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    words = [word for word in sys.argv[1:] if word != JSON]
    with json_results() if JSON in sys.argv else nullcontext({}) as results:
        code = _run(words, results)
    sys.exit(code)


def _run(words: list[str], results: dict[str, Any]) -> int:
    """Run a command; print its error, and put it into `results`. Returns the exit code."""
    try:
        with os_error_as(PodiumError, "The operating system reported an error."):
            return int(app(words, standalone_mode=False) or 0)
    except UsageError as error:
        error.show()
        results["error"] = {"kind": "UsageError", "what": error.format_message()}
        return error.exit_code
    except PodiumError as error:
        close_table()
        print(f"{cleared(sys.stderr)}\n{error}", file=sys.stderr)
        results["error"] = {"kind": type(error).__name__, **asdict(error)}
        return 2
    except _Stopped as stop:
        close_table()
        print(f"{cleared(sys.stderr)}\n{STOPPED}", file=sys.stderr)
        results["error"] = {"kind": "Stopped", "what": STOPPED}
        return 128 + stop.args[0]


class _Stopped(BaseException):
    """Ctrl-C, or SIGTERM; Typer does not catch it, as it does KeyboardInterrupt."""


def _stop(number: int, _: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # make sends it once more, which must not end the removal of files
    raise _Stopped(number)
