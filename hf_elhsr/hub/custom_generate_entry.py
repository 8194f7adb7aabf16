"""generate: best-of-n where hf_elhsr is not installed, as `model.generate(custom_generate="org/name")` runs it.

This module and what it imports travel with a published head, see [`write_custom_generate`]; there it is `generate.py`.
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

# Written in when the head is published
PUBLISHED_AS: str | None = None

# What says where code and head are loaded from; transformers hands it on with the rest
_LOADING = ("cache_dir", "force_download", "local_files_only", "revision", "token")


def generate(model: Any, best_of_n: int | None = None, reward_head: Any = None, **kwargs: Any) -> Any:
    """The best of n sampled candidates for every prompt, chosen by the head that this code was published with.

        model.generate(**inputs, custom_generate="org/name", best_of_n=8, trust_remote_code=True)

    Same seed, same winner, same rewards as `generate(best_of_n=8, reward_head="org/name")` of the package.

    Args:
        model: The language model that the head was made for.
        best_of_n: How many candidates to sample for every prompt.
        reward_head: Another head than this one: a folder, "org/name" or "org/name@revision". Or a function of prompts
            and completions that returns a score for each; or a list of these, with `combine`.
        **kwargs: All that `generate` takes, and what best-of-n adds to it: `prune`, `adaptive`, `min_confidence`,
            `max_parallel`, `combine`, `extract_answer`, `output_token_rewards`. `revision`, `token`, `cache_dir` and
            the like say where code and head are loaded from.

    Returns:
        (batch * k, length) long: the winners, best first, for `num_return_sequences=k`; or, with
        `return_dict_in_generate=True`, a `BestOfNOutput` with the rewards.

    Raises:
        ValueError: What cannot work, with the reason: no best_of_n, a head for another model, beam search, and more.
    """
    loading = {name: kwargs.pop(name) for name in _LOADING if name in kwargs}
    if best_of_n is None:
        raise ValueError("This custom_generate chooses the best of n candidates: pass best_of_n, e.g. best_of_n=8.")
    if reward_head is None:
        reward_head = _own_head(loading)
    return best_of_n_view(model).generate(best_of_n=best_of_n, reward_head=reward_head, **kwargs)


def _own_head(loading: dict[str, Any]) -> ElhsrRewardHead:
    """The head that lies beside this code: in the folder or, at the same commit, in the repository it came from."""
    source = _custom_generate_argument()
    if source is not None and os.path.isdir(source):
        return load_reward_head(source)
    # transformers has copied this file to .../<owner>/<name>/<commit>/custom_generate/generate.py
    commit = Path(__file__).parents[1].name
    repo_id = source or PUBLISHED_AS
    if repo_id is None or not re.fullmatch("[0-9a-f]{40}", commit):
        raise ValueError(
            "The head that this code was published with cannot be found, since it is not known where the code came "
            "from: pass reward_head, a folder or 'org/name'."
        )
    options = {name: value for name, value in loading.items() if name in ("cache_dir", "local_files_only", "token")}
    return _head_at(repo_id, commit, **options)


def _custom_generate_argument() -> str | None:
    """What the call of transformers' `generate` under way was given as `custom_generate`, which it keeps to itself.

    Copies of local folders lie where nothing of the folder is left but its name.
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
