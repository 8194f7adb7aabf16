"""Rewards: processors that follow decoding token by token, and the scoring of other decoding loops."""

from .log_probability import RunningLogProbability
from .processor import SignalProcessor, SignalProcessorList
from .running_reward import RunningReward
from .score_generation import GenerationRewards, score_generation
from .score_logprobs import score_logprobs

__all__ = [
    "GenerationRewards",
    "RunningLogProbability",
    "RunningReward",
    "SignalProcessor",
    "SignalProcessorList",
    "score_generation",
    "score_logprobs",
]
