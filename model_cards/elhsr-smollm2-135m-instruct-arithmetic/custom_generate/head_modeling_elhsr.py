# Made by hf_elhsr 0.1.0 from its hf_elhsr/head/modeling_elhsr.py, where changes belong.
# Copyright the hf_elhsr authors, Apache License 2.0: https://www.apache.org/licenses/LICENSE-2.0

"""ElhsrRewardHead: the reward of a completion, read from the hidden states of its tokens (arXiv:2505.12225)."""

import functools
import inspect
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]
from safetensors.torch import load
from torch import nn
from transformers import PreTrainedModel
from transformers.utils import ModelOutput, extract_commit_hash

from .head_configuration_elhsr import ElhsrConfig, unwrap_language_model
from .head_loading import LOADING_ARGUMENTS, head_file, read_config
from .head_shapes import check_weights, parameter_shapes
from .head_signals import distribution_features
from .head_token_outputs import token_outputs

# Arguments of `from_pretrained` that would have weights come from elsewhere than model.safetensors
_OTHER_WEIGHTS = ("gguf_file", "state_dict", "variant")


@dataclass
class ElhsrRewardOutput(ModelOutput):
    """Output of [`ElhsrRewardHead.forward`].

    Args:
        loss: Scalar, where labels were given: binary cross-entropy of sigmoid(R) against them.
        rewards: (batch,) float32. R of every completion; sigmoid(R) estimates P(correct).
        token_rewards: (batch, tokens) float32. r_t, zero outside the mask.
        token_gates: (batch, tokens) float32. g_t in (0, 1), zero outside the mask; one for heads without a gate.
    """

    loss: torch.Tensor | None = None
    rewards: torch.Tensor | None = None
    token_rewards: torch.Tensor | None = None
    token_gates: torch.Tensor | None = None


