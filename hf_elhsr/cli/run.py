"""run: how every command ends, with an exit code, and with one line where something is wrong."""

import os
import re
import sys
from typing import Any

import typer
from huggingface_hub.utils.tqdm import disable_progress_bars
from rich.text import Text
from transformers.utils import logging

from ..explanation.texts import visible
from .result import messages


def arrange_progress_bars() -> None:
    """Take bars away when they are done, and draw none where standard error is no terminal.

    It holds for our own bars, which are transformers' kind, and for those of transformers, huggingface_hub and
    datasets.
    """
    if sys.stderr.isatty():
        logging.set_tqdm_hook(lambda make, args, kwargs: make(*args, **{"leave": False} | kwargs))
        return
    logging.disable_progress_bar()
    disable_progress_bars()
    # Read by datasets at its import, which is later and only for some tasks
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")


#: The commands that go on where they stopped.
GO_ON = ("sample", "train", "evaluate")


def run(app: typer.Typer) -> None:
    """Run the command that `sys.argv` names, and exit.

    0: it is done. 1: an error that nobody foresaw, with its traceback, or a pipe whose reader has gone, without a word.
    2: what the user can mend, told in one line on standard error. 130: Ctrl-C.
    """
    arrange_progress_bars()
    call: Any = app
    try:
        # Ctrl-C and options such as --help end in a code, commands in None
        code = call(prog_name="hf-elhsr", standalone_mode=False) or 0
        sys.stdout.flush()
    except typer.TyperException as error:
        _tell("Error:", _usage(error))
        code = 2
    except BrokenPipeError:
        # What is still to be written goes nowhere, or Python complains of it in the end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except (ValueError, OSError) as error:
        # OSError: transformers' word for a model or tokenizer that is not there
        _tell("Error:", str(error) or type(error).__name__)
        code = 2
    if code == 130:
        command = next((argument for argument in sys.argv[1:] if not argument.startswith("-")), "")
        _tell(
            "Stopped.", "The same command goes on from there." if command in GO_ON else "The same command starts anew."
        )
    sys.exit(code)


def _usage(error: typer.TyperException) -> str:
    message = error.format_message()
    if not message.endswith((".", "?")):
        message += "."
    context = getattr(error, "ctx", None)
    return message if context is None else f"{message} See `{context.command_path} --help`."


def _tell(kind: str, message: str) -> None:
    line = re.sub(r"\s*\n\s*", " ", message.strip())
    messages.print(Text.assemble((kind, "red"), " ", visible(line)), soft_wrap=True)
