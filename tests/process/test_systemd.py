"""autolaunch's own unit under a real systemd: ready when it serves, told from outside, and nothing left in any end."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from autolaunch.unit import quoted
from tests.fake_engine import behaviours as b
from tests.fake_engine import leftovers
from tests.fake_engine.scenario import Outcome
from tests.process.booted import Booted, Unit, booted
from tests.process.stage import Stage, ok, until

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def system() -> Iterator[Booted]:
    """One systemd for all tests of this module."""
    with booted() as one:
        yield one


@pytest.fixture
def unit(system: Booted, stage: Stage) -> Iterator[Unit]:
    """A unit whose end is followed by the stage's own look for what is left."""
    made = Unit(system, stage)
    try:
        yield made
    finally:
        made.close()


def stopped(unit: Unit) -> None:
    """Stop it and see that it ended as asked, with nothing left."""
    since = time.monotonic()
    assert unit.control("stop").returncode == 0
    assert time.monotonic() - since < 18  # less than any grace
    assert (unit.get("ActiveState"), unit.get("Result")) == ("inactive", "success")
    assert unit.stage.mentioning() == []
    unit.stage.nothing_left()


def test_it_is_active_once_it_serves_and_says_what(unit: Unit) -> None:
    unit.stage.play(ok(b.Worker()))
    unit.install()
    assert unit.control("start").returncode == 0
    assert [line["event"] for line in unit.stage.lines()][-1] == "ready"
    assert unit.get("ActiveState") == "active"
    assert f"serving glm-4-9b at http://127.0.0.1:{unit.stage.port}, context" in unit.get("StatusText")
    given = Path(f"/proc/{unit.leader()}/environ").read_bytes()
    assert b"NOTIFY_SOCKET" not in given
    assert b"WATCHDOG" not in given
    stopped(unit)
    assert unit.stage.lines()[-1]["reason"] == "SIGTERM"


def test_the_status_says_what_is_being_tried_and_stop_works_while_it_climbs(unit: Unit) -> None:
    unit.stage.play(Outcome(kind="kv_too_small"), ok(delay_s={"load": 60}))
    unit.install()
    unit.start()
    unit.says("attempt 2 of at most 10: kv_too_small, context: max_model_len ")
    assert unit.get("ActiveState") == "activating"
    stopped(unit)


def test_a_stop_while_a_failed_start_is_ended_starts_no_other(unit: Unit) -> None:
    unit.stage.play(Outcome(kind="kv_too_small", then="hang", behaviours=(b.IgnoreSigterm(), b.Worker())), ok())
    unit.install(driven={"policy": {"failed_grace_s": 60}})
    unit.start()
    unit.stage.happened("cause")
    stopped(unit)
    assert len(leftovers.starts(unit.stage.folder)) == 1


def test_a_stop_right_after_the_start_leaves_nothing(unit: Unit) -> None:
    unit.stage.play(ok())
    unit.install()
    unit.start()
    stopped(unit)


def test_a_stop_while_a_crash_is_waited_out_is_at_once(unit: Unit) -> None:
    unit.stage.play(ok())
    unit.install(driven={"restart_wait_s": 600})
    unit.control("start")
    os.kill(unit.leader(), signal.SIGSEGV)
    unit.says("waiting to start again after")
    stopped(unit)
    assert len(leftovers.starts(unit.stage.folder)) == 1


def test_a_start_that_works_may_take_longer_than_timeout_start_sec(unit: Unit) -> None:
    unit.stage.play(ok(b.BusySilent(seconds=18, phase="load")))
    unit.install(TimeoutStartSec="8s")
    since = time.monotonic()
    assert unit.control("start").returncode == 0, unit.stage.err
    assert time.monotonic() - since > 16
    assert unit.get("ActiveState") == "active"
    stopped(unit)


