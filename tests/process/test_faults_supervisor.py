"""The supervisor itself is stopped and goes on, its clock jumps: no engine pays for it, and nothing untrue is told."""

from __future__ import annotations

import os
import signal
import sys
import urllib.request
from contextlib import ExitStack

import psutil
import pytest

from tests.fake_engine import behaviours as b
from tests.fake_engine import leftovers
from tests.fake_engine.scenario import Outcome
from tests.process.stage import DEADLINE_S, HANG_S, Stage, crowd, drive, ok, stages, stopped, until, wait

pytestmark = pytest.mark.process

TREE = (b.Together(), b.Worker())


# --- stopped, for longer than any of its deadlines


def test_a_supervisor_that_was_stopped_in_a_start_does_not_take_it_for_the_engines_fault() -> None:
    """It woke up, found its deadline passed, and ended an engine that had come up meanwhile."""
    bounds = ("--stall-timeout", "--start-timeout")
    with stages(len(bounds)) as every:
        for stage, bound in zip(every, bounds, strict=True):
            stage.play(ok(*TREE, delay_s={"load": 1}))
            stage.launch(bound, "10")
        with ExitStack() as stack:
            for stage in every:
                stage.grown({"worker0"})
                stack.enter_context(stopped(stage.running[0].pid))
            for stage in every:
                stage.happened("ready")
            wait(every[0].running[0], 11)
        for stage in every:
            stage.line("ready")
            stage.stop(stage.running[0])
            assert stage.events == ["plan", "attempt", "ready", "stopped"]


def test_an_engine_that_stalls_while_the_supervisor_is_stopped_is_noticed_afterwards(stage: Stage) -> None:
    stage.play(ok(b.NoOutputHang(phase="load"), b.Worker()))
    process = stage.launch("--stall-timeout", "2")
    stage.grown({"worker0"})
    with stopped(process.pid):
        wait(process, 3)
    ended = stage.end(process)
    assert ended.code == 4
    assert "stall timeout 2 s" in ended.err
    assert stage.left() == []


def test_a_first_request_that_was_answered_while_the_supervisor_was_stopped_counts(stage: Stage) -> None:
    module = drive(stage, attendant={"PROOF_TIMEOUT_S": 1.5})
    stage.play(ok(*TREE))
    process = stage.launch(module=module)
    known = stage.grown({"worker0"})
    (worker,) = (pid for pid, role in known.items() if role == "worker0")
    stage.happened("ready")
    with stopped(process.pid):
        wait(process, 3)
    stage.line("ready")
    with stopped(worker):
        pass
    stage.stop(process)
    assert stage.lines("failed") == []


def test_a_supervisor_that_was_stopped_while_it_ends_an_engine_goes_on() -> None:
    """At three moments of it, each for longer than the bound within which SIGKILL must have ended the tree."""
    moments_s = (0.01, 0.3, 0.6)
    with stages(len(moments_s)) as every:
        for stage in every:
            module = drive(stage, policy={"kill_wait_s": 6})
            stage.play(Outcome(kind="kv_too_small", then="hang", behaviours=crowd()), ok())
            stage.launch("--check", module=module)
        with ExitStack() as stack:
            for stage, moment_s in zip(every, moments_s, strict=True):
                stage.happened("cause")
                wait(stage.running[0], moment_s)
                stack.enter_context(stopped(stage.running[0].pid))
            wait(every[0].running[0], 7)
        for stage in every:
            assert stage.end(stage.running[0]).code == 0, stage.err
            assert stage.left() == []
            assert stage.events == ["plan", "attempt", "failed", "step", "attempt", "ready", "stopped"]


def test_a_supervisor_that_was_stopped_in_service_does_not_take_it_for_a_hang(stage: Stage) -> None:
    """The question under way had no answer in time, because nobody read it."""
    stage.play(ok(*TREE))
    process = stage.launch("--hang-timeout", str(HANG_S))
    stage.line("ready")
    for _ in range(2):
        stage.asked()
        with stopped(process.pid):
            wait(process, HANG_S + 1)
    stage.asked()
    stage.stop(process)
    assert stage.events == ["plan", "attempt", "ready", "stopped"]


def test_a_question_that_is_under_way_while_the_supervisor_is_stopped_is_asked_again(stage: Stage) -> None:
    stage.play(ok(*TREE))
    process = stage.launch("--hang-timeout", str(HANG_S))
    stage.line("ready")
    (worker,) = (pid for pid, role in stage.grown({"worker0"}).items() if role == "worker0")
    os.kill(worker, signal.SIGSTOP)
    until(lambda: b"} 1.0" in metrics(stage), "a question that waits")
    with stopped(process.pid):
        os.kill(worker, signal.SIGCONT)
        wait(process, HANG_S + 1)
    stage.asked()
    stage.stop(process)
    assert stage.events == ["plan", "attempt", "ready", "stopped"]


def metrics(stage: Stage) -> bytes:
    with urllib.request.urlopen(f"http://127.0.0.1:{stage.port}/metrics", timeout=5) as answer:
        return bytes(answer.read())


ASK = """
import os, signal
from autolaunch import probe, wish
os.kill(os.getpid(), signal.SIGSTOP)  # until all have come so far
print(probe.healthy(wish.Address(port={}), timeout=5))
"""


def test_an_answer_that_came_while_the_asker_was_stopped_is_asked_for_again(stage: Stage) -> None:
    """Ten at once, since whether the answer or its deadline was seen first was a matter of chance."""
    stage.play(ok(b.SlowHealth(seconds=3)))
    process = stage.launch("--no-prove")
    stage.line("ready")
    words = [sys.executable, "-c", ASK.format(stage.port)]
    before = stage.log().count(b"GET /health")
    asking = [stage.start(words) for _ in range(10)]
    until(lambda: all(psutil.Process(one.pid).status() == psutil.STATUS_STOPPED for one in asking), "all to be there")
    for one in asking:
        one.send_signal(signal.SIGCONT)
    until(lambda: all(waits(one.pid, stage.port) for one in asking), "all have asked")
    with ExitStack() as stack:
        for one in asking:
            stack.enter_context(stopped(one.pid))
        until(lambda: stage.log().count(b"GET /health") == before + 10, "all are answered")
        wait(process, 2.5)
    assert [one.wait(DEADLINE_S) for one in asking] == [0] * 10
    assert stage.out.count("True") == 10
    stage.stop(process)


def waits(pid: int, port: int) -> bool:
    """Whether a process has a connection to that port."""
    try:
        return any(one.raddr and one.raddr.port == port for one in psutil.Process(pid).net_connections())
    except psutil.Error:
        return False


def test_a_stop_that_was_asked_for_while_the_supervisor_was_stopped_is_carried_out(stage: Stage) -> None:
    stage.play(ok(*TREE))
    process = stage.launch(module=drive(stage, policy={"stop_grace_s": 5}))
    stage.line("ready")
    with stopped(process.pid):
        process.send_signal(signal.SIGTERM)
        wait(process, 0.3)
    stage.happened("stopping")
    with stopped(process.pid):
        wait(process, 6)
    assert stage.end(process).code == 0
    assert stage.left() == []
    assert leftovers.alive(stage.folder) == []
