"""The card lock between real processes: killed holders, engines that live on, other users, many at once."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from autolaunch.lock import CardLocks
from tests.process.stage import ROOT, until

pytestmark = pytest.mark.process

BEGIN = """
import os, subprocess, sys, time
from pathlib import Path
from autolaunch.lock import CardLocks

folder, cards = Path(sys.argv[1]), sys.argv[2].split(",")
os.setuid(int(os.environ["USER_ID"]))  # here: another user may not even read the Python that root runs
locks = CardLocks("glm-4-9b", lambda text: print("told", text, flush=True), folder)
"""
HOLD = """
held = locks.acquire(cards, wait_s=300)
print("held" if held else "another's", flush=True)
sys.stdin.read()
"""
HOLD_WITH_A_CHILD = """
held = locks.acquire(cards, wait_s=0)
engine = subprocess.Popen(["sleep", "600"], close_fds=False, start_new_session=True)
print("held", engine.pid, flush=True)
sys.stdin.read()
"""
COUNT = """
counter = folder / "counter"
for _ in range(int(sys.argv[3])):
    held = locks.acquire(cards, wait_s=300)
    number = int(counter.read_text())
    counter.write_text(str(number + 1))
    held.release()
"""
POLL_FAST = "from autolaunch import lock; lock.POLL_S = 0.0\n"
NOBODY = 65534


class Crowd:
    """Processes around one folder of locks; none is left behind."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes: list[subprocess.Popen[str]] = []
        self.told: list[str] = []

    def start(self, code: str, *args: str, user: int | None = None) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", BEGIN + code, str(self.folder), *args],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "USER_ID": str(os.getuid() if user is None else user)},
        )  # fmt: skip
        self.processes.append(process)
        return process

    def hold(self, user: int | None = None) -> subprocess.Popen[str]:
        """Start a process and wait until it holds the card a."""
        process = self.start(HOLD, "a", user=user)
        assert self.line(process).startswith("held")
        return process

    @staticmethod
    def line(process: subprocess.Popen[str]) -> str:
        assert process.stdout is not None
        return process.stdout.readline().strip()

    def is_free(self, *cards: str) -> bool:
        found = CardLocks("test", self.told.append, self.folder).acquire(cards or ("a",), wait_s=0)
        if found is not None:
            found.release()
        return found is not None


@pytest.fixture
def crowd(tmp_path: Path) -> Iterator[Crowd]:
    made = Crowd(tmp_path)
    yield made
    for process in made.processes:
        process.kill()
        process.communicate()


def test_a_second_start_on_a_card_waits_for_the_first_and_says_so(crowd: Crowd) -> None:
    first = crowd.hold()
    second = crowd.start(HOLD, "a")
    assert crowd.line(second) == (
        f"told another autolaunch (pid {first.pid}, glm-4-9b) is starting on this card: waiting up to 300 s"
    )
    first.communicate()
    assert crowd.line(second) == "held"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
def test_a_holder_that_dies_in_any_way_gives_the_card_back(crowd: Crowd, number: signal.Signals) -> None:
    first = crowd.hold()
    second = crowd.start(HOLD, "a")
    assert crowd.line(second).startswith("told")
    first.send_signal(number)
    assert crowd.line(second) == "held"


@pytest.mark.parametrize("end", ["", "sys.exit(3)", "raise KeyboardInterrupt", "held.release()"])
def test_a_holder_that_ends_by_itself_leaves_no_file(crowd: Crowd, end: str) -> None:
    process = crowd.start("held = locks.acquire(cards, wait_s=0)\nprint(os.listdir(folder), flush=True)\n" + end, "a")
    assert crowd.line(process) == "['autolaunch.a.lock']"
    process.wait()
    assert list(crowd.folder.iterdir()) == []


def test_a_holder_that_is_only_stopped_keeps_it(crowd: Crowd) -> None:
    first = crowd.hold()
    first.send_signal(signal.SIGSTOP)
    assert not crowd.is_free()
    first.send_signal(signal.SIGCONT)


