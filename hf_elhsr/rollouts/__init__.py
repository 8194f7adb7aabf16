"""Rollouts: tasks and verifiers, sampling with features in the same pass, and the set on disk."""

from .feature_recorder import FeatureRecorder
from .labelling import relabel_rollouts
from .prompts import encode_prompts, prompt_texts
from .rollout_set import Rollout, RolloutSet
from .sampling import SamplingSettings, head_digest, sample_rollouts
from .scored_rollouts import ScoredRollouts
from .tasks import ArithmeticTask, Problem, Task

__all__ = [
    "ArithmeticTask",
    "FeatureRecorder",
    "Problem",
    "Rollout",
    "RolloutSet",
    "SamplingSettings",
    "ScoredRollouts",
    "Task",
    "encode_prompts",
    "head_digest",
    "prompt_texts",
    "relabel_rollouts",
    "sample_rollouts",
]
