"""layer_shares: how much of a candidate's reward every layer makes."""

from typing import Any

import torch
from transformers import PreTrainedModel

from ..modeling_elhsr import ElhsrRewardHead, plain_inputs
from .parts import LayerShares

# R while decoding and R re-scored differ by rounding, which benchmarks/bfloat16.py measures; more is a mistake
_TOLERANCE = {torch.float32: 0.01, torch.float64: 0.01}
_HALF_TOLERANCE = 0.3


@torch.no_grad()
def layer_shares(
    model: PreTrainedModel, head: ElhsrRewardHead, prompt: torch.Tensor, completion: torch.Tensor, reward: float
) -> LayerShares:
    """Read one candidate again and take its reward apart.

    R = sum_t g_t (sum_l w_l h_{l,t} + b) / sum_t g_t is a sum over layers, once the gates are known. The pass is of one
    candidate without padding, so that it takes the memory of one sequence's hidden states.

    Args:
        model: The language model, unwrapped, that the head was made for.
        head: Reads hidden states.
        prompt, completion: (tokens,) long, of one candidate, without padding.
        reward: R while decoding.

    Raises:
        ValueError: R read again is another one by more than rounding.
    """
    # A model whose weights are all offloaded says that it is on "meta"
    device = "cpu" if model.device.type == "meta" else model.device
    input_ids = torch.cat([prompt, completion])[None].to(device)
    inputs: dict[str, Any] = plain_inputs(model, input_ids, torch.ones_like(input_ids))
    outputs = model(**inputs, output_hidden_states=list(head.config.layers), return_dict=True)
    states = [outputs.hidden_states[layer][0, len(prompt) :] for layer in head.config.layers]
    del outputs
    weights = head.weight.detach().cpu().double().split(head.config.hidden_size, dim=-1)
    bias = head.bias.detach().cpu().double()
    # (rows of the head, layers, tokens): a layer at a time, and the copy in float64 is on the CPU, since not every
    # device has it
    parts = torch.stack([weight @ state.cpu().double().T for weight, state in zip(weights, states, strict=True)], dim=1)
    gates = torch.sigmoid(parts[0].sum(dim=0) + bias[0]) if head.config.gate else torch.ones(len(completion)).double()
    total = gates.sum().clamp_min(head.config.eps)
    shares = (parts[-1] @ gates) / total
    of_bias = bias[-1] * gates.sum() / total
    rounding = reward - float(shares.sum() + of_bias)
    tolerance = _TOLERANCE.get(model.dtype, _HALF_TOLERANCE) * max(1.0, abs(reward))
    if not abs(rounding) <= tolerance:
        raise ValueError(
            f"A candidate's reward was {reward:.4f} while decoding and is {reward - rounding:.4f} read again: pass the "
            "model, the head and the attention_mask of the call to generate; a prompt of more than token ids (images, "
            "a cache of its own) cannot be read again, so leave out the model."
        )
    return LayerShares(tuple(head.config.layers), tuple(shares.tolist()), float(of_bias), rounding)
