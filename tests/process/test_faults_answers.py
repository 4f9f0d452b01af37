"""What answers at the engine's port is late, garbage, or never ends: it is no readiness, and nothing waits for ever."""

from __future__ import annotations

import pytest

from tests.fake_engine import behaviours as b
from tests.fake_engine.behaviours import WAYS
from tests.process.stage import HANG_S, Stage, drive, ok, stages, state_of, until

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
