"""Best-of-n from a language model's own hidden states, as an option of transformers' `generate`."""

from .auto_classes import register_auto_classes
from .configuration_elhsr import ElhsrConfig
from .generation import (
    BestOfNGenerationMixin,
    BestOfNOutput,
    ChatBestOfN,
    best_of_n_chat,
    disable_best_of_n,
    enable_best_of_n,
)
from .modeling_elhsr import ElhsrRewardHead, ElhsrRewardOutput
from .rewards import (
    GenerationRewards,
    LearnedCombination,
    RunningLogProbability,
    RunningReward,
    SignalProcessor,
    SignalProcessorList,
    TextRewardModel,
    fit_combination,
    score_generation,
    score_logprobs,
)
from .signals import SignalNeeds, StepSignal

__version__ = "0.1.0"

register_auto_classes()

__all__ = [
    "BestOfNGenerationMixin",
    "BestOfNOutput",
    "ChatBestOfN",
    "ElhsrConfig",
    "ElhsrRewardHead",
    "ElhsrRewardOutput",
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
    "fit_combination",
    "score_generation",
    "score_logprobs",
]
