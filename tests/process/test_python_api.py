"""`autolaunch.launch` over the fake engine: a real supervisor, a real interpreter, real kills."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

import autolaunch
from tests.fake_engine import behaviours as b
from tests.fake_engine import leftovers
from tests.fake_engine.scenario import Outcome
from tests.process.stage import DEADLINE_S, ENGINE, Stage, ok, until

pytestmark = pytest.mark.process

FAMILY = (b.Worker(count=2), b.DoubleFork(clear_env=True), b.HoldPipe(setsid=True), b.HoldPort(setsid=True))
"""What outlives an engine that is only killed itself."""


def options(stage: Stage, **more: Any) -> dict[str, Any]:
    """Return the keywords of a launch on a stage."""
    named = ("FAKE", "HF_HUB", "HOME", "TMPDIR", "PYTHON")
    environment = {name: value for name, value in stage.environment.items() if name.startswith(named)}
    return {
        "engine": ENGINE,
        "engine_version": "0.24.0",
        "port": stage.port,
        "state_dir": stage.state,
        "environment": environment,
        **more,
    }


def script(stage: Stage, end: str) -> subprocess.Popen[bytes]:
    """Start an interpreter that launches a server, says so, and then does `end`."""
    made = {key: str(value) if isinstance(value, Path) else value for key, value in options(stage).items()}
    code = f"import autolaunch, os, sys, time\nserver = autolaunch.launch('glm-4-9b', **{made!r})\n"
    code += f"open({str(stage.folder / 'up')!r}, 'w').close()\n{end}\n"
    return stage.start([sys.executable, "-c", code])


def forks(pid: int) -> list[int]:
    """Return the processes of an interpreter's session."""
    return [one.pid for one in psutil.process_iter() if _session(one.pid) == pid]


def _session(pid: int) -> int:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return 0


def all_gone(stage: Stage, pid: int | None = None) -> None:
    until(lambda: not leftovers.alive(stage.folder), "the engine to be gone")
    until(lambda: pid is None or not Path(f"/proc/{pid}").exists(), "the supervisor to be gone")


def test_a_server_comes_up_through_the_ladder_and_says_how(stage: Stage) -> None:
    stage.play(Outcome(kind="kv_too_small"), ok())
    lines: list[str] = []
    with autolaunch.launch("glm-4-9b", enforce_eager=True, progress=lines.append, **options(stage)) as server:
        assert server.base_url == f"http://127.0.0.1:{stage.port}/v1"
        assert (server.model, server.ready, server.exit_code) == ("glm-4", True, None)
        assert dict(server.settings) == {"enforce_eager": True, "max_model_len": 70624}
        assert server.effective["max_model_len"] == 70624
        assert [(one.n, one.rung, one.failure, one.came_up) for one in server.attempts] == [
            (1, "start", "kv_too_small", False),
            (2, "context", "", True),
        ]
        assert "ready" in repr(server)
        with pytest.raises(TimeoutError):
            server.wait(0.05)
    assert (server.exit_code, server.ready) == (0, False)
    assert any("-> context" in line for line in lines)
    all_gone(stage, server.pid)


def test_the_lines_go_to_where_stderr_points_now(stage: Stage) -> None:
    """A notebook puts its own stream there."""
    stage.play(ok())
    shown = io.StringIO()
    with contextlib.redirect_stderr(shown), autolaunch.launch("glm-4-9b", **options(stage)):
        until(lambda: "answered a real request" in shown.getvalue(), "the line")


def test_a_crash_is_seen_and_what_serves_after_it(stage: Stage) -> None:
    stage.play(ok())
    with autolaunch.launch("glm-4-9b", **options(stage)) as server:
        stage.crash()
        until(lambda: len(server.attempts) == 2 and server.ready, "the second start")
        assert [one.came_up for one in server.attempts] == [True, True]


