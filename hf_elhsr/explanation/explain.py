"""explain: why a candidate won, from what `generate` returned."""

import dataclasses
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from markupsafe import escape
from rich.console import RenderableType
from transformers import PreTrainedModel

from .._files import write_text
from ..decisions.calibration import Line
from ..generation import BestOfNOutput
from ..head.base_model import plain_inputs, unwrap_language_model
from ..head.configuration_elhsr import ElhsrConfig
from ..head.loading import load_reward_head
from ..head.modeling_elhsr import ElhsrRewardHead
from ..head.token_outputs import TokenOutputs
from .page import page
from .parts import ExplainedCandidate, ExplainedPrompt, ExplainedToken, LayerShares
from .terminal import terminal
from .texts import token_texts

# R while decoding and R re-scored differ by rounding, which benchmarks/bfloat16.py measures; more is an error
_TOLERANCE = {torch.float32: 0.01, torch.float64: 0.01}
_HALF_TOLERANCE = 0.3


@torch.no_grad()
def layer_shares(
    model: PreTrainedModel, head: ElhsrRewardHead, prompt: torch.Tensor, completion: torch.Tensor, reward: float
) -> LayerShares:
    """Run the model over one candidate again and split its reward into the layers' shares.

    R = sum_t g_t (sum_l w_l h_{l,t} + b) / sum_t g_t is a sum over layers, once the gates are known. The pass covers
    one candidate without padding, so that it needs the memory of one sequence's hidden states.

    Args:
        model: The language model that the head was made for, unwrapped.
        head: A head that reads hidden states.
        prompt, completion: (tokens,) long, of one candidate, without padding.
        reward: R while decoding.

    Raises:
        ValueError: R differs from that while decoding by more than rounding.
    """
    # A model whose weights are all offloaded reports the device "meta"
    device = "cpu" if model.device.type == "meta" else model.device
    input_ids = torch.cat([prompt, completion])[None].to(device)
    inputs: dict[str, Any] = plain_inputs(model, input_ids, torch.ones_like(input_ids))
    outputs = model(**inputs, output_hidden_states=list(head.config.layers), return_dict=True)
    states = [outputs.hidden_states[layer][0, len(prompt) :] for layer in head.config.layers]
    del outputs
    shares, of_bias = head.layer_shares(states)
    rounding = reward - (float(shares.sum()) + of_bias)
    tolerance = _TOLERANCE.get(model.dtype, _HALF_TOLERANCE) * max(1.0, abs(reward))
    if not abs(rounding) <= tolerance:
        raise ValueError(
            f"A candidate's reward was {reward:.4f} while decoding and is {reward - rounding:.4f} when read again: "
            "pass the model, the head and the attention_mask of the call to generate. A prompt that is not only token "
            "ids (images, or its own cache) cannot be read again: leave out the model."
        )
    return LayerShares(tuple(head.config.layers), tuple(shares.tolist()), of_bias, rounding)


@dataclass(frozen=True)
class Explanation:
    """What [`explain`] returns. `rich.print(explanation)` shows it in a terminal; a notebook displays it by itself.

    Its texts are as the model wrote them; the page and the terminal show them without letting them take effect.

    Args:
        prompts: The prompts, in the order of the batch.
        calibrated: Whether P(correct) comes from the head's calibration; if not, it is sigmoid(R).
        base_model: The language model that the head was made for, if known.
    """

    prompts: tuple[ExplainedPrompt, ...]
    calibrated: bool = False
    base_model: str | None = None

    def to_html(self) -> str:
        """A self-contained page, without scripts and external resources."""
        return page(self.prompts, self.calibrated, self.base_model)

    def save(self, file: str | os.PathLike[str]) -> None:
        """Write the page, whole or not at all; missing folders are created."""
        file = Path(file)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, self.to_html())

    def to_json(self) -> str:
        """All numbers and texts, in ASCII."""
        return json.dumps(dataclasses.asdict(self), indent=1, allow_nan=False) + "\n"

    def _repr_html_(self) -> str:
        # In a separate frame, so that the styles of notebook and page do not affect each other
        return (
            f'<iframe title="Why this candidate won" sandbox srcdoc="{escape(self.to_html())}" '
            'style="width: 100%; height: 40rem; border: 0"></iframe>'
        )

    def __rich__(self) -> RenderableType:
        return terminal(self.prompts, self.calibrated, self.base_model)


