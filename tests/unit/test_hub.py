"""The hub's answers, its silences and its lies, from a real server on this machine; never more than the time given."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from autolaunch.hub import ask, offline, token
from autolaunch.inquiry import ANSWER_BYTES, Answer

API = "/api/models/org/m/revision/main?expand[]=safetensors&expand[]=sha"
CONFIG = "/org/m/resolve/main/config.json"
SUMMARY = {"id": "org/m", "sha": "8d3f" * 10, "safetensors": {"parameters": {"BF16": 9_399_951_360}, "total": 9}}
Reply = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    """Answers a path as the test wants."""

    server: Any

    def do_GET(self) -> None:
        """Answer, and remember who asked with which token."""
        hub: Hub = self.server.hub
        hub.asked.append((self.path, self.headers.get("Authorization")))
        with contextlib.suppress(OSError):  # the asker hung up
            hub.replies.get(self.path, status(404))(self)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@dataclass
class Hub:
    """A server: what it answers by path, and what it was asked."""

    url: str
    over: threading.Event = field(default_factory=threading.Event)
    replies: dict[str, Reply] = field(default_factory=dict)
    asked: list[tuple[str, str | None]] = field(default_factory=list)

    def ask(self, *, seconds: float = 3.0, **environment: str) -> Answer:
        """Ask it about org/m."""
        known = {"HF_ENDPOINT": self.url, "HF_HOME": "/nowhere", **environment}
        return ask("org/m", environment=known, seconds=seconds)


def give(body: Any) -> Reply:
    """Return a reply with this JSON or these bytes."""

    def reply(handler: Handler) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)

    return reply


def status(code: int, **headers: str) -> Reply:
    """Return a reply with nothing but a status."""

    def reply(handler: Handler) -> None:
        handler.send_response(code)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return reply


def hang(handler: Handler) -> None:
    """Say nothing until the test is over."""
    handler.server.hub.over.wait(120)


def drip_body(handler: Handler) -> None:
    """Send a byte now and then, each in time for a timeout that knows only of single reads."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000000")
    handler.end_headers()
    while not handler.server.hub.over.wait(0.02):
        handler.wfile.write(b" ")
        handler.wfile.flush()


def drip_headers(handler: Handler) -> None:
    """Send the headers byte by byte and never end them."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
    while not handler.server.hub.over.wait(0.02):
        handler.wfile.write(b"X")
        handler.wfile.flush()


def flood(handler: Handler) -> None:
    """Send a gigabyte, as fast as it is taken."""
    handler.send_response(200)
    handler.send_header("Content-Length", str(1 << 30))
    handler.end_headers()
    for _ in range(1 << 10):
        handler.wfile.write(b" " * (1 << 20))


@pytest.fixture
def hub() -> Iterator[Hub]:
    """Serve org/m on a free port."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        found = Hub(f"http://127.0.0.1:{server.server_port}")
        server.hub = found  # type: ignore[attr-defined]  # what the handler reads
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield found
        finally:
            found.over.set()
            server.shutdown()
            thread.join()


def test_the_hub_tells_dimensions_parameters_and_commit(hub: Hub) -> None:
    hub.replies = {API: give(SUMMARY), CONFIG: give({"hidden_size": 4096})}
    expected = Answer({"hidden_size": 4096}, {"BF16": 9_399_951_360}, "8d3f" * 10)
    assert hub.ask() == expected
    assert sorted(path for path, _ in hub.asked) == [API, CONFIG]


def test_another_revision_is_asked_for_by_its_name(hub: Hub) -> None:
    ask("org/m", environment={"HF_ENDPOINT": hub.url + "/", "HF_HOME": "/nowhere"}, revision="refs/pr/17")
    assert sorted(path for path, _ in hub.asked) == [
        API.replace("main", "refs%2Fpr%2F17"),
        CONFIG.replace("main", "refs%2Fpr%2F17"),
    ]


@pytest.mark.parametrize(
    ("parameters", "quantized", "size"),
    [
        ({"BF16": 100}, False, 200),
        ({"F32": 100}, False, 200),
        ({"F32": 100}, True, 400),
        ({"I32": 100, "F16": 10, "F8_E4M3": 3}, True, 423),
        ({}, False, 0),
    ],
)
def test_weights_are_counted_as_they_are_loaded(parameters: dict[str, int], quantized: bool, size: int) -> None:
    assert Answer(parameters=parameters).weight_bytes(quantized=quantized) == size


GATED = "the hub does not show the model (HTTP {}): it is gated, private or not there; HF_TOKEN opens it"


@pytest.mark.parametrize(
    ("reply", "note"),
    [
        (status(401), GATED.format(401)),
        (status(403), GATED.format(403)),
        (status(404), "the hub has no such model"),
        (status(503), "the hub answered HTTP 503"),
        (give(b"<html>"), "the hub's answer cannot be used (JSONDecodeError)"),
        (give(b"\xff\xfe\xfa"), "the hub's answer cannot be used (UnicodeDecodeError)"),
        (give(b"[" * 200_000), "the hub's answer cannot be used (RecursionError)"),
        (flood, "the hub broke off: IncompleteRead"),
        (lambda handler: handler.wfile.write(b"nonsense\r\n\r\n"), "the hub broke off: BadStatusLine"),
        (lambda handler: handler.connection.shutdown(socket.SHUT_RDWR), "the hub broke off: RemoteDisconnected"),
    ],
)
def test_a_bad_answer_is_a_note(hub: Hub, reply: Reply, note: str) -> None:
    hub.replies = {API: reply, CONFIG: reply}
    found = hub.ask(seconds=20)
    assert found == Answer(notes=(note,))


