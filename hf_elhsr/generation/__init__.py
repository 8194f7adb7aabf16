"""Generation: best-of-n as an option of `generate`."""

from .chat import ChatBestOfN, best_of_n_chat
from .enable import disable_best_of_n, enable_best_of_n
from .mixin import BestOfNGenerationMixin
from .output import BestOfNOutput

__all__ = [
    "BestOfNGenerationMixin",
    "BestOfNOutput",
    "ChatBestOfN",
    "best_of_n_chat",
    "disable_best_of_n",
    "enable_best_of_n",
]
