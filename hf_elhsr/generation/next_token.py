"""Drawing the next token from the distribution of transformers' warpers and `torch.multinomial`, without their cost.

A full sort of the vocabulary for top-p and one exponential variate per vocabulary entry take more time than a small
model's matrix products. Neither is needed for exact samples.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

# A language model's nucleus nearly always fits in the first of these; a row wider than the last is fully sorted
_NUCLEI = (64, 512)
_PARTIAL = 256
_BLOCK = 64


@dataclass(frozen=True)
class NucleusWarpers:
    """Temperature, top-k and top-p, applied in this order; a top_k of 0 and a top_p of 1.0 remove no token."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0

    @classmethod
    def at_the_end_of(cls, processors: LogitsProcessorList) -> "tuple[int, NucleusWarpers] | None":
        """The plain warpers at the end of the list, after their start in it; None if they may leave many tokens.

        The end is where `generate` puts them. Subclasses do not count, since they may do anything.
        """
        settings: dict[str, float] = {}
        start = len(processors)
        for kind, name in ((TopPLogitsWarper, "top_p"), (TopKLogitsWarper, "top_k"), (TemperatureLogitsWarper, "")):
            warper = processors[start - 1] if start else None
            if type(warper) is not kind:
                continue
            if getattr(warper, "min_tokens_to_keep", 1) > 1 or getattr(warper, "filter_value", -torch.inf) > -torch.inf:
                break
            settings[name or "temperature"] = getattr(warper, name or "temperature")
            start -= 1
        warpers = cls(**settings)  # type: ignore[arg-type]
        narrow = 0 < warpers.top_k <= _NUCLEI[0] // 2 or (not warpers.top_k and warpers.top_p < 1.0)
        return (start, warpers) if narrow else None


