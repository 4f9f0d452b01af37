"""The engine's parent: starts it, adopts every orphan of its tree, and ends the tree when told or orphaned.

Runs as a process of its own between supervisor and engine (`python -I -S warden.py TMP ARGV...`), with the
standard library only, so that SIGKILL of the supervisor leaves nothing: the control pipe then reports its end
and the warden kills what is left. It is a child subreaper (prctl(2)): processes that double-fork into sessions
of their own still become its children, and wait(2) with ECHILD proves that none is left. It last removes TMP,
the engine's folder for temporary files: vLLM leaves sockets there even when it ends in good order. While it
lives it holds a lock on TMP/.warden, which names the engine's session: should supervisor and warden both be
killed, the next autolaunch finds there what they left (`sweep`).

Where the engine is a container, which is nobody's child here (TMP/.container says so), SIGTERM goes by way of its
runtime, and once the tree is gone the container is ended before that is told; both are done by `containment`.

stdin: orders, one byte each (`t` SIGTERM to the group, `k` kill the tree; end of file: kill the tree).
stdout: facts, one line each (`started PID`, `refused ERRNO`, `exited STATUS`, `left WORDS`, `gone`).
stderr: becomes the engine's stdout and stderr.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import select
import signal
import sys
import time
from pathlib import Path

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
OWNER_FILE = ".warden"
CONTAINMENT = str(Path(__file__).with_name("containment.py"))
CONTAINER_NOTE = ".container"
PATIENCE_S = 120.0
"""How long a runtime that does not answer is asked again to end a container, after that was told."""

TRACKER_GRACE_S = 0.5
"""How long Python's resource trackers may clean up shared memory after their clients are dead."""

_LIBC = ctypes.CDLL(None, use_errno=True)
"""Once: each of these makes classes of its own, cycles that outlived thousands of engines in the supervisor."""


def prctl(option: int, value: int) -> bool:
    """Call prctl(2); return whether the kernel knew the option."""
    return bool(_LIBC.prctl(option, value, 0, 0, 0) == 0)


def read(file: str) -> bytes:
    """Return what a file of /proc says; OSError where it is gone.

    Not by pathlib, which enters each name into the interpreter's table of strings: every second of a start has a
    hundred new ones, and the table is made anew, twice as large, over those of processes long dead.
    """
    with open(file, "rb", buffering=0) as opened:  # noqa: PTH123 - see above
        return opened.read()


def processes() -> dict[int, tuple[int, int, str]]:
    """Return every process: pid to (parent, session, state letter), from /proc."""
    table = {}
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        try:
            stat = read(f"{entry.path}/stat")
        except OSError:
            continue
        fields = stat[stat.rindex(b")") + 2 :].split()  # the name may hold spaces and parentheses
        table[int(entry.name)] = (int(fields[1]), int(fields[3]), fields[0].decode())
    return table


def tree(root: int, session: int) -> set[int]:
    """Return the living descendants of `root` and the members of `session`, zombies and `root` left out."""
    table = processes()
    children: dict[int, list[int]] = {}
    for pid, (parent, _, _) in table.items():
        children.setdefault(parent, []).append(pid)
    found, queue = set(), [root]
    while queue:
        for child in children.get(queue.pop(), ()):
            if child not in found:
                found.add(child)
                queue.append(child)
    found |= {pid for pid, (_, sid, _) in table.items() if sid == session}
    return {pid for pid in found if table[pid][2] != "Z"} - {root, os.getpid()}


def is_tracker(pid: int) -> bool:
    """Whether a process is multiprocessing's resource tracker, which unlinks shared memory when alone."""
    try:
        return b"multiprocessing.resource_tracker" in read(f"/proc/{pid}/cmdline")
    except OSError:
        return False


def kill_tree(root: int, session: int, *, spare_trackers: bool) -> set[int]:
    """Send SIGKILL to every member of the tree once; return those that were there."""
    members = tree(root, session)
    for pid in members:
        if not (spare_trackers and is_tracker(pid)):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
    return members


def remove(folder: str) -> None:
    """Remove a folder with all that is in it, links not followed; what cannot be removed stays."""
    for base, folders, files in os.walk(folder, topdown=False):
        for name in files:
            with contextlib.suppress(OSError):
                Path(base, name).unlink()
        for name in folders:
            path = Path(base, name)
            with contextlib.suppress(OSError):
                path.unlink() if path.is_symlink() else path.rmdir()
    with contextlib.suppress(OSError):
        Path(folder).rmdir()


def start_ticks(pid: int) -> int:
    """Return the clock tick after boot at which a process began; OSError where there is none."""
    stat = read(f"/proc/{pid}/stat")
    return int(stat[stat.rindex(b")") + 2 :].split()[19])


