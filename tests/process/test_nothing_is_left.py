"""Killing the supervisor, its warden or both, in any phase, leaves no process and no folder."""

from __future__ import annotations

import os
import signal

import pytest

from autolaunch.warden import processes
from tests.fake_engine import behaviours as b
from tests.fake_engine import leftovers
from tests.fake_engine.behaviours import Behaviour
from tests.fake_engine.scenario import Outcome
from tests.process.stage import CROWD_ROLES, Stage, crowd, ok, until

pytestmark = pytest.mark.process

TREES: dict[str, tuple[tuple[Behaviour, ...], set[str]]] = {
    "alone": ((), {"leader"}),
    "child": ((b.Child(),), {"core"}),
    "workers": ((b.Worker(count=3),), {"core", "worker2"}),
    "deaf": ((b.IgnoreSigterm(sigint=True), b.Worker()), {"core", "worker0"}),
    "double_fork": ((b.DoubleFork(),), {"double_fork"}),
    "double_fork, another environment": ((b.DoubleFork(clear_env=True),), {"double_fork"}),
    "double_fork, output kept": ((b.DoubleFork(keep_output=True),), {"double_fork"}),
    "hold_pipe": ((b.HoldPipe(),), {"hold_pipe"}),
    "hold_pipe, own session": ((b.HoldPipe(setsid=True, ignore_sigterm=True),), {"hold_pipe"}),
    "hold_port": ((b.HoldPort(),), {"hold_port"}),
    "hold_port, own session": ((b.HoldPort(setsid=True, ignore_sigterm=True),), {"hold_port"}),
}


def ready(stage: Stage, *behaviours: Behaviour) -> int:
    stage.play(ok(*behaviours))
    process = stage.launch()
    stage.line("ready")
    return process.pid


@pytest.mark.parametrize("tree", TREES)
def test_sigkill_of_the_supervisor_in_service_leaves_nothing(stage: Stage, tree: str) -> None:
    behaviours, roles = TREES[tree]
    pid = ready(stage, *behaviours)
    stage.grown(roles)
    os.kill(pid, signal.SIGKILL)
    stage.nothing_left()


@pytest.mark.parametrize("tree", TREES)
def test_sigterm_to_the_supervisor_in_service_leaves_nothing_when_it_returns(stage: Stage, tree: str) -> None:
    behaviours, roles = TREES[tree]
    stage.environment["AUTOLAUNCH_DRIVE"] = '{"policy": {"stop_grace_s": 0.5}}'
    stage.play(ok(*behaviours))
    process = stage.launch(module="tests.process.drive")
    stage.line("ready")
    stage.grown(roles)
    process.terminate()
    assert stage.end(process).code == 0
    assert stage.left() == []
    assert stage.lines("stopped") == [stage.lines()[-1]]


def test_sigkill_of_the_supervisor_during_a_start_leaves_nothing(stage: Stage) -> None:
    stage.play(ok(*crowd(), delay_s={"graphs": 60}))
    process = stage.launch()
    stage.grown(CROWD_ROLES)
    process.kill()
    stage.nothing_left()


def test_sigkill_of_the_supervisor_at_the_first_moment_of_a_start_leaves_nothing(stage: Stage) -> None:
    stage.play(ok(delay_s={"import": 60}))
    process = stage.launch()
    until(stage.wardens, "a warden")
    process.kill()
    stage.nothing_left()


def test_sigkill_of_the_supervisor_right_after_the_cause_leaves_nothing(stage: Stage) -> None:
    stage.play(Outcome(kind="kv_too_small", then="hang", behaviours=crowd()))
    process = stage.launch()
    stage.happened("cause")
    process.kill()
    stage.nothing_left()


def test_sigkill_of_the_supervisor_while_it_stops_the_engine_leaves_nothing(stage: Stage) -> None:
    stage.play(ok(b.Worker(count=2), b.DoubleFork(clear_env=True), delay_s={"shutdown": 60}))
    process = stage.launch()
    stage.line("ready")
    process.terminate()
    stage.happened("stopping")
    process.kill()
    stage.nothing_left()


def test_sigkill_of_the_supervisor_between_two_starts_leaves_nothing(stage: Stage) -> None:
    stage.play(ok(*crowd()))
    process = stage.launch()
    stage.line("ready")
    stage.crash()
    stage.line("crashed")
    process.kill()
    stage.nothing_left()


def test_sigkill_of_the_supervisors_process_group_leaves_nothing(stage: Stage) -> None:
    pid = ready(stage, *crowd())
    stage.grown(CROWD_ROLES)
    os.killpg(pid, signal.SIGKILL)
    stage.nothing_left()


def test_a_warden_that_is_killed_in_service_is_a_crash_and_its_tree_is_ended(stage: Stage) -> None:
    stage.play(ok(*crowd()), ok())
    process = stage.launch()
    stage.line("ready")
    first = stage.grown(CROWD_ROLES)
    (warden,) = stage.wardens()
    os.kill(warden, signal.SIGKILL)
    stage.line("ready", 1)
    assert not set(first) & set(leftovers.alive(stage.folder))
    assert [pid for pid, (parent, _, state) in processes().items() if (parent, state) == (process.pid, "Z")] == []
    assert len(list(stage.temporary.iterdir())) == 1
    process.terminate()
    assert stage.end(process).code == 0
    assert [line["event"] for line in stage.lines()][-6:] == [
        "ready", "crashed", "restarting", "attempt", "ready", "stopped",
    ]  # fmt: skip


def test_a_warden_that_is_killed_during_a_start_ends_that_start(stage: Stage) -> None:
    stage.play(ok(*crowd(), delay_s={"graphs": 60}))
    process = stage.launch()
    stage.grown(CROWD_ROLES)
    os.kill(stage.wardens()[0], signal.SIGKILL)
    assert stage.end(process).code == 4
    assert "guardian process was killed" in stage.err
    assert stage.left() == []


def test_supervisor_and_warden_killed_at_once_are_swept_up_by_the_next_start(stage: Stage) -> None:
    pid = ready(stage, b.IgnoreSigterm(), b.Worker(count=2), b.HoldPipe(), b.HoldPort(), b.DoubleFork())
    known = stage.grown({"worker1", "hold_pipe", "hold_port", "double_fork"})
    os.kill(pid, signal.SIGSTOP)  # else it sweeps up itself between the two kills, if this process is kept waiting
    for victim in (*stage.wardens(), pid):
        os.kill(victim, signal.SIGKILL)
    until(lambda: "leader" not in {known.get(left) for left in leftovers.alive(stage.folder)}, "PDEATHSIG")
    assert leftovers.alive(stage.folder), "nothing to sweep: the test proves nothing"
    stage.port += 1  # what holds the port is swept too, but the port is looked at first
    stage.play(ok())
    assert stage.run("--check").code == 0
    assert stage.left() == []
    assert "of a run that was killed" in stage.err


def test_the_sweep_spares_an_engine_that_has_its_warden(stage: Stage) -> None:
    ready(stage, b.Worker())
    alive = leftovers.alive(stage.folder)
    stage.port += 1
    assert stage.run("--check").code == 0
    assert set(alive) <= set(leftovers.alive(stage.folder))


def test_an_engine_that_leaves_files_in_tmpdir_leaves_none_there(stage: Stage) -> None:
    stage.play(ok())
    assert stage.run("--check").code == 0
    assert list(stage.temporary.iterdir()) == []
