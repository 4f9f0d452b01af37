"""What is cleared away by a later run, and what must not be."""

from __future__ import annotations

import fcntl
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from autolaunch import warden
from autolaunch.state import KEPT_ATTEMPTS, KEPT_BYTES, KEPT_RUNS, attempts_of, new_id, new_run, open_log, runs_in
from autolaunch.sweep import YOUNG_S, sweep
from tests.process.stage import until

pytestmark = pytest.mark.process

OLD_S = YOUNG_S + 5


class Dead:
    """The folder of an engine whose supervisor and warden are gone, and a process of its session."""

    def __init__(self, base: Path, environment: dict[str, str]) -> None:
        self.folder = base / "autolaunch-dead"
        self.folder.mkdir()
        self.left = subprocess.Popen(
            ["sleep", "600"], env={**environment, "TMPDIR": str(self.folder)}, start_new_session=True
        )
        self.owner = self.folder / warden.OWNER_FILE
        self.write()

    def write(self, *, space: str = "", leader: int = 0, ticks: int = 0) -> None:
        leader = leader or self.left.pid
        words = f"{space or warden.pid_space()} {leader} {ticks or warden.start_ticks(leader)}\n"
        self.owner.write_text(words)

    def alive(self) -> bool:
        return self.left.poll() is None


@pytest.fixture
def dead(tmp_path: Path) -> Iterator[Dead]:
    made = Dead(tmp_path, {"PATH": os.environ["PATH"]})
    yield made
    with suppress(ProcessLookupError):
        made.left.kill()
    made.left.wait()


def swept(tmp_path: Path) -> tuple[int, ...]:
    return sweep({"TMPDIR": str(tmp_path)}).processes


def test_what_a_dead_run_left_is_ended_and_its_folder_removed(tmp_path: Path, dead: Dead) -> None:
    (dead.folder / "socket").write_text("")
    assert swept(tmp_path) == (dead.left.pid,)
    assert not dead.folder.exists()
    assert not dead.alive()


def test_a_folder_whose_warden_lives_is_left_alone(tmp_path: Path, dead: Dead) -> None:
    with dead.owner.open() as owner:
        fcntl.flock(owner, fcntl.LOCK_EX)
        assert swept(tmp_path) == ()
    assert dead.alive()
    assert dead.folder.exists()


def test_a_folder_of_another_pid_namespace_is_left_alone(tmp_path: Path, dead: Dead) -> None:
    dead.write(space="pid:[1]")
    assert swept(tmp_path) == ()
    assert dead.alive()
    assert dead.folder.exists()


def test_a_process_that_got_the_sessions_number_since_is_spared(tmp_path: Path, dead: Dead) -> None:
    with subprocess.Popen(["sleep", "600"], env={}, start_new_session=True) as stranger:
        dead.write(leader=stranger.pid, ticks=warden.start_ticks(stranger.pid) - 1)
        assert swept(tmp_path) == (dead.left.pid,)  # found by its TMPDIR
        assert stranger.poll() is None
        stranger.kill()


def test_a_member_with_another_environment_is_spared(tmp_path: Path, dead: Dead) -> None:
    with subprocess.Popen(["sleep", "600"], env={"PATH": "/usr/bin:/bin"}, start_new_session=True) as stranger:
        dead.write(leader=stranger.pid)
        assert swept(tmp_path) == (dead.left.pid,)
        assert stranger.poll() is None
        stranger.kill()


def test_a_folder_that_is_just_being_made_is_left_alone(tmp_path: Path) -> None:
    young = tmp_path / "autolaunch-young"
    young.mkdir()
    assert swept(tmp_path) == ()
    assert young.exists()
    os.utime(young, times=(time.time() - OLD_S,) * 2)
    assert swept(tmp_path) == ()
    assert not young.exists()


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    other = tmp_path / "precious"
    other.mkdir()
    (other / "file").write_text("")
    link = tmp_path / "autolaunch-link"
    link.symlink_to(other)
    assert swept(tmp_path) == ()
    assert (other / "file").exists()
    link.unlink()


