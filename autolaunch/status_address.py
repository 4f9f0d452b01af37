"""Where the status is served: `--status ADDRESS` as a value, checked once.

Pure. Owns the spellings and what they mean; listening there is `status_server`'s.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

UNIX = "unix:"
LONGEST_PATH_BYTES = 107
"""What a socket's name may have in Linux (108 with its end)."""


@dataclass(frozen=True, slots=True)
class StatusAddress:
    """A TCP host (an IP address) and port, or the path of a unix socket."""

    host: str = "127.0.0.1"
    port: int = 0
    path: str = ""

    @property
    def local(self) -> bool:
        """Whether only this machine reaches it."""
        return bool(self.path) or ipaddress.ip_address(self.host).is_loopback

    def __str__(self) -> str:
        if self.path:
            return UNIX + self.path
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def meets(self, host: str, port: int) -> bool:
        """Whether a server at this host (an address or a name, "" is any) and port would be in the way."""
        if self.path or port != self.port:
            return False
        return _any(self.host) or _any(host) or _same(self.host, host)


def parse_status_address(text: str) -> StatusAddress:
    """Return the address of "8001", "127.0.0.1:8001", "[::1]:8001", "unix:/run/x.sock"; ValueError says what is wrong.

    A port alone is on the loopback address: who wants to be seen from elsewhere names an address.
    """
    if text.startswith(UNIX):
        return _unix(text[len(UNIX) :])
    found = re.fullmatch(r"(?:(\[[^\]]*\]|[^:\[\]]*):)?(\d{1,5})", text)
    if found is None:
        raise ValueError(f"{text!r} is no address; write a port, HOST:PORT, [IPv6]:PORT or unix:/path")
    host, port = found[1], int(found[2])
    if not 1 <= port <= 65535:
        raise ValueError(f"port {port} is not between 1 and 65535")
    if host is None:
        return StatusAddress(port=port)
    return StatusAddress(_host(host, text), port)


def _host(host: str, text: str) -> str:
    if host == "localhost":
        return "127.0.0.1"
    bare = host.strip("[]")
    if not bare:
        raise ValueError(f"{text!r} names no host; write 127.0.0.1 for this machine only, 0.0.0.0 for everyone")
    try:
        return str(ipaddress.ip_address(bare))
    except ValueError:
        raise ValueError(f"{bare!r} is no IP address; write one, or localhost") from None


def _unix(path: str) -> StatusAddress:
    if not path or "\0" in path:
        raise ValueError("unix: names no path; write for example unix:/run/autolaunch.sock")
    length = len(path.encode("utf-8", "surrogateescape"))
    if length > LONGEST_PATH_BYTES:
        raise ValueError(f"the path of a socket has at most {LONGEST_PATH_BYTES} bytes, this one has {length}")
    return StatusAddress(host="", path=path)


def _any(host: str) -> bool:
    return host in ("", "0.0.0.0", "::")  # noqa: S104 - compared with, not bound


def _same(host: str, other: str) -> bool:
    return host == ("127.0.0.1" if other == "localhost" else other)
