"""Digests of a head and of a language model, by which rollouts and evaluations know whose they are."""

import hashlib

import torch
from transformers import PreTrainedModel

from ..head.base_model import adapter_fingerprint, model_fingerprint
from ..head.modeling_elhsr import ElhsrRewardHead


def head_digest(head: ElhsrRewardHead) -> str:
    """SHA-256 of a head's weights."""
    parameters = [head.weight, head.bias]
    if head.config.value:
        parameters += [head.value_weight, head.value_bias]
    values = torch.cat([parameter.detach().flatten() for parameter in parameters]).cpu().numpy()
    return hashlib.sha256(values.tobytes()).hexdigest()


def model_digest(model: PreTrainedModel) -> str | None:
    """A hash of the model's fingerprint and its adapter's; None where weights cannot be read."""
    try:
        fingerprints = [model_fingerprint(model), adapter_fingerprint(model)]
    except ValueError:
        # Packed: a head is compared with what can be read of it, but nothing is there to tell two such models apart
        return None
    return hashlib.sha256(str(fingerprints).encode()).hexdigest()
