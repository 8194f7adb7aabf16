"""Verifiers that do odd things, named by the completion; a verifier's process imports this module without torch."""

import ctypes
import os
import re
import signal
import subprocess
import sys
import time

FAILURES = {
    "raise": "ZeroDivisionError: division by zero",
    "sys.exit": "SystemExit: 0",
    "interrupt": "KeyboardInterrupt",
    "interrupt itself": "KeyboardInterrupt",
    "exit": "its process ended with exit code 3",
    "leave a copy and exit": "its process ended with exit code 5",
    "crash": "its process was killed by SIGSEGV",
    "allocate": "MemoryError: the limit is 4 GiB",
    "read": "EOFError",
    "close everything": "its process ended with exit code",
}
LATE = ("loop", "swallow", "match", "wait for a program")
RIGHT = (
    "print",
    "close the output",
    "switch alarms off",
    "set an alarm",
    "change the directory",
    "still in the directory",
    "copy itself",
    "without torch",
)


def check(completion, answer):
    print("A verifier that prints, \N{SNOWMAN}", flush=True)  # noqa: T201
    return ODD[completion](answer) if completion in ODD else completion == answer


def _swallow(answer):
    while True:
        try:
            time.sleep(60)
        except BaseException:  # noqa: BLE001
            continue


def _leave_a_copy(answer):
    if os.fork() == 0:
        time.sleep(600)
    os._exit(5)


def _alarms_off(answer):
    signal.alarm(0)
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    return True


def _set_alarm(answer):
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    return True


def _wait_for_nothing(answer):
    try:
        # 0: there is a child, and it runs
        while os.waitpid(-1, os.WNOHANG)[0] != 0:
            pass
    except ChildProcessError:
        return True
    return False


def _wait_for_a_program(answer):
    subprocess.run([sys.executable, "-c", f"import time; time.sleep(600)  # {answer}"])


HERE = os.getcwd()
ODD = {
    "raise": lambda answer: 1 / 0,
    "sys.exit": lambda answer: sys.exit(0),
    "interrupt": lambda answer: (_ for _ in ()).throw(KeyboardInterrupt),
    "interrupt itself": lambda answer: signal.raise_signal(signal.SIGINT),
    "exit": lambda answer: os._exit(3),
    "leave a copy and exit": _leave_a_copy,
    "crash": lambda answer: ctypes.string_at(0),
    "allocate": lambda answer: len(bytes(2**40)),
    "read": lambda answer: bool(input()),
    "close everything": lambda answer: os.closerange(0, 256) is None,
    "loop": lambda answer: [0 for _ in iter(int, 1)],
    "swallow": _swallow,
    "match": lambda answer: bool(re.match("(a+)+$", "a" * 80 + "b")),
    "wait for a program": _wait_for_a_program,
    "print": lambda answer: True,
    "close the output": lambda answer: sys.stdout.close() is None,
    "switch alarms off": _alarms_off,
    "set an alarm": _set_alarm,
    "change the directory": lambda answer: os.chdir("/") is None,
    "still in the directory": lambda answer: os.getcwd() == HERE,
    "copy itself": lambda answer: os.fork() is not None,
    "wait for nothing": _wait_for_nothing,
    "without torch": lambda answer: not {"torch", "transformers"} & sys.modules.keys(),
}
