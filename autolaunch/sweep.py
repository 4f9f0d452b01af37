"""What a run left whose supervisor and warden were both killed: found by its folder, ended before the next start.

I/O. Every engine has a folder for temporary files with a file in it that its warden keeps locked. A folder whose
lock is free has no warden: the members of the session it names, whoever has that folder as TMPDIR, and the container
that a note in it names, are leftovers. Owns nothing that is still watched, and touches neither other users nor other
PID namespaces.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import stat
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from autolaunch import containment, warden

PREFIX = "autolaunch-"
YOUNG_S = 60.0
"""A folder without an owner's file may be about to get one."""

KILL_S = 5.0


@dataclass(frozen=True, slots=True)
class Swept:
    """What was ended: ids of processes and of containers; and in words what could not be."""

    processes: tuple[int, ...] = ()
    containers: tuple[str, ...] = ()
    left: tuple[str, ...] = ()

    @property
    def told(self) -> Iterator[str]:
        """What the user hears of it, a line each."""
        if self.processes:
            ids = ", ".join(map(str, self.processes))
            yield f"ended {len(self.processes)} processes of a run that was killed: {ids}"
        for one in self.containers:
            yield f"ended the container {one[:12]} of a run that was killed"
        for words in self.left:
            yield f"of a run that was killed, {words}"


def sweep(environment: Mapping[str, str]) -> Swept:
    """End what dead runs of this user left running, remove their folders; return what that was."""
    killed: set[int] = set()
    ends: list[containment.End] = []
    for base in {environment.get("TMPDIR") or tempfile.gettempdir(), "/tmp"}:  # noqa: S108 - looked into, not used
        for folder in _folders(Path(base)):
            with contextlib.suppress(OSError, ValueError, _Watched):
                ended, container = _sweep_folder(folder)
                killed |= ended
                ends.append(container)
    gone = tuple(one for end in ends if not end.left for one in end.found)
    return Swept(tuple(sorted(killed)), gone, tuple(end.left for end in ends if end.left))


class _Watched(Exception):
    """The folder's engine has a warden, or is not ours to judge."""


def _folders(base: Path) -> Iterator[Path]:
    with contextlib.suppress(OSError):
        for folder in base.glob(PREFIX + "*"):
            with contextlib.suppress(OSError):
                found = folder.lstat()
                if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid():
                    yield folder


def _sweep_folder(folder: Path) -> tuple[set[int], containment.End]:
    leader, ticks = _owner(folder)
    killed: set[int] = set()
    deadline = time.monotonic() + KILL_S
    while left := _members(folder, leader, ticks):
        killed |= left
        for pid in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            return killed, containment.End()  # the folder stays: the next start tries again
        time.sleep(0.02)
    container = containment.end(str(folder))
    if not container.left:
        warden.remove(str(folder))
    return killed, container


def _owner(folder: Path) -> tuple[int, int]:
    """Return the leader's pid and start of a folder without a warden (0, 0 if none was started); raise _Watched."""
    words: list[str] = []
    with contextlib.suppress(FileNotFoundError):
        descriptor = os.open(folder / warden.OWNER_FILE, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            words = os.read(descriptor, 256).decode().split()
        except BlockingIOError:
            raise _Watched from None
        finally:
            os.close(descriptor)
    if not words:
        if time.time() - folder.lstat().st_mtime < YOUNG_S:
            raise _Watched
        return 0, 0
    if words[0] != warden.pid_space():
        raise _Watched
    return int(words[1]), int(words[2])


def _members(folder: Path, leader: int, ticks: int) -> set[int]:
    """Return the living processes of a folder's engine: by its session unless that number is somebody else's now."""
    reused = True
    with contextlib.suppress(OSError):
        reused = warden.start_ticks(leader) != ticks
    if not Path(f"/proc/{leader}").exists():
        reused = False
    found = set()
    for pid, (_, session, letter) in warden.processes().items():
        if letter == "Z" or pid == os.getpid():
            continue
        mark = _mark(pid, folder)
        if mark or (mark is None and leader and session == leader and not reused):
            found.add(pid)
    return found


def _mark(pid: int, folder: Path) -> bool | None:
    """Whether a process has the folder as its TMPDIR; None where its environment is empty or overwritten.

    Processes that change their title (`VLLM::EngineCore`) write it over their environment.
    """
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False  # another user's, or gone
    words = environment.split(b"\0")
    if b"TMPDIR=" + os.fsencode(folder) in words:
        return True
    return False if any(word.startswith((b"PATH=", b"HOME=", b"TMPDIR=")) for word in words) else None
