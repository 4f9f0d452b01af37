"""Signals at any moment: exit code 0, within the grace, one `stopped` line, nothing left; what SIGHUP means."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import pytest

from tests.fake_engine import behaviours as b
from tests.fake_engine import leftovers
from tests.fake_engine.scenario import Outcome
from tests.process.stage import DEADLINE_S, Stage, crowd, drive, ok, until

pytestmark = pytest.mark.process

STOPS = (signal.SIGINT, signal.SIGTERM)


def stopped_as_asked(stage: Stage, process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    assert stage.end(process).code == 0, stage.err
    assert stage.left() == []
    assert "Traceback" not in stage.err
    assert stage.lines("stopped") == [stage.lines()[-1]]
    assert stage.lines()[-1]["exit_code"] == 0
    assert stage.lines()[-1]["reason"] == number.name


@pytest.mark.parametrize("number", STOPS)
def test_a_signal_in_service_ends_the_engine_politely(stage: Stage, number: signal.Signals) -> None:
    stage.play(ok(b.Worker()))
    process = stage.launch()
    stage.line("ready")
    process.send_signal(number)
    stopped_as_asked(stage, process, number)
    assert b"shutdown" in stage.log().lower()


@pytest.mark.parametrize("number", STOPS)
def test_a_signal_during_a_start_ends_it(stage: Stage, number: signal.Signals) -> None:
    stage.play(ok(b.Worker(), delay_s={"graphs": 60}))
    process = stage.launch()
    stage.grown({"core", "worker0"})
    process.send_signal(number)
    stopped_as_asked(stage, process, number)


def test_a_signal_right_after_the_fork_is_not_lost_for_the_whole_grace(stage: Stage) -> None:
    """Once SIGTERM reached the child before its setsid, or while it still ignored SIGTERM as the warden does."""
    stage.play(ok(delay_s={"import": 600}))
    process = stage.launch(module=drive(stage, policy={"start_grace_s": 60}))
    stage.line("attempt")
    since = time.monotonic()
    process.send_signal(signal.SIGINT)
    stopped_as_asked(stage, process, signal.SIGINT)
    assert time.monotonic() - since < 30


def test_a_signal_while_a_failed_start_is_ended_starts_no_other(stage: Stage) -> None:
    module = drive(stage, policy={"failed_grace_s": 10, "kill_wait_s": 30})
    stage.play(Outcome(kind="kv_too_small", then="hang", behaviours=crowd()), ok())
    process = stage.launch(module=module)
    stage.happened("cause")
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGTERM)  # not SIGINT: two of a kind that come before the handler runs are one
    stopped_as_asked(stage, process, signal.SIGINT)
    assert len(leftovers.starts(stage.folder)) == 1


def test_a_signal_while_memory_is_awaited_ends_at_once(stage: Stage) -> None:
    stage.play(Outcome(kind="kv_too_small"), ok())
    process = stage.launch(module=drive(stage, free_gib=[2, 3]))  # what stands still is not waited for
    stage.line("failed")
    since = time.monotonic()
    process.send_signal(signal.SIGTERM)
    stopped_as_asked(stage, process, signal.SIGTERM)
    assert time.monotonic() - since < 10  # of the 15 that memory is waited for
    assert len(leftovers.starts(stage.folder)) == 1


@pytest.mark.parametrize("launch", [1, 2])
def test_a_signal_during_a_launch_that_the_host_refuses_ends_in_zero_at_once(stage: Stage, launch: int) -> None:
    """The first launch once ended in a traceback, a later one after 22 s with 5: no engine's end ever came."""
    module = drive(stage, refuse_launch=launch, policy={"stop_grace_s": 60, "start_grace_s": 60, "kill_wait_s": 60})
    stage.play(Outcome(kind="kv_too_small"), ok())
    since = time.monotonic()
    stopped_as_asked(stage, stage.launch(module=module), signal.SIGTERM)
    assert time.monotonic() - since < 45
    assert len(leftovers.starts(stage.folder)) == launch - 1


def test_a_signal_during_backoff_ends_at_once(stage: Stage) -> None:
    stage.play(ok())
    process = stage.launch(module=drive(stage, restart_wait_s=600))
    stage.line("ready")
    stage.crash()
    until(lambda: stage.lines("crashed") and not leftovers.alive(stage.folder), "the crash")
    since = time.monotonic()
    process.send_signal(signal.SIGINT)
    stopped_as_asked(stage, process, signal.SIGINT)
    assert time.monotonic() - since < 60


def test_the_grace_is_kept_for_an_engine_that_takes_its_time(stage: Stage) -> None:
    stage.play(ok(delay_s={"shutdown": 1.5}))
    process = stage.launch()
    stage.line("ready")
    process.send_signal(signal.SIGINT)
    stopped_as_asked(stage, process, signal.SIGINT)
    assert b"Application shutdown complete." in stage.log()


