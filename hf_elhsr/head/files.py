"""The files of a head: found in a folder or on the Hub, and held against their hashes before anything is read."""

import hashlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
)
from huggingface_hub.utils import httpx, validate_repo_id  # type: ignore[attr-defined]
from safetensors import SafetensorError, safe_open

from .configuration_elhsr import ElhsrConfig

#: The arguments of `from_pretrained` that say where files come from.
LOADING_ARGUMENTS = ("cache_dir", "force_download", "local_files_only", "revision", "subfolder", "token")

_LOG_IN = "pass token=... or run `hf auth login`"
# What to do about an answer of the Hub, by its status
_ADVICE = {
    401: f"Check the repository's name, and log in: {_LOG_IN}",
    403: "The token does not have this permission: use one that has it, ask for access on the repository's page, or "
    "publish under a namespace of your own",
    404: "Check the repository's name and the revision. If the repository is private, log in with a token that can "
    f"read it: {_LOG_IN}",
    409: "Something else has this name or is changing it at the moment: try again",
    412: "Somebody else has committed in the meantime: look at that commit, and try again",
}


def advice_for(status: int, retry_after: str | None = None) -> str:
    """What to do about the Hub's answer to a request, as a sentence without its full stop.

    Args:
        status: The HTTP status.
        retry_after: Seconds to wait, from the header of that name.
    """
    if status == 429:
        wait = f"{retry_after} seconds" if retry_after else "a while"
        return f"The Hub is limiting the number of requests: wait {wait}, and try again"
    if status >= 500:
        return "The Hub has a problem of its own: try again later"
    return _ADVICE.get(status, "This answer was not expected: its reason may say what to change")


def head_file(where: str | os.PathLike[str], name: str, subfolder: str = "", **loading: Any) -> Path:
    """Where a file of a head lies on this machine, downloaded if need be, and its content as the Hub says it is.

    Args:
        where: A folder, or a repository "org/name".
        name: "config.json" or "model.safetensors".
        subfolder: Of the folder or the repository.
        **loading: The other [`LOADING_ARGUMENTS`], for the Hub alone.

    Raises:
        OSError: There is no such file, or it cannot be had: says what was asked of which address, and what came.
        ValueError: The content is not what its hash says.
    """
    if os.path.isdir(where):
        file = Path(where, subfolder, name)
        if not file.is_file():
            raise FileNotFoundError(_missing(f"The folder {str(file.parent)!r}", name))
    else:
        file = _downloaded(str(where), name, subfolder=subfolder or None, **loading)
    _check_content(file)
    return file


def read_config(file: Path, where: str | os.PathLike[str], **changes: Any) -> tuple[ElhsrConfig, dict[str, Any]]:
    """What a config.json says, with changes; and those of the changes that are none of a configuration's.

    Args:
        file: The config.json.
        where: The folder or repository that it is of.

    Raises:
        ValueError: It is no JSON, is the configuration of another kind of model, or its values make none.
    """
    try:
        given = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{str(file)!r} is not a valid JSON file ({error}): download or save the head again."
        ) from error
    kind = given.get("model_type") if isinstance(given, dict) else None
    if kind != ElhsrConfig.model_type:
        raise ValueError(f"{str(where)!r} holds a model of type {kind!r}, not a reward head ('elhsr').")
    try:
        return ElhsrConfig.from_dict(given, return_unused_kwargs=True, name_or_path=str(where), **changes)
    except ValueError:
        raise
    except Exception as error:  # what values of the wrong type lead to
        raise ValueError(
            f"The config.json of {str(where)!r} describes no reward head ({type(error).__name__}: {error})."
        ) from error


def is_repo_id(name: str) -> bool:
    """Whether it is a repository's id with its owner, "org/name"."""
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return name.count("/") == 1


def is_hub_id(name: str | None) -> bool:
    """Whether it can be a model's id on the Hub, "org/name", and is not a folder here."""
    return name is not None and is_repo_id(name) and not Path(name).is_dir()


