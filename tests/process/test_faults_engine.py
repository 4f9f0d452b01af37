"""The engine's processes are stopped, killed, or end by themselves: it is noticed in time, and what can go on does."""

from __future__ import annotations

import os
import signal
import time

import pytest

from tests.fake_engine import behaviours as b
from tests.fake_engine import leftovers
from tests.fake_engine.behaviours import PHASES
from tests.process.stage import HANG_S, Stage, drive, ok, stages, stopped, wait

pytestmark = pytest.mark.process

MEMBERS = ("leader", "core", "worker0")
TREE = (b.Together(), b.Worker())
STALL_S = 8.0
"""More than the four seconds of silence in that start and the second between two looks at it."""


def member(stage: Stage, role: str) -> int:
    """Return the living process of that role."""
    known = stage.grown(set(MEMBERS))
    (pid,) = (pid for pid in leftovers.alive(stage.folder) if known[pid] == role)
    return pid


# --- stopped


def test_a_process_that_is_stopped_in_a_start_is_a_stall() -> None:
    with stages(len(MEMBERS)) as every:
        for stage, role in zip(every, MEMBERS, strict=True):
            stage.play(ok(*TREE, delay_s={"load": 4}))
            stage.launch("--stall-timeout", str(STALL_S))
            os.kill(member(stage, role), signal.SIGSTOP)  # before the next is launched: four seconds are left for it
        since = time.monotonic()
        for stage in every:
            ended = stage.end(stage.running[0])
            assert ended.code == 4
            assert f"(stall timeout {STALL_S:g} s)" in ended.err
            assert time.monotonic() - since < STALL_S + 20
            assert stage.left() == []
            assert stage.events == ["plan", "attempt", "failed", "stopped"]


def test_a_process_that_is_stopped_in_service_is_a_hang_and_the_engine_is_started_again() -> None:
    with stages(len(MEMBERS)) as every:
        for stage in every:
            stage.play(ok(*TREE))
            stage.launch("--hang-timeout", str(HANG_S), module=drive(stage, restart_wait_s=0.05))
        trees = []
        for stage, role in zip(every, MEMBERS, strict=True):
            stage.line("ready")
            trees.append(set(leftovers.alive(stage.folder)))
            os.kill(member(stage, role), signal.SIGSTOP)
        since = time.monotonic()
        for stage in every:
            assert "the engine hangs: no work and no answer for" in stage.line("crashed")["failure"]["line"]
        assert time.monotonic() - since < 2 * HANG_S + 20
        for stage, tree in zip(every, trees, strict=True):
            stage.line("ready", 1)
            assert not tree & set(leftovers.alive(stage.folder))
            stage.stop(stage.running[0])
            assert stage.events[2:] == ["ready", "crashed", "restarting", "attempt", "ready", "stopped"]


def test_processes_that_go_on_in_time_have_done_nothing_wrong(stage: Stage) -> None:
    """In a start and in service, one after the other, for a part of what is allowed."""
    stage.play(ok(*TREE, delay_s={"load": 2}))
    process = stage.launch("--stall-timeout", "20", "--hang-timeout", "9")
    for role in MEMBERS:
        with stopped(member(stage, role)):
            wait(process, 0.5)
    stage.line("ready")
    for role in MEMBERS:
        with stopped(member(stage, role)):
            wait(process, 3.5)
        stage.asked()  # and answers: one standstill behind another is one
    stage.stop(process)
    assert stage.events == ["plan", "attempt", "ready", "stopped"]


# --- killed


