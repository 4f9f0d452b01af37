"""What probes, Prometheus and people are answered."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from autolaunch.http_head import Answer, Request
from autolaunch.routes import BEAT_MOST_S, ROUTES, View, refusal
from autolaunch.status import Status
from tests.unit.test_status_form import FULL

SERVING = replace(FULL, phase="ready", step=None)
COLD = replace(FULL, ready_at=None, ready_seconds=None)
WAITING = Status(waits="a neighbour holds the card")
OVER = replace(FULL, phase="stopped", reason="other_crash", exit_code=6)
SPENT = replace(COLD, phase="exhausted", reason="exhausted", exit_code=3)


def get(path: str, status: Status = FULL, *, beat_age_s: float = 0.0, **how: Any) -> Answer:
    """Return the answer of a route."""
    return ROUTES[path](View(status, beat_age_s, 1767323100.0, **how))


def told(answer: Answer) -> tuple[int, str]:
    """Return the code and the words of an answer."""
    return answer.code, answer.body.decode().strip()


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("/livez", COLD, (200, "alive")),
        ("/livez", SPENT, (200, "alive")),
        ("/startupz", COLD, (503, "attempt 2 of at most 6: kv_too_small, context: 131072 -> 70624")),
        ("/startupz", FULL, (200, "it has served")),
        ("/startupz", SPENT, (503, "exhausted (it fits), exit code 3")),
        ("/readyz", SPENT, (503, "exhausted (it fits), exit code 3")),
        ("/startupz", OVER, (200, "it has served")),
        ("/readyz", OVER, (503, "stopped (other_crash), exit code 6")),
        ("/readyz", WAITING, (503, "a neighbour holds the card")),
        ("/startupz", WAITING, (503, "a neighbour holds the card")),
        ("/startupz", SERVING, (200, "it has served")),
        ("/readyz", SERVING, (200, "serving glm-4-9b at http://127.0.0.1:8000, context 70624 tokens")),
        ("/readyz", FULL, (503, "attempt 2 of at most 6: kv_too_small, context: 131072 -> 70624")),
        ("/readyz", replace(FULL, phase="backoff"), (503, "waiting to start again after kv_too_small")),
        ("/readyz", replace(FULL, phase="stopping"), (503, "stopping")),
    ],
)
def test_probes(path: str, status: Status, said: tuple[int, str]) -> None:
    assert told(get(path, status)) == said


def test_a_loop_that_does_not_come_round_is_not_alive() -> None:
    assert get("/livez", beat_age_s=BEAT_MOST_S).code == 200
    assert told(get("/livez", beat_age_s=31.0)) == (503, "the supervisor's loop was last seen 31 s ago")
    assert b"autolaunch_up 0.0\n" in get("/metrics", beat_age_s=31.0).body


def test_the_status_is_json() -> None:
    answer = get("/status")
    assert answer.content_type == "application/json"
    assert json.loads(answer.body)["model"] == "glm-4-9b"


def test_the_page_has_the_logs_end_and_a_strict_policy() -> None:
    answer = get("/", tail=lambda: ("the newest line",))
    assert (answer.code, answer.content_type) == (200, "text/html; charset=utf-8")
    assert b"the newest line" in answer.body
    assert dict(answer.more)["Content-Security-Policy"].startswith("default-src 'none'; ")


@pytest.mark.parametrize("path", [path for path in ROUTES if path != "/"])
def test_the_log_is_read_for_the_page_only(path: str) -> None:
    def read() -> tuple[str, ...]:
        raise AssertionError("nobody asked for the log")

    assert get(path, tail=read).body


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_every_route_is_let_through(path: str, method: str) -> None:
    assert refusal(Request(method, path, "127.0.0.1:8001"), local=True) is None


def test_what_is_not_there_is_told_with_what_is() -> None:
    refused = refusal(Request("GET", "/status/"), local=True)
    assert refused is not None
    assert told(refused) == (404, "there is nothing here; there is:\n/\n/livez\n/readyz\n/startupz\n/status\n/metrics")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "CONNECT"])
def test_nothing_can_be_changed(method: str) -> None:
    refused = refusal(Request(method, "/status"), local=True)
    assert refused is not None
    assert (refused.code, refused.more) == (405, (("Allow", "GET, HEAD"),))


@pytest.mark.parametrize(
    ("host", "local", "code"),
    [
        ("localhost:8001", True, None),
        ("127.0.0.1", True, None),
        ("[::1]:8001", True, None),
        ("10.2.3.4:8001", True, None),
        ("", True, None),
        ("evil.example:8001", True, 403),
        ("localhost.evil.example", True, 403),
        ("gpu-7.example:8001", False, None),
    ],
)
def test_a_foreign_page_cannot_make_a_browser_read_what_only_this_machine_may(
    host: str, local: bool, code: int | None
) -> None:
    refused = refusal(Request("GET", "/", host), local=local)
    assert (refused.code if refused else None) == code
