"""Rollouts: sampling with labels and features in the same pass, and the set on disk."""

from .engine import Completion, Judge, SamplingArguments, SamplingEngine, TransformersEngine
from .labelling import relabel_rollouts
from .prompts import encode_prompts, prompt_texts
from .recorders import FeatureRecorder
from .recording import Recording
from .rollout import Rollout
from .rollout_set import RolloutSet
from .sampling import sample_rollouts

__all__ = [
    "Completion",
    "FeatureRecorder",
    "Judge",
    "Recording",
    "Rollout",
    "RolloutSet",
    "SamplingArguments",
    "SamplingEngine",
    "TransformersEngine",
    "encode_prompts",
    "prompt_texts",
    "relabel_rollouts",
    "sample_rollouts",
]
