"""Best-of-n from a language model's own hidden states, as an option of transformers' `generate`."""

__version__ = "0.1.0"

from ._interrupt import end_quietly_while_importing

end_quietly_while_importing()

from .supported_versions import check_versions

check_versions()

from .auto_classes import register_auto_classes
from .decisions.fit import fit_combination
from .decisions.selection import LearnedCombination
from .evaluation import Evaluation, TradeOff, evaluate_rollouts, measure_tradeoff
from .explanation import CandidateStreamer, Explanation, explain
from .generation import (
    BestOfNGenerationMixin,
    BestOfNOutput,
    ChatBestOfN,
    GenerationRewards,
    best_of_n_chat,
    disable_best_of_n,
    enable_best_of_n,
    score_generation,
    score_logprobs,
)
from .head.configuration_elhsr import ElhsrConfig
from .head.loading import load_reward_head
from .head.modeling_elhsr import ElhsrRewardHead, ElhsrRewardOutput
from .head.signals import SignalNeeds, StepSignal
from .hub import FoundHead, find_heads, publish, write_card
from .models import load_language_model, load_text_reward_model
from .rewards import RunningLogProbability, RunningReward, SignalProcessor, SignalProcessorList, TextRewardModel
from .rollouts import (
    Recording,
    Rollout,
    RolloutSet,
    SamplingArguments,
    encode_prompts,
    relabel_rollouts,
    sample_rollouts,
)
from .tasks import Problem, Task, find_task
from .training import RewardHeadTrainer, RewardHeadTrainingArguments, TrainingReport, refit_head

register_auto_classes()

__all__ = [
    "BestOfNGenerationMixin",
    "BestOfNOutput",
    "CandidateStreamer",
    "ChatBestOfN",
    "ElhsrConfig",
    "ElhsrRewardHead",
    "ElhsrRewardOutput",
    "Evaluation",
    "Explanation",
    "FoundHead",
    "GenerationRewards",
    "LearnedCombination",
    "Problem",
    "Recording",
    "RewardHeadTrainer",
    "RewardHeadTrainingArguments",
    "Rollout",
    "RolloutSet",
    "RunningLogProbability",
    "RunningReward",
    "SamplingArguments",
    "SignalNeeds",
    "SignalProcessor",
    "SignalProcessorList",
    "StepSignal",
    "Task",
    "TextRewardModel",
    "TradeOff",
    "TrainingReport",
    "best_of_n_chat",
    "disable_best_of_n",
    "enable_best_of_n",
    "encode_prompts",
    "evaluate_rollouts",
    "explain",
    "find_heads",
    "find_task",
    "fit_combination",
    "load_language_model",
    "load_reward_head",
    "load_text_reward_model",
    "measure_tradeoff",
    "publish",
    "refit_head",
    "relabel_rollouts",
    "sample_rollouts",
    "score_generation",
    "score_logprobs",
    "write_card",
]
