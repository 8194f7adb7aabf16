"""Scored rollouts with a planted truth: token rewards that lean towards the label more and more."""

import numpy as np

from hf_elhsr.decisions.scored_rollouts import ScoredRollouts


def made_rollouts(prompts=300, n=6, tokens=32, seed=0, signal=1.2, shuffle=False) -> ScoredRollouts:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(2, tokens + 1, size=(prompts, n))
    labels = rng.random((prompts, n)) < 0.3
    shown = rng.permuted(labels, axis=1) if shuffle else labels
    noise = rng.normal(size=(prompts, n, 1)) + 3 * rng.normal(size=(prompts, n, tokens))
    token_rewards = signal * (2.0 * shown[..., None] - 1) - 0.5 + noise
    token_gates = rng.uniform(0.05, 0.95, size=token_rewards.shape)
    log_probabilities = -rng.exponential(size=token_rewards.shape)
    past_the_end = np.arange(tokens) >= lengths[..., None]
    for array in (token_rewards, token_gates, log_probabilities):
        # What lies past the end must not matter
        array[past_the_end] = np.nan
    return ScoredRollouts(
        token_rewards.astype(np.float32),
        token_gates.astype(np.float32),
        lengths,
        labels,
        log_probabilities.astype(np.float32),
    )
