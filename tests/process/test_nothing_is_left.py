"""Killing the supervisor, its warden or both, in any phase, leaves no process and no folder."""

from __future__ import annotations

import os
import signal
import subprocess
import zlib
from pathlib import Path
from typing import Any

import pytest

from autolaunch.lock import CardLocks
from autolaunch.warden import processes
from tests import fake_nvml
from tests.fake_engine import behaviours as b
from tests.fake_engine import leftovers
from tests.fake_engine.behaviours import Behaviour
from tests.fake_engine.scenario import Outcome
from tests.ports import free_port
from tests.process.stage import CROWD_ROLES, DEADLINE_S, ROOT, Stage, crowd, drive, halt, ok, until

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


# --- killed while no engine runs: nothing is left, nothing is started, and the next start is as ever


def killed_while_it_waits(stage: Stage, process: subprocess.Popen[bytes], *, starts: int) -> None:
    """Kill a supervisor that waits; then a plain start of the same must come up by itself."""
    assert process.poll() is None
    process.kill()
    process.wait(DEADLINE_S)
    stage.nothing_left()
    assert len(leftovers.starts(stage.folder)) == starts
    stage.play(ok())
    again = stage.run("--check")
    assert again.code == 0, again.err
    assert stage.events[-3:] == ["attempt", "ready", "stopped"]
    assert stage.left() == []


def test_sigkill_of_the_supervisor_in_back_off_leaves_nothing_and_the_crash_counts_on(stage: Stage) -> None:
    stage.play(ok(*crowd()))
    process = stage.launch("--max-restarts", "1", module=drive(stage, restart_wait_s=600))
    stage.line("ready")
    stage.crash()
    until(lambda: stage.lines("crashed") and not leftovers.alive(stage.folder), "the wait after the crash")
    killed_while_it_waits(stage, process, starts=1)
    process = stage.launch("--max-restarts", "1")
    stage.line("ready", 2)
    stage.crash()
    assert stage.end(process).code == 6
    assert stage.lines()[-1]["reason"] == "2 crashes within 600 s"


def test_sigkill_of_the_supervisor_while_it_plans_leaves_nothing(stage: Stage) -> None:
    stage.play(ok())
    process = stage.launch(module=drive(stage, slow_start_s=600))
    until(lambda: "measuring" in stage.out, "the planning")
    killed_while_it_waits(stage, process, starts=0)


def test_sigkill_of_the_supervisor_while_it_waits_for_the_engines_memory_leaves_nothing(stage: Stage) -> None:
    stage.play(Outcome(kind="kv_too_small", behaviours=crowd()), ok())
    process = stage.launch(module=drive(stage, free_gib=[2, 3]))  # what stands still is not waited for
    until(lambda: stage.lines("failed") and not leftovers.alive(stage.folder), "the wait for memory")
    killed_while_it_waits(stage, process, starts=1)


CARD: dict[str, Any] = {"name": "NVIDIA GeForce RTX 4090", "total": 24 << 30}


def carded(stage: Stage, **more: Any) -> str:
    """Give a stage a card of its own, and return its name."""
    uuid = f"GPU-{zlib.crc32(bytes(stage.folder)):08x}-0000-0000-0002-000000000000"
    stage.environment |= {"FAKE_NVML": str(stage.folder / "nvml.json"), "PYTHONPATH": f"{fake_nvml.FOLDER}:{ROOT}"}
    fake_nvml.write(stage.folder / "nvml.json", {**CARD, "uuid": uuid, **more})
    return uuid


def locks_of(card: str) -> list[Path]:
    return list(Path("/dev/shm").glob(f"autolaunch.{card}*"))


def test_sigkill_of_the_supervisor_while_it_waits_for_a_neighbours_memory_leaves_nothing(stage: Stage) -> None:
    card = carded(stage, free=2 << 30)
    stage.play(ok())
    process = stage.launch()
    until(lambda: "of the memory are held by other processes: waiting" in stage.err, "the wait")
    carded(stage)
    killed_while_it_waits(stage, process, starts=0)
    assert locks_of(card) == [], "the next start takes over the killed one's, and clears it away"


def test_sigkill_of_the_supervisor_while_it_waits_for_the_card_leaves_nothing(stage: Stage) -> None:
    card = carded(stage)
    stage.play(ok())
    held = CardLocks("another-model", lambda _: None).acquire([card], wait_s=0.0)
    assert held is not None
    try:
        process = stage.launch()
        until(lambda: "is starting on this card" in stage.err, "the wait")
        process.kill()
        process.wait(DEADLINE_S)
        stage.nothing_left()
    finally:
        held.release()
    assert leftovers.starts(stage.folder) == []
    assert stage.run("--check").code == 0
    assert locks_of(card) == []


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
    halt(pid)  # else it sweeps up itself between the two kills, if this process is kept waiting
    for victim in (*until(stage.wardens, "the warden"), pid):
        os.kill(victim, signal.SIGKILL)
    until(lambda: "leader" not in {known.get(left) for left in leftovers.alive(stage.folder)}, "PDEATHSIG")
    assert leftovers.alive(stage.folder), "nothing to sweep: the test proves nothing"
    stage.port = free_port()  # what holds the port is swept too, but the port is looked at first
    stage.play(ok())
    assert stage.run("--check").code == 0
    assert stage.left() == []
    assert "of a run that was killed" in stage.err


def test_the_sweep_spares_an_engine_that_has_its_warden(stage: Stage) -> None:
    ready(stage, b.Worker())
    alive = leftovers.alive(stage.folder)
    stage.port = free_port()
    assert stage.run("--check").code == 0
    assert set(alive) <= set(leftovers.alive(stage.folder))


def test_an_engine_that_leaves_files_in_tmpdir_leaves_none_there(stage: Stage) -> None:
    stage.play(ok())
    assert stage.run("--check").code == 0
    assert list(stage.temporary.iterdir()) == []
