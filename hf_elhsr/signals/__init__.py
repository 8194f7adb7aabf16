"""Signals: from a step of the language model to what a head reads of the token just sampled."""

from .step_signal import SignalNeeds, StepSignal, read_step

__all__ = ["SignalNeeds", "StepSignal", "read_step"]
