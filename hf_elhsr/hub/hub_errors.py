"""asking_the_hub: what goes wrong between us and the Hub, told in one line with what to do about it."""

from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub.errors import (  # type: ignore[attr-defined]
    HfHubHTTPError,
    HTTPError,  # of whichever library huggingface_hub is built on
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
)

from ..head.loading import storage_fault, without_queries

_LOG_IN = "log in with `hf auth login`, or give a token"
# By status: the error that Python has for it, and what to do
_ANSWERS: dict[int, tuple[type[OSError], str]] = {
    401: (PermissionError, f"The Hub does not know who is asking: {_LOG_IN}."),
    403: (PermissionError, "The token may not do this: use one that may write there, or a namespace of your own."),
    404: (
        FileNotFoundError,
        f"There is no such thing, or it is private and the token may not see it: mend the name, or {_LOG_IN}.",
    ),
    409: (ConnectionError, "Something else has the name, or is changing it at this moment: try again."),
    412: (ConnectionError, "Somebody else has committed meanwhile: look at what it was, and try again."),
}
_TOO_MANY = "The Hub answers no more requests for now: wait{}, and try again."
_BROKEN = "That is trouble at the Hub's side: try again later."
_OTHER = "That is not an answer that was expected: read what the Hub says."


@contextmanager
def asking_the_hub(asked: str) -> Iterator[None]:
    """Replace the errors of requests by built-in ones, in one line: what was asked, what came, what to do.

    Args:
        asked: Words that go on after "Could not", e.g. "list the heads for 'org/name'".

    Raises:
        PermissionError: 401 or 403. No token, or one that may not do it.
        FileNotFoundError: 404.
        ConnectionError: Any other answer that is an error, or none.
    """
    try:
        yield
    except Exception as error:
        told = _told(asked, error)
        if told is None:
            raise
        raise told from error


def _told(asked: str, error: BaseException) -> OSError | None:
    """The error to raise instead; None for one that is not of a request."""
    if isinstance(error, HfHubHTTPError):
        return _explained(asked, error)
    if isinstance(error, LocalTokenNotFoundError):
        return PermissionError(f"Could not {asked}: there is no token. For one, {_LOG_IN}.")
    if isinstance(error, OfflineModeIsEnabled):
        return ConnectionError(f"Could not {asked}: HF_HUB_OFFLINE is set, so the Hub is not asked.")
    # What the client says of an upload that failed: the reason is in its cause
    if isinstance(error, RuntimeError) and error.__cause__ is not None and (told := _told(asked, error.__cause__)):
        return told
    if lost := storage_fault(error):
        return ConnectionError(f"Could not {asked}: {lost}")
    if isinstance(error, HTTPError | ConnectionError):
        return ConnectionError(
            f"Could not {asked}: the Hub was not reached ({type(error).__name__}: {_one_line(str(error))}). Look at "
            "the network and at HF_ENDPOINT, and try again."
        )
    return None


def _explained(asked: str, error: HfHubHTTPError) -> OSError:
    response = error.response
    status = response.status_code
    kind, to_do = _ANSWERS.get(status, (ConnectionError, _BROKEN if status >= 500 else _OTHER))
    if status == 429:
        wait = response.headers.get("Retry-After")
        to_do = _TOO_MANY.format(f" {wait} seconds" if wait else "")
    said = _one_line(error.server_message or response.reason_phrase)
    request = without_queries(f"{response.request.method} {response.request.url}")
    return kind(f"Could not {asked}: the Hub answered {status}, {said!r}, to {request}. {to_do}")


def _one_line(text: str) -> str:
    return without_queries(" ".join(text.split()))
