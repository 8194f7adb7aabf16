"""The Hub: the card of a published head, and heads that were published by the paper's own code."""

from .card import write_card
from .published_weights import convert_published

__all__ = ["convert_published", "write_card"]
