"""How a call ended: in rewards that equal the oracle, or an error that names what is wrong; the rest are findings."""

import contextlib
import copy
import dataclasses
import functools
import random
import traceback
from typing import Any

import numpy as np
import torch
from architectures import fuzz_model
from calls import NONSENSE, OWN, THEIRS, Call
from transformers import DynamicCache, PreTrainedModel

from hf_elhsr import BestOfNOutput, ElhsrRewardHead, enable_best_of_n
from oracle import assert_rewards_close, oracle_rewards
from tiny_models import tiny_head

DECISIONS: dict[str, Any] = {
    "calibration": {"slope": 1.0, "offset": 0.0, "winner": {"slope": 1.0, "offset": -0.1}, "n": 4, "prompts": 10},
    "pruning": {
        "interval": 2,
        "prefix": [[0.0, 1.0, 0.1, 0.1]] * 3,
        "final": [0.0, 1.0],
        "value": [[-1.0, 1.0, -1.0, 0.1, 0.1]] * 3,
        "prices": {"0.01": 0.05, "0.1": 0.6},
        "n": 4,
        "prompts": 10,
    },
    "adaptive": {
        "wave": 2,
        "thresholds": {"0.01": 0.9, "0.1": 0.55},
        "prices": {"0.01": 0.05, "0.1": 0.3},
        "n": 4,
        "prompts": 10,
    },
}
# Properties of models, inputs and users' functions that errors name
_PROPERTIES = (
    "returned",
    "cache",
    "context",
    "positions",
    "padding token",
    "prompt",
    "next-token distribution",
    "hidden states",
)
_LONGEST_MESSAGE = 1200


class FindingError(AssertionError):
    """A call that ended in none of the ways in which calls may end."""


@functools.cache
def _model_and_head(architecture: str, dtype: str, attention: str | None) -> tuple[Any, ElhsrRewardHead]:
    model = fuzz_model(architecture, getattr(torch, dtype))
    if attention is not None:
        # Some architectures have only their own
        with contextlib.suppress(ValueError):
            model.set_attn_implementation(attention)
    # The head is made before its model is enabled, as by another process
    head = tiny_head(model)
    for name, fields in DECISIONS.items():
        setattr(head.config, name, copy.deepcopy(fields))
    return enable_best_of_n(model), head


def judge(call: Call) -> str:
    """Make the call, and say how it ended.

    Raises:
        FindingError: In another way than it may.
    """
    model, head = _model_and_head(call.architecture, call.dtype, call.attention)
    arguments = _arguments(call, model, head)
    before, elsewhere = _state(model), (random.getstate(), str(np.random.get_state()))
    torch.manual_seed(call.seed)
    seeded = torch.get_rng_state()
    try:
        out, error = model.generate(**arguments), None
    except Exception as caught:  # noqa: BLE001
        out, error = None, caught
    if _state(model) != before:
        raise FindingError(f"the model has changed: {_difference(before, _state(model))} ({error!r:.300})")
    if (random.getstate(), str(np.random.get_state())) != elsewhere:
        raise FindingError("random numbers were drawn that are not torch's")
    if error is not None:
        # What functions return is known only after the sampling
        if _is_ours(error) and "returned" not in str(error) and not torch.equal(torch.get_rng_state(), seeded):
            raise FindingError(f"random numbers were drawn before a refusal: {error}")
        return _judge_error(call, model, head, error)
    if call.seed % 8 == 0:
        torch.manual_seed(call.seed)
        if not torch.equal(_sequences(model.generate(**_arguments(call, model, head))), _sequences(out)):
            raise FindingError("the same seed gives other winners")
    return _judge_result(call, model, head, arguments, out)


def _sequences(out: Any) -> torch.Tensor:
    return out.sequences if isinstance(out, BestOfNOutput) else out


def _arguments(call: Call, model: PreTrainedModel, head: ElhsrRewardHead) -> dict[str, Any]:
    def words(prompts: list[str], completions: list[str]) -> list[float]:
        return [float(len(set(completion.split()))) for completion in completions]

    sources = {"head": head, "heads": [head, head], "scorer": words, "both": [head, words]}
    arguments = call.inputs | call.own | call.settings
    arguments["reward_head"] = sources[call.source]
    if call.cache:
        arguments["past_key_values"] = DynamicCache(config=model.config)
    # Nonsense is made for every call, since some of it can be used once
    return arguments | {name: NONSENSE[kind]() for name, kind in call.nonsense.items()}


def _judge_error(call: Call, model: Any, head: ElhsrRewardHead, error: Exception) -> str:
    said = " ".join([str(error), *getattr(error, "__notes__", [])])
    names = (*OWN, *THEIRS, *call.settings, *call.inputs, *call.nonsense, type(model).__name__, *_PROPERTIES)
    named = any(name in said for name in names)
    if isinstance(error, ValueError | TypeError) and named and (len(said) <= _LONGEST_MESSAGE or not _is_ours(error)):
        return f"refused ({type(error).__name__})"
    if type(plain := _plain_error(call, model, head)) is type(error):
        return "as without best_of_n"
    raise FindingError(f"{type(error).__name__}: {said[:600]} (without best_of_n: {plain!r:.200})") from error


def _is_ours(error: Exception) -> bool:
    """Whether the package raised it itself."""
    frames = list(traceback.walk_tb(error.__traceback__))
    return frames[-1][0].f_globals.get("__name__", "").startswith("hf_elhsr")


