"""Drawing the next token: the distribution of transformers' warpers and `torch.multinomial`, without their cost.

A full sort of the vocabulary for top-p and one exponential variate per vocabulary entry take more time than a small
model's matrix products. Neither is needed for exact samples.
"""

import torch
from transformers import LogitsProcessor, LogitsProcessorList, TopPLogitsWarper

# Nearly always the nucleus is this small; rows where it is not are sorted in full.
_PARTIAL = 256


class PartialTopP(LogitsProcessor):
    """Keeps what a [`~transformers.TopPLogitsWarper`] keeps, by sorting only the top of the vocabulary."""

    def __init__(self, warper: TopPLogitsWarper):
        self._warper = warper

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """As the warper: (rows, vocabulary) scores with everything outside the nucleus at the filter value."""
        if scores.shape[-1] <= 2 * _PARTIAL:
            return self._warper(input_ids, scores)
        top, places = scores.topk(_PARTIAL, dim=-1)
        mass = (top - scores.logsumexp(dim=-1, keepdim=True)).exp().cumsum(dim=-1)
        # A token goes when those above it make up top_p already
        outside = torch.zeros_like(mass, dtype=torch.bool)
        outside[:, 1:] = mass[:, :-1] >= self._warper.top_p
        outside[:, : self._warper.min_tokens_to_keep] = False
        filter_value = self._warper.filter_value
        kept = torch.full_like(scores, filter_value).scatter_(-1, places, top.masked_fill(outside, filter_value))
        larger = (mass[:, -1] < self._warper.top_p).nonzero().squeeze(-1)
        if len(larger):
            kept[larger] = self._warper(input_ids[larger], scores[larger])
        return kept


def with_partial_top_p(processors: LogitsProcessorList) -> LogitsProcessorList:
    """The processors with every plain top-p warper exchanged for its faster equal."""
    return LogitsProcessorList(
        PartialTopP(processor) if type(processor) is TopPLogitsWarper else processor for processor in processors
    )


def draw_tokens(scores: torch.Tensor) -> torch.Tensor:
    """One token per row from softmax(scores): (rows, vocabulary) -> (rows,) long.

    The inverse of the cumulative distribution at one uniform number per row, from torch's global generator.

    Raises:
        ValueError: A row has NaN, or no token at all.
    """
    # In float32 a large vocabulary's unlikely tokens would get no width; MPS has no float64
    precision = torch.float32 if scores.device.type == "mps" else torch.float64
    cumulative = torch.nn.functional.softmax(scores.float(), dim=-1).cumsum(dim=-1, dtype=precision)
    total = cumulative[:, -1:]
    if not bool((total > 0).all()):
        raise ValueError(
            "The next-token distribution has NaN or no token left: the model overflowed (load it in bfloat16 or "
            "float32, not float16), or a logits processor forbade every token."
        )
    uniform = torch.rand(len(scores), 1, device=scores.device, dtype=precision)
    # Rounding must not reach the total, above which there is no token; `right` passes over tokens of no probability
    target = torch.minimum(uniform * total, torch.nextafter(total, torch.zeros_like(total)))
    return torch.searchsorted(cumulative, target, right=True).squeeze(-1)
