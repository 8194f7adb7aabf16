"""The files of a head: found in a folder or on the Hub, and compared with their hashes before they are read."""

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
)
from huggingface_hub.utils import httpx, validate_repo_id  # type: ignore[attr-defined]
from safetensors import SafetensorError, safe_open

from .._checks import quoted, shortened
from .configuration_elhsr import ElhsrConfig

#: The arguments of `from_pretrained` that say where files come from.
LOADING_ARGUMENTS = ("cache_dir", "force_download", "local_files_only", "revision", "subfolder", "token")

#: Inside a head's folder, the files of a save that count already, and are still to be moved into their places.
COMMITTED = ".saved"

_SAVED_TOGETHER = ("config.json", "model.safetensors")
_Loaded = TypeVar("_Loaded")
# How often a folder is read again that is saved to meanwhile
_TRIES = 20
# What git allows in the name of a branch or tag; something else could be the path of a file outside the cache
_REVISION = re.compile(
    r"(?!.*(\.\.|//|@\{|/\.|\.lock(/|$)))[^\x00-\x20\x7f~^:?*\[\\/.-][^\x00-\x20\x7f~^:?*\[\\]*(?<![/.])"
)
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"

_LOG_IN = "pass token=... or run `hf auth login`"
# Advice on an answer of the Hub, by its status
_ADVICE = {
    401: f"Check the repository's name, and log in: {_LOG_IN}",
    403: "The token does not have this permission: use one that has it, request access on the repository's page, or "
    "publish under a namespace of your own",
    404: "Check the repository's name and the revision. If the repository is private, log in with a token that can "
    f"read it: {_LOG_IN}",
    409: "Something else has this name or is changing it at the moment: try again",
    412: "Another commit was made in the meantime: look at it, and try again",
}


def advice_for(status: int, retry_after: str | None = None) -> str:
    """Advice on the Hub's answer to a request, as a sentence without its full stop.

    Args:
        status: The HTTP status.
        retry_after: The seconds to wait, from the header of this name.
    """
    if status == 429:
        wait = f"{retry_after} seconds" if retry_after else "a while"
        return f"The Hub is limiting the number of requests: wait {wait}, and try again"
    if status >= 500:
        return "The Hub itself has a problem: try again later"
    return _ADVICE.get(status, "This answer is unexpected: its reason may say what to change")


def head_file(where: str | os.PathLike[str], name: str, subfolder: str = "", **loading: Any) -> Path:
    """The local path of a head's file, which is downloaded if necessary and compared with the Hub's hash.

    Args:
        where: A folder, or a repository "org/name".
        name: "config.json" or "model.safetensors".
        subfolder: A folder inside the folder or the repository.
        **loading: The other [`LOADING_ARGUMENTS`], for the Hub only.

    Raises:
        OSError: The file does not exist or cannot be downloaded: says what was requested, and what came back.
        ValueError: The content does not match its hash, or the revision is not the name of one.
    """
    if os.path.isdir(where):
        folder = Path(where, subfolder)
        file = current_file(folder, name)
        if not file.is_file():
            raise FileNotFoundError(_missing(f"The folder {str(folder)!r}", name))
    else:
        check_revision(loading.get("revision"))
        if ".." in Path(subfolder).parts or Path(subfolder).is_absolute():
            raise ValueError(f"subfolder={subfolder!r}: expected a folder inside the repository.")
        file = _downloaded(str(where), name, subfolder=subfolder or None, **loading)
    _check_content(file)
    return file


def current_file(folder: Path, name: str) -> Path:
    """Where a file of a head's folder is: in its place, or still among those of a save that was interrupted."""
    committed = folder / COMMITTED / name
    return committed if committed.exists() else folder / name


def of_one_save(folder: Path, read: Callable[[], _Loaded]) -> _Loaded:
    """What `read` returns of a head's folder, read again if the head is saved meanwhile.

    Raises:
        OSError: The folder was saved to each time.
    """
    for _ in range(_TRIES):
        before = _identity(folder)
        try:
            found = read()
        except (OSError, ValueError) as error:
            # A file that is there now was moved into its place meanwhile
            moved = isinstance(error, FileNotFoundError) and len(before) == len(_SAVED_TOGETHER)
            if _identity(folder) == before and not moved:
                raise
            continue
        if _identity(folder) == before:
            return found
    raise OSError(f"{str(folder)!r} is being saved to again and again: load the head when that has ended.")


