"""Failed requests to the Hub, reported in one line: what was requested, what came back, what to do."""

from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub.errors import (  # type: ignore[attr-defined]
    HfHubHTTPError,
    HTTPError,  # the one of the HTTP library that huggingface_hub is built on
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
)

from ..head.files import advice_for, storage_fault, without_queries

# Errors by status; all others are a ConnectionError
_KINDS: dict[int, type[OSError]] = {401: PermissionError, 403: PermissionError, 404: FileNotFoundError}


@contextmanager
def asking_the_hub(asked: str) -> Iterator[None]:
    """Replace the errors of requests by built-in ones, in one line.

    Args:
        asked: Words that follow "Could not", e.g. "list the heads for 'org/name'".

    Raises:
        PermissionError: 401 or 403. No token, or one without the permission.
        FileNotFoundError: 404.
        ConnectionError: Any other error, or no answer.
    """
    try:
        yield
    except Exception as error:
        reported = _reported(asked, error)
        if reported is None:
            raise
        raise reported from error


def _reported(asked: str, error: BaseException) -> OSError | None:
    """The error to raise instead; None for an error that does not come from a request."""
    if isinstance(error, HfHubHTTPError):
        return _explained(asked, error)
    if isinstance(error, LocalTokenNotFoundError):
        return PermissionError(f"Could not {asked}: there is no token. {advice_for(401)}.")
    if isinstance(error, OfflineModeIsEnabled):
        return ConnectionError(f"Could not {asked}: HF_HUB_OFFLINE is set, so no request is sent. Unset it.")
    # The client reports a failed upload with the reason in its cause
    if isinstance(error, RuntimeError) and error.__cause__ is not None and (cause := _reported(asked, error.__cause__)):
        return cause
    if lost := storage_fault(error):
        return ConnectionError(f"Could not {asked}: {lost}")
    if isinstance(error, HTTPError | ConnectionError):
        return ConnectionError(
            f"Could not {asked}: the Hub could not be reached ({type(error).__name__}: {_one_line(str(error))}). Check "
            "the network and HF_ENDPOINT, and try again."
        )
    return None


def _explained(asked: str, error: HfHubHTTPError) -> OSError:
    response = error.response
    status = response.status_code
    kind = _KINDS.get(status, ConnectionError)
    reason = _one_line(error.server_message or response.reason_phrase)
    request = without_queries(f"{response.request.method} {response.request.url}")
    advice = advice_for(status, response.headers.get("Retry-After"))
    return kind(f"Could not {asked}: the Hub answered {status}, {reason!r}, to {request}. {advice}.")


def _one_line(text: str) -> str:
    return without_queries(" ".join(text.split()))
