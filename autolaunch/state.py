"""The state folder: where runs keep their engine logs, and where what is remembered of them lies.

I/O. Owns the layout, `runs/<run>/attempt-N.log` and `memory.sqlite3`, and the clearing of old runs and attempts. A log
of many megabytes has parts beside it: their names are `logfile`'s.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import secrets
import shutil
import time
from datetime import datetime, timedelta
from pathlib import Path

import platformdirs

from autolaunch.errors import HostError
from autolaunch.logfile import LogFile, parts

KEPT_RUNS = 20
KEPT_BYTES = 1 << 30
"""How many runs are kept, and how much of those that ended; the newest of them stays, it is bounded itself."""

KEPT_ATTEMPTS = 20
"""How many attempts of one run: a server that is started again for months must not fill the disk either."""

STAMP = "%Y%m%d-%H%M%S"
MEMORY_FILE = "memory.sqlite3"
"""The database of `memory`, which begins a new one where it is damaged."""


def state_folder(chosen: Path | None) -> Path:
    """Return the folder that `--state-dir` names, else the platform's for this user; raise `HostError` where none is.

    A user id without a name and without HOME, as containers draw them, has no home: platformdirs raises there, and
    its older releases name a folder `~` wherever one stands.
    """
    if chosen is not None:
        return chosen
    with contextlib.suppress(RuntimeError):
        folder = platformdirs.user_state_path("autolaunch")
        if folder.is_absolute():
            return folder
    raise HostError(f"user id {os.getuid()} has no home folder", hint="set HOME, or give a folder with --state-dir")


def new_id(chosen: Path | None) -> str:
    """Return the id of a run that begins now; it is the last of all that are kept."""
    return f"{_stamp(state_folder(chosen) / 'runs')}-{os.getpid()}-{secrets.token_hex(2)}"


def run_folder(chosen: Path | None, run: str) -> Path:
    """Return where a run keeps what it leaves."""
    return state_folder(chosen) / "runs" / run


def new_run(chosen: Path | None, run: str) -> Path:
    """Create the folder of a new run and return it; raise `HostError` where that is impossible."""
    folder = run_folder(chosen, run)
    try:
        folder.mkdir(parents=True, mode=0o700)
    except OSError as error:
        raise HostError(
            f"the state folder {state_folder(chosen)} cannot be used: {error.strerror}",
            hint="give a folder you may write to with --state-dir",
        ) from error
    _hold(folder)
    _clear_old(folder.parent)
    return folder


def trouble_of(chosen: Path | None) -> str:
    """Return why no run's folder could be made, "" where it could; makes nothing."""
    runs = state_folder(chosen) / "runs"
    there = next(folder for folder in (runs, *runs.parents) if os.path.lexists(folder))
    if not there.is_dir():
        return f"{there} is no folder"
    if os.access(there, os.W_OK | os.X_OK):
        return ""
    read_only = os.statvfs(there).f_flag & os.ST_RDONLY
    return os.strerror(errno.EROFS if read_only else errno.EACCES)


def _stamp(runs: Path) -> str:
    """Return the time of day as a name that is not before any run's.

    After a clock was set back by years the newest run would be the first to be cleared, and not the one that `logs`
    shows.
    """
    now = time.strftime(STAMP)
    newest = next((run.name[: len(now)] for run in runs_in(runs)), "")
    if now >= newest:
        return now
    try:
        return (datetime.strptime(newest, STAMP) + timedelta(seconds=1)).strftime(STAMP)
    except (ValueError, OverflowError):
        return now


def _hold(run: Path) -> None:
    """Keep a lock on our run's folder to the end of this process, however that comes: it says that the run lives.

    A process number would not: in a container's PID namespace every run's is the same small one.
    """
    with contextlib.suppress(OSError):  # a file system without locks: the newest are kept all the same
        fcntl.flock(os.open(run, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC), fcntl.LOCK_EX | fcntl.LOCK_NB)


def _clear_old(runs: Path) -> None:
    """Keep the newest runs and those whose supervisor may live; what cannot be removed stays."""
    ended_bytes = 0
    for number, old in enumerate(runs_in(runs), start=1):
        if not _lives(old):
            newest, ended_bytes = ended_bytes == 0, ended_bytes + _size(old)
            if number > KEPT_RUNS or (ended_bytes > KEPT_BYTES and not newest):
                shutil.rmtree(old, ignore_errors=True)


def runs_in(runs: Path) -> tuple[Path, ...]:
    """Return the folders of all runs, the newest first; none where nothing can be read."""
    try:
        return tuple(sorted((path for path in runs.iterdir() if path.is_dir()), reverse=True))
    except OSError:
        return ()


def _size(run: Path) -> int:
    """Return how many bytes a run's files take."""
    total = 0
    with contextlib.suppress(OSError), os.scandir(run) as files:
        for file in files:
            with contextlib.suppress(OSError):
                total += file.stat(follow_symlinks=False).st_size
    return total


def _lives(run: Path) -> bool:
    """Whether somebody holds a run's folder: a server that runs for months keeps its log."""
    try:
        descriptor = os.open(run, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False


def attempts_of(run: Path) -> tuple[int, ...]:
    """Return the attempts of which a run's folder has a log, in order."""
    found = set()
    with contextlib.suppress(OSError):
        for file in run.iterdir():
            match = re.fullmatch(r"attempt-(\d{1,9})(?:\.from-\d+)?\.log", file.name)
            if match:
                found.add(int(match[1]))
    return tuple(sorted(found))


def log_of(run: Path, attempt: int) -> Path:
    """Return where the engine's output of an attempt begins."""
    return run / f"attempt-{attempt}.log"


def open_log(run: Path, attempt: int) -> LogFile:
    """Create the log of an attempt and remove those of long ago; OSError where the first is impossible."""
    log = LogFile(log_of(run, attempt))
    for old in attempts_of(run)[:-KEPT_ATTEMPTS]:
        for part in parts(log_of(run, old)):
            with contextlib.suppress(OSError):
                part.path.unlink()
    return log
