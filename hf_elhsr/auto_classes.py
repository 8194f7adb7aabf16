"""Register reward heads with transformers' AutoConfig and AutoModel.

This is done outside the classes' own files, since copies of those are published with heads, and only one class can be
registered for the model type.
"""

from transformers import AutoConfig, AutoModel

from .head.configuration_elhsr import ElhsrConfig
from .head.modeling_elhsr import ElhsrRewardHead


def register_auto_classes() -> None:
    """Let `AutoConfig` and `AutoModel` know the model type "elhsr"."""
    AutoConfig.register(ElhsrConfig.model_type, ElhsrConfig)
    AutoModel.register(ElhsrConfig, ElhsrRewardHead)
