"""Answers that are none: `behaviours.WAYS`, as bytes on a connection."""

from __future__ import annotations

import time
from io import BufferedIOBase

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
DRIP_S = 0.05


def answer(out: BufferedIOBase, way: str) -> None:
    """Answer in one of the ways; returns when that is over, or raises OSError when the client has gone."""
    if way == "not_http":
        out.write(b"\x16\x03\x01\x00\xff\xfe no HTTP at all \x00\r\n\r\n")
    elif way == "bad_json":
        body = b'{"data": [{"id": "glm'
        out.write(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)
    elif way == "huge_headers":
        out.write(HEAD + b"".join(b"X-%d: %s\r\n" % (number, b"y" * 60_000) for number in range(200)) + b"\r\n")
    elif way == "endless":
        out.write(HEAD + b"\r\n")
        while True:
            out.write(b"z" * 65536)
    elif way == "drip":
        for byte in HEAD + b"X: " + b"y" * 1_000_000:
            out.write(bytes((byte,)))
            out.flush()
            time.sleep(DRIP_S)