def _plain_error(call: Call, model: Any, head: ElhsrRewardHead) -> Exception | None:
    """What transformers' own generate raises with the same arguments."""
    arguments = {name: value for name, value in _arguments(call, model, head).items() if name not in OWN}
    n = call.own["best_of_n"]
    if "num_return_sequences" not in call.nonsense:
        arguments["num_return_sequences"] = n
    if n > 1 and arguments.get("do_sample") is None:
        arguments["do_sample"] = True
    torch.manual_seed(call.seed)
    try:
        model.generate(**arguments)
    except Exception as error:  # noqa: BLE001
        return error
    return None


def _judge_result(call: Call, model: Any, head: ElhsrRewardHead, arguments: dict[str, Any], out: Any) -> str:
    inputs = {"attention_mask": torch.ones_like(call.inputs["input_ids"])} | call.inputs
    if not isinstance(inputs["attention_mask"], torch.Tensor) or "input_ids" in call.nonsense:
        raise FindingError(f"accepted nonsense: {call.nonsense}")
    n, k = arguments["best_of_n"], arguments.get("num_return_sequences") or 1
    batch, length = inputs["input_ids"].shape
    sequences = _sequences(out)
    if len(sequences) != batch * k or not torch.equal(
        sequences[:, :length], inputs["input_ids"].repeat_interleave(k, dim=0)
    ):
        raise FindingError(f"sequences of shape {tuple(sequences.shape)} do not continue the prompts")
    if not isinstance(out, BestOfNOutput):
        return "winners"
    if out.rewards.shape != (batch, n) or not bool((out.lengths[:, 0] > 0).all()):
        raise FindingError(f"rewards of shape {tuple(out.rewards.shape)}")
    won = out.candidates[torch.arange(batch)[:, None], out.winners].flatten(0, 1)
    if not torch.equal(won[:, : sequences.shape[1]], sequences):
        raise FindingError("the winners are not among the candidates")
    if call.source in ("scorer",) or arguments.get("cache_implementation") == "quantized":
        return "result, its rewards not of a head or of a rounded cache"
    rewards = out.rewards if out.source_rewards is None else out.source_rewards[..., 0]
    sampled = out.lengths > 0
    if "attention_mask" not in call.inputs:
        # As generate finds padding
        pad = call.inputs["input_ids"] == 0
        inputs["attention_mask"] = (~pad).long()
    inputs["attention_mask"] = inputs["attention_mask"].long()
    tolerance = 0.3 if call.dtype == "bfloat16" else 1e-4
    known = rewards.float().masked_fill(~sampled, 0.0).numpy()
    try:
        expected = oracle_rewards(model, head, _Sampled(out), inputs)
        assert_rewards_close(known, np.where(sampled.numpy(), expected, 0.0), tolerance)
    except AssertionError as oracle_says:
        # Some architectures see padding; the same padded tokens have to get the same reward then
        again = np.where(sampled.numpy(), _scored_with_padding(model, head, out, inputs), 0.0)
        try:
            assert_rewards_close(known, again, tolerance)
        except AssertionError as error:
            if call.dtype == "float64":
                raise FindingError(f"{oracle_says}; re-scored with padding: {error}") from error
            # Random weights may enlarge the rounding of a lower precision without limit, or choose other experts
            return f"{judge(dataclasses.replace(call, dtype='float64'))} in float64, not in {call.dtype}"
        return "result, equal to scoring the padded tokens again"
    return "result, equal to the oracle"


class _Sampled:
    """An output whose candidates all have a token, for the oracle."""

    def __init__(self, out: BestOfNOutput):
        self.lengths = out.lengths.clamp_min(1)
        pad = torch.zeros_like(out.candidates[..., :1])
        self.candidates = torch.cat([out.candidates, pad], dim=-1)


@torch.no_grad()
def _scored_with_padding(model: Any, head: ElhsrRewardHead, out: BestOfNOutput, inputs: dict[str, Any]) -> np.ndarray:
    """(batch, n): one forward pass per candidate, over prompt and completion with the prompt's padding."""
    length = inputs["input_ids"].shape[1]
    rewards = np.zeros(tuple(out.lengths.shape))
    for row, column in np.ndindex(*rewards.shape):
        end = length + max(1, int(out.lengths[row, column]))
        ids = torch.nn.functional.pad(out.candidates[row, column], (0, 1))[None, :end]
        completion = torch.zeros_like(ids)
        completion[:, length:] = 1
        mask = torch.cat([inputs["attention_mask"][row], torch.ones(end - length, dtype=torch.long)])[None]
        rewards[row, column] = float(head.score(model, ids, completion, mask))
    return rewards


def _state(model: Any) -> dict[str, Any]:
    return {
        # transformers remembers how long its static caches were
        "attributes": sorted(vars(model).keys() - {"_previous_max_cache_length"}),
        "config": str(model.config.to_dict()),
        "generation config": str(model.generation_config.to_dict()),
        "training": [module.training for module in model.modules()],
        "hooks": [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()],
        "forwards": ["forward" in vars(module) for module in model.modules()],
        "weights": [parameter._version for parameter in model.parameters()],
        "gradients": torch.is_grad_enabled(),
        "threads": torch.get_num_threads(),
    }


def _difference(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    changed = [name for name in before if before[name] != after[name]]
    parts = {
        name: ([x for x in before[name] if x not in after[name]], [x for x in after[name] if x not in before[name]])
        for name in changed
        if isinstance(before[name], list)
    }
    return [f"{name}: {parts.get(name, (before[name], after[name]))!s:.300}" for name in changed]
