"""The command line: the only place that reads arguments and prints."""

import signal
import sys
import warnings

import typer

from podium.cli.ensemble import commands as ensemble_commands
from podium.cli.inspect import commands as inspect_commands
from podium.cli.kaggle import commands as kaggle_commands
from podium.cli.new import commands as new_commands
from podium.cli.notebooks import commands as kernel_commands
from podium.cli.train import commands as train_commands
from podium.cli.tune import commands as tune_commands
from podium.errors import PodiumError

# Each command imports what it needs when it runs: `podium ensemble` starts without torch.
app = typer.Typer(
    help="From labelled images to a submission that can be trusted. Run it where competitions/ is.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(train_commands)
app.add_typer(ensemble_commands)
app.add_typer(kaggle_commands)
app.add_typer(inspect_commands)
app.add_typer(tune_commands)
app.add_typer(kernel_commands)
app.add_typer(new_commands)


def main() -> None:
    """Run the command line; what the user can fix is one screen and exit code 2, never a traceback."""
    if not sys.warnoptions:  # what libraries warn of is not for users; `python -W default -m podium` shows it
        warnings.simplefilter("ignore")
    signal.signal(signal.SIGINT, _stop)
    try:
        app()
    except PodiumError as error:
        print(f"\n{error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        print(f"\nThe system refused.\n  file:     {error.filename}\n  found:    {error.strerror}", file=sys.stderr)
        sys.exit(2)
    except _Stopped:
        print("\nStopped. What was finished is kept.", file=sys.stderr)
        sys.exit(130)


class _Stopped(BaseException):
    """Ctrl-C, under a name that Typer does not take for its own."""


def _stop(*_: object) -> None:
    raise _Stopped