def test_old_runs_are_cleared_but_those_that_live_are_kept(tmp_path: Path) -> None:
    """A container's runs all have the same process number: a run's number alone says nothing of its life."""
    runs = tmp_path / "runs"
    living = runs / f"20200101-000000-{os.getpid()}-aaaa"
    for folder in (living, *(runs / f"20200102-0000{n:02}-{os.getpid()}-bbbb" for n in range(30))):
        folder.mkdir(parents=True)
    with subprocess.Popen(["flock", str(living), "cat"], stdin=subprocess.PIPE) as holder:
        until(lambda: is_held(living), "the folder is held")
        run = new_id(tmp_path)
        folder = new_run(tmp_path, run)
        holder.communicate(b"")
    assert folder == runs / run
    assert living.exists()
    assert len(list(runs.iterdir())) == KEPT_RUNS + 1
    new_run(tmp_path, new_id(tmp_path))
    assert not living.exists()
    assert folder.exists(), "our own is held until this process ends"


def is_held(folder: Path) -> bool:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def test_the_lock_of_a_run_is_not_the_engines(tmp_path: Path) -> None:
    """An engine that outlives its supervisor must not keep the run's folder for ever."""
    folder = new_run(tmp_path, new_id(tmp_path))
    with subprocess.Popen(["sleep", "600"], close_fds=False) as child:
        held = {Path(f"/proc/{child.pid}/fd/{number}").readlink() for number in os.listdir(f"/proc/{child.pid}/fd")}  # noqa: PTH208 - of another process
        child.kill()
    assert is_held(folder)
    assert folder not in held


def test_old_runs_are_cleared_by_their_bytes_too_and_the_newest_of_them_stays(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    for n, size in enumerate([KEPT_BYTES // 4, 10, KEPT_BYTES // 2, 2 * KEPT_BYTES]):
        folder = runs / f"20200102-0000{n:02}-99999999-bbbb"
        folder.mkdir(parents=True)
        with (folder / "attempt-1.log").open("wb") as log:
            log.truncate(size)
    run = new_run(tmp_path, new_id(tmp_path)).name
    assert [path.name for path in runs_in(runs)] == [run, "20200102-000003-99999999-bbbb"]
    (runs / "20200102-000003-99999999-bbbb" / "attempt-1.log").write_text("short")
    for n, size in ((1, KEPT_BYTES // 2), (2, KEPT_BYTES // 2 - 5)):
        folder = runs / f"20200102-0000{n:02}-99999999-bbbb"
        folder.mkdir(parents=True)
        with (folder / "attempt-1.log").open("wb") as log:
            log.truncate(size)
    new_run(tmp_path, new_id(tmp_path))
    assert [path.name[:15] for path in runs_in(runs)][2:] == ["20200102-000003", "20200102-000002", "20200102-000001"]


@pytest.mark.parametrize(
    ("newest", "begins"), [("20990101-235959-1-aaaa", "20990102-000000-"), ("zzz", ""), ("99999999-999999-1-a", "")]
)
def test_a_new_run_is_the_newest_whatever_the_clock_says(tmp_path: Path, newest: str, begins: str) -> None:
    (tmp_path / "runs" / newest).mkdir(parents=True)
    run = new_id(tmp_path)
    folder = new_run(tmp_path, run)
    assert run.startswith(begins or time.strftime("%Y"))
    assert folder.is_dir()
    assert runs_in(tmp_path / "runs")[0].name == (run if begins else newest)


def test_of_one_run_the_newest_attempts_are_kept(tmp_path: Path) -> None:
    (tmp_path / "record.jsonl").write_text("{}")
    (tmp_path / "attempt-1.from-100.log").write_text("tail")
    for attempt in range(1, KEPT_ATTEMPTS + 4):
        open_log(tmp_path, attempt).close()
    assert attempts_of(tmp_path) == tuple(range(4, KEPT_ATTEMPTS + 4))
    assert not (tmp_path / "attempt-1.from-100.log").exists()
    assert (tmp_path / "record.jsonl").exists()
