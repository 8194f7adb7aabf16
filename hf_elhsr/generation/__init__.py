"""Generation: best-of-n as an option of `generate`."""

from .chat import ChatBestOfN, best_of_n_chat, score_logprobs
from .mixin import BestOfNGenerationMixin, disable_best_of_n, enable_best_of_n
from .output import BestOfNOutput
from .score_generation import GenerationRewards, score_generation

__all__ = [
    "BestOfNGenerationMixin",
    "BestOfNOutput",
    "ChatBestOfN",
    "GenerationRewards",
    "best_of_n_chat",
    "disable_best_of_n",
    "enable_best_of_n",
    "score_generation",
    "score_logprobs",
]
