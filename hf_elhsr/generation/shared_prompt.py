"""SharedPromptCache: keys and values are stored once per prompt, however many candidates attend to them.

If the rows of a cache are multiplied by n, every step reads the prompt's keys and values n times, and whenever a
candidate leaves, the rest is copied. Here a row holds only the keys and values of its completion. Attention is computed
over the prompt, for all its candidates together, and over the completion, row by row; the two parts are joined by their
log-sum-exps, which is exact:

    softmax([s_p, s_c]) [V_p; V_c] = w o_p + (1 - w) o_c        w = sigmoid(lse(s_p) - lse(s_c))

It stands in front of transformers' "sdpa" attention, through transformers' interfaces for that.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from threading import Lock
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface, Cache, DynamicCache, PreTrainedModel

from ..transformers_internals import (
    CacheLayerMixin,
    DynamicLayer,
    attention_name,
    supports_attention_interface,
)

# The cache that the current forward pass reads. Without one, as in another thread that uses the same model at the same
# time, the attention is plain sdpa.
_in_use: "ContextVar[SharedPromptCache | None]" = ContextVar("shared_prompt_cache", default=None)
# What was registered as "sdpa" before, by "attention" and "mask"
_plain: dict[str, Callable[..., Any]] = {}
_lock = Lock()
# Completions grow by this many tokens at a time
_CHUNK = 64


class CannotShareError(ValueError):
    """The model's attention does not allow shared prompts; raised in its first decoding step."""


