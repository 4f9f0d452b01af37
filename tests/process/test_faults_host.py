"""The host changes under a run: cards, neighbours, ports, folders come and go; it goes on, or ends in words."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import fake_nvml
from tests.fake_engine import behaviours as b
from tests.fake_engine import leftovers
from tests.fake_engine.memory import MemoryModel, Move
from tests.fake_engine.models import GLM_4_9B
from tests.fake_engine.scenario import Outcome, Scenario
from tests.process.stage import ENGINE, GIB, ROOT, Stage, drive, ok, staged, stages

pytestmark = pytest.mark.process

CARD: dict[str, Any] = {"name": "NVIDIA GeForce RTX 4090", "total": 24 * GIB}
GONE: dict[str, dict[str, Any]] = {
    "unloaded": {"errors": {"nvmlInit": "DRIVER_NOT_LOADED"}},
    "lost": {"errors": {"nvmlDeviceGetMemoryInfo": "GPU_IS_LOST"}},
    "hangs": {"hang": {"nvmlInit": 30}},
}


def carded(stage: Stage, **driver: Any) -> None:
    """Give a stage a card, with a driver that behaves so from now on."""
    file = stage.folder / "nvml.json"
    believing(stage, file)
    fake_nvml.write(file, {**CARD, **named(stage)}, **driver)


def named(stage: Stage) -> dict[str, str]:
    """Return a name that no other test's card has: the lock of a card is one for the whole host."""
    return {"uuid": f"GPU-{zlib.crc32(bytes(stage.folder)):08x}-0000-0000-0000-{os.getpid():012d}"}


def believing(stage: Stage, file: Path) -> None:
    stage.environment |= {"FAKE_NVML": str(file), "PYTHONPATH": os.pathsep.join([fake_nvml.FOLDER, str(ROOT)])}
    stage.environment.pop("CUDA_VISIBLE_DEVICES", None)


# --- the driver


def test_a_driver_that_goes_away_in_a_climb_does_not_end_it() -> None:
    with stages(len(GONE)) as every:
        for stage in every:
            carded(stage)
            stage.play(Outcome(kind="kv_too_small", delay_s={"exit": 0.5}), ok())
            stage.launch("--check")
        for stage, how in zip(every, GONE.values(), strict=True):
            stage.happened("cause")
            carded(stage, **how)
        since = time.monotonic()
        for stage in every:
            assert stage.end(stage.running[0]).code == 0, stage.err
            assert time.monotonic() - since < 30  # a driver that hangs is given 5 s, each time
            assert stage.events == ["plan", "attempt", "failed", "step", "attempt", "ready", "stopped"]
            assert stage.left() == []
            assert "Traceback" not in stage.err


def test_a_driver_that_goes_away_in_service_is_not_missed_until_a_crash_and_not_then() -> None:
    with stages(len(GONE)) as every:
        for stage in every:
            carded(stage)
            stage.play(ok(b.Worker()))
            stage.launch(module=drive(stage, restart_wait_s=0.05))
        for stage, how in zip(every, GONE.values(), strict=True):
            stage.line("ready")
            carded(stage, **how)
            stage.crash()
        since = time.monotonic()
        for stage in every:
            stage.line("ready", 1)
            assert time.monotonic() - since < 30
            first, second = stage.lines("attempt")
            assert first["argv"] == second["argv"]
            stage.stop(stage.running[0])
            assert "Traceback" not in stage.err


# --- others on the card


@pytest.mark.parametrize("taken_gib", [3.0, 10.0])
def test_a_neighbour_that_takes_memory_between_two_attempts_is_planned_around(stage: Stage, taken_gib: float) -> None:
    carded(stage)
    memory = MemoryModel(dims=GLM_4_9B, nvml=True, moves=(Move(start=0, phase="load", gib=taken_gib),))
    stage.play(Scenario(starts=(Outcome(kind="kv_too_small"), Outcome(kind="auto")), memory=memory))
    ended = stage.run("--check")
    assert ended.code == 0, ended.err
    before, *after = stage.lines("attempt")
    assert 1 <= len(after) <= 3
    assert after[-1]["settings"] != before["settings"]
    assert stage.left() == []


def test_two_supervisors_that_begin_at_once_on_one_card_both_come_up(stage: Stage, tmp_path: Path) -> None:
    """Each measures only while the other does not start, and counts what it holds."""
    file = tmp_path / "nvml.json"
    h100 = {"name": "NVIDIA H100 80GB HBM3", "total": 80 * GIB, "capability": [9, 0]}
    fake_nvml.write(file, {**h100, **named(stage)})
    with staged() as other:
        for one in (stage, other):
            believing(one, file)
            memory = MemoryModel(dims=GLM_4_9B, nvml=True)
            one.play(Scenario(starts=(Outcome(kind="auto", delay_s={"load": 3}),), memory=memory))
        runs = [one.launch("--memory", "32GiB") for one in (stage, other)]
        for one in (stage, other):
            one.line("ready")
        assert len(stage.lines("attempt")) == len(other.lines("attempt")) == 1
        assert ("is starting on this card" in stage.err) != ("is starting on this card" in other.err)
        for one, process in zip((stage, other), runs, strict=True):
            one.stop(process)
    assert list(Path("/dev/shm").glob(f"autolaunch.{named(stage)['uuid']}*")) == []


