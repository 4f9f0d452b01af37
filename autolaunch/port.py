"""Who listens where the engine is to serve: before the start nobody may, at readiness it must be the engine.

I/O over sockets and /proc. Where the owner of a listener cannot be told for certain, nobody is accused.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from autolaunch.errors import HostError
from autolaunch.warden import read
from autolaunch.wish import Address

ELSEWHERE = frozenset(
    ("docker", "podman", "nerdctl", "ctr", "lxc", "lxc-attach", "machinectl", "systemd-run", "srun", "kubectl", "ssh")
)
"""Clients whose server runs outside the engine's process tree: there the listener says nothing."""

_LISTEN = "0A"


def refuse_taken_port(address: Address) -> None:
    """Raise `HostError` where the address cannot be listened on, naming who holds it if that can be seen."""
    if address.uds:
        return
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind((address.host, address.port))
    except OSError as error:
        taken = error.errno == errno.EADDRINUSE
        holder = _holder(address) if taken else ""
        place = f"port {address.port}" if taken else f"{address.host or 'any address'}, port {address.port}"
        raise HostError(
            f"{place} cannot be listened on: {error.strerror or error}{holder and f' (held by {holder})'}",
            hint="stop what holds it, or choose another with --port" if taken else "check --host and --port",
        ) from error


def stranger(address: Address, members: Iterable[int]) -> str:
    """Return name and pid of who listens at the engine's address if it is certainly none of its processes, else ""."""
    own = tuple(members)
    if address.uds or any(_name(pid) in ELSEWHERE for pid in own):
        return ""
    listeners = _listeners(address)
    for pid in own:
        sockets = _sockets(pid)
        if sockets is None or sockets & listeners:
            return ""  # not ours to read, or the engine's own
    return _owner(listeners)


def _holder(address: Address) -> str:
    return _owner(_listeners(address))


def _owner(listeners: set[str]) -> str:
    if not listeners:
        return ""
    here = _pid_space("self")
    for entry in os.scandir("/proc"):
        pid = int(entry.name) if entry.name.isdigit() else 0
        if pid and (_sockets(pid) or set()) & listeners and _pid_space(pid) == here:
            return f"{_name(pid)}, pid {pid}"
    return ""


def _listeners(address: Address) -> set[str]:
    """Return the inodes of the sockets that take connections to the address: exact ones before those of any host."""
    every = [(host, inode) for host, port, inode in _listening() if port == address.port]
    exact = {inode for host, inode in every if host == address.local_host}
    return exact or {inode for _, inode in every}


def _listening() -> Iterator[tuple[str, int, str]]:
    for file, family in (("/proc/net/tcp", socket.AF_INET), ("/proc/net/tcp6", socket.AF_INET6)):
        with contextlib.suppress(OSError), Path(file).open(encoding="ascii") as lines:  # no IPv6, or no /proc/net
            for line in lines:  # one by one: a busy host has tens of thousands, most of them closed already
                words = line.split(maxsplit=10)
                if words[3] == _LISTEN:
                    host, _, port = words[1].partition(":")
                    yield _host(bytes.fromhex(host), family), int(port, 16), words[9]


def _host(words: bytes, family: socket.AddressFamily) -> str:
    """Return an address as it is written; the kernel prints it in 32-bit words of the machine's byte order."""
    if sys.byteorder == "little":
        words = b"".join(words[at : at + 4][::-1] for at in range(0, len(words), 4))
    return socket.inet_ntop(family, words)


def _sockets(pid: int) -> set[str] | None:
    """Return the inodes of a process's sockets; None where they may not be read, none where it is gone."""
    found = set()
    try:
        for entry in os.scandir(f"/proc/{pid}/fd"):
            try:
                target = os.readlink(entry.path)  # noqa: PTH115 - socket:[1234] is no path
            except FileNotFoundError:
                continue
            if target.startswith("socket:["):
                found.add(target[8:-1])
    except PermissionError:
        return None
    except OSError:
        return set()
    return found


def _pid_space(pid: int | str) -> str:
    try:
        return os.readlink(f"/proc/{pid}/ns/pid")  # noqa: PTH115 - pathlib would keep each name
    except OSError:
        return ""


def _name(pid: int) -> str:
    try:
        return read(f"/proc/{pid}/comm").decode("utf-8", "replace").strip()
    except OSError:
        return ""
