# Made by hf_elhsr 0.1.0 from its hf_elhsr/rewards/caches.py, where changes belong.
# Copyright the hf_elhsr authors, Apache License 2.0: https://www.apache.org/licenses/LICENSE-2.0

"""The caches among a model's inputs, and copies of them."""

import copy
from typing import Any

import torch
from transformers import Cache

#: Under which names models take their cache.
CACHE_NAMES = ("past_key_values", "cache_params")


def copy_cache(cache: Cache) -> Cache:
    """A copy that shares nothing with the original, of a cache that may have been filled with gradients on."""
    memo: dict[int, Any] = {}
    for layer in cache.layers:
        for value in vars(layer).values():
            for tensor in value.values() if isinstance(value, dict) else [value]:
                if isinstance(tensor, torch.Tensor) and not tensor.is_leaf:
                    # deepcopy refuses these
                    memo[id(tensor)] = tensor.detach().clone()
    return copy.deepcopy(cache, memo)
