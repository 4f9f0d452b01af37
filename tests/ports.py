"""Ports for tests: free, not anybody's own choice for an outgoing connection, and no other test process's.

A port of `bind(0)` is free only until somebody connects somewhere: the kernel takes it for that. These lie below the
kernel's own range. Each test process has a block of them to itself, which it holds by a socket in the abstract
namespace: that belongs to the same network namespace as the ports, and is gone with the process.
"""

from __future__ import annotations

import functools
import itertools
import os
import random
import socket
from collections.abc import Iterator
from pathlib import Path

BLOCK = 128
LOWEST, HIGHEST = 10_000, 65_536


def kernels_lowest() -> int:
    """Return the lowest port that the kernel gives to who does not care."""
    try:
        words = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split()
    except OSError:
        return 32_768
    return int(words[0])


def blocks(kernels: int) -> list[range]:
    """Return the blocks below the kernel's own range; where that leaves none, those within it."""
    end = kernels if kernels >= LOWEST + BLOCK else HIGHEST
    return [range(at, at + BLOCK) for at in range(LOWEST, end - BLOCK + 1, BLOCK)]


def claim(block: range) -> socket.socket | None:
    """Take a block for as long as the socket is open; None where another process has it."""
    held = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        held.bind(f"\0autolaunch-test-ports-{block.start}")
    except OSError:
        held.close()
        return None
    return held


@functools.cache
def _own(pid: int) -> tuple[Iterator[int], socket.socket]:
    """Return the ports of this process, round and round, and what holds them; `pid` keeps forks apart."""
    every = blocks(kernels_lowest())
    for block in random.Random(pid).sample(every, len(every)):
        if (held := claim(block)) is not None:
            return itertools.cycle(block), held
    raise AssertionError("every block of ports is taken by another test process")


def is_free(port: int) -> bool:
    """Whether nobody listens on a port of any address, and nobody's connection to it is being closed."""
    with socket.socket() as trial:
        try:
            trial.bind(("0.0.0.0", port))
        except OSError:
            return False
    return True


def free_port() -> int:
    """Return a port that nobody has and that this process has not given out lately."""
    ports, _ = _own(os.getpid())
    return next(port for port in itertools.islice(ports, 2 * BLOCK) if is_free(port))
