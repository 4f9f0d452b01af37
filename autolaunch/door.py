"""A small door for HTTP: one thread, a bounded number of connections, none of which may stay for long.

I/O over sockets. Owns accepting, deadlines and who has to leave; what is answered is the caller's. Slow clients cost a
place each, the oldest of which is given to whoever waits; busy ones get a share of one core and no more, so that the
process which serves the door does its own work undisturbed.
"""

from __future__ import annotations

import contextlib
import errno
import selectors
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

CONNECTIONS = 64
HEAD_S = 5.0
SEND_S = 10.0
LINGER_S = 1.0
"""How long a client may take to ask, to read the answer, and to stop sending what nobody wants."""

PATIENCE_S = 0.5
"""Where every place is taken, whoever came longer ago than this has to leave."""

SHARE = 0.25
TURN_S = 0.01
"""Of one core, at most, under any load; and for how long at a stretch."""

READ_BYTES = 1 << 14
RETRY_S = 0.1
"""After no descriptor was left for a client."""

Reply = Callable[[bytes], bytes | None]
"""Returns the whole answer to what came so far, None while that is not a whole question. Must not raise."""


@dataclass(slots=True)
class Visit:
    """One connection: what came, what is still to be sent, and when it ends."""

    sock: socket.socket
    came: float
    deadline: float
    asked: bytearray = field(default_factory=bytearray)
    left: memoryview | None = None
    lingers: bool = False


class Door:
    """Answers at a listening socket, which it owns from now on, until it is closed."""

    def __init__(self, listener: socket.socket, reply: Reply) -> None:
        self._listener = listener
        self._reply = reply
        self._visits: dict[int, Visit] = {}
        self._selector = selectors.DefaultSelector()
        self._bell, self._clapper = socket.socketpair()
        self._closing = threading.Event()
        self._deaf_until = 0.0
        self._listens = False
        listener.setblocking(False)
        self._selector.register(self._bell, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, name="status", daemon=True)
        self._thread.start()

    @property
    def visits(self) -> int:
        """How many connections there are."""
        return len(self._visits)

    def close(self) -> None:
        """End every connection and the thread; once is enough."""
        if not self._closing.is_set():
            self._closing.set()
            self._clapper.send(b"x")
            self._thread.join(5.0)
            self._bell.close()
            self._clapper.close()

    def _run(self) -> None:
        try:
            while not self._closing.is_set():
                try:
                    rest = self._turn() * (1 / SHARE - 1)
                except OSError:  # the kernel is out of something; whoever is here keeps its deadline
                    rest = RETRY_S
                self._closing.wait(rest)
        finally:
            for visit in tuple(self._visits.values()):
                self._end(visit)
            self._listener.close()
            self._selector.close()

    def _turn(self) -> float:
        """Wait for something to do and do it; return the processor seconds it took."""
        self._mind_the_listener(time.monotonic())
        ready = self._selector.select(self._patience(time.monotonic()))
        begun = time.thread_time()
        for key, _ in ready:
            visit = self._visits.get(key.fd)
            if key.fileobj is self._listener:
                self._admit(time.monotonic())
            elif visit is not None:
                self._serve(visit)
            if time.thread_time() - begun > TURN_S:
                break  # who is left is ready in the next turn too
        now = time.monotonic()
        for visit in [one for one in self._visits.values() if one.deadline <= now]:
            self._end(visit)
        return time.thread_time() - begun

    # --- who may come in

    def _mind_the_listener(self, now: float) -> None:
        """Listen while a place is free or one can be freed."""
        wanted = now >= self._deaf_until and (len(self._visits) < CONNECTIONS or self._oldest(now) is not None)
        if wanted and not self._listens:
            self._selector.register(self._listener, selectors.EVENT_READ)
        elif self._listens and not wanted:
            self._selector.unregister(self._listener)
        self._listens = wanted

    def _oldest(self, now: float) -> Visit | None:
        oldest = min(self._visits.values(), key=lambda visit: visit.came)
        return oldest if now - oldest.came >= PATIENCE_S else None

    def _patience(self, now: float) -> float | None:
        """Return how long nothing may happen before something must."""
        times = [visit.deadline for visit in self._visits.values()]
        if len(self._visits) >= CONNECTIONS and not self._listens:
            times.append(min(visit.came for visit in self._visits.values()) + PATIENCE_S)
        if self._deaf_until > now:
            times.append(self._deaf_until)
        return None if not times else max(0.0, min(times) - now)

    def _admit(self, now: float) -> None:
        while len(self._visits) < CONNECTIONS or self._make_room(now):
            try:
                sock, _ = self._listener.accept()
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    self._deaf_until = now + RETRY_S  # else the same client would be reported for ever
                return
            sock.setblocking(False)
            self._visits[sock.fileno()] = Visit(sock, now, now + HEAD_S)
            self._selector.register(sock, selectors.EVENT_READ)

    def _make_room(self, now: float) -> bool:
        oldest = self._oldest(now)
        if oldest is not None:
            self._end(oldest)
        return oldest is not None

    # --- one visit

    def _serve(self, visit: Visit) -> None:
        try:
            if visit.left is not None:
                self._send(visit)
            elif self._hears(visit):
                self._answer(visit)
        except BlockingIOError:
            return
        except OSError:  # the client is gone
            self._end(visit)

    def _hears(self, visit: Visit) -> bool:
        """Take what came; return whether it is to be judged."""
        data = visit.sock.recv(READ_BYTES)
        if not data:
            self._end(visit)
        elif not visit.lingers:
            visit.asked += data
            return True
        return False

    def _answer(self, visit: Visit) -> None:
        answer = self._reply(bytes(visit.asked))
        if answer is None:
            return
        visit.asked.clear()
        visit.left = memoryview(answer)
        visit.deadline = time.monotonic() + SEND_S
        self._selector.modify(visit.sock, selectors.EVENT_WRITE)
        self._send(visit)

    def _send(self, visit: Visit) -> None:
        assert visit.left is not None
        visit.left = visit.left[visit.sock.send(visit.left) :]
        if visit.left:
            return
        visit.left = None  # what it still sends is taken, or closing would take the answer back
        visit.lingers = True
        visit.deadline = time.monotonic() + LINGER_S
        visit.sock.shutdown(socket.SHUT_WR)
        self._selector.modify(visit.sock, selectors.EVENT_READ)

    def _end(self, visit: Visit) -> None:
        if self._visits.pop(visit.sock.fileno(), None) is not None:
            with contextlib.suppress(KeyError, ValueError):
                self._selector.unregister(visit.sock)
            visit.sock.close()