def sample_tokens(
    processors: LogitsProcessorList,
    input_ids: torch.Tensor,
    logits: torch.Tensor,
    do_sample: bool,
    keep_scores: bool = False,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Process raw logits and draw, with the same result as all processors in order and then multinomial or argmax.

    Temperature, top-k and top-p at the end of the list are applied only to the few tokens that they can leave. All
    other processors see the whole vocabulary.

    Args:
        input_ids: (rows, length) long.
        logits: (rows, vocabulary) float32, which processors may overwrite.
        keep_scores: Whether to return the processed scores of the whole vocabulary.

    Returns:
        (rows,) long tokens, and the (rows, vocabulary) scores, or None.

    Raises:
        ValueError: A row has NaN, or no possible token.
    """
    fused = NucleusWarpers.at_the_end_of(processors) if do_sample and not keep_scores else None
    if fused is None:
        scores = _with_partial_top_p(processors)(input_ids, logits)
        return draw_tokens(scores) if do_sample else scores.argmax(dim=-1), scores if keep_scores else None
    start, warpers = fused
    scores = LogitsProcessorList(processors[:start])(input_ids, logits)
    tokens, wide = draw_from_nucleus(scores, warpers)
    if len(wide):
        rest = _with_partial_top_p(processors[start:])
        tokens[wide] = draw_tokens(rest(input_ids[wide], scores[wide]))
    return tokens, None


def draw_from_nucleus(logits: torch.Tensor, warpers: NucleusWarpers) -> tuple[torch.Tensor, torch.Tensor]:
    """One token per row from the warped distribution, sorting only the top of the vocabulary.

    Args:
        logits: (rows, vocabulary) float32.

    Returns:
        (rows,) long tokens; and the rows, (wide,) long, whose nucleus is larger than the top, whose token is arbitrary.
    """
    tokens = torch.empty(len(logits), dtype=torch.long, device=logits.device)
    rows, left = torch.arange(len(logits), device=logits.device), logits
    total: torch.Tensor | None = None
    for count in _NUCLEI:
        top, places = _top_of_vocabulary(left, count)
        scaled = top / warpers.temperature
        weights = (scaled - scaled[:, :1]).exp()
        if warpers.top_k:
            # Like the warper, which keeps all tokens that tie with the last of the top k
            kept = scaled >= scaled[:, min(warpers.top_k, top.shape[-1]) - 1, None]
            total = (weights * kept).sum(dim=-1, keepdim=True)
            wide = kept[:, -1]
        else:
            kept = torch.ones_like(scaled, dtype=torch.bool)
            if total is None:
                total = (left - top[:, :1]).div_(warpers.temperature).exp_().sum(dim=-1, keepdim=True)
            wide = weights.sum(dim=-1) < warpers.top_p * total.squeeze(-1)
        _check_total(total)
        if warpers.top_p < 1.0:
            # A token is removed if those above it already make up top_p
            kept[:, 1:] &= (weights / total).cumsum(dim=-1)[:, :-1] < warpers.top_p
        chosen = _draw(weights * kept)
        tokens[rows] = places.gather(-1, chosen[:, None]).squeeze(-1)
        if top.shape[-1] == logits.shape[-1] or not bool(wide.any()):
            return tokens, rows[:0]
        rows, left, total = rows[wide], left[wide], total[wide]
    return tokens, rows


def draw_tokens(scores: torch.Tensor) -> torch.Tensor:
    """One token per row from softmax(scores): (rows, vocabulary) -> (rows,) long.

    First a block of the vocabulary is drawn, by the blocks' sums, and then a token of the block.

    Raises:
        ValueError: A row has NaN, or no possible token.
    """
    weights = torch.nn.functional.softmax(scores.float(), dim=-1)
    _check_total(weights.sum(dim=-1))
    vocabulary = weights.shape[-1]
    if vocabulary < 4 * _BLOCK:
        return _draw(weights)
    blocks = vocabulary // _BLOCK
    body, tail = weights[:, : blocks * _BLOCK].unflatten(-1, (blocks, _BLOCK)), weights[:, blocks * _BLOCK :]
    block = _draw(torch.cat([body.sum(dim=-1), tail.sum(dim=-1, keepdim=True)], dim=-1))
    padded_tail = torch.nn.functional.pad(tail, (0, _BLOCK - tail.shape[-1]))
    inside = body.gather(1, block.clamp_max(blocks - 1)[:, None, None].expand(-1, 1, _BLOCK)).squeeze(1)
    inside = torch.where((block == blocks)[:, None], padded_tail, inside)
    return block * _BLOCK + _draw(inside)


class PartialTopP(LogitsProcessor):
    """A [`~transformers.TopPLogitsWarper`] that sorts only the top of the vocabulary."""

    def __init__(self, warper: TopPLogitsWarper):
        self._warper = warper

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """(rows, vocabulary) scores with everything outside the nucleus at the filter value, as from the warper."""
        if scores.shape[-1] <= 2 * _PARTIAL:
            return self._warper(input_ids, scores)
        top, places = _top_of_vocabulary(scores, _PARTIAL)
        mass = (top - scores.logsumexp(dim=-1, keepdim=True)).exp().cumsum(dim=-1)
        # A token is removed if those above it already make up top_p
        outside = torch.zeros_like(mass, dtype=torch.bool)
        outside[:, 1:] = mass[:, :-1] >= self._warper.top_p
        outside[:, : self._warper.min_tokens_to_keep] = False
        filter_value = self._warper.filter_value
        kept = torch.full_like(scores, filter_value).scatter_(-1, places, top.masked_fill(outside, filter_value))
        larger = (mass[:, -1] < self._warper.top_p).nonzero().squeeze(-1)
        if len(larger):
            kept[larger] = self._warper(input_ids[larger], scores[larger])
        return kept


def _with_partial_top_p(processors: Iterable[LogitsProcessor]) -> LogitsProcessorList:
    """The processors, with every plain top-p warper replaced by its faster equivalent."""
    return LogitsProcessorList(
        PartialTopP(processor) if type(processor) is TopPLogitsWarper else processor for processor in processors
    )


def _top_of_vocabulary(scores: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """`scores.topk(count)`, or all tokens of a smaller vocabulary: values and places, descending.

    The top tokens lie in the blocks with the highest maxima, and maxima are found much faster than a top k.
    """
    vocabulary = scores.shape[-1]
    blocks = vocabulary // _BLOCK
    if blocks <= 2 * count:
        return scores.topk(min(count, vocabulary), dim=-1)
    body = scores[:, : blocks * _BLOCK].unflatten(-1, (blocks, _BLOCK))
    best = body.amax(dim=-1).topk(count, dim=-1).indices
    pool = body.gather(1, best[:, :, None].expand(-1, -1, _BLOCK)).flatten(1)
    places = (best[:, :, None] * _BLOCK + torch.arange(_BLOCK, device=scores.device)).flatten(1)
    if vocabulary % _BLOCK:
        rest = torch.arange(blocks * _BLOCK, vocabulary, device=scores.device).expand(len(scores), -1)
        pool, places = torch.cat([pool, scores[:, blocks * _BLOCK :]], dim=-1), torch.cat([places, rest], dim=-1)
    top, at = pool.topk(count, dim=-1)
    return top, places.gather(-1, at)


def _draw(weights: torch.Tensor) -> torch.Tensor:
    """One column per row, with probability in proportion to its weight: (rows, columns) -> (rows,) long.

    The inverse of the cumulative distribution at one uniform number per row, from torch's global generator.
    """
    # In float32 unlikely columns could never be drawn; MPS has no float64
    precision = torch.float32 if weights.device.type == "mps" else torch.float64
    cumulative = weights.cumsum(dim=-1, dtype=precision)
    total = cumulative[:, -1:]
    uniform = torch.rand(len(weights), 1, device=weights.device, dtype=precision)
    # Rounding must not reach the total, past which there is no column; `right` skips columns of weight zero
    target = torch.minimum(uniform * total, torch.nextafter(total, torch.zeros_like(total)))
    return torch.searchsorted(cumulative, target, right=True).squeeze(-1)


def _check_total(total: torch.Tensor) -> None:
    if not bool((total > 0).all()):
        raise ValueError(
            "The next-token distribution has NaN or no token left: the model overflowed (load it in bfloat16 or "
            "float32, not float16), or a logits processor removed every token."
        )
