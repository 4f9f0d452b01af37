"""Errors by whose fault they are; each carries the exit code of the Contract and something to do.

Owns the mapping from fault to exit code. A failed engine start is not an error but a value (`failure`).
"""

from __future__ import annotations

import errno
from enum import IntEnum


class ExitCode(IntEnum):
    """The Contract's exit codes."""

    STOPPED = 0
    USAGE = 2
    NOTHING_FITS = 3
    ENGINE_FAILED = 4
    HOST_AT_FAULT = 5
    RESTARTS_SPENT = 6


class AutolaunchError(Exception):
    """Something ends the run before or outside an engine start.

    `what` says what happened, where, with both numbers; `hint` says what the reader can do.
    """

    exit_code = ExitCode.ENGINE_FAILED

    def __init__(self, what: str, *, hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.what}\nhint: {self.hint}" if self.hint else self.what


class WishError(AutolaunchError):
    """The command line, the environment or a pinned argument is at fault."""

    exit_code = ExitCode.USAGE


class StrategyError(AutolaunchError):
    """A strategy file is missing, malformed or contradicts itself."""

    exit_code = ExitCode.USAGE


class HostError(AutolaunchError):
    """The machine is at fault: no engine, no permission, a taken port, an unusable folder."""

    exit_code = ExitCode.HOST_AT_FAULT


LIMITS = "raise the limits of memory, processes and open files (ulimit, the container's, the service's)"

_SHORT_OF = {
    errno.EMFILE: "file descriptors: too many are open",
    errno.ENFILE: "file descriptors: too many are open on this host",
    errno.ENOMEM: "memory",
    errno.ENOBUFS: "memory for sockets",
}


def shortage(error: BaseException) -> str:
    """Return in words what this process is short of, "" where an error says nothing of the kind.

    A thread that cannot be started is a plain RuntimeError, a library that cannot be mapped an ImportError.
    """
    short = ""
    if isinstance(error, MemoryError) or (isinstance(error, ImportError) and "map segment" in str(error)):
        short = "memory"
    elif isinstance(error, RuntimeError) and "start new thread" in str(error):
        short = "threads or memory: no thread can be started"
    elif isinstance(error, OSError):
        short = _SHORT_OF.get(error.errno or 0, "")
    return short and f"autolaunch is short of {short}"
