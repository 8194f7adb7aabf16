"""Texts of a model: printed without an effect on the terminal, and told apart token by token."""

from typing import Any

from rich.console import Console
from rich.text import Text

from .._visible_text import visible as visible
from .._visible_text import visible_pieces as visible_pieces


def print_text(console: Console, text: str) -> None:
    """Print a text without interpreting markup; where people read it, invisible characters are named.

    Args:
        console: On a terminal or in a notebook it shows the text as [`visible`]; to a file or a pipe it writes every
            character.
    """
    if console.is_terminal or console.is_jupyter:
        console.print(Text(visible(text)))
    else:
        console.file.write(text + "\n")


# A UTF-8 character has at most four bytes and a token at least one, so no character spans more tokens
_LONGEST_WAIT = 4


def token_texts(tokenizer: Any, token_ids: list[int]) -> list[str]:
    """What each token adds to the text, special tokens included; joined, these are the decoded text.

    A token that holds only part of a character adds nothing, and the one that completes the character adds it.

    Args:
        tokenizer: The language model's tokenizer.
        token_ids: The tokens of one completion.
    """

    def decode(start: int, end: int) -> str:
        ids = token_ids[start:end]
        text: str = tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return text

    texts: list[str] = []
    # What a token adds can depend on the one before: `context` is where that one starts, `done` where new text starts
    context = done = 0
    for end in range(1, len(token_ids) + 1):
        known, text = decode(context, done), decode(context, end)
        incomplete = text.endswith("\N{REPLACEMENT CHARACTER}") and end - done < _LONGEST_WAIT
        if incomplete and end < len(token_ids):
            texts.append("")
            continue
        texts.append(text[len(known) :])
        context, done = done, end
    return texts
