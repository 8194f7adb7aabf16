"""Best-of-n from a language model's own hidden states, as an option of transformers' `generate`."""

__version__ = "0.1.0"

from .supported_versions import check_versions

check_versions()

from .auto_classes import register_auto_classes
from .decisions.fit import fit_combination
from .decisions.selection import LearnedCombination
from .explanation import CandidateStreamer, Explanation, explain
from .generation import (
    BestOfNGenerationMixin,
    BestOfNOutput,
    ChatBestOfN,
    best_of_n_chat,
    disable_best_of_n,
    enable_best_of_n,
)
from .generation.chat import score_logprobs
from .generation.score_generation import GenerationRewards, score_generation
from .head.configuration_elhsr import ElhsrConfig
from .head.modeling_elhsr import ElhsrRewardHead, ElhsrRewardOutput
from .head.signals import SignalNeeds, StepSignal
from .hub import FoundHead, find_heads, publish
from .rewards import RunningLogProbability, RunningReward, SignalProcessor, SignalProcessorList, TextRewardModel

register_auto_classes()

__all__ = [
    "BestOfNGenerationMixin",
    "BestOfNOutput",
    "CandidateStreamer",
    "ChatBestOfN",
    "ElhsrConfig",
    "ElhsrRewardHead",
    "ElhsrRewardOutput",
    "Explanation",
    "FoundHead",
    "GenerationRewards",
    "LearnedCombination",
    "RunningLogProbability",
    "RunningReward",
    "SignalNeeds",
    "SignalProcessor",
    "SignalProcessorList",
    "StepSignal",
    "TextRewardModel",
    "best_of_n_chat",
    "disable_best_of_n",
    "enable_best_of_n",
    "explain",
    "find_heads",
    "fit_combination",
    "publish",
    "score_generation",
    "score_logprobs",
]
