"""Explanation: why a candidate won, and candidates while they are written, for people."""

from .explain import explain
from .explanation import Explanation

__all__ = ["Explanation", "explain"]
