"""Selection: the heads and text scorers that `reward_head` names, how they are combined, and the winners."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from transformers import PreTrainedModel
from transformers.utils import logging

from .._checks import quoted
from ..decisions.calibration import Line
from ..decisions.selection import COMBINATIONS, VOTES, Combination, check_finite, select_winners, votes_for_answers
from ..head.loading import load_reward_head
from ..head.modeling_elhsr import ElhsrRewardHead
from ..rewards.running_reward import RunningReward
from .loop import Candidates
from .output import BestOfNOutput


class TextScorer(Protocol):
    """Anything that scores texts: a [`TextRewardModel`] or a function."""

    def __call__(self, prompts: list[str], completions: list[str]) -> "Sequence[float] | torch.Tensor":
        """Return one finite score for each completion; higher is better.

        Args:
            prompts: The prompt of each completion, with special tokens (chat markers), without padding.
            completions: The completions, without special tokens.
        """


def text_scores(scorer: TextScorer, prompts: list[str], completions: list[str]) -> torch.Tensor:
    """(completions,) float32 on the CPU: a scorer's scores, checked to be one finite number for each completion.

    Raises:
        ValueError: The shape is different, or a score is not finite.
    """
    name = getattr(scorer, "__name__", type(scorer).__name__)
    scores = _numbers(name, scorer(prompts, completions)).to("cpu", torch.float32)
    if scores.shape != (len(completions),):
        raise ValueError(
            f"{name} was given {len(completions)} completions and returned scores of shape {tuple(scores.shape)}: "
            "expected one number for each. Fix the scorer."
        )
    if not bool(torch.isfinite(scores).all()):
        first = int((~torch.isfinite(scores)).nonzero()[0])
        raise ValueError(
            f"{name} scored completion {first} as {float(scores[first])}: expected a finite number. Fix the scorer, or "
            "load the model in bfloat16 or float32, not float16."
        )
    return scores


def _numbers(name: str, returned: Any) -> torch.Tensor:
    """What a function returned, as a tensor.

    Raises:
        ValueError: It is something else than numbers.
    """
    try:
        numbers = torch.as_tensor(returned)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise ValueError(f"{name} returned {quoted(returned)}: expected numbers. Fix the function.") from error
    if numbers.is_complex():
        raise ValueError(f"{name} returned complex numbers, which have no order: expected real ones. Fix the function.")
    return numbers


RewardSource = ElhsrRewardHead | TextScorer | str | os.PathLike[str]


@dataclass(frozen=True)
class RewardSources:
    """What gives candidates rewards: heads that follow the decoding, and scorers that read the text afterwards.

    Args:
        sources: The heads' processors and the scorers, in the order of `reward_head`.
    """

    sources: tuple["RunningReward | TextScorer", ...]

    @classmethod
    def of(
        cls, reward_head: RewardSource | Sequence[RewardSource], model: Any, keep_tokens: bool = False
    ) -> "RewardSources":
        """Load the heads and check that they fit the model.

        Raises:
            ValueError: There is no source, one that is neither a head nor a function, or a head for a different model.
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
        """The head if it is the only source, else None."""
        return self.running[0] if len(self.sources) == 1 and not self.reads_text else None

    def rewards(self, candidates: Candidates, prompts: list[str], texts: list[list[str]]) -> torch.Tensor:
        """(batch, n, sources) float32: the rewards from every source.

        Args:
            prompts, texts: The text of every prompt, and of its candidates; empty if no source reads them.

        Raises:
            ValueError: A scorer does not return as many scores as it was given texts, or one is not finite.
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
    if callable(source) and not isinstance(source, ElhsrRewardHead | type):
        if isinstance(source, PreTrainedModel):
            raise ValueError(
                f"reward_head names a {type(source).__name__}: a model that reads texts needs its tokenizer, pass "
                "TextRewardModel(model, tokenizer)."
            )
        return source
    head = load_reward_head(source)  # type: ignore[arg-type]
    head.config.check_fits(model)
    return RunningReward(head, keep_tokens=keep_tokens)


AnswerExtractor = Callable[[str], str | None]


def _answer(extract_answer: AnswerExtractor, text: str) -> str | None:
    answer = extract_answer(text)
    try:
        hash(answer)
    except TypeError:
        raise ValueError(
            f"extract_answer returned {quoted(answer)}: expected the final answer as text, or None if there is none."
        ) from None
    return answer


@dataclass(frozen=True)
class Combining:
    """How the sources' rewards are combined, as `combine`, `extract_answer` and `tokenizer` ask for.

    Args:
        combine: A name in [`COMBINATIONS`] or [`VOTES`], a function, or None for a single source.
        extract_answer: Returns the final answer in a completion's text, for votes.
        tokenizer: The language model's, if texts are needed.
        attention_mask: The prompts' mask, as passed to `generate`.
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
            raise ValueError(f"combine={quoted(combine)}: expected a function or one of {names}.")
        if count > 1 and combine is None:
            raise ValueError(f"reward_head names {count} sources: pass combine= to say how they decide together.")
        if count > 1 and votes:
            raise ValueError(f"combine={quoted(combine)} takes the rewards of one source; reward_head names {count}.")
        if count == 1 and combine is not None and not votes:
            raise ValueError("combine is for several sources, but reward_head names one: leave it out, or name more.")
        if votes != (self.extract_answer is not None):
            raise ValueError(
                "Votes need extract_answer, a function that finds the final answer in a text (or None)."
                if votes
                else "extract_answer is for votes: pass combine='majority_vote' or 'weighted_vote', or leave it out."
            )
        if votes and not callable(self.extract_answer):
            raise ValueError(f"extract_answer={quoted(self.extract_answer)}: expected a function of a text.")
        if self._needs_texts and self.tokenizer is None:
            raise ValueError("Text reward models and votes read texts: pass tokenizer=, the language model's own.")
        if self._needs_texts and (isinstance(self.tokenizer, str | bytes) or not hasattr(self.tokenizer, "decode")):
            raise ValueError(
                f"tokenizer={quoted(self.tokenizer)}: expected the language model's tokenizer itself, such as "
                "AutoTokenizer.from_pretrained returns."
            )

    @property
    def _needs_texts(self) -> bool:
        return self.sources.reads_text or self.extract_answer is not None

    def rewards(self, candidates: Candidates) -> tuple[torch.Tensor, torch.Tensor]:
        """The rewards by which candidates win, (batch, n) float32, and those from each source, (batch, n, sources).

        Raises:
            ValueError: A reward is not finite, a user's function returns the wrong shape, or text reward models are to
                read prompts whose token ids are unknown.
        """
        texts = self._texts(candidates) if self._needs_texts else []
        prompts = self._prompts(candidates) if self.sources.reads_text else []
        by_source = self.sources.rewards(candidates, prompts, texts)
        if self.combine is None:
            return by_source[..., 0], by_source
        for column in by_source.unbind(-1):
            check_finite(column)
        if self.extract_answer is not None and isinstance(self.combine, str):
            answers = [[_answer(self.extract_answer, text) for text in row] for row in texts]
            return votes_for_answers(VOTES[self.combine](by_source[..., 0]), answers), by_source
        combination = COMBINATIONS[self.combine] if isinstance(self.combine, str) else self.combine
        combined = _numbers("combine", combination(by_source))
        if combined.shape != by_source.shape[:2]:
            raise ValueError(
                f"combine was given rewards (batch, n, sources) = {tuple(by_source.shape)} and returned "
                f"{tuple(combined.shape)}: expected (batch, n)."
            )
        if not bool(torch.isfinite(combined).all()):
            raise ValueError("combine returned NaN or infinity, so that no order exists: fix the function.")
        return combined.to(by_source), by_source

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
            # As generate does if no mask is given
            present = ids != pad
        else:
            present = torch.ones_like(ids, dtype=torch.bool)
        return [self.tokenizer.decode(row[mask].tolist()) for row, mask in zip(ids, present, strict=True)]


