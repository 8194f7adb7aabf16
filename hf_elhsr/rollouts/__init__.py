"""Rollouts: sampling with labels and features in the same pass, and the set on disk."""

from .disk_budget import parse_bytes, plan_recording
from .engine import Completion, Judge, SamplingArguments, SamplingEngine, TransformersEngine
from .labelling import relabel_rollouts
from .prompts import PromptFormat, encode_prompts, prompt_texts
from .recorders import FeatureRecorder
from .recording import Recording
from .rollout import Rollout, by_prompt
from .rollout_set import RolloutSet
from .sampling import sample_rollouts
from .scoring import score_rollouts
from .text_scores import score_rollout_texts

__all__ = [
    "Completion",
    "FeatureRecorder",
    "Judge",
    "PromptFormat",
    "Recording",
    "Rollout",
    "RolloutSet",
    "SamplingArguments",
    "SamplingEngine",
    "TransformersEngine",
    "by_prompt",
    "encode_prompts",
    "parse_bytes",
    "plan_recording",
    "prompt_texts",
    "relabel_rollouts",
    "sample_rollouts",
    "score_rollout_texts",
    "score_rollouts",
]
