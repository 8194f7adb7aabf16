"""ElhsrRewardHead: the reward of a completion, read from the hidden states of its tokens (arXiv:2505.12225)."""

import hashlib
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from safetensors.torch import load
from torch import nn
from transformers import PreTrainedModel
from transformers.utils import ModelOutput

from .._checks import quoted
from ..transformers_internals import commit_of_file
from .base_model import plain_inputs, unwrap_language_model
from .configuration_elhsr import ElhsrConfig
from .files import COMMITTED, LOADING_ARGUMENTS, check_weights, head_file, of_one_save, read_config
from .token_outputs import Aggregation, TokenOutputs, linear, linear_by_part

# Arguments of `from_pretrained` that would load other weights than those of model.safetensors
_OTHER_WEIGHTS = ("gguf_file", "state_dict", "variant")


#: The heads by `config.head_type`. To add a head of another shape, register a subclass that defines its parameters
#: (`parameter_shapes`), how they act on h_t (`rows`), and the outputs that follow (`outputs`).
HEADS: "dict[str, type[ElhsrRewardHead]]" = {}


@dataclass
class ElhsrRewardOutput(ModelOutput):
    """Output of [`ElhsrRewardHead.forward`].

    Args:
        loss: Scalar binary cross-entropy of sigmoid(R), if labels were passed.
        rewards: (batch,) float32. R of every completion; sigmoid(R) estimates P(correct).
        token_rewards: (batch, tokens) float32. r_t, zero outside the mask.
        token_gates: (batch, tokens) float32. g_t in (0, 1), zero outside the mask; one for heads without a gate.
    """

    loss: torch.Tensor | None = None
    rewards: torch.Tensor | None = None
    token_rewards: torch.Tensor | None = None
    token_gates: torch.Tensor | None = None