logger = logging.get_logger(__name__)


def best_of_n_output(
    candidates: Candidates,
    combining: Combining,
    k: int,
    calibration: Line | None,
    min_confidence: float | None,
) -> BestOfNOutput:
    """Select the k winners of every prompt, and collect all that `generate` returns about them.

    Raises:
        ValueError: The rewards cannot be ordered, see [`Combining.rewards`].
    """
    batch, n, _ = candidates.token_ids.shape
    rewards, source_rewards = combining.rewards(candidates)
    finished = ((candidates.lengths > 0) & ~candidates.pruned).to(rewards.device)
    ties = None if combining.combine is None else source_rewards[..., 0]
    winners = select_winners(rewards, k, finished, ties).to(candidates.token_ids.device)
    offsets = torch.arange(batch, device=winners.device)[:, None] * n
    sequences = candidates.token_ids.flatten(0, 1)[(winners + offsets).flatten()]
    lengths = candidates.lengths.gather(1, winners).flatten()
    asked_for: dict[str, Any] = candidates.records.of((winners + offsets).flatten(), lengths)
    if combining.combine is not None:
        asked_for["source_rewards"] = source_rewards
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
                f"The winners of {count} of {batch} prompts are trusted less than min_confidence={min_confidence}: "
                "pass return_dict_in_generate=True to see which (`abstained`)."
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
