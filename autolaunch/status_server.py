"""Serves a run's status at `--status ADDRESS`: to probes, to Prometheus, to a person with a browser.

I/O. Owns the listening socket and the reading of the log's end. Read-only: nothing that is asked changes the run, and
the supervisor never waits for whoever asks.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import os
import re
import socket
import stat
import time
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path

from autolaunch.door import Door
from autolaunch.errors import HostError
from autolaunch.http_head import Answer, Request, plain, read_head, write
from autolaunch.logfile import everything, parts
from autolaunch.metrics import Spent
from autolaunch.port import refuse_taken_port
from autolaunch.redaction import redact
from autolaunch.routes import ROUTES, View, refusal
from autolaunch.status import Status
from autolaunch.status_address import StatusAddress
from autolaunch.status_form import hushed
from autolaunch.wish import Address

BEAT_S = 5.0
BACKLOG = 1024
"""A client that finds the queue full tries again after a second and then after two: a probe would be late."""

UNIX_MODE = 0o660
FRESH_S = 0.5
"""How long an answer serves whoever asks the same again."""

TAIL_LINES = 60
TAIL_BYTES = 1 << 16
PIECES = 3
"""At the most: the part before the newest, a line about a gap, the newest."""

LINE_CHARACTERS = 600

_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|[\x00-\x08\x0b-\x1f\x7f]")


class StatusServer:
    """A watcher that shows what it is shown to whoever asks; raises `HostError` where it cannot listen.

    `hidden` are secrets that no answer may hold.
    """

    beat_s: float | None = BEAT_S

    def __init__(self, address: StatusAddress, *, hidden: Sequence[str] = ()) -> None:
        self.address = address
        self._hidden = hidden
        self._status = Status(since=time.time())
        self._spent = Spent(since=time.monotonic())
        self._beaten = time.monotonic()
        self._kept: dict[str, tuple[Status, float, Answer]] = {}
        listener = listen(address)
        self._unlink = _unlinker(address.path)
        self._door = Door(listener, self._reply)

    def show(self, shown: Status) -> None:
        """Take the status, which has just changed."""
        self._spent = self._spent.moved(shown, time.monotonic())
        self._status = hushed(shown, self._hidden)

    def beat(self) -> None:
        """The supervisor's loop is alive."""
        self._beaten = time.monotonic()

    def close(self) -> None:
        """Stop serving."""
        self._unlink()
        self._door.close()

    def _reply(self, asked: bytes) -> bytes | None:
        try:
            request = read_head(asked)
            if request is None or isinstance(request, Answer):
                return None if request is None else write(request)
            return write(self._answer(request), body=request.method != "HEAD")
        except Exception as error:  # a fault here must not end the door
            return write(plain(500, f"this cannot be shown: {type(error).__name__}"))

    def _answer(self, request: Request) -> Answer:
        refused = refusal(request, local=self.address.local and not self.address.path)
        if refused is not None:
            return refused
        status, now = self._status, time.monotonic()
        kept = self._kept.get(request.path)
        if kept is not None and kept[0] is status and now - kept[1] < FRESH_S:
            return kept[2]
        view = View(status, now - self._beaten, time.time(), lambda: tail(status, self._hidden), self._spent.until(now))
        made = ROUTES[request.path](view)
        self._kept[request.path] = (status, now, made)  # as many as there are routes
        return made


def tail(status: Status, hidden: Sequence[str]) -> tuple[str, ...]:
    """Return the newest lines of the engine's log, without colours and secrets; none where there is no log."""
    path = Path(status.log, f"attempt-{status.attempt}.log")
    begin = max(0, max((part.end for part in parts(path)), default=0) - TAIL_BYTES)
    text = b"".join(islice(everything(path, at=begin), PIECES))
    lines = text.decode("utf-8", "replace").removesuffix("\n").split("\n")[begin > 0 :] if text else []
    return tuple(_shown(line, hidden) for line in lines[-TAIL_LINES:])


def _shown(line: str, hidden: Sequence[str]) -> str:
    """Return a line as a terminal would have left it: a bar that was drawn anew shows its newest state."""
    line = redact(line, hidden).rstrip("\r").rsplit("\r", 1)[-1]
    line = _ESCAPES.sub("", line)
    return line if len(line) <= LINE_CHARACTERS else line[: LINE_CHARACTERS - 3] + "..."


def listen(address: StatusAddress) -> socket.socket:
    """Return a socket that listens at the address; raise `HostError` where that is impossible."""
    try:
        return _listen_unix(address.path) if address.path else _listen_tcp(address)
    except OSError as error:
        raise HostError(
            f"the status cannot be served at {address}: {error.strerror or error}",
            hint="choose another address with --status",
        ) from error


def _listen_tcp(address: StatusAddress) -> socket.socket:
    try:
        refuse_taken_port(Address(address.host, address.port))
    except HostError as error:
        raise HostError(f"the status cannot be served: {error.what}", hint="choose another with --status") from error
    listener = socket.socket(socket.AF_INET6 if ":" in address.host else socket.AF_INET)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address.host, address.port))
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def _listen_unix(path: str) -> socket.socket:
    """Listen at a socket that its owner and group may use; what a killed run left there is replaced."""
    _clear_stale(path)
    listener = socket.socket(socket.AF_UNIX)
    try:
        os.fchmod(listener.fileno(), UNIX_MODE)  # before it has a name: at no moment may others use it
        listener.bind(path)
        Path(path).chmod(UNIX_MODE)  # a umask may have taken the group's right
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def _clear_stale(path: str) -> None:
    """Remove a socket at which nobody listens; OSError where something else has the name."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise FileExistsError(errno.EEXIST, "a file that is no socket has this name")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX) as trial:
        trial.settimeout(1.0)
        try:
            trial.connect(path)
        except ConnectionRefusedError:
            Path(path).unlink(missing_ok=True)
            return
        except OSError as error:
            raise OSError(errno.EADDRINUSE, "somebody listens there already") from error
    raise OSError(errno.EADDRINUSE, "somebody listens there already")


def _unlinker(path: str) -> Callable[[], None]:
    """Return what removes our own socket's name, and is called at the end of the process in any case."""
    if not path:
        return lambda: None
    made = os.lstat(path)

    def unlink() -> None:
        atexit.unregister(unlink)
        with contextlib.suppress(OSError):
            there = os.lstat(path)
            if (there.st_dev, there.st_ino) == (made.st_dev, made.st_ino):
                Path(path).unlink()

    atexit.register(unlink)
    return unlink
