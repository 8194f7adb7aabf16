"""Explanation: why a candidate won, and a live view of all candidates, for human readers."""

from .candidate_streamer import CandidateStreamer
from .explain import Explanation, explain

__all__ = ["CandidateStreamer", "Explanation", "explain"]