def test_an_engine_that_never_comes_up_is_an_error_with_its_attempts(stage: Stage) -> None:
    stage.play(Outcome(kind="config_error"))
    with pytest.raises(autolaunch.LaunchError) as caught:
        autolaunch.launch("glm-4-9b", **options(stage))
    assert caught.value.exit_code == 4
    assert [one.failure for one in caught.value.attempts] == ["config_error"]
    assert caught.value.hint.startswith("An argument is refused")
    all_gone(stage)


def test_a_model_that_the_engine_cannot_find_is_a_failed_start_with_advice(stage: Stage) -> None:
    stage.play(Outcome(kind="model_not_found"))
    with pytest.raises(autolaunch.LaunchError) as caught:
        autolaunch.launch("me/nomodel", **options(stage))
    assert caught.value.exit_code == 2
    assert [one.failure for one in caught.value.attempts] == ["model_not_found"]
    assert caught.value.hint.startswith("The model's files cannot be had")


def test_a_port_that_is_taken_is_the_hosts_fault_and_starts_nothing(stage: Stage) -> None:
    stage.play(ok())
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", stage.port))
        other.listen()
        with pytest.raises(autolaunch.HostError):
            autolaunch.launch("glm-4-9b", **options(stage))
    assert leftovers.starts(stage.folder) == []


def test_a_progress_that_fails_loses_no_line(stage: Stage) -> None:
    stage.play(ok())
    shown = io.StringIO()
    heard: list[str] = []

    def once(line: str) -> None:
        heard.append(line)
        raise OSError("full")

    with contextlib.redirect_stderr(shown), autolaunch.launch("glm-4-9b", progress=once, **options(stage)):
        until(lambda: "answered a real request" in shown.getvalue(), "the lines behind it")
    first, second = shown.getvalue().splitlines()[:2]
    assert len(heard) == 1
    assert (first, second) == (
        f"warning: progress failed with {OSError('full')!r}; its lines go to stderr from here on",
        heard[0],
    )


def test_a_wish_that_cannot_be_is_an_error_with_its_hint_and_starts_nothing(stage: Stage) -> None:
    stage.play(ok())
    with pytest.raises(autolaunch.WishError) as caught:
        autolaunch.launch("glm-4-9b", rope_scaling={"a": 1}, **options(stage))
    assert "went with 0.11.1" in caught.value.what
    assert caught.value.hint.startswith("write instead: --hf-overrides")
    with pytest.raises(autolaunch.HostError) as lost:
        autolaunch.launch("glm-4-9b", **options(stage, engine="/no/such/engine"))
    assert "/no/such/engine" in lost.value.what
    assert leftovers.starts(stage.folder) == []


def test_an_exception_in_the_block_stops_the_server(stage: Stage) -> None:
    stage.play(ok(*FAMILY))
    with pytest.raises(ZeroDivisionError), autolaunch.launch("glm-4-9b", **options(stage)) as server:
        _ = 1 / 0
    assert server.exit_code == 0
    all_gone(stage, server.pid)


@pytest.mark.parametrize(
    ("end", "code"),
    [
        ("os.kill(os.getpid(), 9)", -9),
        ("os._exit(3)", 3),
        ("sys.exit(0)", 0),
        ("raise SystemError", 1),
        ("if os.fork(): os.kill(os.getpid(), 9)\ntime.sleep(5)\nos._exit(0)", -9),
    ],
)
def test_nothing_is_left_however_the_interpreter_ends(stage: Stage, end: str, code: int) -> None:
    stage.play(ok(*FAMILY))
    process = script(stage, end)
    until((stage.folder / "up").exists, "the server to be up")
    assert process.wait(DEADLINE_S) == code
    all_gone(stage)
    until(lambda: not forks(process.pid), "the interpreter's fork to be gone")


def test_an_interpreter_that_is_killed_during_the_start_leaves_nothing(stage: Stage) -> None:
    stage.play(ok(b.NoOutputHang(phase="load")))
    process = script(stage, "")
    until(lambda: leftovers.starts(stage.folder), "the first start")
    process.kill()
    process.wait(DEADLINE_S)
    all_gone(stage)


