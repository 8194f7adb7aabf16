"""`hf-elhsr`: the commands together, and how each of them ends."""

import io
import os
import re
import sys
from typing import Annotated, Any

import typer
from huggingface_hub.utils.tqdm import disable_progress_bars
from rich.text import Text
from safetensors import SafetensorError
from transformers.utils import logging

from .. import __version__
from .._files import is_full_disk
from .._interrupt import hand_over
from ..explanation.texts import visible
from .card import card
from .evaluate import evaluate
from .generate import generate
from .heads import heads
from .inspect import inspect
from .publish import publish
from .relabel import relabel
from .result import messages
from .sample import sample
from .tradeoff import tradeoff
from .train import calibrate, convert, refit, train

# \b: lines as they are
_PATH = """
\b
From nothing to a published head:
  hf-elhsr sample rollouts/train --model MODEL
  hf-elhsr train rollouts/train my-head
  hf-elhsr evaluate rollouts/test --model MODEL --head my-head \\
      --numbers my-head/evaluation/test.json
  hf-elhsr generate "How many ...?" --model MODEL --head my-head
  hf-elhsr card my-head
  hf-elhsr publish my-head NAME/my-head
"""

app = typer.Typer(
    help="Reward heads that read a language model's hidden states, and select the best of its answers.",
    epilog=_PATH,
    # Boxes cut off long words where a terminal is 80 characters wide
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"hf-elhsr {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Show the help if no command is named."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


# To add a command, write a function in a file of its own and name it here, in the order of `hf-elhsr --help`
for command in (
    sample,
    relabel,
    train,
    refit,
    calibrate,
    evaluate,
    tradeoff,
    generate,
    inspect,
    card,
    publish,
    heads,
    convert,
):
    app.command()(command)

# These commands resume where they were stopped; the others start again
_RESUMING = (sample, train, evaluate)


def main() -> None:
    """Run the command that `sys.argv` names, and exit.

    0: done. 1: an unforeseen error, with its traceback, or a closed pipe, silently. 2: an error that the user can fix,
    in one line on standard error. 130: Ctrl-C.
    """
    _replace_what_cannot_be_encoded()
    _arrange_progress_bars()
    call: Any = app
    try:
        hand_over()
        # Ctrl-C and options such as --help return a code, commands return None
        code = call(prog_name="hf-elhsr", standalone_mode=False) or 0
        sys.stdout.flush()
    except KeyboardInterrupt:
        # typer's own handler does not surround all of this
        code = 130
    except typer.TyperException as error:
        _report("Error:", _usage(error))
        code = 2
    except BrokenPipeError:
        # Buffered output is discarded; Python would report an error about it at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except (ValueError, OSError, SafetensorError) as error:
        # transformers raises OSError for a model or tokenizer that does not exist
        _discard_output_that_fails()
        _report("Error:", _full_disk(error) or str(error) or type(error).__name__)
        code = 2
    if code == 130:
        command = next((argument for argument in sys.argv[1:] if not argument.startswith("-")), "")
        resumes = command in [resuming.__name__ for resuming in _RESUMING]
        _report("Stopped.", f"The same command {'resumes from there' if resumes else 'starts again'}.")
    sys.exit(code)


def _replace_what_cannot_be_encoded() -> None:
    """Write "?" for characters that a terminal or a pipe cannot take, such as those outside of a Windows code page."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _full_disk(error: Exception) -> str | None:
    """The message for a full disk wherever it was noticed; None for other errors, and where it is explained already."""
    if not is_full_disk(error):
        return None
    place = f" while writing {error.filename!r}" if isinstance(error, OSError) and error.filename else ""
    return f"The disk is full{place} ({error}): make room, and run the same command again."


def _discard_output_that_fails() -> None:
    """Let go of output that cannot be written, for example to a full disk; Python would try again at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _arrange_progress_bars() -> None:
    """Remove finished progress bars, and draw none if standard error is not a terminal.

    This covers our own bars, which are made by transformers, and those of transformers, huggingface_hub and datasets.
    """
    if sys.stderr.isatty():
        logging.set_tqdm_hook(lambda make, args, kwargs: make(*args, **{"leave": False} | kwargs))
        return
    logging.disable_progress_bar()
    disable_progress_bars()
    # datasets reads it at import, which happens later and only for some tasks
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")


def _usage(error: typer.TyperException) -> str:
    message = error.format_message()
    if not message.endswith((".", "?")):
        message += "."
    context = getattr(error, "ctx", None)
    return message if context is None else f"{message} See `{context.command_path} --help`."


def _report(kind: str, message: str) -> None:
    line = re.sub(r"\s*\n\s*", " ", message.strip())
    messages.print(Text.assemble((kind, "red"), " ", visible(line)), soft_wrap=True)
