"""Process 1 of a container: passes on what it is asked to do, collects the dead, and ends as the run itself ends.

I/O. Used where autolaunch is number 1 of its PID namespace, which is what a container's ENTRYPOINT is. The kernel gives
that process every orphan of the container and none of the signals that it has no handler for. The run is a child of it
and knows nothing of this: its own bookkeeping of children stays as it is anywhere else. Must import nothing slow.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Collection
from typing import NoReturn


def is_init() -> bool:
    """Whether this process is number 1 of its PID namespace."""
    return os.getpid() == 1


def become_init(forwarded: Collection[signal.Signals]) -> None:
    """Return in a child, which is to do the work; the caller stays behind until that ends and exits with its code.

    `forwarded` are the signals that the child is to get, whose handlers must be there already: one that comes between
    the fork and the child's first line is handled by them.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # where it is ignored, the kernel keeps the child's code from us
    watched = {signal.SIGCHLD, *forwarded}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, watched)
    child = os.fork()
    if not child:
        _take_terminal()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return
    _attend(child, watched)


def _attend(child: int, watched: Collection[signal.Signals]) -> NoReturn:
    """Wait for signals and for the dead until the child is one of them; the kernel then ends whatever is left."""
    while True:
        number = signal.sigwait(watched)
        if number != signal.SIGCHLD:
            os.kill(child, number)  # not reaped yet, so its number is still its own
        status = _reap(child)
        if status is not None:
            code = os.waitstatus_to_exitcode(status)
            os._exit(code if code >= 0 else 128 - code)  # as a shell says that a signal ended it


def _reap(child: int) -> int | None:
    """Collect everything that has ended; return the child's status where it is among them."""
    found = None
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG)) != (0, 0):
            pid, status = ended
            found = status if pid == child else found
    return found


def _take_terminal() -> None:
    """Make this process a group of its own, the one that a terminal asks: Ctrl-C must come once, not twice."""
    with contextlib.suppress(OSError):
        os.setpgid(0, 0)
        if os.isatty(0):
            before = signal.signal(signal.SIGTTOU, signal.SIG_IGN)
            os.tcsetpgrp(0, os.getpgrp())
            signal.signal(signal.SIGTTOU, before)