def test_a_second_interrupt_skips_the_grace(stage: Stage) -> None:
    stage.play(ok(b.Worker(), delay_s={"shutdown": 600}))
    process = stage.launch(module=drive(stage, policy={"stop_grace_s": 60}))
    stage.line("ready")
    process.send_signal(signal.SIGINT)
    stage.happened("stopping")
    since = time.monotonic()
    process.send_signal(signal.SIGINT)
    stopped_as_asked(stage, process, signal.SIGINT)
    assert time.monotonic() - since < 30


def test_a_storm_of_signals_ends_in_zero(stage: Stage) -> None:
    stage.play(ok(b.IgnoreSigterm(), b.Worker()))
    process = stage.launch()
    stage.line("ready")
    while process.poll() is None:
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGINT)
    assert stage.end(process).code == 0
    assert stage.left() == []
    assert "Traceback" not in stage.err
    assert stage.lines("stopped") == [stage.lines()[-1]]


LAST_MOMENTS = """
import queue, signal
from autolaunch.__main__ import TAKEN, _ignore_signals

taken = queue.SimpleQueue()
_ignore_signals()
print("go", flush=True)
while True:
    for number in TAKEN:
        signal.signal(number, lambda number, _: taken.put(number))
    _ignore_signals()
"""


def test_a_signal_while_signals_are_being_ignored_shows_no_traceback() -> None:
    """CPython writes one for a signal that comes between its last look and SIG_IGN: about five in a second of this."""
    process = subprocess.Popen([sys.executable, "-c", LAST_MOMENTS], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"go\n"
    end = time.monotonic() + 5
    while time.monotonic() < end:
        for number in STOPS:
            process.send_signal(number)
    process.kill()
    assert process.communicate()[1] == b""


def test_signals_at_every_early_moment_never_show_a_traceback(stage: Stage) -> None:
    """Python itself needs about 15 ms before it reads our first line: until then a signal is the interpreter's."""
    stage.play(ok())
    for delay_ms in range(0, 500, 50):
        assert _stopped_early(stage, delay_ms / 1000, STOPS[delay_ms // 50 % 2]) == 0
    assert "Traceback" not in stage.err
    assert "KeyboardInterrupt" not in stage.err


def _stopped_early(stage: Stage, delay_s: float, number: signal.Signals) -> int:
    process = stage.launch()
    started = time.monotonic()
    until(lambda: _handles_signals(process.pid), "our first line")
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(max(0.0, started + delay_s - time.monotonic()))
    process.send_signal(number)
    code = stage.end(process).code
    stage.nothing_left()
    return code


def _handles_signals(pid: int) -> bool:
    """Whether SIGTERM is caught, which Python does not do by itself."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    caught = next(line for line in status if line.startswith("SigCgt:"))
    return bool(int(caught.split()[1], 16) >> (signal.SIGTERM - 1) & 1)


def test_a_signal_while_the_run_is_prepared_ends_in_zero(stage: Stage) -> None:
    stage.play(ok())
    process = stage.launch(module=drive(stage, slow_start_s=300))
    until(lambda: "measuring" in stage.out, "the preparation")
    process.send_signal(signal.SIGTERM)
    assert stage.end(process).code == 0
    assert stage.err == "stopped (SIGTERM) before anything was started\n"
    assert stage.lines() == []
    assert not stage.state.exists()


def test_nohup_keeps_the_run_alive_when_the_terminal_goes(stage: Stage) -> None:
    stage.play(ok())
    process = stage.start(["nohup", *stage.command()])
    stage.line("ready")
    process.send_signal(signal.SIGHUP)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(0.5)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    stopped_as_asked(stage, process, signal.SIGTERM)


class Terminal:
    """A pseudo-terminal whose foreground job is autolaunch."""

    def __init__(self, stage: Stage, *args: str, module: str = "autolaunch") -> None:
        self.pid, self.master = pty.fork()
        if self.pid == 0:
            os.execve(sys.executable, stage.command(*args, module=module), {**stage.environment, "TERM": "xterm"})
        self.shown = b""

    def read(self) -> bytes:
        """Return everything shown so far."""
        while select.select([self.master], [], [], 0)[0]:
            try:
                self.shown += os.read(self.master, 65536)
            except OSError:  # the other end is closed
                break
        return self.shown

    def wait(self) -> int:
        def ended() -> tuple[int, int] | None:
            self.read()
            found = os.waitpid(self.pid, os.WNOHANG)
            return found if found[0] else None

        return os.waitstatus_to_exitcode((until(ended, "the end") or (0, 0))[1])


def test_an_interrupt_from_the_terminal_reaches_only_the_supervisor(stage: Stage) -> None:
    stage.play(ok(b.Worker()))
    terminal = Terminal(stage)
    until(lambda: terminal.read() and stage.lines("ready"), "ready")
    os.write(terminal.master, b"\x03")
    assert terminal.wait() == 0
    os.close(terminal.master)
    assert stage.lines()[-1]["reason"] == "SIGINT"
    assert b"SIGTERM" in stage.log()
    assert b"SIGINT" not in stage.log()
    assert stage.left() == []


def test_a_terminal_that_is_closed_ends_the_run_and_leaves_nothing(stage: Stage) -> None:
    stage.play(ok(*crowd()))
    terminal = Terminal(stage, module=drive(stage, policy={"stop_grace_s": 1}))
    until(lambda: terminal.read() and stage.lines("ready"), "ready")
    os.close(terminal.master)
    assert stage.line("stopped")["reason"] == "SIGHUP"
    os.waitpid(terminal.pid, 0)
    assert stage.left() == []


def test_a_terminal_shows_the_phase_of_a_long_start_in_one_line(stage: Stage) -> None:
    stage.play(ok(delay_s={"load": 2.5}))
    terminal = Terminal(stage, "--check")
    assert terminal.wait() == 0
    os.close(terminal.master)
    assert b"\r\x1b[2K" in terminal.shown
    assert re.search(rb"(loading the weights|starting the engine core), \d+ s", terminal.shown)
    assert terminal.shown.count(b"\n") < 15
    assert stage.lines()[-1]["exit_code"] == 0


def test_without_a_terminal_a_hangup_opens_the_record_anew_and_stops_nothing(stage: Stage) -> None:
    """logrotate moves the file and sends SIGHUP; the server used to end."""
    stage.play(ok())
    process = stage.launch()
    stage.line("ready")
    moved = stage.record.with_suffix(".1")
    stage.record.rename(moved)
    process.send_signal(signal.SIGHUP)
    until(lambda: "restart to change them" in stage.err, "the word about it")
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert stage.end(process).code == 0
    assert [line["event"] for line in stage.lines()] == ["stopped"]
    assert b'"event": "ready"' in moved.read_bytes()


# --- requests that run


class Asking(threading.Thread):
    """A client whose one request takes the engine a while."""

    def __init__(self, stage: Stage) -> None:
        super().__init__(daemon=True)
        self.port = stage.port
        self.status: int | str = "none"
        self.start()

    def run(self) -> None:
        body = {"messages": [{"role": "user", "content": "Hi"}]}
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/v1/chat/completions",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=2 * DEADLINE_S) as answer:
                self.status = answer.status
        except OSError as error:
            self.status = str(error)


def metrics(stage: Stage) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{stage.port}/metrics", timeout=DEADLINE_S) as answer:
        return str(answer.read().decode())


def test_a_request_that_runs_is_finished_before_the_engine_is_asked_to_end(stage: Stage) -> None:
    stage.play(ok(b.SlowCompletion(seconds=4)))
    process = stage.launch()
    stage.line("ready")
    client = Asking(stage)
    until(lambda: "} 1.0" in metrics(stage).splitlines()[1], "the request to run")
    process.send_signal(signal.SIGTERM)
    stopped_as_asked(stage, process, signal.SIGTERM)
    client.join(DEADLINE_S)
    assert client.status == 200
    assert "  1 request runs and may finish (--drain-timeout); a second signal ends it all at once\n" in stage.err


def test_a_request_that_takes_too_long_is_not_waited_for(stage: Stage) -> None:
    stage.play(ok(b.SlowCompletion(seconds=600)))
    process = stage.launch("--drain-timeout", "1")
    stage.line("ready")
    client = Asking(stage)
    until(lambda: "} 1.0" in metrics(stage).splitlines()[1], "the request to run")
    since = time.monotonic()
    process.send_signal(signal.SIGTERM)
    stopped_as_asked(stage, process, signal.SIGTERM)
    assert 1 <= time.monotonic() - since < 60
    client.join(DEADLINE_S)
    assert client.status != 200


def test_a_second_signal_does_not_wait_for_requests(stage: Stage) -> None:
    stage.play(ok(b.SlowCompletion(seconds=600)))
    process = stage.launch("--drain-timeout", "600")
    stage.line("ready")
    Asking(stage)
    until(lambda: "} 1.0" in metrics(stage).splitlines()[1], "the request to run")
    since = time.monotonic()
    process.send_signal(signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(1)
    assert process.poll() is None, "it waits for the request"
    process.send_signal(signal.SIGTERM)
    stopped_as_asked(stage, process, signal.SIGTERM)
    assert time.monotonic() - since < 60
