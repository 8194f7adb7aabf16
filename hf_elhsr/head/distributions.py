"""The signals "logits" and "top_log_probabilities": the raw distribution that a token was sampled from."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from transformers import PreTrainedModel

from .._checks import is_whole_number, quoted
from .signals import SignalNeeds, SignalReader, StepSignal

# Lower log-probabilities are raised to it: impossible tokens have many notations, -9999 among them
_LOG_PROBABILITY_FLOOR = -50.0
# The number that the usual programming interfaces return
_TOP_LOG_PROBABILITIES = 20
# In float32 the log-probability of a certain token may be slightly above zero
_ROUNDED_ZERO = 1e-3
# A server may merge at most one in this many of a token's log-probabilities; an answer with fewer is refused
_MERGED = 4


class DistributionSignal(SignalReader):
    """Signals made of the raw distribution that token t was sampled from, before any processor changed it."""

    source = "next-token distributions"
    depends_on_vocabulary = True
    # The field of the configuration that determines the length of h_t
    _size: ClassVar[str]

    @classmethod
    def settings_for(cls, model: PreTrainedModel, layers: list[int] | None, given: dict[str, Any]) -> dict[str, Any]:
        if layers:
            raise ValueError(f"The signal {cls.name!r} has no layers: leave out layers={quoted(layers)}.")
        return {"hidden_size": getattr(model.config.get_text_config(decoder=True), "hidden_size", 0), "layers": []}

    def check(self) -> None:
        size, layers = getattr(self.config, self._size), self.config.layers
        if not is_whole_number(size, at_least=1) or layers:
            raise ValueError(
                f"A head that reads {self.name!r} needs {self._size} of at least 1 and no layers, got "
                f"{self._size}={quoted(size)} and layers={quoted(layers)}. ElhsrConfig.for_model(model, "
                f"signal={self.name!r}) fills them in."
            )

    @property
    def needs(self) -> SignalNeeds:
        return SignalNeeds(logits=True)

    @abstractmethod
    def of_logits(self, logits: torch.Tensor, token_ids: torch.Tensor) -> torch.Tensor:
        """h_t, (..., `num_features`), from raw logits (..., vocabulary) and the sampled tokens, (...) long."""

    def parts(
        self, input_ids: torch.Tensor, step: StepSignal, device: torch.device | str | None = None
    ) -> list[torch.Tensor]:
        features = self.of_logits(step.raw_logits, input_ids[:, -1])
        return [features if device is None else features.to(device)]

    def reread(
        self, model: PreTrainedModel, inputs: dict[str, Any], completion_mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        # A token was sampled from the distribution at the position before
        columns = completion_mask.bool().any(dim=0).nonzero()
        first = int(columns[0]) if len(columns) else 0
        if first == 0:
            raise ValueError(
                "There is no token before the first sampled one, so the distribution it was sampled from is unknown: "
                "pass prompt and completion, and a completion_mask that is 1 at the completion only."
            )
        length = completion_mask.shape[1]
        if "logits_to_keep" in inputs:
            inputs = inputs | {"logits_to_keep": length - first + 1}
        logits = model(**inputs, return_dict=True).logits[:, -(length - first + 1) : -1]
        return self.of_logits(logits, inputs["input_ids"][:, first:]), completion_mask[:, first:]


class Logits(DistributionSignal):
    """The raw logits of the whole vocabulary."""

    name = "logits"
    # They are less informative than hidden states, so the held-out loss falls slowly and unevenly; h_t is longer, so a
    # gate adds many weights. Chosen on prompts that no report measures
    training_defaults: ClassVar[dict[str, Any]] = {"learning_rate": 5e-5, "patience": 10, "gate": False}
    _size = "base_vocab_size"

    @property
    def num_features(self) -> int:
        return self.config.base_vocab_size or 0

    @property
    def description(self) -> str:
        return f"the {self.num_features:,} raw logits"

    def of_logits(self, logits: torch.Tensor, token_ids: torch.Tensor) -> torch.Tensor:
        return logits

    def recorded_dtype(self, model: Any) -> torch.dtype:
        # The decoding loop has logits in float32, whatever dtype their product was computed in. Float32 is recorded for
        # models without a floating output embedding, such as packed ones
        weight = getattr(model.get_output_embeddings(), "weight", None)
        return weight.dtype if weight is not None and weight.dtype.is_floating_point else torch.float32


class TopLogProbabilities(DistributionSignal):
    """The k highest log-probabilities and the sampled token's own, as OpenAI-compatible interfaces return them."""

    name = "top_log_probabilities"
    # h_t has two dozen numbers, so larger steps are safe and decay matters little; see `Logits` for the patience
    training_defaults: ClassVar[dict[str, Any]] = {"learning_rate": 1e-2, "weight_decay": 0.01, "patience": 10}
    _size = "num_log_probabilities"

    @classmethod
    def settings_for(cls, model: PreTrainedModel, layers: list[int] | None, given: dict[str, Any]) -> dict[str, Any]:
        k = given.get("num_log_probabilities", _TOP_LOG_PROBABILITIES)
        vocabulary = model.config.get_text_config(decoder=True).vocab_size
        if not is_whole_number(k, at_least=1) or k > vocabulary:
            raise ValueError(
                f"num_log_probabilities={quoted(k)}: expected a number from 1 to the {vocabulary} tokens of the "
                "vocabulary."
            )
        return super().settings_for(model, layers, given) | {"num_log_probabilities": k}

    @property
    def num_features(self) -> int:
        return (self.config.num_log_probabilities or 0) + 1

    @property
    def description(self) -> str:
        return f"the {self.config.num_log_probabilities} highest log-probabilities and the token's own"

    def of_logits(self, logits: torch.Tensor, token_ids: torch.Tensor) -> torch.Tensor:
        return top_log_probabilities(logits, token_ids, self.config.num_log_probabilities)

    def check_shown_by_interfaces(self) -> None:
        """Accept: interfaces return this signal."""

    def features_from_logprobs(self, logprobs: Mapping[str, Any]) -> torch.Tensor:
        """h_t of the tokens of a chat completion, (tokens, k + 1) float32.

        Args:
            logprobs: `choices[i].logprobs` of the answer, parsed from JSON.

        Raises:
            ValueError: The answer has no tokens, too few log-probabilities, or values that are not log-probabilities.
        """
        k = self.config.num_log_probabilities
        content = logprobs.get("content") if isinstance(logprobs, Mapping) else None
        if not content:
            raise ValueError(
                f"Expected logprobs with a token in 'content', got {quoted(logprobs)}: request logprobs=true and "
                f"top_logprobs={k}."
            )
        shown = max(len(token.get("top_logprobs") or []) for token in content)
        # In an answer of a token or two all may be merged
        if shown < k - k // _MERGED:
            raise ValueError(
                f"This answer has {shown} top_logprobs per token, and this head reads {k}: request top_logprobs={k}."
            )
        return torch.tensor([_token_features(token, k, number) for number, token in enumerate(content)])


