"""Rollouts: tasks and verifiers, sampling with features in the same pass, and the set on disk."""

from .feature_recorder import FeatureRecorder
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
    "sample_rollouts",
]
