"""Signals: from a step of the language model to what a head reads of the token just sampled."""

from .head_signal import head_features, head_needs, head_parts
from .step_signal import SignalNeeds, StepSignal, read_step

__all__ = ["SignalNeeds", "StepSignal", "head_features", "head_needs", "head_parts", "read_step"]