# --- the port


def test_a_port_that_is_taken_between_two_attempts_of_a_climb_is_said(stage: Stage) -> None:
    stage.play(Outcome(kind="kv_too_small", behaviours=(b.ReusePort(),), delay_s={"load": 1}), ok())
    process = stage.launch(module=drive(stage, free_gib=12))
    stage.line("attempt")
    with stage.port_taken():
        assert stage.end(process).code == 5
    assert f"pid {os.getpid()}" in stage.lines()[-1]["reason"]
    assert len(leftovers.starts(stage.folder)) == 1
    assert stage.left() == []


# --- folders


@contextlib.contextmanager
def mounted(folder: Path, options: str) -> Iterator[Path]:
    """A small file system of its own."""
    folder.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if subprocess.run(words, check=False, capture_output=True).returncode != 0:
        pytest.skip("mounting a tmpfs needs root and CAP_SYS_ADMIN")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.parametrize(
    ("options", "words"), [("ro", "Read-only file system"), ("nr_inodes=1", "No space left on device")]
)
def test_a_state_folder_that_takes_nothing_ends_the_launch_before_anything_is_started(
    stage: Stage, options: str, words: str
) -> None:
    with mounted(stage.folder / "state", options) as folder:
        stage.play(ok())
        ended = stage.run("--check")
        assert ended.code == 5
        assert f"the state folder {folder} cannot be used: {words}" in ended.err
        assert "--state-dir" in ended.err
        assert list(folder.iterdir()) == []
    assert leftovers.starts(stage.folder) == []
    assert stage.lines() == []
    assert stage.left() == []


def test_a_state_folder_without_room_costs_what_it_would_keep_and_not_the_launch(stage: Stage) -> None:
    with mounted(stage.folder / "state", "size=64k") as folder:
        with contextlib.suppress(OSError):
            (folder / "ballast").write_bytes(b"x" * (1 << 20))
        stage.play(Outcome(kind="kv_too_small"), ok())
        ended = stage.run("--check")
        assert ended.code == 0, ended.err
        assert ended.err.count("warning: the engine's output is no longer kept: No space left on device") <= 2
        assert "No space left on device" in ended.err
        assert stage.events[-2:] == ["ready", "stopped"]


def test_a_state_folder_that_is_removed_in_service_costs_no_restart(stage: Stage) -> None:
    stage.play(ok(b.Worker()))
    process = stage.launch(module=drive(stage, restart_wait_s=0.05))
    stage.line("ready")
    stage.state.rename(stage.folder / "elsewhere")  # at once: it is being written to
    stage.crash()
    stage.line("ready", 1)
    stage.stop(process)
    assert stage.err.count("the engine's output cannot be kept in") == 1
    assert "Traceback" not in stage.err


def homeless(stage: Stage) -> None:
    """Take away whatever says where a home is."""
    for name in [name for name in stage.environment if name == "HOME" or name.startswith("XDG_")]:
        del stage.environment[name]


def test_without_home_the_folder_is_that_of_the_password_file(stage: Stage) -> None:
    homeless(stage)
    words = [sys.executable, "-m", "autolaunch", "doctor", "--engine", ENGINE]
    assert stage.end(stage.start(words)).code == 0, stage.err
    assert f"{Path('~root').expanduser()}/.local/state/autolaunch" in stage.out or os.getuid() != 0


def test_a_user_without_a_home_is_told_to_name_a_folder_and_gets_none_called_tilde(stage: Stage) -> None:
    """A user id without a name, as containers draw them: the folder was made as `~` wherever one stood."""
    homeless(stage)
    stage.play(ok())
    powers = "+dac_override,+dac_read_search"  # the interpreter may lie in a home
    words = ["setpriv", "--reuid=54321", "--regid=54321", "--clear-groups"]
    words += [f"--inh-caps={powers}", f"--ambient-caps={powers}"]
    try:
        subprocess.run([*words, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("becoming a user without a name needs root and setpriv")
    given = stage.command("--check", engine=f"/usr/bin/env {ENGINE}")
    at = given.index("--state-dir")
    ended = stage.end(stage.start([*words, *given[:at], *given[at + 2 :]], cwd=stage.folder))
    assert ended.code == 5, ended.err
    assert ended.err.startswith(
        "error: user id 54321 has no home folder\nhint: set HOME, or give a folder with --state"
    )
    assert not (stage.folder / "~").exists()
    assert leftovers.starts(stage.folder) == []
    assert stage.end(stage.start([*words, *given], cwd=stage.folder)).code == 0, stage.err
