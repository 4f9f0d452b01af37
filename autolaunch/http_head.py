"""The little of HTTP that a read-only page needs: a request's head is read, an answer is written.

Pure. Owns the limits of a head and what is refused. One request per connection; a body is never read.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

LINE_BYTES = 2048
HEAD_BYTES = 8192
"""The longest request line, the longest head: a browser's takes about 1 KiB."""

_END = re.compile(rb"\r?\n\r?\n")
_LINE = re.compile(r"([A-Z]{1,20}) (\S+) HTTP/1\.[01]")
_WORDS = {
    200: "OK",
    400: "Bad Request",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    414: "URI Too Long",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    503: "Service Unavailable",
}

TEXT = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked: `path` without its query, `host` as the client named it ("" if it did not)."""

    method: str
    path: str
    host: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What is answered; `more` are headers of its own."""

    code: int
    body: bytes
    content_type: str = TEXT
    more: tuple[tuple[str, str], ...] = field(default=())


def plain(code: int, text: str, *more: tuple[str, str]) -> Answer:
    """Return an answer of one line."""
    return Answer(code, text.encode() + b"\n", more=more)


def read_head(data: bytes) -> Request | Answer | None:
    """Return the request at the beginning of `data`, the refusal it deserves, None while its head is not whole."""
    line, newline, _ = data.partition(b"\n")
    if len(line) > LINE_BYTES:
        return plain(414, f"the request line has more than {LINE_BYTES} bytes")
    end = _END.search(data)
    if (len(data) if end is None else end.start()) > HEAD_BYTES:
        return plain(431, f"the head has more than {HEAD_BYTES} bytes")
    if newline and not _LINE.fullmatch(_text(line)):
        return plain(400, "this is not HTTP/1.1")
    if end is None:
        return None
    first, *headers = _text(data[: end.start()]).splitlines()
    found = _LINE.fullmatch(first)
    if found is None:
        return plain(400, "this is not HTTP/1.1")
    return Request(found[1], _path(found[2]), _host(headers))


def _text(data: bytes) -> str:
    return data.decode("latin-1").rstrip("\r")


def _path(target: str) -> str:
    """Return the path of a target, also of one in absolute form, which a proxy may send."""
    return re.sub(r"^https?://[^/?#]*", "", target).split("?", 1)[0].split("#", 1)[0] or "/"


def _host(headers: list[str]) -> str:
    for header in headers:
        name, _, value = header.partition(":")
        if name.lower() == "host":
            return value.strip()
    return ""


def write(answer: Answer, *, body: bool = True) -> bytes:
    """Return an answer as bytes; `body` False is the answer to HEAD."""
    headers = (
        ("Content-Type", answer.content_type),
        ("Content-Length", str(len(answer.body))),
        ("Connection", "close"),
        ("Cache-Control", "no-store"),
        ("X-Content-Type-Options", "nosniff"),
        ("Referrer-Policy", "no-referrer"),
        *answer.more,
    )
    head = f"HTTP/1.1 {answer.code} {_WORDS[answer.code]}\r\n" + "".join(f"{k}: {v}\r\n" for k, v in headers) + "\r\n"
    return head.encode("latin-1") + (answer.body if body else b"")
