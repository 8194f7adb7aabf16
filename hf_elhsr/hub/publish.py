"""publish: upload a head's folder to the Hub in one commit, with card, records and code."""

import hashlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from huggingface_hub import CommitInfo, CommitOperationAdd, CommitOperationDelete, HfApi, ModelInfo
from huggingface_hub.hf_api import RepoFile
from transformers import PreTrainedModel
from transformers.utils import logging

from .._files import is_leftover
from .._locks import is_lock
from ..head.files import COMMITTED, current_file, is_hub_id, of_one_save
from ..head.modeling_elhsr import ElhsrRewardHead
from .custom_generate import custom_generate_files, foreign_files
from .errors import asking_the_hub
from .measurements import read_measurements
from .model_index import eval_results_files
from .published_card import published_card
from .whole_save import is_of_a_save, owning_head_folder, replacing_together

logger = logging.get_logger(__name__)

# The files of a head's folder that are published; the code is built again
_FILES = ("config.json", "model.safetensors", "README.md", "training.json", "limits.md", "LICENSE*")
_RECORDS = ("evaluation", "tradeoff")
_RESULTS = (*_RECORDS, ".eval_results")
_RECORD_SUFFIXES = (".json", ".svg", ".png")
#: Folders that belong to the head as a whole: files that they no longer have are deleted from the repository.
OWNED = (*_RESULTS, "custom_generate")
# The arguments of `save_pretrained(push_to_hub=True)` that are passed on
_PUSHING = ("commit_message", "commit_description", "private", "token", "revision", "create_pr")


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
    """Publish a head's folder as `repo_id`, which is created if it does not exist.

    One commit has everything, so that a run that is killed never leaves part of a head: weights, config, the card, the
    records of its training and evaluation, `custom_generate/` for plain transformers, and `.eval_results/` for whole
    benchmarks of the Hub. The folder is not changed. The published card loads the head from the repository: a card by
    `hf-elhsr card` is written again, and in your own card the folder's path is replaced.

    Args:
        folder: A folder made by `hf-elhsr train` or `save_pretrained`, with a card, such as `hf-elhsr card` writes.
        repo_id: "org/name", or "name" in your own namespace.
        commit_message, commit_description: Title and text of the commit.
        private: Whether a new repository is private. Default: its owner's setting.
        token: A token for the Hub. Default: the one that `hf auth login` stored.
        revision: The branch to commit to. Default: "main".
        create_pr: Open a pull request instead.

    Returns:
        The commit, with `oid`, the revision to load it by, and `commit_url`.

    Raises:
        ValueError: The folder holds no head or no card, a base model that is not on the Hub, a record of another head,
            or a card that contradicts its records; or the repository is public although `private` was passed.
        OSError: The Hub refused, with its reason, or could not be reached.
    """
    files = of_one_save(Path(folder), lambda: published_files(Path(folder), repo_id))
    return upload(
        files,
        OWNED,
        repo_id,
        commit_message=commit_message,
        commit_description=commit_description,
        private=private,
        token=token,
        revision=revision,
        create_pr=create_pr,
    )


def published_files(folder: Path, repo_id: str) -> dict[str, bytes]:
    """The files that [`publish`] uploads: contents by their paths in the repository.

    Raises:
        ValueError: See [`publish`].
    """
    head = ElhsrRewardHead.from_pretrained(folder)
    check_base_model(head.config.base_model)
    evaluations, _ = read_measurements(folder)
    card = published_card(folder, repo_id, head.config, evaluations)
    if foreign := foreign_files(folder / "custom_generate"):
        raise ValueError(
            f"custom_generate/ of {str(folder)!r} has files that were not made by hf_elhsr ({', '.join(foreign)}), and "
            "it is published as hf_elhsr builds it: move them away."
        )
    files = {path: file.read_bytes() for path, file in head_files(folder).items()}
    left = sorted(
        path
        for path in (file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())
        if path not in files and not path.startswith("custom_generate/") and not _is_of_writing(path)
    )
    if left:
        logger.warning(f"Not published, since they are not part of a head: {', '.join(left)}.")
    return files | {"README.md": card.encode()} | code_files(repo_id) | eval_results_files(evaluations)


def head_files(folder: Path) -> dict[str, Path]:
    """The files of a folder that are published with a head, by their paths there; the code is built again."""
    names = {file.name for place in (folder, folder / COMMITTED) for pattern in _FILES for file in place.glob(pattern)}
    records = [file for name in _RECORDS for file in (folder / name).rglob("*") if file.suffix in _RECORD_SUFFIXES]
    chosen = {name: current_file(folder, name) for name in sorted(names) if not is_leftover(name)}
    return chosen | {file.relative_to(folder).as_posix(): file for file in records}


def _is_of_writing(path: str) -> bool:
    """Whether a file only belongs to a process that is writing into the folder, or was killed doing so."""
    name = path.rpartition("/")[2]
    return is_of_a_save(path) or is_leftover(name) or is_lock(name)


