"""Ctrl-C while `hf-elhsr` is still importing torch and transformers, which takes seconds and no `try` can surround."""

import contextlib
import os
import signal
import sys
from itertools import pairwise
from pathlib import Path
from types import FrameType

_PROGRAM, _MODULE = "hf-elhsr", "hf_elhsr.cli"


def end_quietly_while_importing() -> None:
    """If this process is the program, let Ctrl-C end it without a traceback until [`hand_over`] is called.

    In all other processes, and where Ctrl-C is ignored or handled already, nothing changes.
    """
    if _is_program() and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)


def hand_over() -> None:
    """Let Ctrl-C raise KeyboardInterrupt from here on."""
    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _is_program() -> bool:
    # `python -m hf_elhsr.cli` imports the package before sys.argv names the module
    run = sys.orig_argv[1:]
    as_module = ("-m", _MODULE) in pairwise(run)
    return as_module or Path(sys.argv[0]).stem == _PROGRAM


def _end(number: int, frame: FrameType | None) -> None:
    # Not SystemExit: an import may catch it, or turn it into an error. Nothing has been opened yet
    with contextlib.suppress(OSError):
        os.write(2, b"Stopped.\n")
    os._exit(128 + number)
