"""Leader, core and workers that need each other, and answers that are none: over real processes and sockets."""

from __future__ import annotations

import os
import signal
import socket
import time
from contextlib import suppress

import pytest

from . import behaviours as b
from . import leftovers
from .driver import Bench, ended, until
from .record import ScenarioError

pytestmark = pytest.mark.process

PROMPT = {"model": "m", "prompt": "Hello", "max_tokens": 1}
TREE = (b.Together(), b.Worker(count=2))


def said(engine: Bench, seconds: float, path: str = "/v1/completions") -> bytes:
    """Post an empty object and give what came within some seconds."""
    with socket.create_connection(("127.0.0.1", engine.port), timeout=5) as asked:
        asked.sendall(b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}" % path.encode())
        got, over = b"", time.monotonic() + seconds
        with suppress(TimeoutError):
            while len(got) < 1_000_000 and (left := over - time.monotonic()) > 0:
                asked.settimeout(left)
                got += (block := asked.recv(65536))
                if not block:
                    break
        return got


@pytest.mark.parametrize("role", ["core", "worker1"])
def test_a_completion_waits_for_a_process_that_is_stopped_and_health_does_not(engine: Bench, role: str) -> None:
    engine.ready(behaviours=TREE)
    assert engine.ask("POST", "/v1/completions", PROMPT)[0] == 200
    os.kill(engine.pid_of(role), signal.SIGSTOP)
    assert said(engine, 0.2) == b""
    assert engine.ask("GET", "/health")[0] == 200
    os.kill(engine.pid_of(role), signal.SIGCONT)
    assert said(engine, 5.0).startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize(("role", "words"), [("core", "Engine core proc"), ("worker0", "Worker proc")])
def test_in_service_a_death_ends_the_leader_with_0(engine: Bench, role: str, words: str) -> None:
    started = engine.ready(behaviours=TREE)
    os.kill(engine.pid_of(role), signal.SIGKILL)
    assert ended(started) == 0
    assert f"{words} " in engine.log
    assert "died unexpectedly" in engine.log


def test_in_a_start_a_death_ends_the_leader_with_1_and_a_wait_is_cut_short(engine: Bench) -> None:
    started = engine.one(kind="ok", behaviours=TREE, delay_s={"load": 60})
    until(lambda: "Initializing a V1 LLM engine" in engine.log, "the tree, and that its leader knows it")
    os.kill(engine.pid_of("core"), signal.SIGKILL)
    assert ended(started) == 1
    assert "Failed core proc(s): {'EngineCore_DP0': -9}" in engine.log


def test_a_leader_that_is_killed_leaves_them(engine: Bench) -> None:
    started = engine.ready(behaviours=TREE)
    started.kill()
    ended(started)
    assert len(leftovers.alive(engine.folder)) == 3


@pytest.mark.parametrize(
    ("way", "begins", "least"),
    [
        ("not_http", b"\x16\x03", 10),
        ("bad_json", b"HTTP/1.1 200 OK", 20),
        ("huge_headers", b"HTTP/1.1 200 OK", 1_000_000),
        ("endless", b"HTTP/1.1 200 OK", 1_000_000),
        ("drip", b"HTTP", 4),
        ("hang_up", b"", 0),
    ],
)
def test_a_garbled_answer_comes_after_the_good_ones(engine: Bench, way: str, begins: bytes, least: int) -> None:
    engine.ready(behaviours=(b.Garbled(way=way, after=1),))
    assert engine.ask("POST", "/v1/completions", PROMPT)[0] == 200
    got = said(engine, 0.5)
    assert got.startswith(begins)
    assert len(got) >= least
    assert len(got) < 20 or way != "drip"


def test_a_way_or_a_route_that_is_unknown_is_refused() -> None:
    with pytest.raises(ScenarioError):
        b.Garbled(way="rot13")
    with pytest.raises(ScenarioError):
        b.Garbled(to="nowhere")