def upload(
    files: dict[str, bytes],
    owned: tuple[str, ...],
    repo_id: str,
    *,
    private: bool | None = None,
    token: str | bool | None = None,
    revision: str | None = None,
    create_pr: bool = False,
    commit_message: str = "Upload reward head",
    commit_description: str | None = None,
) -> CommitInfo:
    """Commit these files to a repository, which is created if it does not exist.

    Folders that are `owned` have no other files afterwards.

    Raises:
        ValueError: The repository is public although `private` was passed; or there is no card among the files, and the
            repository would keep results that were measured with other weights.
        OSError: See [`publish`].
    """
    api = HfApi(token=token)
    with asking_the_hub(f"publish {repo_id!r}"):
        repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        if revision is not None and not create_pr and not revision.startswith("refs/"):
            api.create_branch(repo_id, branch=revision, exist_ok=True)
        before = api.model_info(repo_id, revision=revision)
        if private and not before.private:
            raise ValueError(
                f"{repo_id!r} already exists and is public, so nothing in it is private: make it private in its "
                "settings first, or publish to another repository."
            )
        present = [sibling.rfilename for sibling in before.siblings or []]
        stale = [path for path in present if path.partition("/")[0] in owned and path not in files]
        if "README.md" not in files:
            _check_results(api, before, files["model.safetensors"])
        operations: list[Any] = [CommitOperationAdd(path, content) for path, content in sorted(files.items())]
        operations += [CommitOperationDelete(path) for path in stale]
        return api.create_commit(
            repo_id,
            operations,
            commit_message=commit_message,
            commit_description=commit_description,
            revision=revision,
            create_pr=create_pr,
            # Files that are already the same are left out of a commit, so they must not have been changed since
            parent_commit=before.sha,
        )


def _check_results(api: HfApi, before: ModelInfo, weights: bytes) -> None:
    """Refuse weights in a repository whose results, by which users choose heads, belong to other weights."""
    present = [sibling.rfilename for sibling in before.siblings or []]
    results = [path for path in present if path == "training.json" or path.partition("/")[0] in _RESULTS]
    if before.model_index:
        results.append("README.md")
    if not results:
        return
    for there in api.get_paths_info(before.id, ["model.safetensors"], revision=before.sha):
        if isinstance(there, RepoFile) and there.lfs and there.lfs.sha256 == hashlib.sha256(weights).hexdigest():
            return
    raise ValueError(
        f"{before.id!r} has results of different weights ({', '.join(sorted(results))}), and a head in memory "
        "has none: save it in a folder, run `hf-elhsr evaluate` with --numbers, `hf-elhsr card` and `hf-elhsr publish` "
        "there, or push it to another repository."
    )


def code_files(repo_id: str) -> dict[str, bytes]:
    """The code for plain transformers: contents by their paths in a repository."""
    files = custom_generate_files(repo_id if "/" in repo_id else None)
    return {f"custom_generate/{name}": text.encode() for name, text in files.items()}


def check_base_model(base_model: str | None) -> None:
    """Refuse a base model that is not an id on the Hub."""
    if not is_hub_id(base_model):
        raise ValueError(
            f"This head's base_model is {base_model!r}, and users find and check a head by its model's id on the Hub: "
            'set config.base_model to that id, "org/name", and save the head again.'
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
    """Upload this head, with the code for plain transformers, in one commit.

    A head that was loaded from a folder with a card is published like that folder, see [`publish`]: with its card and
    records, which must belong to these weights. For any other head weights, config and code are uploaded; a card and
    records in the repository stay as they are, and must belong to these weights, too.

    Args:
        repo_id: "org/name", or "name" in your own namespace; created if it does not exist.
        commit_message, commit_description, private, token, revision, create_pr: See [`publish`].

    Returns:
        The commit, with `oid`, the revision to load it by, and `commit_url`.

    Raises:
        ValueError: The base model is a local folder; the repository has results of other weights; or, with a card,
            [`publish`] refuses.
        OSError: The Hub refused, with its reason, or could not be reached.
    """
    return _push(
        head,
        # "org/name" means the Hub, even if there is a local folder of that name
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
    """Save a head like [`~transformers.PreTrainedModel.save_pretrained`], and publish it with `push_to_hub=True`.

    Its files replace those of an earlier head together: if the process is killed, the folder holds one of the two.

    Args:
        push_to_hub: Upload it with the card and the records in the folder, see [`push_to_hub`], whose arguments are
            accepted then; `repo_id` is the folder's name by default. (The inherited method would replace the card by a
            generic one.)

    Raises:
        ValueError: Another process is writing into the folder; or, with `push_to_hub`, see [`push_to_hub`].
        OSError: The folder cannot be written.
    """
    pushing = {name: kwargs.pop(name) for name in ("repo_id", *_PUSHING) if push_to_hub and name in kwargs}
    if is_main_process:
        folder = Path(save_directory)
        with owning_head_folder(folder), replacing_together(folder) as staged:
            PreTrainedModel.save_pretrained(head, staged, is_main_process, state_dict, **kwargs)
    else:
        PreTrainedModel.save_pretrained(head, save_directory, is_main_process, state_dict, **kwargs)
    if push_to_hub and is_main_process:
        repo_id = pushing.pop("repo_id", Path(save_directory).resolve().name)
        _push(head, Path(save_directory), repo_id, **pushing)


def _push(head: ElhsrRewardHead, records: Path | None, repo_id: str, **settings: Any) -> CommitInfo:
    """Upload a head, with the records in a folder if that has a card."""
    with tempfile.TemporaryDirectory() as temporary:
        own = {} if records is None else head_files(records)
        if records is not None and own.keys() >= {"README.md", "config.json"}:
            folder = Path(temporary, records.resolve().name)
            for path, file in own.items():
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, folder / path)
            PreTrainedModel.save_pretrained(head, folder)
            return upload(published_files(folder, repo_id), OWNED, repo_id, **settings)
        if head.config.base_model is not None:
            check_base_model(head.config.base_model)
        folder = Path(temporary)
        PreTrainedModel.save_pretrained(head, folder)
        files = {name: (folder / name).read_bytes() for name in ("config.json", "model.safetensors")}
        return upload(files | code_files(repo_id), ("custom_generate",), repo_id, **settings)
