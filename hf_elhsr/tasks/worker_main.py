"""What runs in a verifier's process. It is started as a script, and imports neither torch nor transformers.

It reads pickles from standard input and answers each with lines of JSON. Importing a module of this package executes
the package's `__init__` first, which imports everything; here, a package that does so only when asked takes its place.
"""

import importlib
import importlib.util
import json
import os
import pickle
import runpy
import select
import signal
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import IO, Any

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

_PACKAGE = "hf_elhsr"
# What labelling needs of the package; everything else has the package as a whole loaded first
_LIGHT = (f"{_PACKAGE}.tasks", f"{_PACKAGE}._visible_text", f"{_PACKAGE}._checks")


def main() -> None:
    """Load the task that the first message names, and label the completions of all others."""
    commands, answers = _own_streams()
    if hasattr(os, "fork"):
        _end_with_the_parent(commands, answers)
    setup = pickle.load(commands)
    sys.path[:], sys.argv[:] = setup["path"], setup["argv"]
    _load_package_later()
    from hf_elhsr.tasks.file_function import UnusableFile
    from hf_elhsr.tasks.verdict import failed

    try:
        if setup["main"] is not None:
            _load_main(*setup["main"])
        task = pickle.loads(setup["task"])
    except BaseException as error:  # noqa: BLE001 - whatever a user's module does, the parent is told
        # What isn't an Exception would end the parent, too, if it loaded the task itself
        never = isinstance(error, UnusableFile) or not isinstance(error, Exception)
        text = str(error) if isinstance(error, UnusableFile) else failed(error).failure
        _answer(answers, {"error": text, "never": never})
        return
    _limit_memory(setup["memory"])
    _answer(answers, {})
    _label(task, commands, answers, setup["memory"])


def _label(task: Any, commands: IO[bytes], answers: IO[str], memory: int) -> None:
    from hf_elhsr.tasks.verdict import Verdict, failed, judge

    own, folder, recursion = os.getpid(), os.getcwd(), sys.getrecursionlimit()
    while True:
        try:
            asked = pickle.load(commands)
        except EOFError:
            return
        for pickled in asked:
            leaving = False
            try:
                problem, completion = pickle.loads(pickled)
                verdict = judge(task, problem, completion)
            except BaseException as error:  # noqa: BLE001 - sys.exit() of a verifier that runs generated code
                verdict = failed(error)
                # What was allocated may still be held
                leaving = isinstance(error, MemoryError)
                if leaving:
                    verdict = Verdict(None, None, f"MemoryError: the limit is {memory / 2**30:g} GiB.")
            if os.getpid() != own:
                # A copy that the verifier made of this process, and did not end
                os._exit(0)
            _undo(folder, recursion)
            _answer(answers, {"verdict": verdict, "leaving": leaving})


def _undo(folder: str, recursion: int) -> None:
    """Do not let what a verifier did to the process for one verdict affect the next."""
    if hasattr(signal, "setitimer"):
        for timer in (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF):
            signal.setitimer(timer, 0)
    os.chdir(folder)
    sys.setrecursionlimit(recursion)
    if sys.stdout.closed or sys.stderr.closed:
        _open_standard_streams()


def _answer(answers: IO[str], data: dict[str, Any]) -> None:
    answers.write(json.dumps(data) + "\n")
    answers.flush()


def _own_streams() -> tuple[IO[bytes], IO[str]]:
    """The streams to the parent; standard input, output and error then belong to the verifier, and lead nowhere."""
    commands, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "w", encoding="ascii")
    nowhere = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nowhere, standard)
    os.close(nowhere)
    _open_standard_streams()
    return commands, answers


def _open_standard_streams() -> None:
    # To print an emoji would fail in a locale without it
    sys.stdout = open(os.devnull, "w", encoding="utf-8", errors="backslashreplace")  # noqa: SIM115
    sys.stderr = open(os.devnull, "w", encoding="utf-8", errors="backslashreplace")  # noqa: SIM115


def _end_with_the_parent(commands: IO[bytes], answers: IO[str]) -> None:
    """Leave a process behind that kills this one, and those that verifiers start, once the parent is gone.

    This process cannot: a verifier may keep it busy. The other is no child of this one, so that a verifier that waits
    for its children does not wait for it.
    """
    group = os.getpid()
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    if os.fork():
        os._exit(0)
    os.setsid()
    # The parent sees the end of the answers when the verifier's process ends
    os.close(answers.fileno())
    ended = select.poll()
    # Of no event but the one that is always reported: nobody can write any more
    ended.register(commands.fileno(), 0)
    ended.poll()
    try:
        os.killpg(group, signal.SIGKILL)
    finally:
        os._exit(0)


def _limit_memory(more: int) -> None:
    """Limit what this process allocates to what it has now, and `more` bytes; and have it leave no core dumps."""
    if resource is None:
        return
    # Not the address space: libraries reserve far more of it than they use
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    used = sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmData:"))
    for kind, wanted in ((resource.RLIMIT_DATA, used + more), (resource.RLIMIT_CORE, 0)):
        _, most = resource.getrlimit(kind)
        soft = wanted if most == resource.RLIM_INFINITY else min(wanted, most)
        resource.setrlimit(kind, (soft, most))


def _load_main(name: str | None, path: str) -> None:
    """Execute the parent's main module under another name, as multiprocessing does, so that its classes are found."""
    if name is not None:
        content = runpy.run_module(name, run_name="__mp_main__", alter_sys=True)
    else:
        content = runpy.run_path(path, run_name="__mp_main__")
    module = ModuleType("__mp_main__")
    vars(module).update(content)
    sys.modules["__main__"] = sys.modules["__mp_main__"] = module


def _load_package_later() -> None:
    """Put a package into sys.modules whose `__init__` is executed when more of it is needed than tasks."""
    folder = Path(__file__).parents[1]
    spec = importlib.util.spec_from_file_location(
        _PACKAGE, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    if spec is None or spec.loader is None:
        raise ImportError(f"{str(folder)!r} cannot be imported.")
    package, loader = importlib.util.module_from_spec(spec), spec.loader

    def load() -> None:
        sys.meta_path.remove(finder)
        del package.__getattr__  # type: ignore[attr-defined]
        loader.exec_module(package)

    def get(name: str) -> Any:
        tasks = importlib.import_module(f"{_PACKAGE}.tasks")
        if name in tasks.__all__:
            return getattr(tasks, name)
        if name.startswith("__") and name not in ("__all__", "__version__"):
            raise AttributeError(f"module {_PACKAGE!r} has no attribute {name!r}")
        load()
        return getattr(package, name)

    class Finder:
        """Finds nothing, but is asked first."""

        @staticmethod
        def find_spec(name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
            if name.startswith(f"{_PACKAGE}.") and not name.startswith(_LIGHT):
                load()
            return None

    finder = Finder()
    package.__getattr__ = get  # type: ignore[method-assign]
    sys.meta_path.insert(0, finder)  # type: ignore[arg-type]
    sys.modules[_PACKAGE] = package


if __name__ == "__main__":
    main()