def test_a_process_that_is_killed_in_a_start_ends_that_start() -> None:
    """The API server's SIGKILL, and vLLM's word of the core's, mean what they mostly are: the host's memory ran out."""
    ends = {"leader": (3, "host_oom"), "core": (3, "host_oom"), "worker0": (4, "other_crash")}
    with stages(len(MEMBERS)) as every:
        for stage in every:
            stage.play(ok(*TREE, delay_s={"load": 60}))
            stage.launch()
        for stage, role in zip(every, MEMBERS, strict=True):
            os.kill(member(stage, role), signal.SIGKILL)
            since = time.monotonic()
            ended = stage.end(stage.running[0])
            assert time.monotonic() - since < 30  # of the 60 that it would have taken
            assert (ended.code, stage.lines("failed")[0]["failure"]["kind"]) == ends[role]
            assert stage.left() == []


def test_a_process_that_is_killed_in_service_is_a_crash_and_the_engine_is_started_again() -> None:
    """Whatever status the API server ends with: it is 0 where the core or a worker died."""
    with stages(len(MEMBERS)) as every:
        for stage in every:
            stage.play(ok(*TREE))
            stage.launch(module=drive(stage, restart_wait_s=0.05))
        for stage, role in zip(every, MEMBERS, strict=True):
            stage.line("ready")
            tree = set(leftovers.alive(stage.folder))
            os.kill(member(stage, role), signal.SIGKILL)
            stage.line("ready", 1)
            assert not tree & set(leftovers.alive(stage.folder))
            stage.stop(stage.running[0])
            assert stage.events[2:] == ["ready", "crashed", "restarting", "attempt", "ready", "stopped"]
            (crashed,) = stage.lines("crashed")
            assert crashed["failure"]["kind"] == "other_crash"
            assert ("was killed by SIGKILL" if role == "leader" else "died unexpectedly") in crashed["failure"]["line"]


# --- ends and standstills at every phase


@pytest.mark.parametrize(("code", "exit_code", "kind"), [(0, 4, "unknown"), (1, 4, "unknown"), (137, 3, "host_oom")])
def test_an_exit_without_a_word_at_any_phase_is_a_failed_start(code: int, exit_code: int, kind: str) -> None:
    with stages(len(PHASES[:-1])) as every:
        runs = []
        for phase, stage in zip(PHASES, every, strict=False):
            stage.play(ok(b.Worker(), b.ExitBeforeReady(code=code, phase=phase)))
            runs.append(stage.launch())
        for stage, process in zip(every, runs, strict=True):
            assert stage.end(process).code == exit_code, stage.err
            assert stage.left() == []
            told = ["exhausted"] if exit_code == 3 else []
            assert stage.events == ["plan", "attempt", "failed", *told, "stopped"]
            assert stage.lines("failed")[0]["failure"]["kind"] == kind
            assert stage.lines("stopped")[0]["exit_code"] == exit_code


def test_an_exit_without_a_word_in_service_is_a_crash() -> None:
    kinds = {0: "unknown", 1: "unknown", 137: "other_crash"}
    with stages(len(kinds)) as every:
        for stage, code in zip(every, kinds, strict=True):
            stage.play(ok(b.Worker(), b.DieAfterReady(recorded=True, kind="", code=code)), ok())
            stage.launch(module=drive(stage, restart_wait_s=0.05))
        for stage, kind in zip(every, kinds.values(), strict=True):
            stage.line("ready", 1)
            assert [line["failure"]["kind"] for line in stage.lines("crashed")] == [kind]
            stage.stop(stage.running[0])


def test_a_standstill_at_any_phase_ends_at_the_stall_timeout() -> None:
    with stages(len(PHASES[:-1])) as every:
        runs = []
        for phase, one in zip(PHASES, every, strict=False):
            one.play(ok(b.Worker(), b.IgnoreSigterm(), b.NoOutputHang(phase=phase)))
            runs.append(one.launch("--stall-timeout", "2"))
        for phase, one, process in zip(PHASES, every, runs, strict=False):
            ended = one.end(process)
            assert (phase, ended.code) == (phase, 4)
            assert "no data moved for 2 s (stall timeout 2 s)" in ended.err
            assert one.left() == []
            (failed,) = one.lines("failed")
            assert failed["seconds"] < 30
