"""The line from the API server to the engine core and from there to the workers: who is asked does its part.

Each line is a pair of sockets. A byte is a question, a byte back the answer, and the end of the file is the other's
end. Processes that are stopped answer nothing; who waits for them neither prints nor uses processor time.
"""

from __future__ import annotations

import os
import select
import signal

from .noise import say
from .texts import STDERR

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

WORKER_DIED = "ERROR [multiproc_executor.py:273] Worker proc VllmWorker-0 died unexpectedly, shutting down executor."
CORE_DIED = "ERROR [core_client.py:610] Engine core proc EngineCore_DP0 died unexpectedly, shutting down client."
SHUTTING_DOWN = "INFO:     Shutting down"
NOT_MADE = "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}"


def say_core_died(status: int, *, serving: bool) -> int:
    """Say what the API server says of a core that ended with this wait status; give its own exit status."""
    if serving:
        say([(STDERR, CORE_DIED), (STDERR, SHUTTING_DOWN)])
        return 0
    say([(STDERR, NOT_MADE.format({"EngineCore_DP0": os.waitstatus_to_exitcode(status)}))])
    return 1


def ends() -> tuple[int, int]:
    """Give the two ends of a new line, for the one who asks and the one who is asked."""
    from _socket import socketpair

    ours, theirs = socketpair()
    return ours.detach(), theirs.detach()


def ask(line: int) -> bool:
    """Ask whoever is at the other end; return once it did its part, False if it is gone."""
    try:
        os.write(line, b"?")
        return os.read(line, 1) == b"!"
    except (BrokenPipeError, ConnectionResetError):
        return False


def take_part(line: int, below: list[int], *, core: bool) -> NoReturn:
    """Be asked for the rest of one's life: each answer needs all `below`, with whom it ends; never with the asker."""
    while True:
        ready, _, _ = select.select([line, *below], [], [])
        if any(one in ready for one in below) or not _answers(line, below):
            break
    if core:
        say([(STDERR, WORKER_DIED)])
    os._exit(1)


def _answers(line: int, below: list[int]) -> bool:
    try:
        if not os.read(line, 1):
            _outlive()
        if not all(ask(one) for one in below):
            return False
        os.write(line, b"!")
    except (BrokenPipeError, ConnectionResetError):
        _outlive()
    return True


def _outlive() -> NoReturn:
    """The asker is gone: live on, as vLLM's core does after a SIGKILL of the API server."""
    while True:
        signal.pause()
