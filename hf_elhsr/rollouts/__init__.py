"""Rollouts: tasks and verifiers, sampling with features in the same pass, and the set on disk."""

from .labelling import relabel_rollouts
from .prompts import encode_prompts, prompt_texts
from .recorders import FeatureRecorder
from .rollout import Rollout
from .rollout_set import RolloutSet
from .sampling import SamplingArguments, sample_rollouts

__all__ = [
    "FeatureRecorder",
    "Rollout",
    "RolloutSet",
    "SamplingArguments",
    "encode_prompts",
    "prompt_texts",
    "relabel_rollouts",
    "sample_rollouts",
]
