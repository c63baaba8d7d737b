"""The `podium` command: all commands, and how it ends."""

import io
import signal
import sys
import warnings

import typer

from podium.cli import ensemble, kaggle, predict, recipes, train
from podium.cli.live import cleared, close_table
from podium.errors import PodiumError
from podium.files import os_error_as

# Each command imports what it needs when it runs: `podium ensemble` starts without torch.
app = typer.Typer(
    help="From labelled images to a submission that can be trusted. Run it where competitions/ is.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for module in (train, predict, recipes, ensemble, kaggle):  # the order of `podium --help`
    app.add_typer(module.commands)


def main() -> None:
    """Run the command line; what the user can fix is one screen and exit code 2, never a traceback."""
    if not sys.warnoptions:  # what libraries warn of is not for users; `python -W default -m podium` shows it
        warnings.simplefilter("ignore")
    if isinstance(sys.stdout, io.TextIOWrapper):  # a file name may have bytes that are not text
        sys.stdout.reconfigure(errors="backslashreplace")
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    try:
        with os_error_as(PodiumError, "The operating system reported an error."):
            app()
    except PodiumError as error:
        close_table()
        print(f"{cleared(sys.stderr)}\n{error}", file=sys.stderr)
        sys.exit(2)
    except _Stopped as stop:
        close_table()
        print(f"{cleared(sys.stderr)}\nStopped. What was finished is kept.", file=sys.stderr)
        sys.exit(128 + stop.args[0])


class _Stopped(BaseException):
    """Ctrl-C, or SIGTERM; Typer does not catch it, as it does KeyboardInterrupt."""


def _stop(number: int, _: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # make sends it once more, which must not end the removal of files
    raise _Stopped(number)