def test_of_a_flood_no_more_is_read_than_an_answer_has(hub: Hub) -> None:
    sent = []

    def count(handler: Handler) -> None:
        handler.send_response(200)
        handler.end_headers()
        for _ in range(1 << 10):
            handler.wfile.write(b" " * (1 << 20))
            sent.append(1 << 20)

    hub.replies = {CONFIG: count}
    hub.ask(seconds=20)
    assert ANSWER_BYTES <= sum(sent) < 1 << 26


@pytest.mark.parametrize("reply", [hang, drip_body, drip_headers])
def test_a_hub_that_does_not_come_to_an_end_is_left_in_time(hub: Hub, reply: Reply) -> None:
    hub.replies = {API: reply, CONFIG: reply}
    begun = monotonic()
    assert hub.ask(seconds=0.3) == Answer(notes=("the hub did not answer within 0.3 s",))
    assert monotonic() - begun < 20


@pytest.mark.parametrize("reply", [hang, drip_body, drip_headers])
def test_no_thread_goes_on_listening(hub: Hub, reply: Reply) -> None:
    hub.replies = {API: reply, CONFIG: reply}
    hub.ask(seconds=0.2)
    for thread in [thread for thread in threading.enumerate() if thread.name == "hub"]:
        thread.join(60)
        assert not thread.is_alive()


def test_half_an_answer_is_taken(hub: Hub) -> None:
    hub.replies = {API: hang, CONFIG: give({"hidden_size": 4096})}
    assert hub.ask(seconds=3) == Answer({"hidden_size": 4096})


def test_an_address_where_nobody_listens_is_a_note() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        found = ask("org/m", environment={"HF_ENDPOINT": url, "HF_HOME": "/nowhere"})
    assert found == Answer(notes=("the hub cannot be reached: [Errno 111] Connection refused",))


@pytest.mark.parametrize("endpoint", ["file:///etc", "hub.example", "ftp://x"])
def test_only_http_is_spoken(endpoint: str) -> None:
    found = ask("org/m", environment={"HF_ENDPOINT": endpoint})
    assert found == Answer(notes=("HF_ENDPOINT is no http address, so the hub was not asked",))


@pytest.mark.parametrize(
    "summary",
    [
        {},
        {"safetensors": None},
        {"safetensors": {"parameters": []}},
        {"safetensors": {"parameters": {"BF16": "many"}}, "sha": 7},
        {"safetensors": {"parameters": {"BF16": -1}}, "sha": "../.."},
        {"safetensors": {"parameters": {"BF16": 1 << 60}}},
    ],
)
def test_a_summary_that_lies_tells_nothing(hub: Hub, summary: Any) -> None:
    hub.replies = {API: give(summary), CONFIG: give({})}
    assert hub.ask() == Answer({})


@pytest.mark.parametrize("body", [[], 7, None])
def test_an_answer_that_is_no_table_is_a_note(hub: Hub, body: Any) -> None:
    hub.replies = {API: give(body), CONFIG: give(body)}
    assert set(hub.ask().notes) == {"the hub's answer is no table", "the hub's config.json is no table"}


def test_the_token_opens_gated_models(hub: Hub) -> None:
    hub.ask(HF_TOKEN="hf_secret")
    assert {bearer for _, bearer in hub.asked} == {"Bearer hf_secret"}


def test_without_a_token_none_is_sent(hub: Hub) -> None:
    hub.ask()
    assert {bearer for _, bearer in hub.asked} == {None}


def test_a_redirect_is_followed_without_the_token(hub: Hub) -> None:
    elsewhere = hub.url.replace("127.0.0.1", "localhost") + "/elsewhere"
    hub.replies = {CONFIG: status(307, Location=elsewhere), "/elsewhere": give({"hidden_size": 1})}
    assert hub.ask(HF_TOKEN="hf_secret").config == {"hidden_size": 1}
    assert ("/elsewhere", None) in hub.asked


def test_a_token_that_is_none_is_not_quoted(hub: Hub) -> None:
    """http.client quotes a header that it refuses, and with it the token."""
    found = hub.ask(HF_TOKEN="hf_sec\nret")
    assert found == Answer(notes=("the hub's answer cannot be used (ValueError)",))


@pytest.mark.parametrize(
    ("environment", "found"),
    [
        ({"HF_TOKEN": " a\n"}, "a"),
        ({"HUGGING_FACE_HUB_TOKEN": "b"}, "b"),
        ({}, "filed"),
        ({"HF_HUB_DISABLE_IMPLICIT_TOKEN": "1"}, ""),
        ({"HF_TOKEN_PATH": "/nowhere"}, ""),
    ],
)
def test_the_token_is_the_users_own(tmp_path: Path, environment: dict[str, str], found: str) -> None:
    (tmp_path / "token").write_text("filed\n")
    assert token({"HF_HOME": str(tmp_path), **environment}) == found


def test_a_token_file_that_is_no_text_is_none(tmp_path: Path) -> None:
    (tmp_path / "token").write_bytes(b"\xff\xfe")
    assert token({"HF_HOME": str(tmp_path)}) == ""


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, False),
        ({"HF_HUB_OFFLINE": "0"}, False),
        ({"HF_HUB_OFFLINE": "1"}, True),
        ({"HF_HUB_OFFLINE": "true"}, True),
        ({"TRANSFORMERS_OFFLINE": "YES"}, True),
        ({"VLLM_USE_MODELSCOPE": "True"}, False),
    ],
)
def test_who_wants_no_hub_is_heard(environment: dict[str, str], expected: bool) -> None:
    assert offline(environment) is expected