def _identity(folder: Path) -> tuple[Any, ...]:
    """Which files these are: moving one keeps its number, and saving makes another."""
    found: list[Any] = []
    for name in _SAVED_TOGETHER:
        for file in (current_file(folder, name), folder / name):
            try:
                status = file.stat()
            except FileNotFoundError:
                # There is none, or it has just been moved
                continue
            found.append((status.st_ino, status.st_mtime_ns, status.st_size))
            break
    return tuple(found)


def check_revision(revision: Any) -> None:
    """Refuse a revision that no branch, tag or commit can have, such as a path.

    Raises:
        ValueError: It is neither None nor such a name.
    """
    if revision is not None and not (isinstance(revision, str) and _REVISION.fullmatch(revision)):
        raise ValueError(f"revision={str(revision)[:200]!r}: expected the name of a branch or tag, or a commit's hash.")


def is_lfs_pointer(file: str | os.PathLike[str]) -> bool:
    """Whether a file is only what git-lfs keeps in git: where the content is."""
    try:
        with open(file, "rb") as opened:
            return opened.read(len(_LFS_POINTER)) == _LFS_POINTER
    except OSError:
        return False


def _unreadable(file: str | os.PathLike[str], what: str) -> ValueError:
    """The error for a head's file that is something else."""
    if is_lfs_pointer(file):
        return ValueError(
            f"{os.fspath(file)!r} is a Git LFS pointer instead of the file itself: run `git lfs install` and `git lfs "
            "pull` in the repository, or load the head by its id, 'org/name'."
        )
    return ValueError(f"{os.fspath(file)!r} {what}. Download or save the head again.")


def read_config(file: Path, where: str | os.PathLike[str], **changes: Any) -> tuple[ElhsrConfig, dict[str, Any]]:
    """Read a config.json, with changes; also return the changes that are not fields of a configuration.

    Args:
        file: The config.json.
        where: The folder or repository that it belongs to.

    Raises:
        ValueError: It is not JSON, configures another kind of model, or has invalid values.
    """
    try:
        given = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise _unreadable(file, f"is not a valid JSON file ({shortened(str(error))})") from error
    kind = given.get("model_type") if isinstance(given, dict) else None
    if kind != ElhsrConfig.model_type:
        raise ValueError(f"{str(where)!r} holds a model of type {quoted(kind)}, not a reward head ('elhsr').")
    try:
        return ElhsrConfig.from_dict(given, return_unused_kwargs=True, name_or_path=str(where), **changes)
    except ValueError:
        raise
    except Exception as error:  # from values of an incorrect type
        raise ValueError(
            f"The config.json of {str(where)!r} does not describe a reward head ({type(error).__name__}: "
            f"{shortened(str(error))})."
        ) from error


def is_repo_id(name: str) -> bool:
    """Whether a name is a repository's id with its owner, "org/name"."""
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return name.count("/") == 1


def is_hub_id(name: str | None) -> bool:
    """Whether a name can be a model's id on the Hub, "org/name", and is not a local folder."""
    return name is not None and is_repo_id(name) and not Path(name).is_dir()


def _downloaded(repo_id: str, name: str, **loading: Any) -> Path:
    try:
        return Path(hf_hub_download(repo_id, name, **loading))
    except HFValidationError as error:
        raise OSError(f"{repo_id!r} is neither a local folder nor a repository's id, 'org/name'.") from error
    except (OSError, RuntimeError, httpx.HTTPError, EntryNotFoundError) as error:
        if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
            raise FileNotFoundError(_missing(f"The repository {repo_id!r}", name)) from error
        if came := _what_came(error):
            raise OSError(f"{name} of the reward head {repo_id!r} could not be loaded: {came}") from error
        if isinstance(error, LocalEntryNotFoundError):
            raise OSError(
                f"{name} of the reward head {repo_id!r} is not in the cache, and no request is sent to the Hub "
                "(local_files_only, or HF_HUB_OFFLINE): load the head once without these, or check the revision."
            ) from error
        raise


