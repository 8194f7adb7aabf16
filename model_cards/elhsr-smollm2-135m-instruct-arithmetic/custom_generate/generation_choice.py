# Made by hf_elhsr 0.1.0 from its hf_elhsr/generation/choice.py, where changes belong.
# Copyright the hf_elhsr authors, Apache License 2.0: https://www.apache.org/licenses/LICENSE-2.0

"""choose: the winners among the candidates, and what is returned of them."""

from typing import Any

import torch
from transformers.utils import logging

from .rewards_calibration import Calibration
from .generation_combining import Combining
from .generation_decoding import Candidates
from .generation_output import BestOfNOutput
from .generation_selection import select_winners

logger = logging.get_logger(__name__)


def choose(
    candidates: Candidates,
    combining: Combining,
    k: int,
    calibration: Calibration | None,
    min_confidence: float | None,
) -> BestOfNOutput:
    """The k winners of every prompt, and all that `generate` returns of them.

    Raises:
        ValueError: Rewards that have no order, see [`Combining.rewards`].
    """
    batch, n, _ = candidates.token_ids.shape
    rewards, said = combining.rewards(candidates)
    finished = ((candidates.lengths > 0) & ~candidates.pruned).to(rewards.device)
    ties = None if combining.combine is None else said[..., 0]
    winners = select_winners(rewards, k, finished, ties).to(candidates.token_ids.device)
    offsets = torch.arange(batch, device=winners.device)[:, None] * n
    sequences = candidates.token_ids.flatten(0, 1)[(winners + offsets).flatten()]
    lengths = candidates.lengths.gather(1, winners).flatten()
    asked_for: dict[str, Any] = candidates.records.of((winners + offsets).flatten(), lengths)
    if combining.combine is not None:
        asked_for["source_rewards"] = said
    head = combining.sources.only_head
    if head is not None and head.keep_tokens:
        asked_for["token_rewards"] = head.token_rewards.view(batch, n, -1)
        asked_for["token_gates"] = head.token_gates.view(batch, n, -1)
    if calibration is not None:
        best = rewards.gather(1, winners[:, :1].to(rewards.device)).squeeze(1)
        asked_for["confidence"] = calibration.probability(best)
    if min_confidence is not None:
        asked_for["abstained"] = asked_for["confidence"] < min_confidence
        count = int(asked_for["abstained"].sum())
        if count and not candidates.generation_config.return_dict_in_generate:
            logger.warning(
                f"The winners of {count} of {batch} prompts are trusted less than min_confidence={min_confidence}; "
                "return_dict_in_generate=True says which (`abstained`)."
            )
    return BestOfNOutput(
        sequences=sequences[:, : candidates.prompt_length + int(lengths.max())],
        rewards=rewards.masked_fill((candidates.lengths == 0).to(rewards.device), -torch.inf),
        candidates=candidates.token_ids,
        lengths=candidates.lengths,
        pruned=candidates.pruned,
        winners=winners,
        **asked_for,
    )
