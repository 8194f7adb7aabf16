"""ScoredRollouts: what a head computed of every token of finished rollouts, for fitting and replaying decisions."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from ..head.token_outputs import Aggregation, TokenOutputs


@dataclass(frozen=True)
class ScoredRollouts:
    """n rollouts for each of some prompts, padded to the longest.

    Args:
        token_rewards: (prompts, n, tokens) float32, r_t; values past a rollout's end are ignored.
        token_gates: (prompts, n, tokens) float32, g_t; one for heads without a gate.
        lengths: (prompts, n) int64, sampled tokens, at least 1.
        labels: (prompts, n) bool, whether the final answer is correct.
        token_log_probabilities: (prompts, n, tokens) float32, the language model's log p_t, where recorded.
        token_values: (prompts, n, tokens) float32, v_t, for heads with `config.value`.
        eps: The head's `config.eps`.

    Raises:
        ValueError: Shapes that do not match, empty rollouts, or values that are not finite.
    """

    token_rewards: np.ndarray
    token_gates: np.ndarray
    lengths: np.ndarray
    labels: np.ndarray
    token_log_probabilities: np.ndarray | None = None
    token_values: np.ndarray | None = None
    eps: float = 1e-8

    def __post_init__(self) -> None:
        shape = self.token_rewards.shape
        given = {
            "token_gates": self.token_gates,
            "token_log_probabilities": self.token_log_probabilities,
            "token_values": self.token_values,
        }
        mismatched = {name: array.shape for name, array in given.items() if array is not None and array.shape != shape}
        if len(shape) != 3 or mismatched or self.lengths.shape != shape[:2] or self.labels.shape != shape[:2]:
            raise ValueError(
                "Expected token arrays of one shape (prompts, n, tokens), and lengths and labels (prompts, n), "
                f"got token_rewards {shape}, lengths {self.lengths.shape}, labels {self.labels.shape}, {mismatched}."
            )
        if not shape[0] or self.lengths.min() < 1 or self.lengths.max() > shape[2]:
            raise ValueError(f"Expected prompts whose rollouts have between 1 and {shape[2]} tokens each.")
        sampled = np.arange(shape[2]) < self.lengths[..., None]
        if not np.isfinite(self.token_rewards[sampled]).all() or not np.isfinite(self.token_gates[sampled]).all():
            raise ValueError("Token rewards or gates contain NaN or infinity: train or download the head again.")

    def __getitem__(self, prompts: np.ndarray | slice) -> "ScoredRollouts":
        """Some of the prompts."""
        return self._each(lambda array: array[prompts])

    def reordered(self, order: np.ndarray) -> "ScoredRollouts":
        """The rollouts of every prompt in another order, (prompts, n) int64."""
        return self._each(
            lambda array: np.take_along_axis(array, order.reshape(*order.shape, *[1] * (array.ndim - 2)), axis=1)
        )

    def _each(self, change: Callable[[np.ndarray], np.ndarray]) -> "ScoredRollouts":
        log_probabilities, values = self.token_log_probabilities, self.token_values
        return ScoredRollouts(
            change(self.token_rewards),
            change(self.token_gates),
            change(self.lengths),
            change(self.labels),
            None if log_probabilities is None else change(log_probabilities),
            None if values is None else change(values),
            self.eps,
        )

    @cached_property
    def rewards(self) -> np.ndarray:
        """(prompts, n) float64: R of the whole rollouts."""
        whole: np.ndarray = self.prefix_features(self.token_rewards.shape[2])[..., 0].double().numpy()
        return whole

    def prefix_features(self, steps: int) -> torch.Tensor:
        """(prompts, n, 3 or 4) float32: `Aggregation.prefix_features` after `steps` tokens, or all there are."""
        seen = torch.from_numpy(np.minimum(self.lengths, steps))
        places = (seen - 1)[..., None, None].expand(*seen.shape, 1, self._sums.shape[-1])
        return self._aggregation.prefix_features(self._sums.gather(-2, places).squeeze(-2)).float()

    def mean_log_probability(self, steps: int) -> torch.Tensor:
        """(prompts, n, 1) float32: mean log p_t over the first tokens, the feature of a pruner without a head.

        Raises:
            ValueError: Log-probabilities were not recorded.
        """
        if self._log_probability_sums is None:
            raise ValueError("These rollouts have no token log-probabilities: sample them with a head.")
        seen = np.minimum(self.lengths, steps)
        return torch.from_numpy(_upto(self._log_probability_sums, seen) / seen).float()[..., None]

    @property
    def _aggregation(self) -> Aggregation:
        return Aggregation(self.eps, value=self.token_values is not None)

    @cached_property
    def _sums(self) -> torch.Tensor:
        """(prompts, n, tokens, 4 or 5) float64: what the head sums, over all tokens up to each."""
        rewards, gates = torch.from_numpy(self.token_rewards).double(), torch.from_numpy(self.token_gates).double()
        values = None if self.token_values is None else torch.from_numpy(self.token_values).double()
        return self._aggregation.summands(TokenOutputs(rewards, gates, values)).cumsum(-2)

    @cached_property
    def _log_probability_sums(self) -> np.ndarray | None:
        given = self.token_log_probabilities
        return None if given is None else given.cumsum(-1, dtype=np.float64)


def _upto(sums: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """(prompts, n): the running sums after `steps` tokens."""
    return np.take_along_axis(sums, steps[..., None] - 1, axis=-1)[..., 0]
