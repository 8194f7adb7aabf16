"""Texts that others wrote, made harmless to show: invisible characters are named and have no effect."""

import unicodedata
from collections.abc import Iterable

# Controls, formats (bidirectional overrides, zero-width characters, tags), lone surrogates, private use, unassigned
# characters, and the separators of lines and paragraphs
_UNSEEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
# Letters, marks and a symbol that are drawn as nothing; the variation selectors 17 to 256 can carry hidden text
_BLANK = {0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x2800, 0x3164, 0xFFA0, *range(0x180B, 0x1810)}
_BLANK |= set(range(0xE0100, 0xE01F0))
# At most this many marks on one letter; more would be drawn over the lines above and below
_MARKS = 3
# How much of a text an error quotes
_QUOTED = 200


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


def quoted(text: str) -> str:
    """What an error quotes of a text that others wrote: [`visible`], and at most 200 characters of it."""
    return visible(text if len(text) <= _QUOTED else f"{text[: _QUOTED - 3]}...")
