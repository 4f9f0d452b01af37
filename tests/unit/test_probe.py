"""What counts as an answer: anything else is a verdict too, whatever bytes come."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autolaunch.probe import Answer, Verdict, healthy, prove
from autolaunch.wish import Address

OK = b"HTTP/1.1 200 OK\r\n"
MODELS = b'{"data": [{"id": "m"}]}'


@contextmanager
def answering(*answers: bytes) -> Iterator[Address]:
    """A server that gives one answer per connection, the last one to all that follow, and hangs up."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        for number in range(1000):
            with suppress(OSError), listener.accept()[0] as client:
                client.settimeout(10.0)
                client.recv(65536)
                client.sendall(answers[min(number, len(answers) - 1)])
            if listener.fileno() < 0:
                return

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield Address("127.0.0.1", listener.getsockname()[1])
    finally:
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def whole(body: bytes, head: bytes = OK) -> bytes:
    return head + b"Content-Length: %d\r\n\r\n" % len(body) + body


def test_a_completion_is_an_answer() -> None:
    with answering(whole(MODELS), whole(b'{"choices": []}')) as address:
        assert prove(address) == Answer(Verdict.PASSED)


@pytest.mark.parametrize("body", [b"", b"<html>", b'{"choices": [', b"[]", b'"yes"', b"\xff\xfe", b"null"])
def test_a_status_of_200_without_an_object_is_none(body: bytes) -> None:
    """A completion of any 200 counted: one whose body broke off, or never ended, made the engine READY."""
    with answering(whole(MODELS), whole(body)) as address:
        answer = prove(address)
    assert answer.verdict is Verdict.NOT_YET
    assert answer.seen.startswith("HTTP 200: ")
    assert not answer.final


def test_a_refusal_is_final_and_a_5xx_is_not() -> None:
    for head, verdict in (
        (b"HTTP/1.1 400 Bad\r\n", Verdict.REFUSED),
        (b"HTTP/1.1 503 No\r\n", Verdict.NOT_YET),
    ):
        with answering(whole(MODELS), whole(b"{}", head)) as address:
            assert prove(address).verdict is verdict


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([b"", b"HTTP/1.1 ", OK, whole(MODELS)[:60], OK + b"Transfer-Encoding: chunked\r\n\r\n"]),
    st.binary(),
)
def test_whatever_comes_there_is_a_verdict(before: bytes, rest: bytes) -> None:
    with answering(before + rest) as address:
        assert healthy(address, timeout=1.0) in (True, False)
        assert prove(address, timeout=1.0).verdict is not Verdict.PASSED
