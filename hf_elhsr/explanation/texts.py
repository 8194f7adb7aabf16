"""Texts of a model, made harmless to show: invisible characters are named and have no effect."""

import unicodedata
from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.text import Text

# Controls, formats (bidirectional overrides, zero-width characters, tags), lone surrogates, private use, unassigned
# characters, and the separators of lines and paragraphs
_UNSEEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
# Letters, marks and a symbol that are drawn as nothing; the variation selectors 17 to 256 can carry hidden text
_BLANK = {0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x2800, 0x3164, 0xFFA0, *range(0x180B, 0x1810)}
_BLANK |= set(range(0xE0100, 0xE01F0))
# At most this many marks on one letter; more would be drawn over the lines above and below
_MARKS = 3


def visible(text: str) -> str:
    """The text with each invisible character written as ⟨U+202E⟩; line feeds and tabs stay."""
    return next(iter(visible_pieces([text])))


def visible_pieces(pieces: Iterable[str]) -> list[str]:
    """[`visible`] for the pieces of one text; marks are counted across pieces."""
    shown, marks = [], 0
    for piece in pieces:
        characters = []
        for character in piece:
            category = unicodedata.category(character)
            marks = marks + 1 if category in ("Mn", "Me") else 0
            unseen = category in _UNSEEN or ord(character) in _BLANK or marks > _MARKS
            characters.append(f"⟨U+{ord(character):04X}⟩" if unseen and character not in "\n\t" else character)
        shown.append("".join(characters))
    return shown


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
