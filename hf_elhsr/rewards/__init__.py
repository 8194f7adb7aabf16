"""Rewards: processors that follow decoding token by token, and models that score texts."""

from .baselines import LastTokenProbe, RunningLogProbability, RunningSelfCertainty
from .processor import SignalProcessor, SignalProcessorList
from .running_reward import RunningReward
from .text_reward_model import TextRewardModel

__all__ = [
    "LastTokenProbe",
    "RunningLogProbability",
    "RunningReward",
    "RunningSelfCertainty",
    "SignalProcessor",
    "SignalProcessorList",
    "TextRewardModel",
]
