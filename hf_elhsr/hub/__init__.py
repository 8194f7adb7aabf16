"""The Hub: a published head's card and the code it brings along, and heads published by the paper's own code."""

from .card import write_card
from .custom_generate import write_custom_generate
from .published_weights import convert_published

__all__ = ["convert_published", "write_card", "write_custom_generate"]
