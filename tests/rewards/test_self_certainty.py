"""Self-certainty compared with a float64 oracle that runs one forward pass over each candidate."""

import numpy as np
import pytest
import torch

from hf_elhsr import StepSignal
from hf_elhsr.rewards import RunningSelfCertainty


def oracle(logits):
    """Mean over tokens of KL(U || p), summed as defined: (tokens, vocabulary) -> number."""
    logits = logits.double().numpy()
    p = np.exp(logits - logits.max(axis=-1, keepdims=True))
    p /= p.sum(axis=-1, keepdims=True)
    uniform = 1 / p.shape[-1]
    return float((uniform * np.log(uniform / p)).sum(axis=-1).mean())


def test_candidates_of_ragged_prompts_have_the_certainty_of_the_oracle(model, inputs):
    running = RunningSelfCertainty()
    torch.manual_seed(0)
    candidates = model.sample_candidates(**inputs, n=4, signal_processor=[running], max_new_tokens=10, temperature=0.7)
    expected = []
    for number in range(12):
        row, column = divmod(number, 4)
        prompt = inputs["input_ids"][row][inputs["attention_mask"][row].bool()]
        completion = candidates.completion(row, column)
        with torch.no_grad():
            logits = model(torch.cat([prompt, completion])[None]).logits[0]
        expected.append(oracle(logits[len(prompt) - 1 : -1]))
    assert running.mean.tolist() == pytest.approx(expected, rel=1e-3)
    assert np.std(expected) > 0.05 * np.mean(expected)


def test_uniform_is_zero_and_impossible_tokens_do_not_count():
    running = RunningSelfCertainty()
    running.begin(3, torch.device("cpu"))
    logits = torch.tensor([[0.0, 0.0, 0.0, 0.0], [1.0, 2.0, -torch.inf, 0.5], [5.0, 1.0, 1.0, 1.0]])
    active = torch.tensor([True, True, False])
    running(torch.zeros(3, 1, dtype=torch.long), StepSignal(torch.arange(3), active, logits=logits))
    assert running.mean.tolist() == pytest.approx([0.0, oracle(logits[1:2, [0, 1, 3]]), 0.0], abs=1e-6)
