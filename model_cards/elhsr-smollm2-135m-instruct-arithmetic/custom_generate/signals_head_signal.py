# Made by hf_elhsr 0.1.0 from its hf_elhsr/signals/head_signal.py, where changes belong.
# Copyright the hf_elhsr authors, Apache License 2.0: https://www.apache.org/licenses/LICENSE-2.0

"""What a head of a given configuration needs of a step, and the h_t that it reads there."""

import torch

from .configuration_elhsr import ElhsrConfig
from .modeling_signals import distribution_features
from .signals_step_signal import SignalNeeds, StepSignal


def head_needs(config: ElhsrConfig) -> SignalNeeds:
    """What must be shown of every token to a head of this configuration."""
    if config.signal == "hidden_states":
        return SignalNeeds(layers=frozenset(config.layers))
    return SignalNeeds(logits=True)


def head_features(
    config: ElhsrConfig, input_ids: torch.Tensor, signal: StepSignal, device: torch.device | str | None = None
) -> torch.Tensor:
    """h_t of every row's last token: (rows, `config.num_features`).

    Raises:
        ValueError: The step does not show what [`head_needs`] names.
    """
    return torch.cat(head_parts(config, input_ids, signal, device), dim=-1)


def head_parts(
    config: ElhsrConfig, input_ids: torch.Tensor, signal: StepSignal, device: torch.device | str | None = None
) -> list[torch.Tensor]:
    """What [`head_features`] puts side by side: (rows, d) of every layer, or h_t itself where it has no layers."""
    if config.signal == "hidden_states":
        return signal.states(config.layers, device)
    if signal.logits is None:
        raise ValueError("This step has no logits: name them in the processor's `needs`.")
    features = distribution_features(config.signal, signal.logits, input_ids[:, -1], config.num_log_probabilities)
    return [features if device is None else features.to(device)]
