"""The start of a worker process. Nothing heavy is imported: it must ignore Ctrl-C before it imports torch."""

import signal
import warnings


def start_worker() -> None:
    """Ignore Ctrl-C, which reaches all processes but is handled by the main one, and warnings of libraries."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warnings.simplefilter("ignore")
