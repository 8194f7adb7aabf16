"""generate: best-of-n where hf_elhsr is not installed, as `model.generate(custom_generate="org/name")` runs it.

This module and all that it imports are published with a head, see [`write_custom_generate`], as `generate.py`.
"""

import functools
import inspect
import os
import re
from pathlib import Path
from typing import Any

from transformers.generation import GenerationMixin

from ..generation.mixin import best_of_n_view
from ..head.loading import load_reward_head
from ..head.modeling_elhsr import ElhsrRewardHead

# Filled in when the head is published
PUBLISHED_AS: str | None = None

# Arguments that say where code and head are loaded from; transformers passes them on with the rest
_LOADING = ("cache_dir", "force_download", "local_files_only", "revision", "token")


def generate(model: Any, best_of_n: int | None = None, reward_head: Any = None, **kwargs: Any) -> Any:
    """Generate the best of n sampled candidates for every prompt, selected by the head that has this code.

        model.generate(**inputs, custom_generate="org/name", best_of_n=8, trust_remote_code=True)

    With the same seed, winner and rewards are those of the package's `generate(best_of_n=8, reward_head="org/name")`.

    Args:
        model: The language model that the head was trained for.
        best_of_n: How many candidates to sample for every prompt.
        reward_head: A head to use instead: a folder, "org/name" or "org/name@revision". Or a function of prompts and
            completions that returns a score for each; or a list of these, with `combine`.
        **kwargs: All arguments of `generate`, and those that best-of-n adds: `prune`, `adaptive`, `min_confidence`,
            `max_parallel`, `combine`, `extract_answer`, `output_token_rewards`. `revision`, `token`, `cache_dir` and
            the like say where code and head are loaded from.

    Returns:
        (batch * k, length) long: the winners, best first, for `num_return_sequences=k`; or, with
        `return_dict_in_generate=True`, a `BestOfNOutput` with the rewards.

    Raises:
        ValueError: The call cannot work: no best_of_n, a head for another model, beam search and the like.
    """
    loading = {name: kwargs.pop(name) for name in _LOADING if name in kwargs}
    if best_of_n is None:
        raise ValueError("This custom_generate selects the best of n candidates: pass best_of_n, e.g. best_of_n=8.")
    if reward_head is None:
        reward_head = _own_head(loading)
    return best_of_n_view(model).generate(best_of_n=best_of_n, reward_head=reward_head, **kwargs)


def _own_head(loading: dict[str, Any]) -> ElhsrRewardHead:
    """The head that was published with this code: from the same folder, or from the same commit of its repository."""
    source = _custom_generate_argument()
    if source is not None and os.path.isdir(source):
        return load_reward_head(source)
    # transformers has copied this file to .../<owner>/<name>/<commit>/custom_generate/generate.py
    commit = Path(__file__).parents[1].name
    repo_id = source or PUBLISHED_AS
    if repo_id is None or not re.fullmatch("[0-9a-f]{40}", commit):
        raise ValueError(
            "The head that this code was published with cannot be found, since it is unknown where the code was loaded "
            "from: pass reward_head, a folder or 'org/name'."
        )
    options = {name: value for name, value in loading.items() if name in ("cache_dir", "local_files_only", "token")}
    return _head_at(repo_id, commit, **options)


def _custom_generate_argument() -> str | None:
    """The argument `custom_generate` of the current call of transformers' `generate`, which does not pass it on.

    It is needed for local folders, of whose path the copy that transformers has made keeps only the name.
    """
    code = inspect.unwrap(GenerationMixin.generate).__code__
    frame = inspect.currentframe()
    while frame is not None and frame.f_code is not code:
        frame = frame.f_back
    given = None if frame is None else frame.f_locals.get("custom_generate")
    return given if isinstance(given, str) else None


@functools.lru_cache(maxsize=8)
def _head_at(repo_id: str, commit: str, **options: Any) -> ElhsrRewardHead:
    head: ElhsrRewardHead = ElhsrRewardHead.from_pretrained(repo_id, revision=commit, **options)
    return head