def test_a_start_that_stalls_is_ended_by_us_with_the_reason(unit: Unit) -> None:
    unit.stage.play(ok(b.NoOutputHang(phase="load")))
    unit.install("--stall-timeout", "5", TimeoutStartSec="20s", Restart="no")
    unit.start()
    unit.becomes("failed")
    assert (unit.get("Result"), unit.get("ExecMainStatus")) == ("exit-code", "4")
    assert "no output, no processor time" in unit.stage.lines("failed")[0]["failure"]["line"]
    assert unit.stage.mentioning() == []


def test_a_supervisor_that_hangs_in_a_start_is_ended_by_systemd(unit: Unit) -> None:
    unit.stage.play(ok(b.NoOutputHang(phase="load")))
    unit.install("--stall-timeout", "8", TimeoutStartSec="15s", WatchdogSec="0", Restart="no", TimeoutStopSec="1s")
    unit.start()
    unit.stage.line("attempt")
    os.kill(unit.supervisor(), signal.SIGSTOP)
    unit.becomes("failed", 120)
    assert unit.get("Result") == "timeout"
    until(lambda: not unit.stage.mentioning(), "nothing left")


def test_a_reload_opens_the_record_anew_and_the_unit_stays_active(unit: Unit) -> None:
    unit.stage.play(ok())
    unit.install()
    unit.control("start")
    unit.stage.record.rename(unit.stage.folder / "record.1")
    assert unit.control("reload").returncode == 0
    until(unit.stage.record.exists, "the record anew")
    until(lambda: (unit.get("ActiveState"), unit.get("SubState")) == ("active", "running"), "the reload's end")
    assert "SIGHUP: the record file was opened anew" in unit.stage.err
    stopped(unit)


def test_a_killed_supervisor_leaves_no_engine_and_is_started_again(unit: Unit) -> None:
    unit.stage.play(ok(b.Worker()))
    unit.install()
    unit.control("start")
    engine, supervisor = unit.leader(), unit.supervisor()
    os.kill(supervisor, signal.SIGKILL)
    until(lambda: len(unit.stage.lines("ready")) == 2, "ready again")
    unit.becomes("active")
    assert unit.get("NRestarts") == "1"
    assert not {engine, supervisor} & set(unit.stage.mentioning())
    stopped(unit)


@pytest.mark.parametrize(
    "number",
    [signal.SIGSEGV, signal.SIGKILL],
)
def test_an_engine_that_dies_is_started_again_by_us_and_the_unit_stays_active(
    unit: Unit, number: signal.Signals
) -> None:
    unit.stage.play(ok(b.Worker()))
    unit.install()
    unit.control("start")
    supervisor = unit.supervisor()
    os.kill(unit.leader(), number)
    unit.stage.line("crashed")
    assert unit.get("ActiveState") == "active"
    until(lambda: len(unit.stage.lines("ready")) == 2, "ready again")
    unit.says("serving glm-4-9b")
    assert (unit.get("NRestarts"), unit.supervisor()) == ("0", supervisor)
    stopped(unit)


def test_a_supervisor_that_hangs_in_service_is_found_by_the_watchdog(unit: Unit) -> None:
    unit.stage.play(ok(b.Worker()))
    unit.install(WatchdogSec="5s", Restart="no")
    unit.control("start")
    os.kill(unit.supervisor(), signal.SIGSTOP)
    since = time.monotonic()
    unit.becomes("failed")
    assert time.monotonic() - since < 40
    assert unit.get("Result") == "watchdog"
    until(lambda: not unit.stage.mentioning(), "nothing left")
    assert unit.control("start").returncode == 0  # the warden was killed as well: the next start clears its folder
    stopped(unit)


def test_the_watchdog_lets_a_supervisor_live_that_is_well(unit: Unit) -> None:
    unit.stage.play(ok())
    unit.install(WatchdogSec="6s")
    unit.control("start")
    pid, seen = unit.supervisor(), set[str]()

    def beaten() -> bool:
        seen.add(unit.get("WatchdogTimestampMonotonic"))
        return len(seen) > 5

    until(beaten, "five signs of life: more than twice the watchdog")
    assert (unit.get("ActiveState"), unit.get("NRestarts"), unit.supervisor()) == ("active", "0", pid)
    stopped(unit)