def pid_space() -> str:
    """Return the name of the PID namespace in which our process numbers mean something."""
    return str(Path("/proc/self/ns/pid").readlink())


def _tell(text: str) -> None:
    with contextlib.suppress(OSError):  # a supervisor that is gone needs no news
        os.write(1, text.encode() + b"\n")


def _start(argv: list[str], parent: int) -> tuple[int, int]:
    """Start the engine; return its pid and the errno of an exec that failed, 0 if it runs.

    Returns only once the engine is executed: an earlier SIGTERM would find no group yet, or the warden's own
    handlers still in place, and be lost for the whole grace.
    """
    executed, executing = os.pipe()  # closed by a successful exec
    pid = os.fork()
    if pid:
        os.close(executing)
        refusal = os.read(executed, 16)
        os.close(executed)
        return pid, int(refusal or b"0")
    try:
        os.setsid()
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(125)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.dup2(2, 1)
        os.execvp(argv[0], argv)  # noqa: S606 - an argv list, never a shell
    except OSError as error:
        os.write(executing, str(error.errno).encode())
    finally:
        os._exit(127)


class Warden:
    """The loop: one engine, one control pipe, children reaped as they end."""

    def __init__(self, temporary: str, argv: list[str]) -> None:
        self.temporary = temporary
        prctl(PR_SET_CHILD_SUBREAPER, 1)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
            signal.signal(number, signal.SIG_IGN)
        self.wake, writer = os.pipe()
        for end in (self.wake, writer):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self.killing_since: float | None = None
        owner = self._lock()
        self.leader, refusal = _start(argv, os.getpid())
        with contextlib.suppress(OSError):
            os.write(owner, f"{pid_space()} {self.leader} {start_ticks(self.leader)}\n".encode())
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 2)  # the output pipe must end with the engine's tree, not with us
        _tell(f"refused {refusal}" if refusal else f"started {self.leader}")

    def _lock(self) -> int:
        """Take the lock that says that this engine has a warden; it goes with this process, however that ends."""
        with contextlib.suppress(OSError):
            owner = os.open(Path(self.temporary, OWNER_FILE), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return owner
        return -1  # a full disk costs the sweep, not the engine

    def reap(self) -> bool:
        """Collect the dead; return False once no descendant is left."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            if pid == self.leader:
                _tell(f"exited {os.waitstatus_to_exitcode(status)}")

    def obey(self) -> None:
        """Read one order; the end of the pipe is the supervisor's end."""
        order = os.read(0, 1)
        if order == b"t" and self.is_container:
            self._containment("stop", str(self.leader))
        elif order == b"t":
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.leader, signal.SIGTERM)
        elif order in (b"k", b""):
            self.killing_since = time.monotonic() if self.killing_since is None else self.killing_since

    @property
    def is_container(self) -> bool:
        """Whether the engine is a container, of which the tree here has the client only."""
        return Path(self.temporary, CONTAINER_NOTE).exists()

    def _containment(self, order: str, *words: str, output: int = 2) -> int:
        """Start the program that reaches the container; return its pid."""
        argv = [sys.executable, "-I", "-S", CONTAINMENT, order, self.temporary, *words]
        return os.posix_spawn(argv[0], argv, os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, output, 1)])

    def end_container(self) -> bool:
        """End the container; tell what is left of it where that fails, and return whether nothing is."""
        reading, writing = os.pipe()
        pid = self._containment("end", output=writing)
        os.close(writing)
        words = b"".join(iter(lambda: os.read(reading, 4096), b"")).decode()
        os.close(reading)
        _, status = os.waitpid(pid, 0)
        if status and not words:
            words = "the engine's container could not be looked for"
        if words:
            _tell(f"left {' '.join(words.split())}")
        return not words

    def run(self) -> None:
        """Serve until the tree is gone."""
        watched = [0, self.wake]
        while self.reap():
            killing = self.killing_since is not None
            ready, _, _ = select.select(watched, [], [], 0.02 if killing else None)
            if self.wake in ready:
                with contextlib.suppress(BlockingIOError):
                    os.read(self.wake, 4096)
            if 0 in ready:
                self.obey()
                if self.killing_since is not None:
                    watched = [self.wake]  # nothing is left to be told
            if self.killing_since is not None:
                spare = time.monotonic() - self.killing_since < TRACKER_GRACE_S
                kill_tree(os.getpid(), self.leader, spare_trackers=spare)
        if self.is_container:
            until = time.monotonic() + PATIENCE_S
            while not self.end_container():
                if time.monotonic() > until:
                    return  # the folder stays: the next start's sweep tries again
                time.sleep(1.0)
        remove(self.temporary)
        _tell("gone")


if __name__ == "__main__":
    Warden(sys.argv[1], sys.argv[2:]).run()
