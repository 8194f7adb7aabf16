"""Engines: what samples completions of prompts while signal processors follow every token."""

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from transformers import PreTrainedTokenizerBase

from .._checks import is_number, quoted, whole_number
from ..head.base_model import model_digest
from ..head.configuration_elhsr import ElhsrConfig
from ..head.modeling_elhsr import ElhsrRewardHead
from ..rewards import SignalProcessor
from ..rewards.baselines import LastTokenProbe
from ..tasks.thoughts import begins_thought
from .prompts import PromptFormat, encode_prompts, given_prompts_sha256, prompt_token_ids

#: What can follow a sampling run and reward its completions.
Judge = ElhsrRewardHead | LastTokenProbe

# Seeds of batches, a million times as large, fit into 64 bits
_LARGEST_SEED = 2**42
# More candidates or longer completions fit into no memory
_LARGEST_COUNT = 2**31 - 1
# Outside of these, logits divided by the temperature are none that float32 can hold
_TEMPERATURES = (1e-30, 1e30)


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

    Raises:
        ValueError: A value is of an unexpected type, is not finite, or cannot be sampled with; the message names it.
    """

    n: int = 8
    temperature: float = 0.8
    top_p: float = 0.9
    top_k: int = 0
    max_new_tokens: int = 64
    prompts_per_batch: int = 16
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("n", "max_new_tokens", "prompts_per_batch"):
            whole_number(name, getattr(self, name), at_most=_LARGEST_COUNT)
        whole_number("top_k", self.top_k, at_least=0, at_most=_LARGEST_COUNT)
        whole_number("seed", self.seed, at_least=-_LARGEST_SEED, at_most=_LARGEST_SEED)
        low, high = _TEMPERATURES
        if not is_number(self.temperature) or not low <= self.temperature <= high:
            raise ValueError(f"temperature={quoted(self.temperature)}: expected a number above 0, at most {high:g}.")
        if not is_number(self.top_p) or not 0 <= self.top_p <= 1:
            raise ValueError(f"top_p={quoted(self.top_p)}: expected a probability from 0 to 1.")

    def generate_kwargs(self) -> dict[str, Any]:
        """The arguments that `generate` takes. They sample, whatever the model's generation config says."""
        decoding: dict[str, Any] = {"num_beams": 1}
        if self.n > 1:
            decoding["do_sample"] = True
        # transformers refuses temperatures that are whole numbers
        chosen = {"temperature": float(self.temperature), "top_p": float(self.top_p)}
        return decoding | chosen | {"top_k": self.top_k, "max_new_tokens": self.max_new_tokens}

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

    Two more methods are optional. `context_length()` is the most tokens that a prompt and its completion may have
    together, or None: without it, overlong prompts are found only where sampling fails. `prompts_sha256(questions)` is
    a hash of what the user determines of the prompts: without it, the token ids of the prompts are hashed, and where
    they change by themselves, as with a date in them, a run cannot be resumed.
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
        prompt_format: What the chat template is told besides the question. Default: nothing.

    Raises:
        ValueError: The model cannot sample candidates, or there is no tokenizer.
    """

    def __init__(
        self, model: Any, tokenizer: PreTrainedTokenizerBase | None, prompt_format: PromptFormat | None = None
    ):
        if not hasattr(model, "sample_candidates"):
            raise ValueError(
                f"Expected a language model with best-of-n or a SamplingEngine, got {type(model).__name__}: pass "
                "enable_best_of_n(model)."
            )
        if tokenizer is None:
            raise ValueError("A language model needs its tokenizer: pass it after the model.")
        self.model, self.tokenizer = model, tokenizer
        self.prompt_format = PromptFormat() if prompt_format is None else prompt_format

    def describe(self) -> dict[str, Any]:
        prompt = self.tokenizer.decode(self.prompt_ids("?"))
        return {
            "dtype": str(self.model.dtype).removeprefix("torch."),
            "generation_config": self.model.generation_config.to_diff_dict(),
            # Absent if not, so that sets sampled before it was recorded are resumed
            **({"begins_thoughts": True} if begins_thought(prompt) else {}),
            **self.prompt_format.describe(),
        }

    def digest(self) -> str | None:
        return model_digest(self.model)

    def prompt_ids(self, question: str) -> list[int]:
        return prompt_token_ids(self.tokenizer, question, self.prompt_format)

    def prompts_sha256(self, questions: list[str]) -> str:
        """A hash of what the user determines of the prompts: the questions, the chat template, what it is told."""
        return given_prompts_sha256(self.tokenizer, questions, self.prompt_format)

    def context_length(self) -> int | None:
        """The most tokens that a prompt and its completion may have together; None if the model has no limit."""
        length = getattr(self.model.config.get_text_config(decoder=True), "max_position_embeddings", None)
        return length if isinstance(length, int) else None

    def sample(
        self, questions: list[str], arguments: SamplingArguments, seed: int, processors: list[SignalProcessor]
    ) -> list[Completion]:
        inputs = encode_prompts(self.tokenizer, questions, self.prompt_format).to(self.model.device)
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
