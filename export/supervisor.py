# SPDX-License-Identifier: Apache-2.0
"""Runs the command line in a child process, so that a crash of native code ends in a sentence.

TensorFlow, the converters and the readers of model files are native code. A damaged or hostile model, or a lack of
memory, can end their process by a signal, which no exception handler sees.
"""

import contextlib
import ctypes
import multiprocessing
import os
import signal
import sys
import warnings
from collections.abc import Callable
from typing import Any

FAILED = 1
PR_SET_PDEATHSIG = 1  # of <sys/prctl.h>
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
REASONS = {
    signal.SIGKILL: "The system ends the process that needs most memory in this way when memory runs out.",
    signal.SIGXFSZ: "A file grew beyond the limit of this process (ulimit -f).",
    signal.SIGXCPU: "The process used up its limit of processor time (ulimit -t).",
}
CRASH = "Native code of TensorFlow or of a converter crashed: the model may be damaged, or too large for the memory."


class Stopped(BaseException):
    """The process received a signal that asks it to stop."""

    def __init__(self, number: int):
        super().__init__(signal.Signals(number).name)
        self.status = 128 + number


def supervised(main: Callable[[], int]) -> int:
    """Runs `main` in a child process. Returns its exit status, or 1 with a message if a signal ended it.

    The child is a fork, because TensorFlow takes seconds to import. TensorFlow starts its threads with the first
    operation, so `main` must be called before any.
    """
    child = multiprocessing.get_context("fork").Process(target=_child, args=(main, os.getpid()))
    with warnings.catch_warnings():
        # Python 3.12 warns about the threads of OpenBLAS, which NumPy has started. They are idle.
        warnings.simplefilter("ignore", DeprecationWarning)
        signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)  # signals wait until both processes have their handlers
        child.start()
    pid = child.pid or 0  # a started process has one

    def forward(number: int, _: Any) -> None:
        with contextlib.suppress(ProcessLookupError):  # the child has just ended
            os.kill(pid, number)

    _handle(forward)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
    child.join()
    if child.exitcode is not None and child.exitcode >= 0:
        return child.exitcode
    number = signal.Signals(-(child.exitcode or 0))
    reason = REASONS.get(number, CRASH)
    print(f"error: The export was ended by {number.name} before it was complete. {reason}", file=sys.stderr)
    return FAILED


def _handle(handler: Callable[[int, Any], None]) -> None:
    """Sets the handler of the signals that ask to stop. Those that `nohup` or a shell ignores stay ignored."""
    for number in STOPPING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)


def _child(main: Callable[[], int], parent: int) -> None:
    """Runs `main`, and exits with its status. A signal that asks to stop becomes an exception, once."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)  # the child does not outlive a killed parent
    if os.getppid() != parent:
        os._exit(FAILED)

    def stop(number: int, _: Any) -> None:
        for other in STOPPING:
            signal.signal(other, signal.SIG_IGN)
        raise Stopped(number)

    _handle(stop)
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
        status = main()
    except Stopped as stopped:
        print(f"error: The export was stopped by {stopped} before it was complete.", file=sys.stderr)
        status = stopped.status
    sys.exit(status)