def test_an_engine_that_lives_on_does_not_keep_its_supervisors_lock(crowd: Crowd) -> None:
    process = crowd.start(HOLD_WITH_A_CHILD, "a")
    engine = int(crowd.line(process).split()[1])
    try:
        assert not crowd.is_free()
        process.kill()
        process.wait()
        os.kill(engine, 0)
        assert crowd.is_free()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(engine, signal.SIGKILL)


def test_never_two_at_once_however_many_want_the_card(crowd: Crowd) -> None:
    """The holder removes the file as it goes: a waiter that had it open must not take it for the lock."""
    (crowd.folder / "counter").write_text("0")
    processes = [crowd.start(POLL_FAST + COUNT, "a", "200") for _ in range(4)]
    assert [process.wait(300) for process in processes] == [0] * 4
    assert (crowd.folder / "counter").read_text() == "800"
    assert [path.name for path in crowd.folder.iterdir()] == ["counter"]


def test_runs_on_the_same_cards_in_another_order_never_wait_for_each_other(crowd: Crowd) -> None:
    (crowd.folder / "counter").write_text("0")
    processes = [crowd.start(POLL_FAST + COUNT, cards, "25") for cards in ("a,b,c", "c,b,a", "b,c,a", "c,a,b")]
    assert [process.wait(300) for process in processes] == [0] * 4
    assert (crowd.folder / "counter").read_text() == "100"


def test_killed_holders_leave_a_lock_that_still_works(crowd: Crowd) -> None:
    (crowd.folder / "counter").write_text("0")
    for _ in range(5):
        victim = crowd.start(POLL_FAST + COUNT, "a", "100000")
        until(lambda: int((crowd.folder / "counter").read_text() or 0) > 0, "the first count")
        victim.kill()
        victim.wait()
        assert crowd.is_free()
        (crowd.folder / "counter").write_text("0")


needs_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")


@pytest.fixture
def shared(crowd: Crowd) -> Crowd:
    """A crowd around a folder like /dev/shm that another user can reach as well."""
    crowd.folder = Path("/dev/shm") / f"test-autolaunch-{os.getpid()}-{time.monotonic_ns()}"
    crowd.folder.mkdir()
    crowd.folder.chmod(0o1777)
    return crowd


@pytest.fixture
def cleared(shared: Crowd) -> Iterator[Crowd]:
    yield shared
    for path in shared.folder.iterdir():
        path.unlink()
    shared.folder.rmdir()


@needs_root
@pytest.mark.parametrize(("one", "other"), [(None, NOBODY), (NOBODY, None)])
def test_two_users_of_a_host_wait_for_each_other(cleared: Crowd, one: int | None, other: int | None) -> None:
    first = cleared.hold(user=one)
    second = cleared.start(HOLD, "a", user=other)
    assert cleared.line(second).startswith(f"told another autolaunch (pid {first.pid}, glm-4-9b)")
    first.kill()  # its file stays, another user's
    assert cleared.line(second) == "held"
    assert not cleared.is_free()
    second.communicate()
    assert cleared.is_free()


@needs_root
def test_a_file_that_may_only_be_read_is_locked_all_the_same(cleared: Crowd) -> None:
    path = cleared.folder / "autolaunch.a.lock"
    path.write_text("root's")
    path.chmod(0o644)
    cleared.hold(user=NOBODY)
    assert not cleared.is_free()
    assert path.read_text() == "root's"


@needs_root
def test_a_file_that_may_not_be_read_is_done_without(cleared: Crowd) -> None:
    path = cleared.folder / "autolaunch.a.lock"
    path.write_text("")
    path.chmod(0o600)
    process = cleared.start(HOLD, "a", user=NOBODY)
    assert cleared.line(process) == f"told starts on one card are not kept apart: {path}: Permission denied"
    assert cleared.line(process) == "held"