class ElhsrRewardHead(PreTrainedModel):
    """One linear gated layer over what the language model shows of every sampled token: hidden states, by default.

        [gate_logit_t, r_t] = W h_t + b,   g_t = sigmoid(gate_logit_t),   R = sum_t g_t r_t / max(sum_t g_t, eps)

    `weight` is (2, L * d): row 0 the gate, row 1 the reward, layers in ascending order; `bias` is (2,). Without a
    gate both have the one row of the reward. Parameters are float32 and stay so.

    With `config.value` there are `value_weight`, (1, L * d), and `value_bias`, (1,), too. They judge a completion from
    its first t tokens, for pruning, and have no part in R:

        v_t = u h_t + c,   V_t = (v_1 + ... + v_t) / t,   sigmoid(V_t) estimates P(correct | first t tokens)
    """

    config_class = ElhsrConfig
    base_model_prefix = "elhsr"
    main_input_name = "hidden_states"

    weight: nn.Parameter
    bias: nn.Parameter
    value_weight: nn.Parameter
    value_bias: nn.Parameter

    def __init__(self, config: ElhsrConfig):
        super().__init__(config)
        shapes = parameter_shapes(config)
        if not isinstance(config.eps, float) or not 0 < config.eps < 1:
            raise ValueError(f"eps={config.eps!r} is not a small positive number: the paper's is 1e-8.")
        for name, shape in shapes.items():
            self.register_parameter(name, nn.Parameter(torch.zeros(shape, dtype=torch.float32)))
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        # Zeros are the natural start of a convex-like problem: every gate one half, every reward zero.
        if module is self:
            nn.init.zeros_(self.weight)
            nn.init.zeros_(self.bias)

    def _apply(self, fn: Any, recurse: bool = True) -> "ElhsrRewardHead":
        def keep_dtype(tensor: torch.Tensor) -> torch.Tensor:
            moved = fn(tensor)
            return moved if moved.dtype == tensor.dtype else tensor.to(moved.device)

        return super()._apply(keep_dtype, recurse)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike[str], *args: Any, **kwargs: Any) -> Any:
        """Load a head from a folder or the Hub: safetensors only, always float32, never half a head.

        Takes the arguments of [`~transformers.PreTrainedModel.from_pretrained`]. Configuration and weights are of one
        commit, and are checked before anything of their size is allocated: the contents against the Hub's hashes, the
        shapes against the configuration.

        Raises:
            OSError: There are no such files, or they cannot be had from the Hub.
            ValueError: The configuration is none of a head, or the weights are damaged, of another shape, or not
                finite; or an argument asks for other weights than those of model.safetensors.
        """
        where = pretrained_model_name_or_path
        loading = {name: kwargs.pop(name) for name in LOADING_ARGUMENTS if name in kwargs}
        config = kwargs.pop("config", None)
        wants_info = kwargs.pop("output_loading_info", False)
        for name in ("dtype", "torch_dtype", "use_safetensors"):
            kwargs.pop(name, None)
        if others := [name for name in _OTHER_WEIGHTS if kwargs.get(name) is not None]:
            raise ValueError(
                f"A reward head's weights are its model.safetensors and no others: leave out {', '.join(others)}."
            )
        file = head_file(where, "config.json", **loading)
        if config is None:
            config, kwargs = read_config(file, where, **kwargs)
        elif not isinstance(config, ElhsrConfig):
            raise ValueError(f"config must be an ElhsrConfig, got {type(config).__name__}: leave it out.")
        loading["revision"] = extract_commit_hash(str(file), None) or loading.get("revision")
        weights = head_file(where, "model.safetensors", **loading)
        check_weights(weights, config)
        # The weights themselves and not their folder, in which transformers would look for more, such as PEFT adapters
        kwargs |= {"config": config, "dtype": torch.float32, "state_dict": load(weights.read_bytes())}
        head, info = super().from_pretrained(None, *args, output_loading_info=True, **kwargs)
        # A folder's records are looked for when the head is pushed, wherever the process is by then
        place = os.path.abspath(where) if os.path.isdir(where) else str(where)
        head.name_or_path = head.config.name_or_path = place
        if not all(bool(torch.isfinite(parameter).all()) for parameter in head.parameters()):
            raise ValueError(
                f"The weights in {str(where)!r} contain NaN or infinity: train or download the head again."
            )
        return (head, info) if wants_info else head

    def forward(
        self,
        hidden_states: torch.Tensor | Sequence[torch.Tensor],
        mask: torch.Tensor,
        labels: torch.Tensor | None = None,
    ) -> ElhsrRewardOutput:
        """Rewards of whole completions.

        Args:
            hidden_states: h_t, (batch, tokens, `config.num_features`), whatever the signal; or the L tensors
                (batch, tokens, d) of the head's layers in ascending order. Any floating dtype; computed in float32.
            mask: (batch, tokens), true or 1 at sampled tokens. Every row must have at least one.
            labels: (batch,), 1 where the final answer is right; then `loss` is filled in.

        Raises:
            ValueError: Shapes that do not agree with the head, or a row without a sampled token.
        """
        if not isinstance(hidden_states, torch.Tensor):
            hidden_states = torch.cat([state.to(self.weight.device) for state in hidden_states], dim=-1)
        if hidden_states.shape[:-1] != mask.shape or hidden_states.shape[-1] != self.config.num_features:
            raise ValueError(
                f"Expected hidden states of shape (batch, tokens, {self.config.num_features}) and a mask of shape "
                f"(batch, tokens), got {tuple(hidden_states.shape)} and {tuple(mask.shape)}."
            )
        mask = mask.to(hidden_states.device).bool()
        if not bool(mask.any(dim=-1).all()):
            raise ValueError("Every completion needs at least one sampled token: a row of the mask is empty.")
        token_rewards, token_gates = token_outputs(hidden_states, self.weight, self.bias)
        # masked_fill, not a product: what lies under padding may be anything, NaN included
        token_rewards = token_rewards.masked_fill(~mask, 0.0)
        token_gates = token_gates.masked_fill(~mask, 0.0)
        rewards = (token_gates * token_rewards).sum(-1) / token_gates.sum(-1).clamp_min(self.config.eps)
        loss = None
        if labels is not None:
            loss = nn.functional.binary_cross_entropy_with_logits(rewards, labels.to(rewards))
        return ElhsrRewardOutput(loss=loss, rewards=rewards, token_rewards=token_rewards, token_gates=token_gates)

    @torch.no_grad()
    def score(
        self,
        model: PreTrainedModel,
        input_ids: torch.Tensor,
        completion_mask: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        **model_inputs: Any,
    ) -> torch.Tensor:
        """Rewards of given token ids, by one forward pass of the language model.

        Give the very ids that were sampled: decoding and tokenising again can change them.

        Args:
            model: The language model the head was made for.
            input_ids: (batch, length), prompt and completion, padded on either side.
            completion_mask: (batch, length), 1 at the sampled tokens, the EOS included.
            attention_mask: (batch, length), 0 at padding. Default: all ones.
            **model_inputs: What else the model's forward pass takes for these rows, such as `pixel_values`.

        Returns:
            (batch,) float32 rewards R.

        Raises:
            ValueError: The head does not fit the model, the shapes do not agree, or the model takes no such input.
        """
        model = unwrap_language_model(model)
        self.config.check_fits(model)
        if input_ids.ndim != 2 or completion_mask.shape != input_ids.shape:
            raise ValueError(
                f"Expected input_ids and completion_mask of the same shape (batch, length), got "
                f"{tuple(input_ids.shape)} and {tuple(completion_mask.shape)}."
            )
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        inputs = plain_inputs(model, input_ids, attention_mask, **model_inputs)
        if self.config.signal != "hidden_states":
            return self._score_distributions(model, inputs, completion_mask)
        outputs = model(**inputs, output_hidden_states=list(self.config.layers), return_dict=True)
        states = [outputs.hidden_states[layer] for layer in self.config.layers]
        return self(states, completion_mask).rewards

    def _score_distributions(
        self, model: PreTrainedModel, inputs: dict[str, Any], completion_mask: torch.Tensor
    ) -> torch.Tensor:
        """Rewards from the distributions that tokens were drawn from: those of the position before."""
        columns = completion_mask.bool().any(dim=0).nonzero()
        first = int(columns[0]) if len(columns) else 0
        if first == 0:
            raise ValueError(
                "The first sampled token has none before it, so the distribution it was drawn from is not known: give "
                "prompt and completion, and a completion_mask that is 1 at the completion alone."
            )
        length = completion_mask.shape[1]
        if "logits_to_keep" in inputs:
            inputs = inputs | {"logits_to_keep": length - first + 1}
        logits = model(**inputs, return_dict=True).logits[:, -(length - first + 1) : -1]
        config = self.config
        features = distribution_features(
            config.signal, logits, inputs["input_ids"][:, first:], config.num_log_probabilities
        )
        return self(features, completion_mask[:, first:]).rewards

    @torch.no_grad()
    def fold_standardization(self, mean: torch.Tensor, std: torch.Tensor) -> None:
        """Rewrite W and b, trained on (h - mean) / std, so that they apply to h itself: W/std and b - (W/std) mean."""
        parameters = [(self.weight, self.bias)]
        if self.config.value:
            parameters.append((self.value_weight, self.value_bias))
        for weight, bias in parameters:
            folded = weight.double() / std.double()
            bias.copy_((bias.double() - folded @ mean.double()).float())
            weight.copy_(folded.float())
        self.config.standardization = "per_feature"


