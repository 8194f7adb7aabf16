"""RewardHeadTrainingArguments: how a head is trained, with the default and the paper's recipe as presets."""

import copy
import dataclasses
import math
from dataclasses import dataclass

from .._checks import is_whole_number, whole_number
from ..head.configuration_elhsr import SIGNALS, ElhsrConfig
from .losses import LOSSES


@dataclass(frozen=True)
class RewardHeadTrainingArguments:
    """How a head is trained; [`PRESETS`] has two sets of arguments by name.

    Args:
        loss: The loss of R, a name in [`LOSSES`]. Binary cross-entropy makes sigmoid(R) a probability, starting at the
            share of correct rollouts; with the other losses, R is scaled and shifted to log-odds after training.
            Correct and incorrect rollouts have the same weight, however rare correct ones are: any other weights would
            bias the probabilities.
        learning_rate, weight_decay: For AdamW, on weights that act on features as `standardization` leaves them. Biases
            do not decay.
        prompts_per_batch: Prompts per step, with all their rollouts.
        averaging: Decay of the exponential moving average of the weights, per step; smaller in the first steps, so
            that the start is forgotten. The average is evaluated and kept, since single steps are noisy. 0 for none.
        max_epochs: The maximal number of passes over the training prompts.
        patience: Stop after this many epochs without a better held-out loss.
        held_out: Share of the prompts held out for early stopping.
        seed: Seed of the split and of the order of prompts.
        prompts: Use only this many prompts of the rollouts, from the first, held-out ones included. Default: all.
        gate: Whether tokens are weighted by a learned gate. None: as in the rollouts' configuration, which has one
            unless they were sampled for a head without a gate.
        layers: Which of the recorded layers the head reads, as indices into `hidden_states`; their order does not
            matter. Default: all that were recorded.
        standardization: "per_feature", to mean 0 and variance 1 over the training tokens, or None, for features as
            the language model gives them.

    Raises:
        ValueError: A value is not allowed; the message names the argument.
    """

    loss: str = "binary_cross_entropy"
    learning_rate: float = 2e-4
    weight_decay: float = 1.0
    prompts_per_batch: int = 4
    averaging: float = 0.998
    max_epochs: int = 40
    patience: int = 3
    held_out: float = 0.2
    seed: int = 0
    prompts: int | None = None
    gate: bool | None = None
    layers: tuple[int, ...] | None = None
    standardization: str | None = "per_feature"

    def __post_init__(self) -> None:
        if self.loss not in LOSSES:
            raise ValueError(f"loss={self.loss!r}: expected one of {', '.join(LOSSES)}.")
        if self.standardization not in ("per_feature", None):
            raise ValueError(f"standardization={self.standardization!r}: expected 'per_feature' or None.")
        if self.gate not in (True, False, None):
            raise ValueError(f"gate={self.gate!r}: expected True, False or None.")
        for name in ("prompts_per_batch", "max_epochs", "patience"):
            whole_number(name, getattr(self, name))
        if self.prompts is not None and not is_whole_number(self.prompts, at_least=2):
            raise ValueError(f"prompts={self.prompts!r}: expected a whole number of at least 2, or None for all.")
        whole_number("seed", self.seed, at_least=None)
        allowed = {
            "learning_rate": ("above 0", self.learning_rate > 0),
            "weight_decay": ("of at least 0", self.weight_decay >= 0),
            "averaging": ("of at least 0 and below 1", 0 <= self.averaging < 1),
            "held_out": ("between 0 and 1", 0 < self.held_out < 1),
        }
        for name, (wanted, holds) in allowed.items():
            if not holds or not math.isfinite(getattr(self, name)):
                raise ValueError(f"{name}={getattr(self, name)!r}: expected a finite number {wanted}.")
        if self.layers is not None:
            object.__setattr__(self, "layers", _checked_layers(tuple(self.layers)))

    @classmethod
    def preset(cls, name: str, signal: str) -> "RewardHeadTrainingArguments":
        """The arguments of one of [`PRESETS`]; "default" is adapted to the signal that a head reads.

        Raises:
            ValueError: The preset does not exist.
        """
        if name not in PRESETS:
            raise ValueError(f"preset={name!r}: expected one of {', '.join(PRESETS)}.")
        changes = SIGNALS[signal].training_defaults if name == "default" else {}
        return dataclasses.replace(PRESETS[name], **changes)

    def head_config(self, recorded: ElhsrConfig) -> ElhsrConfig:
        """The configuration of the head to be trained on features recorded with the configuration `recorded`.

        Raises:
            ValueError: Layers were not recorded, or the signal has no layers.
        """
        # A copy: the standardisation and the fitted decisions will be recorded in it
        config = copy.deepcopy(recorded)
        if self.gate is not None:
            config.gate = self.gate
        if self.layers is not None:
            missing = sorted(set(self.layers) - set(recorded.layers))
            if missing:
                raise ValueError(
                    f"layers={list(self.layers)}: layers {missing} were not recorded with these rollouts, which have "
                    f"{recorded.layers or f'{recorded.signal} and no layers'}. Choose from these, or sample again."
                )
            config.layers = list(self.layers)
        return config


def _checked_layers(layers: tuple[int, ...]) -> tuple[int, ...]:
    if not layers or not all(is_whole_number(layer, at_least=0) for layer in layers):
        raise ValueError(
            f"layers={list(layers)}: expected at least one index into hidden_states, counted from 0, or None for all "
            "that were recorded."
        )
    return tuple(sorted(set(layers)))


#: By the names that `hf-elhsr train --preset` takes. "paper" is the recipe of arXiv:2505.12225: AdamW on batches of 16
#: rollouts, on features without standardisation, without averaged weights. Batches here never split a prompt, so the 16
#: are two prompts of eight; with a different n, `prompts_per_batch=16 // n` comes closest.
PRESETS: dict[str, RewardHeadTrainingArguments] = {
    "default": RewardHeadTrainingArguments(),
    "paper": RewardHeadTrainingArguments(
        learning_rate=1e-4, weight_decay=1e-5, prompts_per_batch=2, averaging=0.0, standardization=None
    ),
}
