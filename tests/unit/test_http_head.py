"""The little of HTTP that is understood, and that nothing else does harm."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as some

from autolaunch.http_head import HEAD_BYTES, LINE_BYTES, Answer, Request, plain, read_head, write


@pytest.mark.parametrize(
    ("data", "request_"),
    [
        (b"GET / HTTP/1.1\r\nHost: localhost:8001\r\n\r\n", Request("GET", "/", "localhost:8001")),
        (b"HEAD /livez HTTP/1.0\r\n\r\n", Request("HEAD", "/livez")),
        (b"GET /status?pretty=1#x HTTP/1.1\nhOsT:  [::1]:8001 \n\n", Request("GET", "/status", "[::1]:8001")),
        (b"GET http://127.0.0.1:8001/readyz HTTP/1.1\r\n\r\n", Request("GET", "/readyz")),
        (b"GET http://127.0.0.1:8001 HTTP/1.1\r\n\r\n", Request("GET", "/")),
        (b"POST /status HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", Request("POST", "/status")),
    ],
)
def test_a_head_is_read(data: bytes, request_: Request) -> None:
    assert read_head(data) == request_


def test_a_head_is_waited_for_until_it_is_whole() -> None:
    whole = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"
    assert [read_head(whole[:end]) for end in range(len(whole))] == [None] * len(whole)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"GET /\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"\r\n\r\n", 400),
        (b"GET /" + b"x" * LINE_BYTES, 414),
        (b"GET / HTTP/1.1\r\nX: " + b"y" * HEAD_BYTES, 431),
        (b"GET / HTTP/1.1\r\nX: " + b"y" * HEAD_BYTES + b"\r\n\r\n", 431),
    ],
)
def test_what_is_no_head_is_refused_before_it_is_whole(data: bytes, code: int) -> None:
    refused = read_head(data)
    assert isinstance(refused, Answer)
    assert refused.code == code


@given(some.binary(max_size=300))
def test_no_bytes_do_harm(data: bytes) -> None:
    for begun in (data, b"GET / HTTP/1.1\r\n" + data, b"GET " + data):
        read = read_head(begun)
        if isinstance(read, Answer):
            assert write(read).startswith(b"HTTP/1.1 4")
        else:
            assert read is None or read.path


def test_an_answer_says_its_length_and_that_it_is_the_last() -> None:
    assert write(plain(503, "not yet", ("X-More", "1"))) == (
        b"HTTP/1.1 503 Service Unavailable\r\n"
        b"Content-Type: text/plain; charset=utf-8\r\n"
        b"Content-Length: 8\r\n"
        b"Connection: close\r\n"
        b"Cache-Control: no-store\r\n"
        b"X-Content-Type-Options: nosniff\r\n"
        b"Referrer-Policy: no-referrer\r\n"
        b"X-More: 1\r\n\r\n"
        b"not yet\n"
    )


def test_the_answer_to_head_is_the_same_without_its_body() -> None:
    answer = plain(200, "alive")
    assert write(answer, body=False) + b"alive\n" == write(answer)
