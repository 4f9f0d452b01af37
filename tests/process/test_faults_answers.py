"""What answers at the engine's port is late, garbage, an error, or never ends: no readiness, and no wait for ever."""

from __future__ import annotations

import contextlib
import http.client
import time

import pytest

from tests.fake_engine import behaviours as b
from tests.fake_engine.behaviours import WAYS
from tests.process.stage import DEADLINE_S, HANG_S, Stage, drive, ok, stages, state_of, until

pytestmark = pytest.mark.process

MOST_RSS_KB = 50 * 1024


def test_503_for_longer_than_a_start_may_take_is_a_failed_start(stage: Stage) -> None:
    stage.play(ok(b.Health503(seconds=60), b.Worker()))
    ended = stage.run("--start-timeout", "2")
    assert ended.code == 4
    assert "not ready after 2 s (start timeout 2 s)" in ended.err
    assert stage.left() == []
    assert stage.lines("ready") == []


def test_a_health_that_is_garbage_is_no_readiness() -> None:
    """Where the status line says 200 and the rest is rubbish, the real request decides."""
    with stages(len(WAYS)) as every:
        for stage, way in zip(every, WAYS, strict=True):
            stage.play(ok(b.Garbled(way=way, to="health")))
            stage.launch("--check", "--start-timeout", "3")
        for stage, way in zip(every, WAYS, strict=True):
            ended = stage.end(stage.running[0])
            assert (way, ended.code) == (way, 0 if way in ("bad_json", "endless") else 4)
            assert "Traceback" not in ended.err
            assert stage.left() == []


@pytest.mark.parametrize("to", ["models", "completions"])
def test_an_answer_that_is_garbage_is_no_readiness(to: str) -> None:
    with stages(len(WAYS)) as every:
        for stage, way in zip(every, WAYS, strict=True):
            module = drive(stage, attendant={"PROOF_TRIES": 2, "PROOF_TIMEOUT_S": 1})
            stage.play(ok(b.Garbled(way=way, to=to)))
            stage.launch("--check", module=module)
        peaks = peaks_kb(every)
        for stage, way in zip(every, WAYS, strict=True):
            ended = stage.end(stage.running[0])
            assert (way, ended.code) == (way, 4), ended.err
            assert "/health is 200 and the first request fails" in ended.err
            assert "Traceback" not in ended.err
            assert stage.lines("ready") == []
            assert stage.left() == []
        assert max(peaks) < MOST_RSS_KB


def peaks_kb(every: list[Stage]) -> list[int]:
    """Return each supervisor's highest resident memory, polled to the end of all."""
    peaks = [0] * len(every)

    def ended() -> bool:
        for number, stage in enumerate(every):
            peaks[number] = max(peaks[number], state_of(stage.running[0].pid, "VmHWM"))
        return all(stage.running[0].poll() is not None for stage in every)

    until(ended, "all to end")
    return peaks


def test_an_engine_that_answers_garbage_from_some_time_on_is_started_again() -> None:
    """Its counters stand still, its health is good: only the answers tell."""
    with stages(len(WAYS)) as every:
        for stage, way in zip(every, WAYS, strict=True):
            stage.play(ok(b.Garbled(way=way, after=1)), ok())
            stage.launch("--hang-timeout", str(HANG_S), module=drive(stage, restart_wait_s=0.05))
        for stage in every:
            stage.line("ready", 1)
            assert "the engine hangs" in stage.lines("crashed")[0]["failure"]["line"]
            stage.stop(stage.running[0])


def test_metrics_that_are_garbage_end_no_engine_that_answers() -> None:
    with stages(len(WAYS)) as every:
        for stage, way in zip(every, WAYS, strict=True):
            stage.play(ok(b.Garbled(way=way, to="metrics")))
            stage.launch("--hang-timeout", str(HANG_S))
        for stage in every:
            stage.line("ready")
            until(lambda stage=stage: stage.log().count(b"POST /v1/completions") >= 3, "asked twice")  # type: ignore[misc]
            stage.stop(stage.running[0])
            assert stage.events == ["plan", "attempt", "ready", "stopped"]


# --- 503 in service


def test_503_of_health_alone_ends_no_engine_that_answers(stage: Stage) -> None:
    """A load balancer's health, an engine that is draining: what it computes is what counts."""
    stage.play(ok(b.Unavailable(after=1), b.Worker()))
    process = stage.launch("--hang-timeout", str(HANG_S))
    stage.line("ready")
    stage.asked(4)
    assert health(stage) == 503
    stage.stop(process)
    assert stage.events == ["plan", "attempt", "ready", "stopped"]


def test_503_of_every_route_for_longer_than_the_hang_timeout_is_a_hang(stage: Stage) -> None:
    stage.play(ok(b.Unavailable(after=1, everywhere=True), b.Worker()), ok())
    process = stage.launch("--hang-timeout", str(HANG_S), module=drive(stage, restart_wait_s=0.05))
    stage.line("ready")
    since = time.monotonic()
    assert "HTTP 503" in stage.line("crashed")["failure"]["line"]
    assert HANG_S - 2 < time.monotonic() - since < 2 * HANG_S + 20
    stage.line("ready", 1)
    stage.stop(process)
    assert stage.events[2:] == ["ready", "crashed", "restarting", "attempt", "ready", "stopped"]


def test_503_of_every_route_that_passes_in_time_is_none(stage: Stage) -> None:
    stage.play(ok(b.Unavailable(after=1, everywhere=True, seconds=6), b.Worker()))
    process = stage.launch("--hang-timeout", "20")
    stage.line("ready")
    until(lambda: stage.log().count(b"503") >= 1, "a question that is refused")
    answered = stage.log().count(b"200 OK")
    until(lambda: stage.log().count(b"200 OK") >= answered + 3, "answers again")
    stage.stop(process)
    assert stage.events == ["plan", "attempt", "ready", "stopped"]


def health(stage: Stage) -> int:
    client = http.client.HTTPConnection("127.0.0.1", stage.port, timeout=DEADLINE_S)
    with contextlib.closing(client):
        client.request("GET", "/health")
        return client.getresponse().status


# --- EngineDeadError


def test_an_engine_core_that_dies_in_service_is_a_crash_whether_its_server_ends_or_answers_on() -> None:
    """vLLM's server ends with status 0; with VLLM_KEEP_ALIVE_ON_ENGINE_DEATH it answers 500 for ever."""
    lines = {True: "KeyError: 'model.layers.0.", False: "the engine hangs: no work and no answer for"}
    with stages(len(lines)) as every:
        for stage, exits in zip(every, lines, strict=True):
            stage.play(ok(b.CoreDies(exits=exits), b.Worker()), ok(b.Worker()))
            stage.launch("--hang-timeout", str(HANG_S), module=drive(stage, restart_wait_s=0.05))
        for stage, line in zip(every, lines.values(), strict=True):
            crashed = stage.line("crashed")["failure"]
            stage.line("ready", 1)
            assert b"EngineDeadError: EngineCore encountered an issue." in stage.log()
            assert crashed["kind"] == "other_crash"
            assert line in crashed["line"]
            first, second = stage.lines("attempt")
            assert first["argv"] == second["argv"]
            stage.stop(stage.running[0])
            assert stage.events[2:] == ["ready", "crashed", "restarting", "attempt", "ready", "stopped"]
