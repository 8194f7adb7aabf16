# Made by hf_elhsr 0.1.0 from its hf_elhsr/generation/combining.py, where changes belong.
# Copyright the hf_elhsr authors, Apache License 2.0: https://www.apache.org/licenses/LICENSE-2.0

"""Combining: how the rewards of several sources, or the candidates' answers, decide who wins."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from .rewards_combination import COMBINATIONS, Combination
from .rewards_voting import VOTES, votes_for_answers
from .generation_decoding import Candidates
from .generation_reward_sources import RewardSources
from .generation_selection import check_finite

AnswerExtractor = Callable[[str], str | None]


@dataclass(frozen=True)
class Combining:
    """What `combine`, `extract_answer` and `tokenizer` ask for.

    Args:
        combine: A name in [`COMBINATIONS`] or [`VOTES`], a function of one's own, or None for a single source.
        extract_answer: The final answer in a completion's text, for votes.
        tokenizer: Of the language model, where texts are needed.
        attention_mask: Of the prompts, as `generate` was given it.
    """

    sources: RewardSources
    combine: str | Combination | None = None
    extract_answer: AnswerExtractor | None = None
    tokenizer: Any = None
    attention_mask: torch.Tensor | None = None

    def __post_init__(self) -> None:
        count, combine = len(self.sources.sources), self.combine
        votes = isinstance(combine, str) and combine in VOTES
        known = combine is None or votes or callable(combine) or (isinstance(combine, str) and combine in COMBINATIONS)
        if not known:
            names = ", ".join([*COMBINATIONS, *VOTES])
            raise ValueError(f"combine={combine!r}: expected a function or one of {names}.")
        if count > 1 and combine is None:
            raise ValueError(f"reward_head names {count} sources: say with combine= how they decide together.")
        if count > 1 and votes:
            raise ValueError(f"combine={combine!r} takes the rewards of one source; reward_head names {count}.")
        if count == 1 and combine is not None and not votes:
            raise ValueError("combine is for several sources, and reward_head names one: leave it out, or name more.")
        if votes != (self.extract_answer is not None):
            raise ValueError(
                "Votes need extract_answer, a function that finds the final answer in a text (or None)."
                if votes
                else "extract_answer is for votes: pass combine='majority_vote' or 'weighted_vote', or leave it out."
            )
        if votes and not callable(self.extract_answer):
            raise ValueError(f"extract_answer={self.extract_answer!r}: expected a function of a text.")
        if self._needs_texts and self.tokenizer is None:
            raise ValueError("Text reward models and votes read texts: pass tokenizer=, the language model's own.")

    @property
    def _needs_texts(self) -> bool:
        return self.sources.reads_text or self.extract_answer is not None

    def rewards(self, candidates: Candidates) -> tuple[torch.Tensor, torch.Tensor]:
        """(batch, n) float32, by which candidates win, and (batch, n, sources), what the sources said.

        Raises:
            ValueError: A source says what is no number, a function of the user's returns another shape, or text reward
                models are asked about prompts of which no token ids are known.
        """
        texts = self._texts(candidates) if self._needs_texts else []
        prompts = self._prompts(candidates) if self.sources.reads_text else []
        said = self.sources.rewards(candidates, prompts, texts)
        if self.combine is None:
            return said[..., 0], said
        for column in said.unbind(-1):
            check_finite(column)
        if self.extract_answer is not None and isinstance(self.combine, str):
            answers = [[self.extract_answer(text) for text in row] for row in texts]
            return votes_for_answers(VOTES[self.combine](said[..., 0]), answers), said
        combination = COMBINATIONS[self.combine] if isinstance(self.combine, str) else self.combine
        combined = torch.as_tensor(combination(said))
        if combined.shape != said.shape[:2]:
            raise ValueError(
                f"combine was given rewards (batch, n, sources) = {tuple(said.shape)} and returned "
                f"{tuple(combined.shape)}: expected (batch, n)."
            )
        if not bool(torch.isfinite(combined).all()):
            raise ValueError("combine returned NaN or infinity, so that no order exists: mend the function.")
        return combined.to(said), said

    def _texts(self, candidates: Candidates) -> list[list[str]]:
        completions = candidates.token_ids[:, :, candidates.prompt_length :]
        return [
            [
                self.tokenizer.decode(ids[:length], skip_special_tokens=True)
                for ids, length in zip(own, lengths, strict=True)
            ]
            for own, lengths in zip(completions.tolist(), candidates.lengths.tolist(), strict=True)
        ]

    def _prompts(self, candidates: Candidates) -> list[str]:
        ids = candidates.token_ids[:, 0, : candidates.prompt_length]
        if not candidates.prompt_length:
            raise ValueError("Text reward models read the prompt: pass input_ids, not inputs_embeds alone.")
        pad = self.tokenizer.pad_token_id
        if self.attention_mask is not None:
            present = self.attention_mask.to(ids.device).bool()
        elif pad is not None and pad != self.tokenizer.eos_token_id:
            # As generate does where no mask is given
            present = ids != pad
        else:
            present = torch.ones_like(ids, dtype=torch.bool)
        return [self.tokenizer.decode(row[mask].tolist()) for row, mask in zip(ids, present, strict=True)]
