"""Engines: what samples completions of prompts while signal processors follow every token."""

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from transformers import PreTrainedTokenizerBase

from ..head.base_model import model_digest
from ..head.configuration_elhsr import ElhsrConfig
from ..head.modeling_elhsr import ElhsrRewardHead
from ..rewards import SignalProcessor
from ..rewards.baselines import LastTokenProbe
from ..tasks.thoughts import begins_thought
from .prompts import encode_prompts

#: What can follow a sampling run and reward its completions.
Judge = ElhsrRewardHead | LastTokenProbe


@dataclass(frozen=True)
class SamplingArguments:
    """How completions are sampled; the names and meanings are those of `generate`.

    Args:
        n: Completions per prompt.
        temperature: Sampling temperature.
        top_p: Nucleus sampling: the most likely tokens up to this probability mass are kept.
        top_k: How many of the most likely tokens are kept; 0 keeps all.
        max_new_tokens: Length limit of a completion, in tokens.
        prompts_per_batch: Prompts decoded together, and stored as one shard. The samples for a seed depend on it.
        seed: Seed of the random numbers; every batch gets its own, so that a resumed run samples the same as an
            uninterrupted one.
    """

    n: int = 8
    temperature: float = 0.8
    top_p: float = 0.9
    top_k: int = 0
    max_new_tokens: int = 64
    prompts_per_batch: int = 16
    seed: int = 0

    def generate_kwargs(self) -> dict[str, Any]:
        """The arguments that `generate` takes."""
        names = ("temperature", "top_p", "top_k", "max_new_tokens")
        return {name: getattr(self, name) for name in names}

    def seed_of_batch(self, batch: int) -> int:
        """The seed of one batch's random numbers."""
        return self.seed * 1_000_003 + batch


@dataclass(frozen=True)
class Completion:
    """What an engine returns for one candidate.

    Args:
        token_ids: The sampled tokens, the EOS included, at least one.
        text: Their text, special tokens left out. Verifiers read it.
    """

    token_ids: list[int]
    text: str


@runtime_checkable
class SamplingEngine(Protocol):
    """Samples completions and shows signal processors what the language model computes for every sampled token.

    [`sample_rollouts`] needs nothing else of a language model, so another inference library is supported by one class
    with these methods. [`TransformersEngine`] is the one for transformers.
    """

    def describe(self) -> dict[str, Any]:
        """What determines the samples besides prompts and arguments, as JSON values.

        It is recorded with the rollouts, and a run is resumed only if it is the same. "dtype" is the language model's,
        e.g. "bfloat16"; "begins_thoughts" is true where prompts end in `<think>`, so that completions begin inside.
        """
        ...

    def digest(self) -> str | None:
        """A hash that distinguishes rollouts of two language models; None if the weights cannot be read."""
        ...

    def prompt_ids(self, question: str) -> list[int]:
        """The token ids of a question's prompt, without padding."""
        ...

    def sample(
        self, questions: list[str], arguments: SamplingArguments, seed: int, processors: list[SignalProcessor]
    ) -> list[Completion]:
        """Sample `arguments.n` completions of every question.

        The global random state is unchanged afterwards. For each processor, `begin` is called once, and the processor
        itself once for every sampled token, the last one included, with what its `needs` name; candidate `i * n + j` is
        completion j of question i.

        Args:
            seed: The same seed, questions and arguments give the same completions, whichever processors follow.

        Returns:
            len(questions) * n completions, with those of a question adjacent.
        """
        ...

    def check_fits(self, judge: Judge) -> None:
        """Refuse a head or a probe that was trained for a different language model.

        Raises:
            ValueError: It does not fit.
        """
        ...

    def head_config(self) -> ElhsrConfig:
        """The configuration of a head to be trained for this language model, on everything that can be read from it."""
        ...

    def recorded_dtype(self, config: ElhsrConfig) -> torch.dtype:
        """The dtype in which the features of this configuration are stored without rounding."""
        ...


class TransformersEngine:
    """The [`SamplingEngine`] of transformers' models.

    Args:
        model: A language model with [`enable_best_of_n`].
        tokenizer: Its tokenizer, with a padding token. Questions are put into its chat template if it has one.

    Raises:
        ValueError: The model cannot sample candidates, or there is no tokenizer.
    """

    def __init__(self, model: Any, tokenizer: PreTrainedTokenizerBase | None):
        if not hasattr(model, "sample_candidates"):
            raise ValueError(
                f"Expected a language model with best-of-n or a SamplingEngine, got {type(model).__name__}: pass "
                "enable_best_of_n(model)."
            )
        if tokenizer is None:
            raise ValueError("A language model needs its tokenizer: pass it after the model.")
        self.model, self.tokenizer = model, tokenizer

    def describe(self) -> dict[str, Any]:
        prompt = self.tokenizer.decode(self.prompt_ids("?"))
        return {
            "dtype": str(self.model.dtype).removeprefix("torch."),
            "generation_config": self.model.generation_config.to_diff_dict(),
            # Absent if not, so that sets sampled before it was recorded are resumed
            **({"begins_thoughts": True} if begins_thought(prompt) else {}),
        }

    def digest(self) -> str | None:
        return model_digest(self.model)

    def prompt_ids(self, question: str) -> list[int]:
        return encode_prompts(self.tokenizer, [question])["input_ids"][0].tolist()

    def sample(
        self, questions: list[str], arguments: SamplingArguments, seed: int, processors: list[SignalProcessor]
    ) -> list[Completion]:
        inputs = encode_prompts(self.tokenizer, questions).to(self.model.device)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            candidates = self.model.sample_candidates(
                **inputs, n=arguments.n, signal_processor=processors, **arguments.generate_kwargs()
            )
        sampled = (
            candidates.completion(prompt, candidate).tolist()
            for prompt in range(len(questions))
            for candidate in range(arguments.n)
        )
        return [Completion(ids, self.tokenizer.decode(ids, skip_special_tokens=True)) for ids in sampled]

    def check_fits(self, judge: Judge) -> None:
        if isinstance(judge, ElhsrRewardHead):
            judge.config.check_fits(self.model)
        else:
            judge.check_fits(self.model)

    def head_config(self) -> ElhsrConfig:
        return ElhsrConfig.for_model(self.model)

    def recorded_dtype(self, config: ElhsrConfig) -> torch.dtype:
        return config.reads.recorded_dtype(self.model)
