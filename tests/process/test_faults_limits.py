"""The supervisor is short of descriptors, memory or threads: it says so in time, and no healthy engine pays for it."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fake_engine import behaviours as b
from tests.fake_engine import leftovers
from tests.process.stage import HANG_S, Stage, drive, ok, stages, state_of, until, wait

pytestmark = pytest.mark.process

MIB = 1 << 20


def limited(kind: int, most: int) -> None:
    resource.setrlimit(kind, (most, most))


def ended_well(stage: Stage) -> int:
    """Wait for the only run; whatever it was short of, it ends in words, and nothing is left."""
    ended = stage.end(stage.running[0])
    if "Fatal Python error: init_import_site" in ended.err:  # a .pth file beside it took the last descriptor
        stage.nothing_left()
        return 1
    assert ended.code in (0, 5), ended.err
    assert "Traceback" not in ended.err
    stage.nothing_left()
    if ended.code == 5:
        assert "Too many open files" in ended.err or "autolaunch is short of" in ended.err
        assert "hint: " in ended.err
    return ended.code


def test_a_start_with_few_descriptors_comes_up_or_says_why_not() -> None:
    counts = (4, 5, 6, 8, 10, 13, 14, 15, 16, 18, 24, 64)
    with stages(len(counts)) as every:
        for stage, count in zip(every, counts, strict=True):
            stage.play(ok(b.Worker()))
            stage.launch("--check", preexec_fn=lambda count=count: limited(resource.RLIMIT_NOFILE, count))
        codes = [ended_well(stage) for stage in every]
    assert (5 in codes, codes[-1]) == (True, 0)


def test_a_start_with_little_memory_comes_up_or_says_why_not() -> None:
    """Its helper threads died alone: the engine was healthy, nobody asked it, and an hour would have been waited."""
    sizes = (48, 56, 64, 72, 80, 88, 96, 128, 512)
    with stages(len(sizes)) as every:
        for stage, size in zip(every, sizes, strict=True):
            stage.play(ok(b.Worker()))
            stage.launch("--check", preexec_fn=lambda size=size: limited(resource.RLIMIT_AS, size * MIB))
        codes = [ended_well(stage) for stage in every]
    assert codes[-1] == 0


# --- in service


@contextlib.contextmanager
def lowered(pid: int, kind: int, most: int) -> Iterator[None]:
    """A limit of another process that is low for a while."""
    before = resource.prlimit(pid, kind, (most, resource.prlimit(pid, kind)[1]))
    yield
    with contextlib.suppress(ProcessLookupError):
        resource.prlimit(pid, kind, before)


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208 - of another process, at once


def test_a_supervisor_that_is_short_in_service_takes_no_healthy_engine_for_one_that_hangs() -> None:
    """A question takes a descriptor, and next to no memory."""
    kinds = (resource.RLIMIT_NOFILE, resource.RLIMIT_AS)
    with stages(len(kinds)) as every:
        for stage in every:
            stage.play(ok(b.Worker()))
            stage.launch("--hang-timeout", str(HANG_S))
        with contextlib.ExitStack() as stack:
            for stage, kind in zip(every, kinds, strict=True):
                stage.line("ready")
                stage.asked()
                pid = stage.running[0].pid
                few = 4 if kind == resource.RLIMIT_NOFILE else state_of(pid, "VmSize") * 1024
                stack.enter_context(lowered(pid, kind, few))
            until(lambda: "cannot be seen" in every[0].err, "the warning")
            wait(every[0].running[0], HANG_S)
            warned = [one.err.count("cannot be seen: autolaunch is short of file descriptors") for one in every]
            assert warned == [1, 0]
        for stage in every:
            stage.asked()
            stage.stop(stage.running[0])
            assert stage.events == ["plan", "attempt", "ready", "stopped"]
            assert "Traceback" not in stage.err


def test_a_crash_while_no_descriptor_is_left_ends_the_run_in_words(stage: Stage) -> None:
    stage.play(ok(b.Worker()))
    process = stage.launch(module=drive(stage, restart_wait_s=0.05))
    stage.line("ready")
    with lowered(process.pid, resource.RLIMIT_NOFILE, 4):
        stage.crash()
        ended = stage.end(process)
    assert ended.code == 5, ended.err
    assert "Too many open files" in stage.lines()[-1]["reason"]
    assert "Traceback" not in ended.err
    assert stage.left() == []


# --- a cgroup's limit


@pytest.fixture
def cgroup() -> Iterator[Path]:
    """A cgroup of 160 MiB, v1 or v2."""
    roots = [Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")]
    root = next((root for root in roots if (root / "cgroup.procs").exists()), roots[1])
    made = root / f"autolaunch-test-{os.getpid()}"
    try:
        made.mkdir()
        limit = made / ("memory.max" if (made / "memory.max").exists() else "memory.limit_in_bytes")
        limit.write_text(str(160 * MIB))
    except OSError as error:
        with contextlib.suppress(OSError):
            made.rmdir()
        pytest.skip(f"no cgroup with a limit of memory can be made here: {error}")
    yield made
    until(lambda: not (made / "cgroup.procs").read_text(), "the cgroup to be empty")
    made.rmdir()


@pytest.mark.parametrize("victim", ["engine", "supervisor"])
def test_who_is_killed_at_a_cgroups_limit_leaves_nothing(stage: Stage, cgroup: Path, victim: str) -> None:
    stage.play(ok(b.Worker(), b.AllocateMib(mib=400, phase="load"), delay_s={"load": 1}))

    def join() -> None:
        (cgroup / "cgroup.procs").write_text(str(os.getpid()))

    process = stage.launch(preexec_fn=join)
    known = stage.grown({"worker0"})
    (leader,) = (pid for pid, role in known.items() if role == "leader")
    first = leader if victim == "engine" else process.pid
    Path(f"/proc/{first}/oom_score_adj").write_text("1000")
    ended = stage.end(process)
    if victim == "engine":
        assert ended.code == 3, ended.err
        assert stage.lines("failed")[0]["failure"]["kind"] == "host_oom"
        assert stage.left() == []
    else:
        assert ended.code == -signal.SIGKILL
        stage.nothing_left()
    assert leftovers.alive(stage.folder) == []