@pytest.mark.parametrize(("kind", "code"), [("model_not_found", 2), ("weights_oom", 3), ("port_in_use", 5)])
def test_an_end_that_no_restart_cures_is_not_restarted(unit: Unit, kind: str, code: int) -> None:
    unit.stage.play(Outcome(kind=kind))
    unit.install("--max-attempts", "1")
    unit.start()
    unit.becomes("failed")
    assert (unit.get("ExecMainStatus"), unit.get("NRestarts")) == (str(code), "0")
    assert unit.get("StatusText").startswith("exhausted (" if code == 3 else "stopped (")
    assert unit.stage.mentioning() == []


def test_an_end_that_a_restart_may_cure_is_restarted_until_systemds_own_limit(unit: Unit) -> None:
    unit.stage.play(Outcome(kind="distributed_error"))
    unit.install("--max-attempts", "1", StartLimitBurst="2", StartLimitIntervalSec="600")
    unit.start()
    unit.becomes("failed")
    assert unit.get("ExecMainStatus") == "4"
    assert len(leftovers.starts(unit.stage.folder)) == 2
    assert unit.stage.mentioning() == []


def test_the_account_it_asks_for_is_enough(unit: Unit) -> None:
    """As printed: the account made by the command that --install gives, state and caches where systemd puts them."""
    unit.stage.play(ok(b.Worker()))
    unit.system.open_up(unit.stage.folder)
    unit.system.write(f"/etc/autolaunch/{unit.name}.env", "VLLM_API_KEY=sk-very-secret-0123456789\n")
    unit.system.inside("chmod", "0600", f"/etc/autolaunch/{unit.name}.env")
    said = unit.install(account="autolaunch")
    (useradd,) = (line.removeprefix("to do: ") for line in said.splitlines() if line.startswith("to do: useradd "))
    assert unit.system.inside(*useradd.split()).returncode == 0
    assert unit.control("start").returncode == 0, unit.stage.err
    assert unit.get("StatusText").startswith("serving glm-4-9b")
    assert b"VLLM_API_KEY=sk-very-secret-0123456789" in Path(f"/proc/{unit.leader()}/environ").read_bytes()
    status = Path(f"/proc/{unit.supervisor()}/status").read_text()
    assert "CapBnd:\t0000000000000000" in status
    assert "NoNewPrivs:\t1" in status
    assert "Uid:\t0" not in status
    mounts = [line.split()[1:4] for line in Path(f"/proc/{unit.supervisor()}/mounts").read_text().splitlines()]
    assert all(options.startswith("ro") for point, _, options in mounts if point == "/")
    assert any(point == "/var/lib/autolaunch" and options.startswith("rw") for point, _, options in mounts)
    owner = unit.system.inside("stat", "-c", "%U %a", "/var/lib/autolaunch", "/var/lib/autolaunch/memory.sqlite3")
    assert owner.stdout.split("\n")[:2] == ["autolaunch 750", "autolaunch 600"]
    stopped(unit)


def test_a_users_own_manager_runs_it_too(system: Booted, stage: Stage) -> None:
    system.begin_users()
    unit = Unit(system, stage, for_user=True)
    try:
        stage.play(ok(b.Worker()))
        unit.install()
        assert unit.control("start").returncode == 0, stage.err
        assert unit.get("StatusText").startswith("serving glm-4-9b")
        stopped(unit)
    finally:
        unit.close()


def test_the_strangest_words_reach_the_program_as_they_are(system: Booted, stage: Stage) -> None:
    words = ["100%", "%h", "$HOME", "${HOME}", "", ";", "#x", 'a "b" \\n', "one\ntwo\t\x07", "'", "模", "-x=%i $$"]
    system.share(stage.folder)
    line = " ".join(["/usr/bin/printf", quoted("%s\\0"), *map(quoted, words)])
    text = f"[Service]\nType=oneshot\nExecStart={line}\nStandardOutput=file:{stage.folder}/words\n"
    system.write("/run/systemd/system/words.service", text)
    assert system.inside("systemctl", "start", "words").returncode == 0
    assert (stage.folder / "words").read_text().split("\0") == [*words, ""]
