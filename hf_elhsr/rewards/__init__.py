"""Rewards: processors that follow decoding token by token, and models that score texts."""

from .baselines import RunningLogProbability, RunningSelfCertainty
from .processor import SignalProcessor, SignalProcessorList
from .running_reward import RunningReward
from .text_reward_model import TextRewardModel

__all__ = [
    "RunningLogProbability",
    "RunningReward",
    "RunningSelfCertainty",
    "SignalProcessor",
    "SignalProcessorList",
    "TextRewardModel",
]