def top_log_probabilities(logits: torch.Tensor, token_ids: torch.Tensor, k: int) -> torch.Tensor:
    """The k highest log-probabilities in nats, highest first, then the sampled token's own, none below the floor.

    Args:
        logits: (..., vocabulary).
        token_ids: (...) long.

    Returns:
        (..., k + 1) float32.
    """
    logits = logits.float()
    normalizer = logits.logsumexp(dim=-1, keepdim=True)
    drawn = logits.gather(-1, token_ids.to(logits.device)[..., None])
    chosen = torch.cat([logits.topk(k, dim=-1).values, drawn], dim=-1)
    return (chosen - normalizer).clamp_min(_LOG_PROBABILITY_FLOOR)


def _token_features(token: Mapping[str, Any], k: int, number: int) -> list[float]:
    top = [entry.get("logprob") for entry in token.get("top_logprobs") or []]
    if not top:
        raise ValueError(f"Token {number} has no top_logprobs, and this head reads {k}: request top_logprobs={k}.")
    own = token.get("logprob")
    invalid = [value for value in (*top, own) if not isinstance(value, int | float) or not value <= _ROUNDED_ZERO]
    if invalid:
        raise ValueError(
            f"Token {number} has the log-probability {quoted(invalid[0])}, expected a number of at most 0: the server "
            "must return log-probabilities, not probabilities."
        )
    highest = sorted(top, reverse=True)[:k]
    highest += highest[-1:] * (k - len(highest))
    return [max(float(value), _LOG_PROBABILITY_FLOOR) for value in (*highest, own)]
