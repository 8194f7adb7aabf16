"""print_text: what a model wrote, on a console: without effect on a terminal, as it is to a file or a pipe."""

from rich.console import Console
from rich.text import Text

from .visible import visible


def print_text(console: Console, text: str) -> None:
    """Nothing of it is markup. On a terminal, what cannot be seen is named; elsewhere every character is kept."""
    if console.is_terminal:
        console.print(Text(visible(text)))
    else:
        console.file.write(text + "\n")
