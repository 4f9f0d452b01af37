"""The notification protocol: what arrives at a real socket, and what happens where nobody reads it."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from autolaunch import sd_notify
from autolaunch.sd_notify import Notifier, message, watchdog_s, without


@pytest.fixture(params=["path", "abstract"])
def listener(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, socket.socket]]:
    """A manager's socket, in the file system or outside of it, and its address as NOTIFY_SOCKET spells it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bound:
        if request.param == "path":
            address = name = str(tmp_path / "notify")
        else:
            name = f"\0autolaunch-test-{os.getpid()}"
            address = "@" + name[1:]
        bound.bind(name)
        bound.setblocking(False)
        yield address, bound


def test_a_message_is_one_datagram_of_lines(listener: tuple[str, socket.socket]) -> None:
    address, bound = listener
    assert Notifier(address).send({"READY": "1", "STATUS": "serving glm"})
    assert bound.recv(4096) == b"READY=1\nSTATUS=serving glm\n"


def test_a_full_queue_loses_the_message_and_waits_for_nobody(listener: tuple[str, socket.socket]) -> None:
    address, bound = listener
    notifier = Notifier(address)
    for sent in range(100_000):
        if not notifier.send({"N": str(sent)}):
            break
    else:
        pytest.fail("the queue never filled")
    bound.recv(4096)
    assert notifier.send({"WATCHDOG": "1"})


def test_a_socket_that_is_gone_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Notifier(str(tmp_path / "gone")).send({"READY": "1"})
    with pytest.raises(ConnectionRefusedError):
        Notifier("@autolaunch-nobody-listens").send({"READY": "1"})


def test_an_address_that_is_none_is_an_os_error() -> None:
    with pytest.raises(OSError, match="AF_UNIX path too long"):
        Notifier("/" + "x" * 200).send({"READY": "1"})


def test_the_descriptor_is_not_inherited(listener: tuple[str, socket.socket]) -> None:
    assert not Notifier(listener[0])._socket.get_inheritable()


@pytest.mark.parametrize(
    ("text", "sent"),
    [
        ("one\nREADY=1\r\ntwo", b"STATUS=one READY=1 two\n"),
        ("\x1b[31mred\x00", b"STATUS= [31mred \n"),
        ("x" * 5000, b"STATUS=" + b"x" * 1000 + b"\n"),
        ("模" * 500, b"STATUS=" + "模".encode() * 333 + b"\n"),
        ("lone \udcff", b"STATUS=lone ?\n"),
    ],
)
def test_a_value_is_one_line_of_utf8_that_fits(text: str, sent: bytes) -> None:
    assert message({"STATUS": text}) == sent


@pytest.mark.parametrize(
    ("environment", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_PID": str(os.getpid())}, None),
    ],
)
def test_a_watchdog_is_ours_where_it_names_us_or_nobody(environment: dict[str, str], seconds: float | None) -> None:
    assert watchdog_s(environment) == seconds


def test_a_child_gets_none_of_it() -> None:
    environment = dict.fromkeys(sd_notify.VARIABLES, "x") | {"PATH": "/bin"}
    assert without(environment) == {"PATH": "/bin"}
