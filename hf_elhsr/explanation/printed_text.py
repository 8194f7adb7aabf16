"""print_text: what a model wrote, on a console: without effect where it is shown, as it is to a file or a pipe."""

from rich.console import Console
from rich.text import Text

from .visible import visible


def print_text(console: Console, text: str) -> None:
    """Nothing of it is markup. Where it is shown, what cannot be seen is named; elsewhere every character is kept.

    Args:
        console: Shows it on a terminal or in a notebook; another writes to a file or a pipe.
    """
    if console.is_terminal or console.is_jupyter:
        console.print(Text(visible(text)))
    else:
        console.file.write(text + "\n")
