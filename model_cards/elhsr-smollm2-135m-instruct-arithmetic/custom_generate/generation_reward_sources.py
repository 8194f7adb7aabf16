# Made by hf_elhsr 0.1.0 from its hf_elhsr/generation/reward_sources.py, where changes belong.
# Copyright the hf_elhsr authors, Apache License 2.0: https://www.apache.org/licenses/LICENSE-2.0

"""RewardSources: the heads and text scorers that `reward_head` names, and what each says of every candidate."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel

from .modeling_elhsr import ElhsrRewardHead
from .rewards_running_reward import RunningReward
from .rewards_text_reward_model import TextScorer, text_scores
from .generation_decoding import Candidates
from .generation_resolve import resolve_reward_head

RewardSource = ElhsrRewardHead | TextScorer | str | os.PathLike[str]


@dataclass(frozen=True)
class RewardSources:
    """What judges candidates: heads that follow the decoding, and scorers that read the text afterwards.

    Args:
        sources: In the order of `reward_head`.
    """

    sources: tuple["RunningReward | TextScorer", ...]

    @classmethod
    def of(
        cls, reward_head: RewardSource | Sequence[RewardSource], model: Any, keep_tokens: bool = False
    ) -> "RewardSources":
        """Load the heads and see that they fit the model.

        Raises:
            ValueError: No source at all, one that is neither a head nor a function, or a head for another model.
        """
        given: Any = reward_head if isinstance(reward_head, (list, tuple)) else [reward_head]
        if not given:
            raise ValueError("reward_head is empty: pass at least one head, folder, 'org/name' or function.")
        return cls(tuple(_source(source, model, keep_tokens) for source in given))

    @property
    def running(self) -> list[RunningReward]:
        """The heads' processors."""
        return [source for source in self.sources if isinstance(source, RunningReward)]

    @property
    def reads_text(self) -> bool:
        """Whether a source needs the candidates' texts."""
        return len(self.running) < len(self.sources)

    @property
    def only_head(self) -> RunningReward | None:
        """The head, where it is the only source."""
        return self.running[0] if len(self.sources) == 1 and not self.reads_text else None

    def rewards(self, candidates: Candidates, prompts: list[str], texts: list[list[str]]) -> torch.Tensor:
        """(batch, n, sources) float32: what every source says.

        Args:
            prompts, texts: Of every prompt, and of every candidate of every prompt; empty where no source reads them.

        Raises:
            ValueError: A scorer returns another number of scores than it was given texts, or one that is not finite.
        """
        batch, n, _ = candidates.token_ids.shape
        columns = []
        for source in self.sources:
            if isinstance(source, RunningReward):
                columns.append(source.rewards.view(batch, n))
            else:
                repeated = [prompt for prompt in prompts for _ in range(n)]
                columns.append(text_scores(source, repeated, [text for row in texts for text in row]).view(batch, n))
        return torch.stack([column.to(columns[0].device) for column in columns], dim=-1)


def _source(source: RewardSource, model: Any, keep_tokens: bool) -> "RunningReward | TextScorer":
    if callable(source) and not isinstance(source, ElhsrRewardHead):
        if isinstance(source, PreTrainedModel):
            raise ValueError(
                f"reward_head names a {type(source).__name__}: a model that reads texts comes with its tokenizer, as "
                "TextRewardModel(model, tokenizer)."
            )
        return source
    head = resolve_reward_head(source)  # type: ignore[arg-type]
    head.config.check_fits(model)
    return RunningReward(head, keep_tokens=keep_tokens)