def test_a_fork_of_the_interpreter_does_not_stop_its_server(stage: Stage) -> None:
    stage.play(ok())
    end = "pid = os.fork()\nif not pid: sys.exit(0)\nos.waitpid(pid, 0)\nprint(server.ready, flush=True)\n"
    process = script(stage, end + "time.sleep(600)")
    until(lambda: "True" in stage.out or process.poll() is not None, "the fork to be gone")
    assert process.poll() is None
    assert leftovers.alive(stage.folder)
    process.send_signal(signal.SIGINT)
    process.wait(DEADLINE_S)
    all_gone(stage)


def test_an_interrupt_while_it_starts_stops_the_start(stage: Stage) -> None:
    stage.play(ok(b.NoOutputHang(phase="load")))
    process = script(stage, "")
    until(lambda: leftovers.starts(stage.folder), "the first start")
    process.send_signal(signal.SIGINT)
    assert process.wait(DEADLINE_S) not in (0, None)
    assert "KeyboardInterrupt" in stage.err
    all_gone(stage)


def test_the_key_is_in_no_command_line_of_the_supervisor(stage: Stage) -> None:
    stage.play(ok())
    with autolaunch.launch("glm-4-9b", api_key="sk-in-no-list-of-processes", **options(stage)) as server:
        assert b"sk-in-no-list" not in Path(f"/proc/{server.pid}/cmdline").read_bytes()
        assert b"AUTOLAUNCH_PARENT" not in b"".join(
            Path(f"/proc/{pid}/environ").read_bytes() for pid in leftovers.alive(stage.folder)
        )


# --- asyncio


def test_the_async_twin_serves_waits_and_stops(stage: Stage) -> None:
    stage.play(ok())

    async def use() -> tuple[str, int]:
        async with autolaunch.launch_async("glm-4-9b", **options(stage)) as server:
            with pytest.raises(TimeoutError):
                await server.wait(0.05)
            model = server.model
        return model, await server.wait()

    assert asyncio.run(use()) == ("glm-4", 0)
    all_gone(stage)


def test_a_task_that_is_cancelled_during_the_start_stops_it(stage: Stage) -> None:
    stage.play(ok(b.NoOutputHang(phase="load")))

    async def use() -> None:
        async with autolaunch.launch_async("glm-4-9b", **options(stage)):
            pytest.fail("it never comes up")

    async def cancel() -> None:
        task = asyncio.ensure_future(use())
        deadline = time.monotonic() + DEADLINE_S
        while not leftovers.starts(stage.folder):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancel())
    all_gone(stage)


def test_waits_that_are_given_up_leave_room_for_the_stop(stage: Stage) -> None:
    """Each once held a thread of the loop's pool until the server's end: then nothing could be stopped."""
    stage.play(ok())

    async def use() -> int:
        async with autolaunch.launch_async("glm-4-9b", **options(stage)) as server:
            for _ in range(40):
                with contextlib.suppress(TimeoutError, asyncio.TimeoutError):
                    await asyncio.wait_for(server.wait(), 0.001)
        return await server.wait()

    assert asyncio.run(use()) == 0


def test_a_thread_that_waits_does_not_keep_the_program_from_ending(stage: Stage) -> None:
    stage.play(ok(*FAMILY))
    process = script(stage, "from threading import Thread\nThread(target=server.wait).start()")
    assert process.wait(DEADLINE_S) == 0
    all_gone(stage)


def test_a_stop_gives_the_drain_its_time_and_asks_once(stage: Stage) -> None:
    stage.play(ok())
    with autolaunch.launch("glm-4-9b", drain_timeout=600, **options(stage)) as server:
        assert server._stop_s == 720
        assert (server.stop(), server.stop()) == (0, 0)
