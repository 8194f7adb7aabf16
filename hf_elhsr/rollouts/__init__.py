"""Rollouts: tasks and verifiers, sampling with features in the same pass, and the set on disk."""

from .digests import head_digest
from .feature_recorder import FeatureRecorder
from .labelling import relabel_rollouts
from .prompts import encode_prompts, prompt_texts
from .rollout import Rollout
from .rollout_set import RolloutSet
from .sampling import SamplingSettings, sample_rollouts
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
