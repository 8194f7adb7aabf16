"""The reward, independently: float64 NumPy from the equations, fed by one plain forward pass per candidate."""

import inspect

import numpy as np
import torch


def oracle_reward(features: np.ndarray, weight: np.ndarray, bias: np.ndarray, eps: float = 1e-8) -> float:
    """[gate_logit_t, r_t] = W h_t + b; g_t = sigmoid(gate_logit_t); R = sum g_t r_t / max(sum g_t, eps)."""
    outputs = features.astype(np.float64) @ weight.astype(np.float64).T + bias.astype(np.float64)
    if weight.shape[0] == 1:
        return float(outputs[:, 0].mean())
    gates = 1.0 / (1.0 + np.exp(-outputs[:, 0]))
    return float((gates * outputs[:, 1]).sum() / max(gates.sum(), eps))


@torch.no_grad()
def plain_features(model, prompt: torch.Tensor, completion: torch.Tensor, layers: list[int]) -> np.ndarray:
    """h_t of the completion's tokens: no padding, no cache, no batch."""
    ids = torch.cat([prompt, completion])[None]
    kwargs = {"use_cache": False} if "use_cache" in inspect.signature(model.forward).parameters else {}
    states = model(input_ids=ids, output_hidden_states=True, return_dict=True, **kwargs).hidden_states
    features = torch.cat([states[layer][0, len(prompt) :] for layer in layers], dim=-1)
    return features.float().numpy()


def oracle_rewards(model, head, out, inputs) -> np.ndarray:
    """Rewards (batch, n) of a BestOfNOutput's candidates, from their token ids alone."""
    weight, bias = head.weight.detach().numpy(), head.bias.detach().numpy()
    prompt_length = inputs["input_ids"].shape[1]
    rewards = np.empty(tuple(out.lengths.shape))
    for row, column in np.ndindex(*rewards.shape):
        prompt = inputs["input_ids"][row][inputs["attention_mask"][row].bool()]
        end = prompt_length + int(out.lengths[row, column])
        completion = out.candidates[row, column, prompt_length:end]
        features = plain_features(model, prompt, completion, head.config.layers)
        rewards[row, column] = oracle_reward(features, weight, bias, head.config.eps)
    return rewards


def assert_rewards_close(actual, expected, tolerance: float = 1e-4) -> None:
    """At most tolerance * max(1, |R|) apart."""
    actual, expected = np.asarray(actual, dtype=np.float64), np.asarray(expected, dtype=np.float64)
    assert actual.shape == expected.shape
    error = np.abs(actual - expected) / np.maximum(1.0, np.abs(expected))
    assert error.max() <= tolerance, f"rewards are up to {error.max():.2e} apart (relative), allowed {tolerance:.0e}"
