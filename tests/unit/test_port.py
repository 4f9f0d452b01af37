"""Who listens at an address, on a host with any number of connections."""

from __future__ import annotations

import os
import socket
import tracemalloc
from pathlib import Path

import pytest

from autolaunch import port
from autolaunch.errors import HostError
from autolaunch.wish import Address

CONNECTIONS = 2000


def listening() -> tuple[socket.socket, Address]:
    listener = socket.create_server(("127.0.0.1", 0))
    return listener, Address("127.0.0.1", listener.getsockname()[1])


def test_a_taken_port_is_refused_with_its_holder() -> None:
    listener, address = listening()
    with listener, pytest.raises(HostError, match=rf"held by .*, pid {os.getpid()}"):
        port.refuse_taken_port(address)
    port.refuse_taken_port(address)


def test_a_listener_is_a_stranger_unless_it_is_of_the_engine() -> None:
    listener, address = listening()
    with listener:
        assert port.stranger(address, {os.getpid()}) == ""
        assert port.stranger(address, set()).endswith(f"pid {os.getpid()}")
    assert port.stranger(address, set()) == ""


def test_the_connections_of_a_busy_host_are_not_held_in_memory() -> None:
    """All of them at once were, in a thread of each engine's own: 25 MiB stayed after a load of short connections."""
    listener, address = listening()
    with listener:
        for _ in range(CONNECTIONS):  # each leaves a line for a minute
            client = socket.create_connection((address.host, address.port))
            listener.accept()[0].close()
            client.close()
        table_bytes = len(Path("/proc/net/tcp").read_bytes())
        tracemalloc.start()
        try:
            assert port.stranger(address, {os.getpid()}) == ""
            peak_bytes = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert table_bytes > 100 * CONNECTIONS
    assert peak_bytes < table_bytes / 3
