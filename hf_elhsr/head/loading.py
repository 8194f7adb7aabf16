"""load_reward_head: load a head from a folder or from the Hub."""

import functools
import os
from pathlib import Path

from .._checks import quoted
from .files import is_repo_id
from .modeling_elhsr import ElhsrRewardHead


def load_reward_head(source: ElhsrRewardHead | str | os.PathLike[str]) -> ElhsrRewardHead:
    """Load a head from a folder or a repository ("org/name", "org/name@revision"); a head itself is returned.

    Heads from the Hub are loaded once per process; folders are read every time, since they may change.

    Raises:
        ValueError: The source is neither a head, nor a folder with one, nor a repository that can be loaded.
    """
    if isinstance(source, ElhsrRewardHead):
        return source
    if not isinstance(source, (str, os.PathLike)):
        raise ValueError(
            f"reward_head must be an ElhsrRewardHead, a folder or 'org/name'; got {type(source).__name__}."
        )
    if os.path.isdir(source):
        return _from_folder(Path(source))
    repo_id, _, revision = str(source).partition("@")
    if not is_repo_id(repo_id):
        raise ValueError(
            f"reward_head={quoted(str(source))} is neither a folder nor a repository id: pass a folder with "
            "config.json and model.safetensors, or 'org/name' or 'org/name@revision' on the Hub."
        )
    return _from_hub(repo_id, revision or None)


def _from_folder(folder: Path) -> ElhsrRewardHead:
    try:
        head: ElhsrRewardHead = ElhsrRewardHead.from_pretrained(str(folder))
        return head
    except OSError as error:
        raise ValueError(f"The reward head in {str(folder)!r} cannot be loaded: {error}") from error


@functools.lru_cache(maxsize=8)
def _from_hub(repo_id: str, revision: str | None) -> ElhsrRewardHead:
    try:
        head: ElhsrRewardHead = ElhsrRewardHead.from_pretrained(repo_id, revision=revision)
        return head
    except OSError as error:
        raise ValueError(
            f"reward_head={repo_id!r} is not a local folder, and could not be loaded from the Hub: {error}"
        ) from error
