"""check_cache: whether a model's state is in a cache whose rows can multiply, tried once for every model."""

from typing import Any
from weakref import WeakKeyDictionary

import torch
from transformers import Cache, PreTrainedModel

from ..transformers_internals import updated_model_kwargs
from .batch import CACHE_NAMES, copy_cache, inputs_of_last_token, last_logits, select_model_kwargs, uses_cache

# Of the logits, relative to their standard deviation. Rounding differs with the number of rows, in half precision so
# much that a router of experts may choose another one
_TOLERANCE, _TOLERANCE_IN_HALF_PRECISION = 0.01, 0.2
# By model, the caches that it was tried with
_TRIED: "WeakKeyDictionary[PreTrainedModel, set[tuple[type, ...]]]" = WeakKeyDictionary()


def check_cache(
    model: PreTrainedModel, input_ids: torch.Tensor, logits: torch.Tensor, model_kwargs: dict[str, Any], room: int
) -> None:
    """Refuse a model that decodes differently when its rows multiply, because of state that is not in its cache.

    What the model does is looked at, not what it is called. After the prefill, tokens a and b are fed to a copy of the
    cache; then other tokens to another copy; and then a and b again to a third, which has a row more for the first of
    them. Where all state is in the cache, the first and the last time agree. Neither the inputs nor the random state
    are changed.

    Args:
        input_ids: (prompts, length) long.
        logits: (prompts, vocabulary) of the next token.
        model_kwargs: The model's inputs for the next token.
        room: How many tokens the cache has to have room for.

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
    # In training mode dropout makes every pass another
    if kinds in tried or model.training:
        return
    a, b = logits.topk(2, dim=-1).indices.unbind(-1)
    prompts = list(range(len(input_ids)))
    device = input_ids.device

    def decode(rows: list[int], fed: list[torch.Tensor]) -> torch.Tensor:
        """(tokens fed, prompts, vocabulary) logits. `rows` end with all prompts; those before leave after a step."""
        copies = {key: copy_cache(model_kwargs[key]) for key in CACHE_NAMES if model_kwargs.get(key) is not None}
        kwargs, ids = model_kwargs | copies, input_ids
        index = prompt = torch.tensor(rows, device=device)
        steps = []
        for tokens in fed:
            kwargs = select_model_kwargs(kwargs, index, rows=len(ids))
            ids = torch.cat([ids[index], tokens[prompt, None]], dim=-1)
            outputs = model(**inputs_of_last_token(model, ids, kwargs), return_dict=True)
            kwargs = updated_model_kwargs(model, outputs, kwargs)
            prompt = torch.arange(len(prompts), device=device)
            index = prompt + len(ids) - len(prompts)
            steps.append(last_logits(outputs, ids, index))
        return torch.stack(steps)

    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        try:
            before = decode(prompts, [a, b][:room])
            decode(prompts, [b, a][:room])
            after = decode([prompts[-1], *prompts], [a, b][:room])
        except (AttributeError, IndexError, NotImplementedError, TypeError, ValueError, RuntimeError) as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            raise _refusal(name, f"cannot multiply its rows ({type(error).__name__}: {str(error)[:200]})") from error
    tolerance = _TOLERANCE if model.dtype in (torch.float32, torch.float64) else _TOLERANCE_IN_HALF_PRECISION
    # NaN is refused elsewhere, for what it is
    if bool(((after - before).std(dim=-1) > tolerance * before.std(dim=-1)).any()):
        raise _refusal(name, "keeps state outside its cache, or in a cache whose rows do not multiply")
    tried.add(kinds)


def _refusal(name: str, what: str) -> ValueError:
    return ValueError(
        f"{name} {what}, so best_of_n cannot share the prompt among candidates. Pass use_cache=False, which is slower "
        "but works."
    )