class SharedPromptCache(Cache):
    """A cache whose rows are candidates and whose prompts are stored once.

    Args:
        prompts: The cache after the prefill, one row per prompt. It is read, not changed.
        attention_mask: (prompts, length) of the prompts, 0 at padding; None without padding.
        prompt_of_row: (rows,) long, ascending.
    """

    layers: "list[_SharedPromptLayer]"

    def __init__(self, prompts: DynamicCache, attention_mask: torch.Tensor | None, prompt_of_row: torch.Tensor):
        super().__init__(layers=[_SharedPromptLayer(layer.keys, layer.values) for layer in prompts.layers])
        self._bias: torch.Tensor | None = None
        # (prompts,) bool, true for prompts of padding alone; None where there is none
        self._empty: torch.Tensor | None = None
        if attention_mask is not None and not bool(attention_mask.all()):
            empty = ~attention_mask.bool().any(dim=-1)
            self._empty = empty if bool(empty.any()) else None
            self._bias = torch.zeros_like(attention_mask, dtype=self.layers[0].prompt_keys.dtype)[:, None, None]
            self._bias = self._bias.masked_fill(attention_mask[:, None, None] == 0, -torch.inf)
        self.prompt_length = self.layers[0].get_seq_length()
        self._prompts = len(self.layers[0].prompt_keys)
        self._attended = 0
        self._keep(prompt_of_row)

    @staticmethod
    def can_hold(model: PreTrainedModel, cache: Any, attention_mask: torch.Tensor | None) -> bool:
        """Whether this model and its cache after the prefill are of the plain kind that allows shared prompts."""
        config = model.config.get_text_config(decoder=True)
        return (
            type(cache) is DynamicCache
            and not cache.offloading
            and all(type(layer) is DynamicLayer and layer.is_initialized for layer in cache.layers)
            and len({states.shape for layer in cache.layers for states in (layer.keys, layer.values)}) == 1
            and len(cache.layers) == config.num_hidden_layers
            # A cache made without the config keeps all positions, also those that a sliding window would mask
            and all(type(layer) is DynamicLayer for layer in DynamicCache(config=config).layers)
            and supports_attention_interface(model)
            and not model.training
            and attention_name(config) == "sdpa"
            and (attention_mask is None or attention_mask.ndim == 2)
        )

    @contextmanager
    def in_use(self, model: PreTrainedModel) -> Iterator[None]:
        """Let the attention of this model read this cache.

        The model and its config stay as they are, so that an interrupt leaves nothing behind, and copies that are made
        meanwhile are copies of the plain model.

        Raises:
            CannotShareError: The forward pass inside did not read it, or not as plain attention would.
        """
        _install()
        self._attended = 0
        before = _in_use.get()
        try:
            try:
                _in_use.set(self)
                yield
            finally:
                _in_use.set(before)
        except RuntimeError as error:
            if self._attended:
                raise
            # A compiled forward pass takes keys of the completion alone for all of them, which its mask does not fit
            raise CannotShareError(f"{type(model).__name__} does not read shared prompts.") from error
        finally:
            # An interrupt may have come between the lines above
            _in_use.set(before)
        if self._attended != len(self.layers):
            raise CannotShareError(
                f"{type(model).__name__} called transformers' attention interface {self._attended} times in "
                f"{len(self.layers)} layers, so its prompts cannot be shared among candidates."
            )

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        """Keep the rows `beam_idx`, (rows,) long, ascending and distinct; prompts without rows are dropped."""
        unmoved = int((beam_idx == torch.arange(len(beam_idx), device=beam_idx.device)).sum())
        for layer in self.layers:
            layer.select_rows(beam_idx, unmoved)
        self._keep(self._prompt_of_row[beam_idx])

    def _keep(self, prompt_of_row: torch.Tensor) -> None:
        present, self._prompt_of_row, counts = torch.unique_consecutive(
            prompt_of_row, return_inverse=True, return_counts=True
        )
        if len(present) < self._prompts:
            self._bias = None if self._bias is None else self._bias[present]
            self._empty = None if self._empty is None else self._empty[present]
            for layer in self.layers:
                layer.select_prompts(present)
        self._prompts = len(present)
        self._seat(counts)

    def _seat(self, counts: torch.Tensor) -> None:
        """Give every prompt the same number of seats for its rows, so that prompts can be batched.

        Unused seats repeat a row.
        """
        self._seats = int(counts.max())
        self._row_of_seat: torch.Tensor | None = None
        if bool((counts == self._seats).all()):
            return
        first_row = counts.cumsum(0) - counts
        offsets = torch.arange(self._seats, device=counts.device).expand(len(counts), -1)
        self._row_of_seat = (first_row[:, None] + torch.minimum(offsets, counts[:, None] - 1)).flatten()
        rows = torch.arange(len(self._prompt_of_row), device=counts.device)
        self._seat_of_row = self._prompt_of_row * self._seats + rows - first_row[self._prompt_of_row]

    def attend(
        self, layer_idx: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float | None
    ) -> torch.Tensor:
        """(rows, 1, heads, d) from the query (rows, heads, 1, d) of each row's last token.

        Args:
            key, value: What the model would attend to. They must be what `update` returned, unchanged: a change would
                have to be made to the prompt's keys and values as well.

        Raises:
            CannotShareError: They are something else.
        """
        self._attended += 1
        layer = self.layers[layer_idx]
        for given, kept in ((key, layer.keys), (value, layer.values)):
            if kept is None or given.data_ptr() != kept.data_ptr() or given.shape != kept.shape:
                raise CannotShareError("The model changes keys or values after they are cached.")
        rows, heads, _, width = query.shape
        groups = layer.prompt_keys.shape[1]
        # Queries that share a key head are adjacent: (rows, key heads, queries, d)
        query = query.reshape(rows, groups, heads // groups, width)
        completion, completion_lse = _attention(query, layer.keys, layer.values, None, scaling)
        seated = query if self._row_of_seat is None else query[self._row_of_seat.to(query.device)]
        seated = seated.view(self._prompts, self._seats, groups, -1, width).transpose(1, 2)
        seated = seated.reshape(self._prompts, groups, -1, width)
        # Layers may be on several devices
        bias = None if self._bias is None else self._bias.to(query.device)
        prompt, prompt_lse = _attention(seated, layer.prompt_keys, layer.prompt_values, bias, scaling)
        prompt, prompt_lse = self._by_row(prompt), self._by_row(prompt_lse[..., None])
        if self._empty is not None:
            # No key to attend to, so that neither part of the softmax is a number
            empty = self._empty[self._prompt_of_row].to(query.device)[:, None, None, None]
            prompt, prompt_lse = prompt.masked_fill(empty, 0.0), prompt_lse.masked_fill(empty, -torch.inf)
        weight = torch.sigmoid(prompt_lse - completion_lse[..., None]).to(query.dtype)
        return torch.lerp(completion, prompt, weight).reshape(rows, 1, heads, width)

    def _by_row(self, seated: torch.Tensor) -> torch.Tensor:
        """(rows, key heads, queries, x) from (prompts, key heads, seats * queries, x)."""
        prompts, groups, _, last = seated.shape
        by_seat = seated.view(prompts, groups, self._seats, -1, last).transpose(1, 2).flatten(0, 1)
        return by_seat if self._row_of_seat is None else by_seat[self._seat_of_row.to(seated.device)]


class _SharedPromptLayer(CacheLayerMixin):
    """One layer: the prompts' keys and values, (prompts, key heads, length, d), and room for the completions'."""

    def __init__(self, prompt_keys: torch.Tensor, prompt_values: torch.Tensor):
        super().__init__()
        self.prompt_keys, self.prompt_values = prompt_keys, prompt_values
        self._length = 0
        self._room: torch.Tensor | None = None
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Store the keys and values of every row's last token; returns those of the completions only."""
        if self._room is None or self._length == self._room.shape[3]:
            rows, heads, _, width = key_states.shape
            room = key_states.new_empty(2, rows, heads, self._length + _CHUNK, width)
            if self._room is not None:
                room[:, :, :, : self._length] = self._room
            self._room = room
        self._room[0, :, :, self._length] = key_states[:, :, 0]
        self._room[1, :, :, self._length] = value_states[:, :, 0]
        self._length += 1
        self.keys, self.values = self._room[:, :, :, : self._length]
        return self.keys, self.values

    def select_rows(self, rows: torch.Tensor, unmoved: int) -> None:
        """Keep these rows, of which the first `unmoved` keep their places."""
        if self._room is not None:
            # In place: writing to fresh memory costs more than copying
            room = self._room[:, :, :, : self._length]
            room[:, unmoved : len(rows)] = room.index_select(1, rows[unmoved:].to(room.device))
            self._room = self._room[:, : len(rows)]
            self.keys, self.values = self._room[:, :, :, : self._length]

    def select_prompts(self, prompts: torch.Tensor) -> None:
        """Keep these prompts."""
        prompts = prompts.to(self.prompt_keys.device)
        self.prompt_keys = self.prompt_keys.index_select(0, prompts)
        self.prompt_values = self.prompt_values.index_select(0, prompts)

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Do nothing: the prompt is present from the start."""

    def get_seq_length(self) -> int:
        """Tokens of the longest row, padding included, as a cache that multiplies the prompt would count them."""
        return int(self.prompt_keys.shape[2]) + self._length

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Length and offset of the keys that a mask would cover."""
        return self.get_seq_length() + query_length, 0

    def get_max_length(self) -> int:
        """-1: there is no limit."""
        return -1


def _attention(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, bias: torch.Tensor | None, scaling: float | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention and the log-sum-exp of its scores: (a, b, queries, d) and (a, b, queries) float32."""
    if query.device.type == "cpu":
        # What scaled_dot_product_attention calls on a CPU; that function does not return the log-sum-exp
        output, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            query, keys, values, attn_mask=bias, scale=scaling
        )
        return output, lse
    scores = (query @ keys.mT).float() * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    if bias is not None:
        scores = scores + bias
    lse = scores.logsumexp(dim=-1)
    return (scores - lse[..., None]).exp().to(values.dtype) @ values, lse


def _install() -> None:
    """Put our attention in front of what is registered as "sdpa", once; it passes on what reads no shared prompt.

    So there is nothing to restore, which could be interrupted, and other copies of this module, which published heads
    carry, can stand in front of this one.
    """
    with _lock:
        attention, mask = AttentionInterface()["sdpa"], AttentionMaskInterface()["sdpa"]
        if _plain.setdefault("attention", attention) is attention:
            AttentionInterface.register("sdpa", _shared_prompt_attention)
        if _plain.setdefault("mask", mask) is mask:
            AttentionMaskInterface.register("sdpa", _shared_prompt_mask)


def _shared_prompt_attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    cache = None if torch.compiler.is_compiling() else _in_use.get()
    if cache is None:
        return _plain["attention"](module, query, key, value, attention_mask, scaling=scaling, **kwargs)
    extra = [name for name in ("position_bias", "s_aux", "softcap") if kwargs.get(name) is not None]
    if extra or attention_mask is not None:
        raise CannotShareError(f"The model's attention has {extra or 'a mask of its own'}.")
    return cache.attend(module.layer_idx, query, key, value, scaling), None


def _shared_prompt_mask(*args: Any, **kwargs: Any) -> torch.Tensor | None:
    # The cache knows which positions are padding
    reads_shared_prompt = not torch.compiler.is_compiling() and _in_use.get() is not None
    return None if reads_shared_prompt else _plain["mask"](*args, **kwargs)
