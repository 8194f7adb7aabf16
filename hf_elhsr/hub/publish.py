"""publish: a head's folder becomes a repository on the Hub, in one commit, with card, records and code."""

import re
import tempfile
from pathlib import Path
from typing import Any

from huggingface_hub import CommitInfo, CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import HfHubHTTPError
from transformers.utils import logging

from ..modeling_elhsr import ElhsrRewardHead
from .card import check_measured
from .custom_generate import custom_generate_files
from .eval_results import eval_results_files

logger = logging.get_logger(__name__)

# What a head's folder is published with, beside the code, which is made anew
_FILES = ("config.json", "model.safetensors", "README.md", "training.json", "limits.md", "LICENSE*")
_RECORDS = ("evaluation", "tradeoff")
_RECORD_SUFFIXES = (".json", ".svg", ".png")
# Folders that belong to the head as a whole: what is not in them any more is deleted from the repository
_OWNED = (*_RECORDS, "custom_generate", ".eval_results")


def publish(
    folder: Path | str,
    repo_id: str,
    *,
    commit_message: str = "Upload reward head",
    commit_description: str | None = None,
    private: bool | None = None,
    token: str | bool | None = None,
    revision: str | None = None,
    create_pr: bool = False,
) -> CommitInfo:
    """Publish a head's folder as `repo_id`, which is created if it is not there.

    One commit has everything, so that a run that is killed leaves no half head: weights, config, the card, the records
    of its training and evaluation, `custom_generate/` for plain transformers, and `.eval_results/` for tasks that are a
    dataset on the Hub. The folder is not changed.

    Args:
        folder: Made by `hf-elhsr train` or `save_pretrained`, with a card, as `hf-elhsr card` writes it.
        repo_id: "org/name", or "name" for one's own.
        commit_message, commit_description: Of the commit.
        private: Whether a repository that is created is private. Default: as its owner's settings say.
        token: Of the Hub; by default the one that `hf auth login` stored.
        revision: The branch that is committed to. Default: "main".
        create_pr: Open a pull request instead.

    Returns:
        The commit, with `oid`, the revision to load it by, and `commit_url`.

    Raises:
        ValueError: The folder holds no head or no card, a base model that is not on the Hub, a record of another head.
        OSError: What the Hub refused, with its reason.
    """
    files = published_files(Path(folder), repo_id)
    return _upload(
        files,
        _OWNED,
        repo_id,
        commit_message=commit_message,
        commit_description=commit_description,
        private=private,
        token=token,
        revision=revision,
        create_pr=create_pr,
    )


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
    """Upload this head: weights, config, and the code for plain transformers, in one commit.

    A card and records that are in the repository stay as they are; [`publish`] uploads a folder with a head's own.

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
        ValueError: A base model that is a folder here.
        OSError: What the Hub refused, with its reason.
    """
    if head.config.base_model is not None:
        _check_base_model(head.config.base_model)
    with tempfile.TemporaryDirectory() as folder:
        head.save_pretrained(folder)
        files = {name: (Path(folder) / name).read_bytes() for name in ("config.json", "model.safetensors")}
    return _upload(
        files | _code(repo_id),
        ("custom_generate",),
        repo_id,
        commit_message=commit_message,
        commit_description=commit_description,
        private=private,
        token=token,
        revision=revision,
        create_pr=create_pr,
    )


def published_files(folder: Path, repo_id: str) -> dict[str, bytes]:
    """What [`publish`] uploads of a folder: contents by their paths in the repository.

    Raises:
        ValueError: As of [`publish`].
    """
    head = ElhsrRewardHead.from_pretrained(folder)
    _check_base_model(head.config.base_model)
    if not (folder / "README.md").is_file():
        raise ValueError(f"{str(folder)!r} has no README.md: write a card from its records with `hf-elhsr card`.")
    evaluations = check_measured(folder)
    chosen = [file for pattern in _FILES for file in folder.glob(pattern)]
    chosen += [file for name in _RECORDS for file in (folder / name).rglob("*") if file.suffix in _RECORD_SUFFIXES]
    files = {file.relative_to(folder).as_posix(): file.read_bytes() for file in chosen}
    left = sorted(
        path
        for path in (file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())
        if path not in files and not path.startswith("custom_generate/")
    )
    if left:
        logger.warning(f"Not published, since no head's folder has them: {', '.join(left)}.")
    return files | _code(repo_id) | eval_results_files(evaluations)


def _upload(
    files: dict[str, bytes],
    owned: tuple[str, ...],
    repo_id: str,
    *,
    private: bool | None,
    token: str | bool | None,
    revision: str | None,
    create_pr: bool,
    commit_message: str,
    commit_description: str | None,
) -> CommitInfo:
    """One commit with these files, in a repository that is created if it is not there.

    Folders that are `owned` have nothing else afterwards.
    """
    api = HfApi(token=token)
    try:
        repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        if revision is not None and not create_pr:
            api.create_branch(repo_id, branch=revision, exist_ok=True)
        present = api.list_repo_files(repo_id, revision=revision)
        stale = [path for path in present if path.partition("/")[0] in owned and path not in files]
        operations: list[Any] = [CommitOperationAdd(path, content) for path, content in sorted(files.items())]
        operations += [CommitOperationDelete(path) for path in stale]
        return api.create_commit(
            repo_id,
            operations,
            commit_message=commit_message,
            commit_description=commit_description,
            revision=revision,
            create_pr=create_pr,
        )
    except HfHubHTTPError as error:
        raise OSError(_refused(repo_id, error)) from error


def _code(repo_id: str) -> dict[str, bytes]:
    files = custom_generate_files(repo_id if "/" in repo_id else None)
    return {f"custom_generate/{name}": text.encode() for name, text in files.items()}


def _check_base_model(base_model: str | None) -> None:
    if base_model is None or not re.fullmatch(r"[\w.-]+/[\w.-]+", base_model) or Path(base_model).is_dir():
        raise ValueError(
            f"This head's base_model is {base_model!r}, and others find and check a head by its model's id on the Hub: "
            'set config.base_model to it, as "org/name", and save the head again.'
        )


def _refused(repo_id: str, error: HfHubHTTPError) -> str:
    status = error.response.status_code
    said = (error.server_message or str(error).splitlines()[0]).strip()
    mend = {
        401: "log in with `hf auth login`, or give a token that may write",
        403: "use a token that may write there",
        404: "see whether the repository's name and the branch are right",
        409: "somebody else has written to it meanwhile: try again",
        429: "wait, and try again",
    }.get(status, "try again later")
    address = str(error.response.request.url)
    return f"{repo_id!r} was not published: {address} answered {status} ({said}). Nothing was committed; {mend}."