def _downloaded(repo_id: str, name: str, **loading: Any) -> Path:
    try:
        return Path(hf_hub_download(repo_id, name, **loading))
    except HFValidationError as error:
        raise OSError(f"{repo_id!r} is neither a folder here nor a repository's id, which is 'org/name'.") from error
    except (OSError, RuntimeError, httpx.HTTPError, EntryNotFoundError) as error:
        if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
            raise FileNotFoundError(_missing(f"The repository {repo_id!r}", name)) from error
        if came := _what_came(error):
            raise OSError(f"{name} of the reward head {repo_id!r} could not be loaded: {came}") from error
        if isinstance(error, LocalEntryNotFoundError):
            raise OSError(
                f"{name} of the reward head {repo_id!r} is not in the cache, and the Hub is not asked "
                "(local_files_only, or HF_HUB_OFFLINE): load the head once without, or check the revision."
            ) from error
        raise


def _missing(place: str, name: str) -> str:
    if name == "config.json":
        return f"{place} has no {name}, so it holds no reward head."
    return f"{place} has no {name}: heads are loaded from safetensors alone, never from pickled files."


def _what_came(error: BaseException) -> str | None:
    """Of the innermost HTTP error that led to this one: what was asked of which address, what came, what to do."""
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
    except RuntimeError:  # httpx knows of no request
        asked = "A request"
    return f"{asked} ended in {type(broken[-1]).__name__}: {broken[-1]}. Check the connection and try again."


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _asked(request: Any) -> str:
    return without_queries(f"{request.method} {request.url}")


def storage_fault(error: BaseException) -> str | None:
    """What to say where the client's own way to the Hub's storage of large files failed; None for any other error.

    hf_xet raises built-in errors, or its own, and leaves out what it was asked for.
    """
    if type(error) in (RuntimeError, ConnectionError) or type(error).__module__.partition(".")[0] == "hf_xet":
        said = without_queries(" ".join(str(error).split()))
        return (
            f"the Hub's storage was not reached ({said}). Try again, or set HF_HUB_DISABLE_XET=1 to do without hf_xet."
        )
    return None


def without_queries(text: str) -> str:
    """With addresses cut off before their "?": what follows for a large file is as good as a password for a while."""
    return re.sub(r"(https?://[^\s?]+)\?[^\s)\]'\"]*", r"\1", text)


def _check_content(file: Path) -> None:
    """Hold a file of the Hub's cache against its hash, which is the name of what it links to.

    The client compares sizes only. Where a file system has no links, or a mirror gives no hashes, nothing is compared.
    """
    if not file.is_symlink():
        return
    name = Path(os.readlink(file)).name
    if re.fullmatch("[0-9a-f]{64}", name):
        digest = hashlib.sha256()
    elif re.fullmatch("[0-9a-f]{40}", name):  # of what lies in git, as git itself hashes it
        digest = hashlib.sha1(b"blob %d\0" % file.stat().st_size, usedforsecurity=False)
    else:
        return
    digest.update(file.read_bytes())
    if digest.hexdigest() != name:
        raise ValueError(
            f"The content of {str(file)!r} is not what the Hub says it is: expected the hash {name}, got "
            f"{digest.hexdigest()}. Load it with force_download=True, or delete it and the file it links to."
        )


def check_weights(file: str | os.PathLike[str], expected: dict[str, tuple[int, ...]]) -> None:
    """Refuse a safetensors file that does not hold exactly these parameters. Only its header is read.

    Raises:
        ValueError: The file is damaged or not safetensors, or names and shapes are others.
    """
    try:
        with safe_open(file, framework="pt") as opened:
            found = {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(
            f"{os.fspath(file)!r} cannot be read: it is damaged, or not a safetensors file ({error}). Download or save "
            "the head again."
        ) from error
    if found != expected:
        raise ValueError(
            f"The weights in {os.fspath(file)!r} are not those of a reward head with its config.json: expected "
            f"{expected}, got {found}."
        )
