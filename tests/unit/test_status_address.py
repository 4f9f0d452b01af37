"""`--status ADDRESS`: every spelling that is understood, and what is said of the others."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as some

from autolaunch.status_address import StatusAddress, parse_status_address


@pytest.mark.parametrize(
    ("text", "address", "local"),
    [
        ("8001", StatusAddress("127.0.0.1", 8001), True),
        ("127.0.0.1:8001", StatusAddress("127.0.0.1", 8001), True),
        ("127.9.9.9:1", StatusAddress("127.9.9.9", 1), True),
        ("localhost:8001", StatusAddress("127.0.0.1", 8001), True),
        ("[::1]:8001", StatusAddress("::1", 8001), True),
        ("0.0.0.0:8001", StatusAddress("0.0.0.0", 8001), False),
        ("[::]:65535", StatusAddress("::", 65535), False),
        ("192.168.1.7:8001", StatusAddress("192.168.1.7", 8001), False),
        ("unix:/run/x.sock", StatusAddress("", 0, "/run/x.sock"), True),
    ],
)
def test_addresses_as_people_write_them(text: str, address: StatusAddress, local: bool) -> None:
    assert parse_status_address(text) == address
    assert address.local is local


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "'' is no address; write a port, HOST:PORT, [IPv6]:PORT or unix:/path"),
        ("0", "port 0 is not between 1 and 65535"),
        ("65536", "port 65536 is not between 1 and 65535"),
        (":8001", "':8001' names no host; write 127.0.0.1 for this machine only, 0.0.0.0 for everyone"),
        ("myhost:8001", "'myhost' is no IP address; write one, or localhost"),
        ("::1:8001", "'::1:8001' is no address; write a port, HOST:PORT, [IPv6]:PORT or unix:/path"),
        ("http://h:1", "'http://h:1' is no address; write a port, HOST:PORT, [IPv6]:PORT or unix:/path"),
        ("unix:", "unix: names no path; write for example unix:/run/autolaunch.sock"),
        ("unix:/" + "x" * 107, "the path of a socket has at most 107 bytes, this one has 108"),
    ],
)  # fmt: skip
def test_what_is_no_address_is_told_with_one_that_is(text: str, said: str) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the whole text is asserted
        parse_status_address(text)
    assert str(error.value) == said


@given(some.ip_addresses(), some.integers(1, 65535))
def test_what_is_written_is_read_again(host: object, port: int) -> None:
    address = StatusAddress(str(host), port)
    assert parse_status_address(str(address)) == address


def test_a_unix_socket_is_written_as_it_is_read() -> None:
    assert str(parse_status_address("unix:/run/x.sock")) == "unix:/run/x.sock"


@pytest.mark.parametrize(
    ("mine", "host", "port", "meets"),
    [
        ("8000", "", 8000, True),
        ("8000", "0.0.0.0", 8000, True),
        ("8000", "localhost", 8000, True),
        ("0.0.0.0:8000", "127.0.0.1", 8000, True),
        ("8000", "", 8001, False),
        ("8000", "192.168.1.7", 8000, False),
        ("unix:/run/x", "", 0, False),
    ],
)
def test_the_engines_own_address_is_known_as_such(mine: str, host: str, port: int, meets: bool) -> None:
    assert parse_status_address(mine).meets(host, port) is meets