def explain(
    out: BestOfNOutput,
    tokenizer: Any,
    head: ElhsrRewardHead | str | os.PathLike[str] | None = None,
    model: Any = None,
    attention_mask: torch.Tensor | None = None,
) -> Explanation:
    """Show why a candidate won: every token's reward and gate, the running reward, and the layers' shares in it.

        out = model.generate(
            **inputs, best_of_n=8, reward_head=head, return_dict_in_generate=True, output_token_rewards=True
        )
        explain(out, tokenizer, head, model).save("why.html")

    Args:
        out: What `generate(best_of_n=n, return_dict_in_generate=True, output_token_rewards=True)` returned.
        tokenizer: The language model's tokenizer.
        head: The head that selected the winner, an [`ElhsrRewardHead`], a folder or a repository. Its calibration gives
            P(correct); without one, P(correct) is sigmoid(R).
        model: The language model. With it, and a head that reads hidden states, each candidate is read once more for
            the layers' shares, one at a time.
        attention_mask: (batch, prompt_length), as passed to `generate`. Needed if prompts are padded.

    Returns:
        An [`Explanation`], which a notebook displays, `rich` prints, and `save` writes as a page.

    Raises:
        ValueError: `out` has no token rewards, there is a model without its head or one that the head was not made for,
            padded prompts have no mask, or rewards cannot be reproduced with this model and head.
    """
    if out.token_rewards is None or out.token_gates is None:
        raise ValueError(
            "This output has no token_rewards and token_gates: call generate with output_token_rewards=True and "
            "return_dict_in_generate=True."
        )
    if model is not None and head is None:
        raise ValueError("The layers' shares need the head as well as the model: pass head=, or leave out the model.")
    head = None if head is None else load_reward_head(head)
    if head is not None and model is not None:
        model = unwrap_language_model(model)
        head.config.check_fits(model)
        # Other signals have no layers
        model = model if head.config.reads.has_layers else None
    return _Explaining(out, tokenizer, head, model, attention_mask).explanation()


