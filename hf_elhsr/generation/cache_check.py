"""check_cache: whether a model's state is in a cache whose rows can multiply, tried once for every model."""

from typing import Any
from weakref import WeakKeyDictionary

import torch
from transformers import Cache, PreTrainedModel

from .batch import CACHE_NAMES, copy_cache, inputs_of_last_token, last_logits, select_model_kwargs, uses_cache

# Of the logits, relative to their standard deviation. Rounding differs with the number of rows, in half precision so
# much that a router of experts may choose another one
_TOLERANCE, _TOLERANCE_IN_HALF_PRECISION = 0.01, 0.2
# By model, the caches that it was tried with
_TRIED: WeakKeyDictionary[PreTrainedModel, set[tuple[type, ...]]] = WeakKeyDictionary()


def check_cache(
    model: PreTrainedModel, input_ids: torch.Tensor, logits: torch.Tensor, model_kwargs: dict[str, Any]
) -> None:
    """Refuse a model that decodes differently when its rows multiply, because of state that is not in its cache.

    What the model does is looked at, not what it is called. After the prefill, token a is fed to a copy of the cache,
    then token b to another copy, and then a to a third copy with a row more. Where all state is in the cache, the first
    and the last time agree. Neither the inputs nor the random state are changed.

    Args:
        input_ids: (prompts, length) long.
        logits: (prompts, vocabulary) of the next token.
        model_kwargs: The model's inputs for the next token.

    Raises:
        ValueError: The state is not a `Cache`, is kept elsewhere, or its rows cannot multiply.
    """
    if not uses_cache(model_kwargs.get("use_cache")):
        return
    name = type(model).__name__
    caches = [model_kwargs[name] for name in CACHE_NAMES if model_kwargs.get(name) is not None]
    if not any(isinstance(cache, Cache) for cache in caches):
        raise _refusal(name, "keeps its state in a form whose rows cannot be multiplied")
    tried = _TRIED.setdefault(model, set())
    kinds = tuple(type(layer) for cache in caches for layer in getattr(cache, "layers", [cache]))
    if kinds in tried:
        return
    a, b = logits.topk(2, dim=-1).indices.unbind(-1)
    prompts = list(range(len(input_ids)))
    device = input_ids.device

    def step(tokens: torch.Tensor, rows: list[int]) -> torch.Tensor:
        index = torch.tensor(rows, device=device)
        copies = {key: copy_cache(model_kwargs[key]) for key in CACHE_NAMES if model_kwargs.get(key) is not None}
        kwargs = select_model_kwargs(model_kwargs | copies, index, rows=len(input_ids))
        ids = torch.cat([input_ids[index], tokens[index, None]], dim=-1)
        # For models in training mode, so that dropout is the same
        torch.manual_seed(0)
        return last_logits(model(**inputs_of_last_token(model, ids, kwargs), return_dict=True), ids)

    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        try:
            before = step(a, prompts)
            step(b, prompts)
            after = step(a, [prompts[-1], *prompts])[1:]
        except (AttributeError, IndexError, NotImplementedError, TypeError, ValueError, RuntimeError) as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            raise _refusal(name, f"cannot multiply its rows ({type(error).__name__}: {str(error)[:200]})") from error
    tolerance = _TOLERANCE if model.dtype in (torch.float32, torch.float64) else _TOLERANCE_IN_HALF_PRECISION
    # Not `>`, which NaN would pass
    if not bool(((after - before).std(dim=-1) <= tolerance * before.std(dim=-1)).all()):
        raise _refusal(name, "keeps state outside its cache, or in a cache whose rows do not multiply")
    tried.add(kinds)


def _refusal(name: str, what: str) -> ValueError:
    return ValueError(
        f"{name} {what}, so best_of_n cannot share the prompt among candidates. Pass use_cache=False: slower, but it "
        "works."
    )
