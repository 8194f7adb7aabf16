"""Worker: a process in which a task's verifier runs, with limits of time and memory; the parent's side.

It isolates accidents: a verifier that never returns, takes all memory, exits or crashes costs one completion its label.
It is no sandbox: the verifier may do to files and to the network whatever the user may.
"""

import contextlib
import json
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from .task import Problem
from .verdict import Verdict

#: Bytes that a verifier may allocate beyond what its process has after loading it.
MEMORY_LIMIT = 4 * 2**30
# Seconds for starting the process and importing what the task needs, which may be torch from a slow disk
_LOADING_LIMIT = 120.0
# Seconds between looks at whether the process is alive: one that ended may have left another with its pipe open
_INTERVAL = 0.5
_PROGRAM = Path(__file__).with_name("worker_main.py")


class CannotLoad(Exception):
    """The task cannot be loaded in another process, but might work in this one."""


class _Ended(Exception):
    """The process ended."""


class _Late(Exception):
    """There was no answer in time."""


class Worker:
    """A process for one task; it is started when it is needed, and again when it has ended.

    Args:
        task: The task's pickle.
        main: The name and the path of the main module, if the pickle refers to it.
    """

    def __init__(self, task: bytes, main: tuple[str | None, str] | None):
        self.task, self._main = task, main
        self._process: subprocess.Popen[bytes] | None = None
        self._answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._lock = threading.RLock()
        self._owner = os.getpid()

    def start(self) -> None:
        """Start the process, and load the task in it, if it is not running.

        Raises:
            CannotLoad: The task cannot be found from another process.
            ValueError: Loading the task fails in a way that would be the same, or worse, in this process.
        """
        with self._lock:
            if self._process is not None and self._process.poll() is None:
                return
            self.close()
            try:
                self._start()
            except BaseException:
                self.close()
                raise

    def verdicts(self, asked: Sequence[tuple[Problem, str]], time_limit: float) -> list[Verdict]:
        """The verdicts on completions of problems, in their order.

        Args:
            asked: Problems, each with a completion.
            time_limit: Seconds for each.

        Raises:
            ValueError: The process ended and its task cannot be loaded again.
        """
        # Each in a pickle of its own, so that what a verifier does to a problem does not affect the next
        pickled = [pickle.dumps(pair) for pair in asked]
        found: list[Verdict] = []
        with self._lock:
            try:
                while len(found) < len(pickled):
                    found += self._some_verdicts(pickled[len(found) :], time_limit)
            except BaseException:
                # Ctrl-C, for one: answers that are still to come belong to no question
                self.close()
                raise
        return found

    def close(self) -> int | None:
        """End the process, and all that verifiers have started in it; returns its exit code."""
        process, self._process = self._process, None
        # A copy of this object in a forked process is not the parent
        if process is None or self._owner != os.getpid():
            return None
        if hasattr(os, "killpg"):
            # Nothing may be left of it; macOS says the second where only the process itself is, and was not waited for
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
        process.kill()
        code = process.wait()
        _close(process.stdin)
        return code

    def _start(self) -> None:
        # -P: the script's folder has modules that are not meant to be found. A session of its own: Ctrl-C in a terminal
        # reaches the parent alone
        self._process = process = subprocess.Popen(
            [sys.executable, "-P", str(_PROGRAM)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._answers = queue.SimpleQueue()
        threading.Thread(target=_read, args=(process.stdout, self._answers), daemon=True).start()
        setup = {"path": sys.path, "argv": sys.argv, "main": self._main, "task": self.task, "memory": MEMORY_LIMIT}
        try:
            self._send(setup)
            answer = self._answer(_LOADING_LIMIT)
        except (_Ended, OSError):
            raise ValueError(f"The verifier cannot be loaded: {self._how_it_ended()} while loading it.") from None
        except _Late:
            raise ValueError(f"The verifier cannot be loaded: it is not there after {_LOADING_LIMIT:g} s.") from None
        if "error" in answer:
            raise ValueError(answer["error"]) if answer["never"] else CannotLoad(answer["error"])

    def _some_verdicts(self, pickled: list[bytes], time_limit: float) -> list[Verdict]:
        """The verdicts up to the first that costs the process its life; at least one."""
        try:
            self.start()
        except CannotLoad as error:
            raise ValueError(f"The verifier's process ended, and cannot be started again: {error}") from error
        found: list[Verdict] = []
        try:
            self._send(pickled)
            for _ in pickled:
                answer = self._answer(time_limit)
                found.append(Verdict(*answer["verdict"]))
                if answer["leaving"]:
                    self.close()
                    break
        except _Late:
            self.close()
            found.append(Verdict(None, None, f"no label after {time_limit:g} s."))
        except (_Ended, OSError):
            found.append(Verdict(None, None, f"{self._how_it_ended()}."))
        return found

    def _send(self, message: Any) -> None:
        if self._process is None or self._process.stdin is None:
            raise _Ended
        self._process.stdin.write(pickle.dumps(message))
        self._process.stdin.flush()

    def _answer(self, seconds: float) -> Any:
        end = time.monotonic() + seconds
        while True:
            alive = self._process is not None and self._process.poll() is None
            try:
                answer = self._answers.get(timeout=max(0.0, min(_INTERVAL, end - time.monotonic())))
            except queue.Empty:
                if not alive:
                    raise _Ended from None
                if time.monotonic() >= end:
                    raise _Late from None
                continue
            if answer is None:
                raise _Ended
            return answer

    def _how_it_ended(self) -> str:
        code: int | None = None
        if self._process is not None:
            # What ended by itself is not killed before its exit code is known
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = self._process.wait(timeout=1.0)
        killed = self.close()
        code = killed if code is None else code
        if code is not None and code < 0:
            return f"its process was killed by {_signal_name(-code)}"
        return f"its process ended with exit code {code}"


def _read(stream: IO[bytes], answers: "queue.SimpleQueue[Any]") -> None:
    """Pass on answers as they come, and None at the end."""
    # What is not JSON was cut off, or is not from our code: the verdict is missing either way
    with stream, contextlib.suppress(ValueError):
        for line in stream:
            answers.put(json.loads(line))
    answers.put(None)


def _close(stream: IO[bytes] | None) -> None:
    # What was to be written is for nobody
    with contextlib.suppress(OSError):
        if stream is not None:
            stream.close()


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
