"""Code that may crash or never end runs in a child process first: a copy of this one (fork).

The child has everything that is loaded here, also a kernel that exists in memory only. What it
does to its memory does not reach us.
"""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import signal
import sys
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import TypeVar

from gristmill.errors import KernelError

T = TypeVar("T")
SECONDS = 10.0  # that one step may take

ADVICE = {
    signal.SIGSEGV: "it read or wrote memory that is not there; compile it with -fsanitize=address,"
    " or compare its indices with strides and sizes of the argument struct",
    signal.SIGBUS: "it touched memory that cannot be reached",
    signal.SIGFPE: "it divided an integer by zero",
    signal.SIGILL: "it has an instruction that this processor does not know",
    signal.SIGABRT: "it was aborted: an assertion, or the heap was written to out of bounds",
}


def run(work: Callable[[Callable[[str], None]], T], seconds: float = SECONDS) -> T:
    """What `work(step)` returns, computed in a child; it calls `step(label)` as it goes on.

    Raises KernelError naming the last step when the child dies of a signal, or does not reach
    the next step within `seconds`; what `work` raises is raised here.
    """
    if not hasattr(os, "fork"):  # no such thing on this system: run it here
        return work(lambda label: None)
    ours, theirs = multiprocessing.Pipe(duplex=False)
    sys.stdout.flush()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of fork beside threads: none is used
        pid = os.fork()
    if pid == 0:
        _child(work, theirs)
    theirs.close()
    try:
        return _wait(ours, pid, seconds)
    finally:
        ours.close()
        _end(pid)


def _child(work: Callable[[Callable[[str], None]], T], pipe: Connection) -> None:
    """Never returns."""
    faulthandler.disable()  # the parent reports a crash
    try:
        try:
            pipe.send(("done", work(lambda label: pipe.send(("step", label)))))
        except BaseException as error:
            pipe.send(("raised", error))
    except BaseException as error:  # a result that cannot be sent
        pipe.send(("raised", KernelError(f"{type(error).__name__}: {error}")))
    finally:
        sys.stdout.flush()
        os._exit(0)


def _wait(pipe: Connection, pid: int, seconds: float) -> T:  # type: ignore[type-var]
    label = "at its start"
    while True:
        if not pipe.poll(seconds):
            raise KernelError(
                f"{label}: no end within {seconds:g} s; look for a loop whose counter does not move"
            )
        try:
            kind, value = pipe.recv()
        except EOFError:
            raise KernelError(f"{label}: {_death(pid)}") from None
        if kind == "step":
            label = value
        elif kind == "raised":
            raise value
        else:
            return value  # type: ignore[no-any-return]


def _death(pid: int) -> str:
    _, status = os.waitpid(pid, 0)
    if not os.WIFSIGNALED(status):
        return f"the process ended with exit code {os.waitstatus_to_exitcode(status)}"
    number = os.WTERMSIG(status)
    advice = ADVICE.get(signal.Signals(number), "")
    return f"crashed, {signal.Signals(number).name}{': ' if advice else ''}{advice}"


def _end(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    except (ProcessLookupError, ChildProcessError):
        pass  # it has ended, and was waited for
