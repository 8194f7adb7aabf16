"""The Hub: publishing and finding heads, their cards, the code they carry, and heads of the paper's own code."""

from ..head.modeling_elhsr import ElhsrRewardHead
from ..head.paper_weights import convert_published
from .card import write_card
from .custom_generate import write_custom_generate
from .find_heads import FoundHead, find_heads
from .publish import publish, push_to_hub, save_pretrained

# The class travels to the Hub, where the package is missing, so methods that upload the package's code are set here
ElhsrRewardHead.push_to_hub = push_to_hub  # type: ignore[assignment, method-assign]
ElhsrRewardHead.save_pretrained = save_pretrained  # type: ignore[assignment, method-assign]

__all__ = [
    "FoundHead",
    "convert_published",
    "find_heads",
    "publish",
    "push_to_hub",
    "write_card",
    "write_custom_generate",
]
