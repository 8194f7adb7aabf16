"""The Hub: the card of a published head."""

from .card import write_card

__all__ = ["write_card"]