def _missing(place: str, name: str) -> str:
    if name == "config.json":
        return f"{place} has no {name}, so it holds no reward head."
    return f"{place} has no {name}: heads are loaded from safetensors only, never from pickled files."


def _what_came(error: BaseException) -> str | None:
    """The request and the answer of the innermost HTTP error that led to this one, and what to do."""
    causes = list(_causes(error))
    answered = [cause for cause in causes if isinstance(cause, HfHubHTTPError)]
    if answered:
        response = answered[-1].response
        said = " ".join((answered[-1].server_message or "").split())
        came = f"was answered with {response.status_code} {response.reason_phrase}" + (f" ({said})" if said else "")
        advice = advice_for(response.status_code, response.headers.get("Retry-After"))
        return f"{_asked(response.request)} {came}. {advice}."
    if lost := storage_fault(error):
        return lost
    broken = [cause for cause in causes if isinstance(cause, httpx.HTTPError)]
    if not broken:
        return None
    try:
        asked = _asked(broken[-1].request)
    except RuntimeError:  # httpx has no request
        asked = "A request"
    return f"{asked} ended in {type(broken[-1]).__name__}: {broken[-1]}. Check the connection and try again."


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _asked(request: Any) -> str:
    return without_queries(f"{request.method} {request.url}")


def storage_fault(error: BaseException) -> str | None:
    """The message for a failure of hf_xet, the client for the Hub's storage of large files; None for other errors.

    hf_xet raises built-in errors, or its own, without the request.
    """
    said = without_queries(" ".join(str(error).split()))
    if type(error) is RuntimeError and "No space left on device" in said:
        return f"the disk is full ({said}). Make room, or set HF_HOME to a folder on another disk."
    if type(error) in (RuntimeError, ConnectionError) or type(error).__module__.partition(".")[0] == "hf_xet":
        return (
            f"the Hub's storage could not be reached ({said}). Try again, or set HF_HUB_DISABLE_XET=1 to avoid hf_xet."
        )
    return None


def without_queries(text: str) -> str:
    """Cut addresses off before their "?": for large files the rest grants access for a while, like a password."""
    return re.sub(r"(https?://[^\s?]+)\?[^\s)\]'\"]*", r"\1", text)


def _check_content(file: Path) -> None:
    """Compare a file of the Hub's cache with its hash, which is the name of the file that it links to.

    The client compares only sizes. Without links in the file system, or hashes from a mirror, nothing is compared.
    """
    if not file.is_symlink():
        return
    name = Path(os.readlink(file)).name
    if re.fullmatch("[0-9a-f]{64}", name):
        digest = hashlib.sha256()
    elif re.fullmatch("[0-9a-f]{40}", name):  # git's own hash, for files stored in git
        digest = hashlib.sha1(b"blob %d\0" % file.stat().st_size, usedforsecurity=False)
    else:
        return
    digest.update(file.read_bytes())
    if digest.hexdigest() != name:
        raise ValueError(
            f"The content of {str(file)!r} does not match the Hub's hash: expected {name}, got {digest.hexdigest()}. "
            "Load it with force_download=True, or delete it and the file it links to."
        )


def check_weights(file: str | os.PathLike[str], expected: dict[str, tuple[int, ...]]) -> None:
    """Refuse a safetensors file that does not hold exactly these parameters. Only its header is read.

    Raises:
        ValueError: The file is damaged or not safetensors, or has different names and shapes.
    """
    try:
        with safe_open(file, framework="pt") as opened:
            found = {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise _unreadable(
            file, f"cannot be read: it is damaged, or not a safetensors file ({shortened(str(error))})"
        ) from error
    if found != expected:
        raise ValueError(
            f"The weights in {os.fspath(file)!r} do not fit the head's config.json: expected {quoted(expected)}, got "
            f"{quoted(found)}."
        )
