"""A door that nobody can block: places, deadlines and a share of one core, whoever comes."""

from __future__ import annotations

import contextlib
import errno
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from autolaunch import door
from autolaunch.door import Door

WHOLE = b"question\n"
PATIENT_S = 60.0


def reply(asked: bytes) -> bytes | None:
    """Answer a line with its length, `long` with a megabyte, what has no end yet with nothing."""
    if asked.startswith(b"long"):
        return b"x" * (1 << 20)
    return f"{len(asked)} bytes".encode() if b"\n" in asked or len(asked) > 100 else None


@contextlib.contextmanager
def opened(answer: door.Reply = reply) -> Iterator[tuple[Door, tuple[str, int]]]:
    listener = socket.create_server(("127.0.0.1", 0))
    address = listener.getsockname()
    made = Door(listener, answer)
    try:
        yield made, address
    finally:
        made.close()
        assert not made._thread.is_alive()


def ask(address: tuple[str, int], question: bytes = WHOLE, *, timeout: float = PATIENT_S) -> bytes:
    with socket.create_connection(address, timeout) as client:
        client.sendall(question)
        return b"".join(iter(lambda: client.recv(1 << 16), b""))


def until(holds: Callable[[], bool], what: str, deadline_s: float = 60.0) -> None:
    deadline = time.monotonic() + deadline_s
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.005)


def test_a_question_is_answered_and_the_place_is_free_again() -> None:
    with opened() as (made, address):
        assert ask(address) == b"9 bytes"
        until(lambda: made.visits == 0, "the place is free")


def test_a_question_may_come_in_pieces() -> None:
    with opened() as (made, address), socket.create_connection(address, PATIENT_S) as client:
        for byte in WHOLE[:-1]:
            client.sendall(bytes((byte,)))
            until(lambda: made.visits == 1, "the client is in")
        client.sendall(WHOLE[-1:])
        assert client.recv(100) == b"9 bytes"


def test_a_client_that_asks_and_shuts_its_side_is_answered() -> None:
    with opened() as (_, address), socket.create_connection(address, PATIENT_S) as client:
        client.sendall(WHOLE)
        client.shutdown(socket.SHUT_WR)
        assert client.recv(100) == b"9 bytes"


def test_a_client_that_never_asks_has_to_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "HEAD_S", 0.1)
    with opened() as (_, address), socket.create_connection(address, PATIENT_S) as client:
        assert client.recv(1) == b""


def test_a_client_that_drips_does_not_get_more_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "HEAD_S", 0.3)
    with opened() as (_, address), socket.create_connection(address, PATIENT_S) as client:
        began = time.monotonic()
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            while time.monotonic() < began + PATIENT_S:
                client.sendall(b"x")
                threading.Event().wait(0.02)
        assert time.monotonic() - began < PATIENT_S / 2


def test_a_client_that_does_not_read_has_to_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "SEND_S", 0.2)
    asked: list[bytes] = []

    def much(question: bytes) -> bytes:
        asked.append(question)
        return b"x" * (64 << 20)

    with opened(much) as (made, address), socket.create_connection(address, PATIENT_S) as client:
        client.sendall(WHOLE)
        until(lambda: bool(asked) and made.visits == 0, "the client was in and had to leave")


def test_a_long_answer_arrives_whole() -> None:
    with opened() as (_, address):
        assert ask(address, b"long") == b"x" * (1 << 20)


def test_what_is_sent_behind_the_question_does_not_take_the_answer_back() -> None:
    with opened() as (_, address):
        assert ask(address, WHOLE + b"y" * 200_000) == b"16384 bytes"


def test_a_reset_ends_one_visit_only() -> None:
    with opened() as (made, address):
        client = socket.create_connection(address, PATIENT_S)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.sendall(b"x")
        until(lambda: made.visits == 1, "the client is in")
        client.close()
        until(lambda: made.visits == 0, "the place is free")
        assert ask(address) == b"9 bytes"


def test_places_are_bounded_and_whoever_waits_gets_the_oldest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "CONNECTIONS", 4)
    monkeypatch.setattr(door, "PATIENCE_S", 0.2)
    monkeypatch.setattr(door, "HEAD_S", 600.0)
    with opened() as (made, address), contextlib.ExitStack() as clients:
        idle = [clients.enter_context(socket.create_connection(address, PATIENT_S)) for _ in range(4)]
        until(lambda: made.visits == 4, "every place is taken")
        began = time.monotonic()
        assert ask(address) == b"9 bytes"
        assert time.monotonic() - began < PATIENT_S
        assert made.visits <= 4
        assert idle[0].recv(1) == b""


def test_nobody_has_to_leave_while_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "PATIENCE_S", 0.0)
    with opened() as (made, address), socket.create_connection(address, PATIENT_S) as early:
        for _ in range(20):
            assert ask(address) == b"9 bytes"
        early.sendall(WHOLE)
        assert early.recv(100) == b"9 bytes"
        assert made.visits >= 1


class Poor(socket.socket):
    """A listener of a process that has no descriptor left for some calls."""

    refusals = 2

    def accept(self) -> tuple[socket.socket, object]:
        if Poor.refusals:
            Poor.refusals -= 1
            raise OSError(errno.EMFILE, "Too many open files")
        return super().accept()


def test_a_process_out_of_descriptors_tries_again_instead_of_spinning() -> None:
    listener = Poor()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    address = listener.getsockname()
    made = Door(listener, reply)
    try:
        assert ask(address) == b"9 bytes"
        assert Poor.refusals == 0
    finally:
        made.close()


def test_a_kernel_out_of_memory_costs_one_visit_and_not_the_door(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "HEAD_S", 3.0)
    with opened() as (made, address):
        assert ask(address) == b"9 bytes"
        register, refusals = made._selector.register, iter((1,))

        def refuse(*args: Any) -> Any:
            if next(refusals, 0):
                raise OSError(errno.ENOMEM, "Cannot allocate memory")
            return register(*args)

        monkeypatch.setattr(made._selector, "register", refuse)
        with pytest.raises(ConnectionResetError):  # what it asked was never read
            ask(address)
        assert ask(address) == b"9 bytes"
        until(lambda: made.visits == 0, "the places are free")


def test_a_busy_door_takes_its_share_of_a_core_and_no_more() -> None:
    def hard(_: bytes) -> bytes:
        end = time.thread_time() + 0.02
        while time.thread_time() < end:
            pass
        return b"done"

    with opened(hard) as (_, address):
        before, began = time.process_time(), time.monotonic()
        asking = [threading.Thread(target=ask, args=(address,)) for _ in range(20)]
        for one in asking:
            one.start()
        for one in asking:
            one.join(PATIENT_S)
        took, used = time.monotonic() - began, time.process_time() - before
    assert used >= 0.4
    assert used / took < 0.6  # a quarter, and the clients' own


def test_an_idle_door_costs_nothing() -> None:
    with opened() as (_, address):
        assert ask(address) == b"9 bytes"
        before = time.process_time()
        threading.Event().wait(0.5)
        assert time.process_time() - before < 0.1


def test_closing_ends_every_visit_and_frees_the_address() -> None:
    with opened() as (made, address), socket.create_connection(address, PATIENT_S) as client:
        until(lambda: made.visits == 1, "the client is in")
        made.close()
        assert client.recv(1) == b""
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address, PATIENT_S)