class ElhsrRewardHead(PreTrainedModel):
    """One linear gated layer over a signal of the language model at every sampled token, hidden states by default.

        [gate_logit_t, r_t] = W h_t + b,   g_t = sigmoid(gate_logit_t),   R = sum_t g_t r_t / max(sum_t g_t, eps)

    `weight` is (2, L * d): row 0 the gate, row 1 the reward, layers in ascending order; `bias` is (2,). Without a
    gate both have the one row of the reward. Parameters are float32 and stay so.

    With `config.value` there are also `value_weight`, (1, L * d), and `value_bias`, (1,). They rate a completion by its
    first t tokens, for pruning, and R does not depend on them:

        v_t = u h_t + c,   V_t = (v_1 + ... + v_t) / t,   sigmoid(V_t) estimates P(correct | first t tokens)
    """

    config_class = ElhsrConfig
    base_model_prefix = "elhsr"
    main_input_name = "hidden_states"
    #: Names of the parameters that only v_t depends on.
    value_parameters: ClassVar = frozenset({"value_weight", "value_bias"})

    weight: nn.Parameter
    bias: nn.Parameter
    value_weight: nn.Parameter
    value_bias: nn.Parameter

    def __init__(self, config: ElhsrConfig):
        super().__init__(config)
        if head_class(config) is not type(self):
            raise ValueError(
                f"head_type={config.head_type!r} is a {head_class(config).__name__}, not a {type(self).__name__}: make "
                "it with make_head(config), or load it with ElhsrRewardHead.from_pretrained."
            )
        for name, shape in self.parameter_shapes(config.check()).items():
            self.register_parameter(name, nn.Parameter(torch.zeros(shape, dtype=torch.float32)))
        self.post_init()

    @classmethod
    def parameter_shapes(cls, config: ElhsrConfig) -> dict[str, tuple[int, ...]]:
        """The shapes of the head's parameters by name, see the class."""
        rows, features = 2 if config.gate else 1, config.num_features
        shapes: dict[str, tuple[int, ...]] = {"weight": (rows, features), "bias": (rows,)}
        return shapes | ({"value_weight": (1, features), "value_bias": (1,)} if config.value else {})

    @classmethod
    def parameter_counts(cls, config: ElhsrConfig) -> tuple[int, int]:
        """The number of parameters that R depends on, and of those that only V_t depends on."""
        counts = {name: math.prod(shape) for name, shape in cls.parameter_shapes(config).items()}
        value = sum(counts[name] for name in counts.keys() & cls.value_parameters)
        return sum(counts.values()) - value, value

    def rows(self) -> tuple[torch.Tensor, torch.Tensor]:
        """All rows of weights that act on h_t, (rows, L * d), and their biases, (rows,), for one product."""
        if not self.config.value:
            return self.weight, self.bias
        return torch.cat([self.weight, self.value_weight]), torch.cat([self.bias, self.value_bias])

    def outputs(self, logits: torch.Tensor) -> TokenOutputs:
        """r_t, g_t and v_t from (..., rows) products of [`rows`] with h_t."""
        rewards = logits[..., len(self.bias) - 1]
        gates = torch.sigmoid(logits[..., 0]) if self.config.gate else torch.ones_like(rewards)
        return TokenOutputs(rewards, gates, logits[..., -1] if self.config.value else None)

    def _init_weights(self, module: nn.Module) -> None:
        # Zeros are the natural start of an almost convex problem: every gate one half, every reward zero
        if module is self:
            for parameter in self.parameters():
                nn.init.zeros_(parameter)

    def _apply(self, fn: Any, recurse: bool = True) -> "ElhsrRewardHead":
        def keep_dtype(tensor: torch.Tensor) -> torch.Tensor:
            moved = fn(tensor)
            return moved if moved.dtype == tensor.dtype else tensor.to(moved.device)

        return super()._apply(keep_dtype, recurse)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike[str], *args: Any, **kwargs: Any) -> Any:
        """Load a head from a folder or the Hub: whole, from safetensors, and in float32.

        It takes the arguments of [`~transformers.PreTrainedModel.from_pretrained`]. Configuration and weights come from
        the same commit, or from the same save of a folder. They are checked before anything of their size is allocated:
        their contents against the Hub's hashes, the shapes against the configuration.

        Raises:
            OSError: The files do not exist, or cannot be downloaded from the Hub.
            ValueError: The configuration does not describe a head; the weights are damaged, of another shape, or not
                finite; the revision is not the name of one; or an argument requests other weights than those of
                model.safetensors.
        """
        where = pretrained_model_name_or_path
        loading = {name: kwargs.pop(name) for name in LOADING_ARGUMENTS if name in kwargs}
        if os.path.isdir(where):
            folder = Path(where, loading.get("subfolder") or "")
            return of_one_save(folder, lambda: cls._from_files(where, loading, *args, **kwargs))
        return cls._from_files(where, loading, *args, **kwargs)

    @classmethod
    def _from_files(
        cls, where: str | os.PathLike[str], loading: dict[str, Any], *args: Any, config: Any = None, **kwargs: Any
    ) -> Any:
        wants_info = kwargs.pop("output_loading_info", False)
        for name in ("dtype", "torch_dtype", "use_safetensors"):
            kwargs.pop(name, None)
        if others := [name for name in _OTHER_WEIGHTS if kwargs.get(name) is not None]:
            raise ValueError(
                f"A reward head's weights are always those of its model.safetensors: leave out {', '.join(others)}."
            )
        if config is not None and not isinstance(config, ElhsrConfig):
            raise ValueError(f"config must be an ElhsrConfig, got {type(config).__name__}: leave it out.")
        file = head_file(where, "config.json", **loading)
        if config is None or _is_outdated(config, file, where):
            config, kwargs = read_config(file, where, **kwargs)
        loading = loading | {"revision": commit_of_file(str(file)) or loading.get("revision")}
        weights = head_file(where, "model.safetensors", **loading)
        own_class = head_class(config)
        check_weights(weights, own_class.parameter_shapes(config.check()))
        # Not the folder of the weights, in which transformers would look for more, such as PEFT adapters
        kwargs |= {"config": config, "dtype": torch.float32, "state_dict": load(weights.read_bytes())}
        loaded = PreTrainedModel.from_pretrained.__func__  # type: ignore[attr-defined]
        head, info = loaded(own_class, None, *args, output_loading_info=True, **kwargs)
        # Absolute, since a folder's records are read when the head is pushed, perhaps from another working directory
        place = os.path.abspath(where) if os.path.isdir(where) else str(where)
        head.name_or_path = head.config.name_or_path = place
        if not all(bool(torch.isfinite(parameter).all()) for parameter in head.parameters()):
            raise ValueError(
                f"The weights in {str(where)!r} contain NaN or infinity: train or download the head again."
            )
        return (head, info) if wants_info else head

    @property
    def aggregation(self) -> Aggregation:
        """The sums over a completion's tokens, and how R follows from them."""
        return self.config.aggregation

    def token_outputs(
        self, features: torch.Tensor, mean: torch.Tensor | None = None, std: torch.Tensor | None = None
    ) -> TokenOutputs:
        """r_t, g_t and v_t for h_t, computed in float32.

        Args:
            features: (..., `config.num_features`), any floating dtype, on the head's device.
            mean, std: (`config.num_features`,) float32. With them, the weights act on (h_t - mean) / std. It is the
                few weights that are standardised, not the many features.
        """
        weight, bias = self.rows()
        if mean is not None and std is not None:
            weight = weight / std
            bias = bias - weight @ mean
        return self.outputs(linear(features, weight, bias))

    def frozen(self, device: torch.device | str) -> "FrozenHead":
        """A copy of the head on a device, for decoding: without gradients, and independent of later changes."""
        weight, bias = (rows.detach().to(device, torch.float32) for rows in self.rows())
        return FrozenHead(weight, bias, self.outputs)

    def forward(
        self,
        hidden_states: torch.Tensor | Sequence[torch.Tensor],
        mask: torch.Tensor,
        labels: torch.Tensor | None = None,
    ) -> ElhsrRewardOutput:
        """Rewards of whole completions.

        Args:
            hidden_states: h_t, (batch, tokens, `config.num_features`), for any signal; or the L tensors
                (batch, tokens, d) of the head's layers in ascending order. Any floating dtype; computed in float32.
            mask: (batch, tokens), true or 1 at sampled tokens. Every row must have at least one.
            labels: (batch,), 1 where the final answer is correct. With them the output has a `loss`.

        Raises:
            ValueError: The shapes do not fit the head, or a row has no sampled token.
        """
        if not isinstance(hidden_states, torch.Tensor):
            hidden_states = torch.cat([state.to(self.device) for state in hidden_states], dim=-1)
        if hidden_states.shape[:-1] != mask.shape or hidden_states.shape[-1] != self.config.num_features:
            raise ValueError(
                f"Expected hidden states of shape (batch, tokens, {self.config.num_features}) and a mask of shape "
                f"(batch, tokens), got {tuple(hidden_states.shape)} and {tuple(mask.shape)}."
            )
        mask = mask.to(hidden_states.device).bool()
        if not bool(mask.any(dim=-1).all()):
            raise ValueError("Every completion needs at least one sampled token: a row of the mask is empty.")
        tokens = self.token_outputs(hidden_states)
        # masked_fill instead of a product: values at padding may be anything, NaN included
        token_rewards = tokens.rewards.masked_fill(~mask, 0.0)
        token_gates = tokens.gates.masked_fill(~mask, 0.0)
        rewards = self.aggregation.mean((token_gates * token_rewards).sum(-1), token_gates.sum(-1))
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

        Pass exactly the ids that were sampled: decoding and tokenising again can change them.

        Args:
            model: The language model the head was made for.
            input_ids: (batch, length), prompt and completion, padded on either side.
            completion_mask: (batch, length), 1 at the sampled tokens, the EOS included.
            attention_mask: (batch, length), 0 at padding. Default: all ones.
            **model_inputs: Further inputs of the model's forward pass for these rows, such as `pixel_values`.

        Returns:
            (batch,) float32 rewards R.

        Raises:
            ValueError: The head does not fit the model, the shapes do not agree, or the model does not accept an input.
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
        features, mask = self.config.reads.reread(model, inputs, completion_mask)
        rewards: torch.Tensor = self(features, mask).rewards
        return rewards

    def digest(self) -> str:
        """SHA-256 of the weights, by which rollouts and evaluations identify their head."""
        values = torch.cat([parameter.detach().flatten() for parameter in self.parameters()]).cpu().numpy()
        return hashlib.sha256(values.tobytes()).hexdigest()

    @torch.no_grad()
    def pool(self, features: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """The gate-weighted mean of h_t for every rollout. R is linear in it.

        Args:
            features: (tokens, `config.num_features`) float32, one rollout after the other.
            lengths: (rollouts,) long, the number of tokens of each.

        Returns:
            (rollouts, `config.num_features`) float32.
        """
        gates = self.token_outputs(features).gates
        parts = zip(features.split(lengths.tolist()), gates.split(lengths.tolist()), strict=True)
        return torch.stack([self.aggregation.mean(own_gates @ own, own_gates.sum()) for own, own_gates in parts])

    @torch.no_grad()
    def layer_shares(self, states: Sequence[torch.Tensor]) -> tuple[torch.Tensor, float]:
        """The contribution of every layer to R of one completion; given the gates, R is a sum over layers.

        Args:
            states: Hidden states of the head's layers in ascending order, (tokens, d) each. They are moved to the CPU a
                layer at a time; computed in float64.

        Returns:
            The shares, (L,) float64, and the share of the bias; their sum is R.
        """
        weight, bias = (rows.detach().cpu().double() for rows in self.rows())
        by_layer = zip(weight.split(weight.shape[1] // len(states), dim=-1), states, strict=True)
        # (rows, L, tokens)
        parts = torch.stack([own @ state.cpu().double().T for own, state in by_layer], dim=1)
        gates = self.outputs((parts.sum(dim=1) + bias[:, None]).T).gates
        row = len(self.bias) - 1
        shares = self.aggregation.mean(parts[row] @ gates, gates.sum())
        return shares, float(self.aggregation.mean(bias[row] * gates.sum(), gates.sum()))

    def linear_row(self, name: Literal["reward", "value"]) -> tuple[torch.Tensor, torch.Tensor]:
        """The row of weights for r_t or v_t, (L * d,), and its bias, a scalar. Given the gates, R is linear in them."""
        weight, bias = self._row_of(name)
        return weight[-1], bias[-1]

    @torch.no_grad()
    def set_linear_row(
        self, name: Literal["reward", "value"], weight: torch.Tensor, bias: torch.Tensor | float
    ) -> None:
        """Replace the row of [`linear_row`]."""
        own_weight, own_bias = self._row_of(name)
        own_weight[-1], own_bias[-1] = weight, bias

    def transform(self, name: Literal["reward", "value"], slope: float, offset: float) -> None:
        """Replace R, or V_t, by slope times itself plus offset. Each is a weighted mean, so only its row changes."""
        weight, bias = self.linear_row(name)
        self.set_linear_row(name, weight.detach() * slope, bias.detach() * slope + offset)

    def _row_of(self, name: str) -> tuple[nn.Parameter, nn.Parameter]:
        return (self.value_weight, self.value_bias) if name == "value" else (self.weight, self.bias)

    @torch.no_grad()
    def fold_standardization(self, mean: torch.Tensor, std: torch.Tensor) -> None:
        """Convert W and b, trained on (h - mean) / std, to act on h itself: W/std and b - (W/std) mean."""
        parameters = dict(self.named_parameters())
        for name in [name for name in parameters if name.endswith("weight")]:
            weight, bias = parameters[name], parameters[name.replace("weight", "bias")]
            folded = weight.double() / std.double()
            bias.copy_((bias.double() - folded @ mean.double()).float())
            weight.copy_(folded.float())
        self.config.standardization = "per_feature"


HEADS["gated_linear"] = ElhsrRewardHead


@dataclass(frozen=True)
class FrozenHead:
    """A head's function of tokens, on one device and without gradients, see [`ElhsrRewardHead.frozen`].

    Args:
        weight, bias: See [`ElhsrRewardHead.rows`].
        outputs: Maps products to [`TokenOutputs`].
    """

    weight: torch.Tensor
    bias: torch.Tensor
    outputs: Callable[[torch.Tensor], TokenOutputs]

    @property
    def device(self) -> torch.device:
        return self.weight.device

    @property
    def num_features(self) -> int:
        """Length of h_t."""
        return self.weight.shape[1]

    def __call__(self, features: torch.Tensor) -> TokenOutputs:
        """Outputs for (..., L * d) features on this device."""
        return self.outputs(linear(features, self.weight, self.bias))

    def by_part(self, parts: torch.Tensor) -> TokenOutputs:
        """Outputs for features in parts, (L, tokens, d) on this device, which need not be concatenated."""
        return self.outputs(linear_by_part(parts, self.weight, self.bias))


def head_class(config: ElhsrConfig) -> type[ElhsrRewardHead]:
    """The class of a head with this configuration.

    Raises:
        ValueError: Its `head_type` is unknown.
    """
    if not isinstance(config.head_type, str) or config.head_type not in HEADS:
        raise ValueError(f"Unknown head_type {quoted(config.head_type)}: expected one of {', '.join(HEADS)}.")
    return HEADS[config.head_type]


def _is_outdated(config: ElhsrConfig, file: Path, where: str | os.PathLike[str]) -> bool:
    """Whether AutoConfig read this in a folder where an interrupted save has not yet put the new file in its place."""
    if file.parent.name != COMMITTED:
        return False
    in_place = file.parents[1] / file.name
    return not in_place.is_file() or config.to_dict() == read_config(in_place, where)[0].to_dict()


def make_head(config: ElhsrConfig) -> ElhsrRewardHead:
    """Make a head with this configuration and zero weights: every gate is one half, every reward zero.

    Raises:
        ValueError: The configuration does not describe a head.
    """
    return head_class(config)(config)
