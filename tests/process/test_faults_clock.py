"""The time of day jumps by years, either way: durations hold, and what is kept on disk is neither lost nor misread."""

from __future__ import annotations

import json
import signal
import urllib.request
from pathlib import Path

import pytest

from tests.fake_engine import leftovers
from tests.fake_engine.scenario import Outcome
from tests.ports import free_port
from tests.process.stage import DEADLINE_S, Stage, drive, ok, until

pytestmark = pytest.mark.process

YEARS_S = 10 * 365 * 86400
JUMPS = pytest.mark.parametrize("jump_s", [-YEARS_S, YEARS_S], ids=["back", "forth"])


def clocked(stage: Stage) -> tuple[str, Path]:
    """Return the module whose time of day is off by the seconds in a file, and that file."""
    clock = stage.folder / "clock"
    clock.write_text("0")
    return drive(stage, clock=str(clock), restart_wait_s=0.05), clock


def turn(clock: Path, seconds: float) -> None:
    """Let the clock jump, at once for whoever reads it."""
    new = clock.with_suffix(".new")
    new.write_text(str(seconds))
    new.replace(clock)


@JUMPS
def test_a_clock_that_jumps_changes_no_duration_and_ends_nothing(stage: Stage, jump_s: float) -> None:
    """In a start, in service, and back again; bounds that are short enough to be passed by it."""
    module, clock = clocked(stage)
    port = free_port()
    stage.play(ok(delay_s={"load": 1}))
    bounds = ("--stall-timeout", "30", "--start-timeout", "60", "--hang-timeout", "30")
    process = stage.launch(*bounds, "--status", str(port), module=module)
    stage.line("attempt")
    turn(clock, jump_s)
    stage.line("ready")
    turn(clock, 0)
    stage.crash()
    stage.line("ready", 1)
    turn(clock, jump_s)
    for path in ("", "metrics", "status", "livez"):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=30) as answer:
            assert answer.status == 200
            assert path or " in this phase" not in (page := answer.read().decode()) or "-" not in _span(page)
    stage.stop(process)
    assert stage.events == ["plan", "attempt", "ready", "crashed", "restarting", "attempt", "ready", "stopped"]
    assert all(0 < line["seconds"] < 60 for line in stage.lines("ready"))


def _span(page: str) -> str:
    return page.partition(" in this phase")[0].rpartition(",")[2]


@JUMPS
def test_crashes_before_a_jump_count_after_it(stage: Stage, jump_s: float) -> None:
    """Forth, the count began anew; back, a crash of the future would have counted for years."""
    module, clock = clocked(stage)
    stage.play(ok())
    first = stage.launch("--max-restarts", "1", module=module)
    stage.line("ready")
    stage.crash()
    stage.line("ready", 1)
    first.send_signal(signal.SIGKILL)
    first.wait(DEADLINE_S)
    until(lambda: not leftovers.alive(stage.folder), "the engine of the killed supervisor to be gone")
    turn(clock, jump_s)
    second = stage.launch("--max-restarts", "1", module=module)
    stage.line("ready", 2)
    stage.crash()
    assert stage.end(second).code == 6
    assert stage.lines()[-1]["reason"] == "2 crashes within 600 s"


@JUMPS
def test_what_came_up_before_a_jump_is_remembered_and_the_newest_run_is_the_last(stage: Stage, jump_s: float) -> None:
    module, clock = clocked(stage)
    stage.play(Outcome(kind="kv_too_small"), ok())
    assert stage.run("--check", module=module).code == 0
    (before,) = (stage.state / "runs").iterdir()
    turn(clock, jump_s)
    assert stage.run("--check", module=module).code == 0
    assert stage.events[-4:] == ["plan", "attempt", "ready", "stopped"]
    assert stage.lines("attempt")[-1]["settings"] == stage.lines("attempt")[1]["settings"]
    (after,) = set((stage.state / "runs").iterdir()) - {before}
    assert after.name > before.name
    words = ["history", "--json", "--state-dir", str(stage.state)]
    stage.environment["AUTOLAUNCH_DRIVE"] = "{}"
    told = stage.out
    assert stage.end(stage.start([*stage.command(module=module)[:3], *words])).code == 0
    shown = [json.loads(line) for line in stage.out.removeprefix(told).splitlines()]
    kinds = [one["failure"] and one["failure"]["kind"] for one in shown]
    assert kinds == [None, None, "kv_too_small"]