class _Explaining:
    """One call of [`explain`], everything on the CPU."""

    def __init__(
        self, out: Any, tokenizer: Any, head: ElhsrRewardHead | None, model: Any, attention_mask: torch.Tensor | None
    ):
        self._out = {name: value.cpu() for name, value in out.items() if isinstance(value, torch.Tensor)}
        self._tokenizer, self._head, self._model = tokenizer, head, model
        lengths = self._out["lengths"]
        # Candidates are padded to the longest of them, and begin with the prompt
        self._prompt_length = self._out["candidates"].shape[-1] - int(lengths.max())
        self._masks = self._prompt_masks(attention_mask)
        # With `combine`, `rewards` are combined ones, and those of the single head are in `source_rewards`
        by_source = self._out.get("source_rewards")
        self._rewards = self._out["rewards"] if by_source is None else by_source[..., 0]
        self._combined = by_source is not None

    def explanation(self) -> Explanation:
        prompts = tuple(self._prompt(row) for row in range(len(self._rewards)))
        config = None if self._head is None else self._head.config
        return Explanation(
            prompts,
            calibrated=config is not None and config.calibration is not None,
            base_model=None if config is None else config.base_model,
        )

    def _prompt_masks(self, attention_mask: torch.Tensor | None) -> torch.Tensor:
        prompts = self._out["candidates"][:, 0, : self._prompt_length]
        pad = getattr(self._tokenizer, "pad_token_id", None)
        if attention_mask is not None:
            if attention_mask.shape != prompts.shape:
                raise ValueError(
                    f"Expected the attention_mask of the prompts, {tuple(prompts.shape)}, got one of shape "
                    f"{tuple(attention_mask.shape)}: pass the one that was passed to generate."
                )
            return attention_mask.cpu().bool()
        if self._model is None:
            # Padding is only left out of what is shown, so a guess is enough
            return torch.ones_like(prompts, dtype=torch.bool) if pad is None else (prompts != pad).cumsum(-1) > 0
        if not self._prompt_length:
            raise ValueError(
                "The prompt was given as embeddings, so candidates cannot be read again for the layers' shares: leave "
                "out the model."
            )
        if len(prompts) > 1 and pad is not None and bool((prompts[:, 0] == pad).any()):
            raise ValueError(
                "A prompt begins with the padding token, so it is unknown which of its tokens the model saw: pass "
                "attention_mask=inputs['attention_mask']."
            )
        return torch.ones_like(prompts, dtype=torch.bool)

    def _prompt(self, row: int) -> ExplainedPrompt:
        prompt = self._out["candidates"][row, 0, : self._prompt_length][self._masks[row]]
        confidence, abstained = self._out.get("confidence"), self._out.get("abstained")
        return ExplainedPrompt(
            text="".join(token_texts(self._tokenizer, prompt.tolist())),
            candidates=tuple(self._candidate(row, index, prompt) for index in self._best_first(row)),
            confidence=None if confidence is None else float(confidence[row]),
            abstained=None if abstained is None else bool(abstained[row]),
        )

    def _best_first(self, row: int) -> list[int]:
        """Candidates in the order in which winners are selected, then pruned ones, then those that never started."""
        decided, rewards = self._out["rewards"][row].tolist(), self._rewards[row].tolist()
        pruned, lengths = self._out["pruned"][row].tolist(), self._out["lengths"][row].tolist()
        return sorted(range(len(rewards)), key=lambda i: (lengths[i] == 0, pruned[i], -decided[i], -rewards[i]))

    def _candidate(self, row: int, index: int, prompt: torch.Tensor) -> ExplainedCandidate:
        length = int(self._out["lengths"][row, index])
        if not length:
            return ExplainedCandidate(index, reward=None, probability=None, tokens=())
        reward, pruned = float(self._rewards[row, index]), bool(self._out["pruned"][row, index])
        completion = self._out["candidates"][row, index, self._prompt_length : self._prompt_length + length]
        return ExplainedCandidate(
            index,
            reward=reward,
            probability=None if pruned else float(self._calibration.probability(torch.tensor(reward))),
            tokens=self._tokens(row, index, completion.tolist()),
            winner=index == int(self._out["winners"][row, 0]),
            pruned=pruned,
            decided=float(self._out["rewards"][row, index]) if self._combined else None,
            layer_shares=self._layer_shares(prompt, completion, reward),
        )

    def _tokens(self, row: int, index: int, token_ids: list[int]) -> tuple[ExplainedToken, ...]:
        rewards = self._out["token_rewards"][row, index, : len(token_ids)].double()
        gates = self._out["token_gates"][row, index, : len(token_ids)].double()
        aggregation = ElhsrConfig().aggregation if self._head is None else self._head.aggregation
        running = aggregation.rewards(aggregation.summands(TokenOutputs(rewards, gates)).cumsum(0))
        columns = (token_texts(self._tokenizer, token_ids), rewards.tolist(), gates.tolist(), running.tolist())
        return tuple(ExplainedToken(*token) for token in zip(token_ids, *columns, strict=True))

    def _layer_shares(self, prompt: torch.Tensor, completion: torch.Tensor, reward: float) -> LayerShares | None:
        if self._model is None or self._head is None:
            return None
        return layer_shares(self._model, self._head, prompt, completion, reward)

    @property
    def _calibration(self) -> Line:
        if self._head is None or self._head.config.calibration is None:
            return Line(1.0, 0.0)
        return self._head.config.calibration.candidate
