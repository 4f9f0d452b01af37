"""One start at a time per card: vLLM's memory profiling fails when the card's free memory moves under it.

I/O. Owns the lock files, one per card, in /dev/shm: every user of the host has it, a service with a private /tmp too,
and a container that is run with `--ipc=host`, as vLLM asks for. The kernel drops a lock when its holder dies in
whatever way; the engine never inherits it. Nobody is trusted: a file that is no plain one is left alone, what another
user wrote is only shown, and who holds a card for too long, or in bad faith, costs a wait and not the launch.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import fcntl
import os
import re
import stat
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from autolaunch.warden import pid_space

FOLDERS = (Path("/dev/shm"), Path("/tmp"))  # noqa: S108 - every user's on purpose
PREFIX = "autolaunch."
"""Not the prefix of an engine's temporary folder, which `sweep` would remove."""

POLL_S = 0.2
REMIND_S = 60.0
TRIES = 100
"""How often a lock file may be removed by its last holder while we are taking it."""

_FLAGS = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_LONGEST = 300


def _never() -> bool:
    return False


class Held:
    """Cards that are ours until `release` or the end of this process; only one that is killed leaves its files."""

    def __init__(self) -> None:
        self._locks: list[tuple[Path, int]] = []
        atexit.register(self.release)

    def add(self, path: Path, descriptor: int) -> None:
        """Hold one more lock."""
        self._locks.append((path, descriptor))

    def release(self) -> None:
        """Give the cards back; a second time does nothing."""
        atexit.unregister(self.release)
        while self._locks:
            _drop(*self._locks.pop())


@dataclass(frozen=True, slots=True)
class CardLocks:
    """The locks of a host as one run takes them; `model` is shown to those who wait for us.

    `tell` hears whom we wait for, `beat` is called at every look while we do; `folder` is where the locks are, None for
    the first of `FOLDERS` that is there.
    """

    model: str
    tell: Callable[[str], None]
    folder: Path | None = None
    beat: Callable[[], None] = lambda: None

    def acquire(self, cards: Iterable[str], *, wait_s: float, stop: Callable[[], bool] = _never) -> Held | None:
        """Take these cards, whose names tell them apart on this host; wait up to `wait_s` in all, asking `stop`.

        None where they were another's to the end or `stop` said so: then none is held. A lock that cannot be had at
        all (no permission, something else in its place) is done without, with one note. Several cards are taken in
        the order of their names, so that no two runs ever wait for each other.
        """
        wait, held = _Wait(self.tell, stop, wait_s), Held()
        try:
            for path in sorted({self._path(card) for card in cards}):
                if not self._await(path, wait, held):
                    held.release()
                    return None
        except BaseException:
            held.release()
            raise
        return held

    def _path(self, card: str) -> Path:
        there = (folder for folder in FOLDERS if os.access(folder, os.W_OK | os.X_OK))
        folder = self.folder or next(there, FOLDERS[-1])
        return folder / f"{PREFIX}{re.sub('[^A-Za-z0-9._-]+', '_', card)[:150]}.lock"

    def _await(self, path: Path, wait: _Wait, held: Held) -> bool:
        """Hold a lock once it is free, or do without one that cannot be; False where it is another's still."""
        while True:
            try:
                descriptor, holder = _take(path, self.model)
            except OSError as error:
                wait.note(path, error)
                return True
            if descriptor is not None:
                held.add(path, descriptor)
                return True
            if not wait.goes_on(holder):
                return False
            self.beat()
            time.sleep(POLL_S)


@dataclass(slots=True)
class _Wait:
    """How long others are waited for, and what is told meanwhile."""

    tell: Callable[[str], None]
    stop: Callable[[], bool]
    wait_s: float
    since: float = field(default_factory=time.monotonic)
    told: float | None = None
    noted: bool = False

    def goes_on(self, holder: str) -> bool:
        """Whether to wait on for a holder; says so at first and then rarely."""
        now = time.monotonic()
        waited = now - self.since
        if waited >= self.wait_s or self.stop():
            if self.told is not None and waited >= self.wait_s:
                self.tell(f"{holder} is still starting on this card after {waited:.0f} s: not waited for any longer")
            return False
        if self.told is None:
            self.tell(f"{holder} is starting on this card: waiting up to {self.wait_s:.0f} s")
        elif now >= self.told + REMIND_S:
            self.tell(f"{holder} is still starting on this card: waited {waited:.0f} of {self.wait_s:.0f} s")
        else:
            return True
        self.told = now
        return True

    def note(self, path: Path, error: OSError) -> None:
        """Say once that a lock is done without."""
        if not self.noted:
            self.tell(f"starts on one card are not kept apart: {path}: {error.strerror}")
        self.noted = True


def _take(path: Path, model: str) -> tuple[int | None, str]:
    """Try to take a lock: its descriptor, or None and who holds it. OSError where there can be no lock."""
    for _ in range(TRIES):
        descriptor = _open(path)
        ours = False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            ours = _is_at(path, descriptor)  # its last holder may have removed it after we had opened it
            if ours:
                _sign(descriptor, f"{pid_space()} {os.getpid()} {model}")
                return descriptor, ""
        except BlockingIOError:
            return None, _holder(descriptor)
        finally:
            if not ours:
                os.close(descriptor)
    raise OSError(errno.ESTALE, "it is another file each time")


def _open(path: Path) -> int:
    """Open a lock file that may be another user's, or make it for all; OSError for what is no plain file.

    It is never opened with O_CREAT where it is there: fs.protected_regular forbids that in other users' files. Who
    may not write a file may still lock it, without a name.
    """
    for _ in range(TRIES):
        with contextlib.suppress(FileNotFoundError, FileExistsError):
            descriptor = _open_or_make(path)
            found = os.fstat(descriptor)
            if stat.S_ISREG(found.st_mode) and found.st_nlink <= 1:
                return descriptor
            os.close(descriptor)
            raise OSError(errno.EINVAL, "it is no plain file")
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))


def _open_or_make(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | _FLAGS)
    except FileNotFoundError:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | _FLAGS, 0o666)
        os.fchmod(descriptor, 0o666)  # whatever the umask
        return descriptor
    except PermissionError:
        return os.open(path, os.O_RDONLY | _FLAGS)


def _is_at(path: Path, descriptor: int) -> bool:
    with contextlib.suppress(OSError):
        return os.path.samestat(os.lstat(path), os.fstat(descriptor))
    return False


def _sign(descriptor: int, text: str) -> None:
    with contextlib.suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, text.encode("utf-8", "replace")[:_LONGEST], 0)


def _holder(descriptor: int) -> str:
    """Return who holds a lock, as far as what he wrote can be shown; a number of another PID namespace is none."""
    text = ""
    with contextlib.suppress(OSError):
        text = os.pread(descriptor, _LONGEST, 0).decode("utf-8", "replace")
    space, _, rest = text.partition(" ")
    pid, _, model = "".join(letter if letter.isprintable() else "?" for letter in rest).partition(" ")
    known = [f"pid {pid}" if space == pid_space() else "in another container"] if pid.isdecimal() else []
    return " ".join(["another autolaunch", *([f"({', '.join([*known, model])})"] if known else [])])


def _drop(path: Path, descriptor: int) -> None:
    """Give a lock back and remove its file, or what we wrote where the file is another user's."""
    with contextlib.suppress(OSError):
        os.ftruncate(descriptor, 0)
        if _is_at(path, descriptor):
            path.unlink()
    with contextlib.suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_UN)  # a child that is being forked right now holds a copy until it executes
    os.close(descriptor)
