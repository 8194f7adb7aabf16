"""A Python process whose huggingface_hub talks to a local Hub: HF_ENDPOINT is read when it is imported."""

import os
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

_waits: list[float] = []


@dataclass(frozen=True)
class Caught:
    """An error, which not always survives the way between processes itself."""

    types: tuple[str, ...]
    text: str


class HubClient:
    """Runs functions of test modules in the other process.

    It has a folder of its own for everything that huggingface_hub stores, and waits between tries are noted instead of
    waited.
    """

    def __init__(self, endpoint: str, home: Path, **environment: str):
        settings = {
            "HF_ENDPOINT": endpoint,
            "HF_HOME": str(home),
            # The Hub of the tests has no such storage, and can only say where one is
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "OMP_NUM_THREADS": "1",
        }
        before = dict(os.environ)
        os.environ.pop("HF_HUB_OFFLINE", None)
        os.environ.pop("HF_TOKEN", None)
        os.environ.update(settings | environment)
        try:
            self._pool = ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=_note_waits)
            self._pool.submit(os.getpid).result()
        finally:
            os.environ.clear()
            os.environ.update(before)

    def __call__(self, function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """What the function returns there."""
        return self._pool.submit(function, *arguments, **named).result()

    def error(self, function: Callable[..., Any], *arguments: Any, **named: Any) -> Caught:
        """What the function raises there."""
        caught = self._pool.submit(_catch, function, *arguments, **named).result()
        assert isinstance(caught, Caught), f"nothing was raised, but returned: {caught!r}"
        return caught

    def waits(self) -> list[float]:
        """The seconds between tries, since the last call."""
        return self._pool.submit(_take_waits).result()

    def close(self) -> None:
        self._pool.shutdown()


def _note_waits() -> None:
    sleep = time.sleep

    def note(seconds: float) -> None:
        _waits.append(seconds)
        sleep(min(seconds, 0.01))

    time.sleep = note


def _take_waits() -> list[float]:
    taken = list(_waits)
    _waits.clear()
    return taken


def _catch(function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    try:
        return function(*arguments, **named)
    except Exception as error:  # noqa: BLE001 - whatever it is, a test looks at it
        return Caught(tuple(kind.__name__ for kind in type(error).__mro__), str(error))
