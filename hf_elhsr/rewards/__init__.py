"""Rewards: processors that follow decoding token by token, and the scoring of other decoding loops."""

from .combination import LearnedCombination
from .combination_fit import fit_combination
from .log_probability import RunningLogProbability
from .processor import SignalProcessor, SignalProcessorList
from .running_reward import RunningReward
from .score_generation import GenerationRewards, score_generation
from .score_logprobs import score_logprobs
from .self_certainty import RunningSelfCertainty
from .text_reward_model import TextRewardModel

__all__ = [
    "GenerationRewards",
    "LearnedCombination",
    "RunningLogProbability",
    "RunningReward",
    "RunningSelfCertainty",
    "SignalProcessor",
    "SignalProcessorList",
    "TextRewardModel",
    "fit_combination",
    "score_generation",
    "score_logprobs",
]
