"""systemd's notification protocol, sd_notify(3): lines `NAME=value` in one datagram to the socket in NOTIFY_SOCKET.

I/O. Owns the socket and the form of a message. Never waits: what a full queue does not take is said to be lost.
"""

from __future__ import annotations

import errno
import os
import re
import socket
from collections.abc import Mapping

SOCKET = "NOTIFY_SOCKET"
WATCHDOG_USEC = "WATCHDOG_USEC"
WATCHDOG_PID = "WATCHDOG_PID"
VARIABLES = frozenset({SOCKET, WATCHDOG_USEC, WATCHDOG_PID})
"""What systemd tells its main process, and what must not be inherited: sd_notify(3) asks for it."""

LONGEST_VALUE_BYTES = 1000
"""systemd drops a message of more than a page (NOTIFY_BUFFER_MAX), and a status is one line of a terminal."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]+")
_FULL = frozenset({errno.EAGAIN, errno.ENOBUFS})


class Notifier:
    """The way to the manager that started us; one descriptor for as long as it lives, not inherited."""

    def __init__(self, address: str) -> None:
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.setblocking(False)

    def send(self, fields: Mapping[str, str]) -> bool:
        """Send one message; False where the manager's queue is full. Raises `OSError` where nobody listens."""
        try:
            self._socket.sendto(message(fields), self._address)
        except OSError as error:
            if error.errno in _FULL:
                return False
            raise
        return True


def message(fields: Mapping[str, str]) -> bytes:
    """Return the datagram; a value is one line, cut where it is too long."""
    return b"".join(name.encode() + b"=" + _value(text) + b"\n" for name, text in fields.items())


def _value(text: str) -> bytes:
    plain = _CONTROL.sub(" ", text).encode("utf-8", "replace")
    return plain[:LONGEST_VALUE_BYTES].decode("utf-8", "ignore").encode()


def watchdog_s(environment: Mapping[str, str]) -> float | None:
    """Return within which time this process must give a sign of life, None where nobody waits for one of ours."""
    pid, usec = environment.get(WATCHDOG_PID, ""), environment.get(WATCHDOG_USEC, "")
    if (pid and pid != str(os.getpid())) or not usec.isdecimal() or int(usec) == 0:
        return None
    return int(usec) / 1e6


def without(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a child, which must not speak to the manager in our name."""
    return {name: value for name, value in environment.items() if name not in VARIABLES}
