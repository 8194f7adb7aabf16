"""What transformers' AutoConfig and AutoModel make of a folder or repository that holds a reward head.

Apart from the classes themselves, because copies of these travel with published heads, and only one of them can have
the name.
"""

from transformers import AutoConfig, AutoModel

from .head.configuration_elhsr import ElhsrConfig
from .head.modeling_elhsr import ElhsrRewardHead


def register_auto_classes() -> None:
    """Let `AutoConfig` and `AutoModel` know the model type "elhsr"."""
    AutoConfig.register(ElhsrConfig.model_type, ElhsrConfig)
    AutoModel.register(ElhsrConfig, ElhsrRewardHead)
