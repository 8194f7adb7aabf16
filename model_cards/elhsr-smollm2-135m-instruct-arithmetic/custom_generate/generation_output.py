# Made by hf_elhsr 0.1.0 from its hf_elhsr/generation/output.py, where changes belong.
# Copyright the hf_elhsr authors, Apache License 2.0: https://www.apache.org/licenses/LICENSE-2.0

"""What best-of-n returns."""

from dataclasses import dataclass

import torch
from transformers.utils import ModelOutput

from .generation_output_table import output_table


@dataclass
class BestOfNOutput(ModelOutput):
    """Output of `generate(best_of_n=n, num_return_sequences=k, return_dict_in_generate=True)` for a batch of prompts.

    Args:
        sequences: (batch * k, length) long. The k best of every prompt, best first, prompt included, right-padded
            to the longest of them.
        rewards: (batch, n) float32. R of every candidate; sigmoid(R) estimates P(correct). Of a pruned candidate, R
            of the tokens it has; -inf for one that was never sampled.
            With `combine` what it made of the sources' rewards; votes, for instance.
        source_rewards: (batch, n, sources) float32, with `combine`. What every source said.
        candidates: (batch, n, length) long. Every candidate, prompt included, right-padded to the longest.
        lengths: (batch, n) long. Sampled tokens of every candidate, the EOS included; 0 if never sampled (`adaptive`).
        pruned: (batch, n) bool. Stopped before its end (`prune`, `adaptive`), so that it could not win.
        winners: (batch, k) long. Which candidates `sequences` are.
        confidence: (batch,) float32. Calibrated P(correct) of the best; where the head has a calibration.
        abstained: (batch,) bool, with `min_confidence`. No candidate is trusted that much.
        token_rewards: (batch, n, new_tokens) float32, with `output_token_rewards=True`. r_t, zero past the end.
        token_gates: (batch, n, new_tokens) float32, with `output_token_rewards=True`. g_t, zero past the end.
        scores, logits: As `generate` returns them with `output_scores` / `output_logits`: a tuple over new tokens of
            (batch * k, vocabulary), for the winners; zero past a winner's end.
        attentions, hidden_states: As `generate` returns them with `output_attentions` / `output_hidden_states`, for
            the winners; zero past a winner's end.
    """

    sequences: torch.Tensor | None = None
    rewards: torch.Tensor | None = None
    source_rewards: torch.Tensor | None = None
    candidates: torch.Tensor | None = None
    lengths: torch.Tensor | None = None
    pruned: torch.Tensor | None = None
    winners: torch.Tensor | None = None
    confidence: torch.Tensor | None = None
    abstained: torch.Tensor | None = None
    token_rewards: torch.Tensor | None = None
    token_gates: torch.Tensor | None = None
    scores: tuple[torch.Tensor, ...] | None = None
    logits: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[tuple[torch.Tensor, ...], ...] | None = None
    hidden_states: tuple[tuple[torch.Tensor, ...], ...] | None = None

    def _repr_html_(self) -> str | None:
        # What a notebook displays; without these it shows the plain text
        known = (self.rewards, self.lengths, self.pruned, self.winners)
        return None if any(value is None for value in known) else output_table(self)
