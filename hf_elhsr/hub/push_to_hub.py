"""push_to_hub: a head in memory is published, with the card and the records of the folder that it was loaded from."""

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from huggingface_hub import CommitInfo
from transformers import PreTrainedModel

from ..modeling_elhsr import ElhsrRewardHead
from .publish import OWNED, check_base_model, code_files, head_files, published_files, upload

# What `save_pretrained(push_to_hub=True)` hands on
_PUSHING = ("commit_message", "commit_description", "private", "token", "revision", "create_pr")


def push_to_hub(
    head: ElhsrRewardHead,
    repo_id: str,
    *,
    commit_message: str = "Upload reward head",
    commit_description: str | None = None,
    private: bool | None = None,
    token: str | bool | None = None,
    revision: str | None = None,
    create_pr: bool = False,
) -> CommitInfo:
    """Upload this head, with the code for plain transformers, in one commit.

    A head that was loaded from a folder with a card is published as [`publish`] does it: with the card and the records
    there, which must be of these weights. Otherwise weights, config and code are uploaded, and a card and records that
    are in the repository stay as they are, if they are of these very weights.

    Args:
        repo_id: "org/name", or "name" for one's own; created if it is not there.
        commit_message, commit_description: Of the commit.
        private: Whether a repository that is created is private. Default: as its owner's settings say.
        token: Of the Hub; by default the one that `hf auth login` stored.
        revision: The branch that is committed to. Default: "main".
        create_pr: Open a pull request instead.

    Returns:
        The commit, with `oid`, the revision to load it by, and `commit_url`.

    Raises:
        ValueError: A base model that is a folder here; results in the repository that other weights gave; or, with a
            card, whatever [`publish`] refuses.
        OSError: What the Hub refused, with its reason, or that it was not reached.
    """
    return _push(
        head,
        # "org/name" is no folder, even where there happens to be one
        Path(head.name_or_path) if os.path.isabs(head.name_or_path) else None,
        repo_id,
        commit_message=commit_message,
        commit_description=commit_description,
        private=private,
        token=token,
        revision=revision,
        create_pr=create_pr,
    )


def save_pretrained(
    head: ElhsrRewardHead,
    save_directory: str | os.PathLike[str],
    is_main_process: bool = True,
    state_dict: dict[str, Any] | None = None,
    push_to_hub: bool = False,
    **kwargs: Any,
) -> None:
    """As [`~transformers.PreTrainedModel.save_pretrained`]; with `push_to_hub=True` the head is published, too.

    Args:
        push_to_hub: Upload it with the card and the records in the folder, see [`push_to_hub`], whose arguments are
            taken then; `repo_id` is the folder's name by default. What heads inherit writes a generic card over theirs.
    """
    pushing = {name: kwargs.pop(name) for name in ("repo_id", *_PUSHING) if push_to_hub and name in kwargs}
    PreTrainedModel.save_pretrained(head, save_directory, is_main_process, state_dict, **kwargs)
    if push_to_hub and is_main_process:
        repo_id = pushing.pop("repo_id", Path(save_directory).resolve().name)
        _push(head, Path(save_directory), repo_id, **pushing)


def _push(head: ElhsrRewardHead, records: Path | None, repo_id: str, **settings: Any) -> CommitInfo:
    """Upload a head, with the records of a folder if that has a card."""
    with tempfile.TemporaryDirectory() as temporary:
        if records is not None and (records / "README.md").is_file() and (records / "config.json").is_file():
            folder = Path(temporary, records.resolve().name)
            for file in head_files(records):
                (folder / file.relative_to(records)).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, folder / file.relative_to(records))
            PreTrainedModel.save_pretrained(head, folder)
            return upload(published_files(folder, repo_id), OWNED, repo_id, **settings)
        if head.config.base_model is not None:
            check_base_model(head.config.base_model)
        folder = Path(temporary)
        PreTrainedModel.save_pretrained(head, folder)
        files = {name: (folder / name).read_bytes() for name in ("config.json", "model.safetensors")}
        return upload(files | code_files(repo_id), ("custom_generate",), repo_id, **settings)
