"""Explanation: why a candidate won, and candidates while they are written, for people."""

from .candidate_streamer import CandidateStreamer
from .explain import explain
from .explanation import Explanation

__all__ = ["CandidateStreamer", "Explanation", "explain"]