def plain_inputs(
    model: PreTrainedModel, input_ids: torch.Tensor, attention_mask: torch.Tensor, **more: Any
) -> dict[str, Any]:
    """For one forward pass over whole sequences: no cache, and as few logits as the model lets one ask for."""
    accepted = inspect.signature(model.forward).parameters
    if unknown := sorted(more.keys() - accepted.keys()):
        raise ValueError(f"{type(model).__name__} takes no {', '.join(unknown)}: see its forward method.")
    inputs: dict[str, Any] = {"input_ids": input_ids, "attention_mask": attention_mask, **more}
    if "position_ids" in accepted and "position_ids" not in inputs:
        inputs["position_ids"] = (attention_mask.long().cumsum(-1) - 1).clamp_min(0)
        if more and model.can_generate():  # images may have positions of their own
            inputs["position_ids"] = model._prepare_position_ids_for_generation(input_ids, inputs)
    return inputs | {name: value for name, value in (("use_cache", False), ("logits_to_keep", 1)) if name in accepted}


def load_reward_head(source: ElhsrRewardHead | str | os.PathLike[str]) -> ElhsrRewardHead:
    """The head itself, or the one in a folder or a repository ("org/name", "org/name@revision").

    Heads from the Hub are loaded once per process; folders are read each time, since they may change.

    Raises:
        ValueError: Neither a head, nor a folder with one, nor a repository that can be loaded.
    """
    if isinstance(source, ElhsrRewardHead):
        return source
    if not isinstance(source, (str, os.PathLike)):
        raise ValueError(
            f"reward_head must be an ElhsrRewardHead, a folder or 'org/name'; got {type(source).__name__}."
        )
    if Path(source).is_dir():
        return _from_folder(Path(source))
    repo_id, _, revision = str(source).partition("@")
    try:
        validate_repo_id(repo_id)
        is_repo_id = repo_id.count("/") == 1
    except HFValidationError:
        is_repo_id = False
    if not is_repo_id:
        raise ValueError(
            f"reward_head={str(source)!r} is neither a folder nor a repository id: pass a folder with config.json "
            "and model.safetensors, or 'org/name' or 'org/name@revision' on the Hub."
        )
    return _from_hub(repo_id, revision or None)


def _from_folder(folder: Path) -> ElhsrRewardHead:
    try:
        head: ElhsrRewardHead = ElhsrRewardHead.from_pretrained(str(folder))
        return head
    except OSError as error:
        raise ValueError(f"The reward head in {str(folder)!r} cannot be loaded: {error}") from error


@functools.lru_cache(maxsize=8)
def _from_hub(repo_id: str, revision: str | None) -> ElhsrRewardHead:
    try:
        head: ElhsrRewardHead = ElhsrRewardHead.from_pretrained(repo_id, revision=revision)
        return head
    except OSError as error:
        raise ValueError(
            f"reward_head={repo_id!r} is no folder here, and could not be loaded from the Hub: {error}"
        ) from error
