"""Explanation: why a candidate won, and candidates while they are written, for people."""

from .candidate_streamer import CandidateStreamer
from .explain import Explanation, explain

__all__ = ["CandidateStreamer", "Explanation", "explain"]
