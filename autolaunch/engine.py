"""One engine process with its whole tree: started under a warden, its output read, its end proven.

I/O. Turns what happens into the machine's events and carries out its signals; decides nothing.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from autolaunch import containment, warden
from autolaunch.activity import STIR_PERIOD_S, Activity
from autolaunch.container import LABEL, container_in
from autolaunch.diagnosis import Scanner
from autolaunch.errors import LIMITS, HostError, shortage
from autolaunch.events import (
    CacheSized,
    CauseSeen,
    EngineEvent,
    EngineExited,
    LaunchFailed,
    Stirred,
    TreeGone,
)
from autolaunch.failure import Kind, Phase
from autolaunch.output import Output, pump
from autolaunch.phases import Force
from autolaunch.sd_notify import without
from autolaunch.sweep import PREFIX

F_SETPIPE_SZ = 1031
PIPE_BYTES = 1 << 20
DRAIN_S = 0.5
"""How long after the leader's exit its output may still arrive; others may hold the pipe open for ever."""

LONGEST_BASE = 40
"""vLLM puts unix sockets with 36-letter names into TMPDIR, and a socket's path holds 107 bytes."""

NOT_RUN = (125, 126, 127)
"""What docker's and podman's `run` end with where the container's own command was never started."""

Post = Callable[[EngineEvent], None]


class EngineProcess:
    """A started engine. Its threads post events until TreeGone, the last one."""

    def __init__(self, attempt: int, output: Output, post: Post) -> None:
        self.attempt = attempt
        self.pid = 0
        self._output = output
        self._post = post
        self._scanner: Scanner = output.scanner
        self._told: object = None
        self._sized = False
        self._stirred_at = 0.0
        self.settled = threading.Event()
        self.gone = threading.Event()
        self._temporary = ""
        self.is_container = False
        self._activity = Activity(None)
        self._exit_told = False
        self._strangers: frozenset[int] = frozenset()
        self._warden: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None

    def start(self, argv: Sequence[str], environment: Mapping[str, str]) -> None:
        """Start the engine; raise `HostError` where the operating system refuses."""
        warden.prctl(warden.PR_SET_CHILD_SUBREAPER, 1)  # should the warden be killed, its children become ours
        self._temporary = temporary = _temporary_folder(environment)
        reading = writing = -1
        try:
            self._strangers = frozenset(warden.tree(os.getpid(), -1))
            reading, writing = os.pipe()
            with contextlib.suppress(OSError):
                fcntl.fcntl(reading, F_SETPIPE_SZ, PIPE_BYTES)
            argv = self._marked(argv, environment)
            self._warden = subprocess.Popen(
                [sys.executable, "-I", "-S", str(Path(warden.__file__)), temporary, *argv],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=writing,
                env={**without(environment), **_own_variables(environment, temporary)},
                start_new_session=True,
            )
        except OSError as error:
            if reading >= 0:
                os.close(reading)
            warden.remove(temporary)
            raise HostError(
                f"no process can be started: {error}", hint="check the limits of processes and files"
            ) from error
        finally:
            if writing >= 0:
                os.close(writing)
        try:
            self._reader = self._thread("output", lambda: pump(reading, self._output, on_block=self._on_block))
            self._thread("facts", self._read_facts)
        except RuntimeError as error:
            self._warden.communicate()  # the end of its orders: it ends the tree
            raise HostError(shortage(error) or str(error), hint=LIMITS) from error

    def _marked(self, argv: Sequence[str], environment: Mapping[str, str]) -> Sequence[str]:
        """Return a container's command with the label by which it is ended, noted where whoever ends it looks."""
        container = container_in(argv)
        if container is None:
            return argv
        label = f"{LABEL}={Path(self._temporary).name}"
        files = container.values("cidfile")
        known = containment.variables(environment)
        note = containment.Note(container.client, label, known, *map(os.path.abspath, files[-1:]))
        containment.write(self._temporary, note)
        self.is_container = True
        self._activity = Activity(note)
        return container.with_options(("--label", label))

    def _thread(self, name: str, target: Callable[[], None]) -> threading.Thread:
        thread = threading.Thread(target=target, name=f"{name}-{self.attempt}", daemon=True)
        thread.start()
        return thread

    def signal(self, force: Force) -> None:
        """Order the warden to signal the tree; if the warden is gone, do it here."""
        assert self._warden is not None
        assert self._warden.stdin is not None
        order = b"t" if force is Force.POLITE else b"k"
        try:
            self._warden.stdin.write(order)
            self._warden.stdin.flush()
        except (OSError, ValueError):
            pass  # the warden's end is seen by the thread that reads its facts, which sweeps

    def members(self) -> set[int]:
        """Return the living processes of the tree."""
        return set() if self._warden is None or not self.pid else warden.tree(self._warden.pid, self.pid)

    def stir(self) -> None:
        """Post Stirred if the tree used processor time or moved data since the last call; called once in a while."""
        if self.gone.is_set() or not self.pid:
            return
        if self._activity.stirred(self.members()):
            self._post(Stirred(self.attempt))

    def _on_block(self) -> None:
        scanner = self._scanner
        failure = scanner.failure
        if failure is not None and failure != self._told:
            self._told = failure
            self._post(CauseSeen(self.attempt, failure, scanner.effective, time.monotonic()))
        if not self._sized and scanner.effective.kv_cache_tokens is not None:
            self._sized = True
            self._post(CacheSized(self.attempt, scanner.effective))
        now = time.monotonic()
        if now - self._stirred_at > STIR_PERIOD_S:
            self._stirred_at = now
            self._post(Stirred(self.attempt))

    def _read_facts(self) -> None:
        assert self._warden is not None
        assert self._warden.stdout is not None
        for line in self._warden.stdout:
            fact, _, value = line.decode().strip().partition(" ")
            if fact == "started":
                self.pid = int(value)
            elif fact == "refused":
                self._tell_refusal(f"the engine command cannot be run: {os.strerror(int(value))}")
            elif fact == "exited":
                self._tell_exit(int(value))
            elif fact == "left":
                self._finish((), value)  # the warden tries on for a while; nobody waits for it
                return
        code = self._warden.wait()
        survivors, left = ((), "") if code == 0 else self._sweep()
        if not self.pid:
            self._tell_refusal(f"the process that was to start the engine ended with {code}")
        self._tell_warden_killed()
        self._finish(survivors, left)

    def _finish(self, survivors: tuple[int, ...], left: str) -> None:
        self.settled.set()
        self.gone.set()
        self._close()
        self._post(TreeGone(self.attempt, survivors, left))

    def _tell_refusal(self, reason: str) -> None:
        if not self._exit_told:
            self._exit_told = True
            self._post(LaunchFailed(self.attempt, reason))

    def _tell_exit(self, code: int) -> None:
        assert self._reader is not None
        if self._exit_told:
            return
        self._exit_told = True
        self._reader.join(DRAIN_S)
        scanner = self._scanner
        failure = scanner.conclude(code)
        began = scanner.phase is not Phase.IMPORT or failure.kind not in (Kind.CONFIG_ERROR, Kind.UNKNOWN)
        if self.is_container and code in NOT_RUN and not began:
            said = failure.line or f"its client ended with {code}"
            self._post(LaunchFailed(self.attempt, f"the container cannot be run: {said}"))
            return
        self._post(EngineExited(self.attempt, code, failure, scanner.effective))

    def _tell_warden_killed(self) -> None:
        """Tell the exit that nobody saw: a warden that is killed takes the leader with it."""
        if self._exit_told:
            return
        self._exit_told = True
        scanner = self._scanner
        failure = scanner.conclude(None)
        if failure.kind in (Kind.OK, Kind.UNKNOWN):
            line = "the engine's guardian process was killed from outside, and the engine with it"
            failure = replace(failure, kind=Kind.OTHER_CRASH, line=line)
        self._post(EngineExited(self.attempt, -signal.SIGKILL, failure, scanner.effective))

    def _sweep(self) -> tuple[tuple[int, ...], str]:
        """The warden itself was killed: end its tree from here. Returns what outlives SIGKILL, containers in words."""
        deadline = time.monotonic() + 5.0
        while True:
            left = warden.tree(os.getpid(), self.pid or -1) - self._strangers
            for pid in left:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
            self._reap()
            if not left or time.monotonic() > deadline:
                break
            time.sleep(0.02)
        container_left = containment.end(self._temporary).left
        if not container_left:
            warden.remove(self._temporary)
        return tuple(sorted(left)), container_left

    def _reap(self) -> None:
        """Collect the dead that became our children with the warden's end, those included that were dead by then."""
        for pid, (parent, _, state) in warden.processes().items():
            if parent == os.getpid() and state == "Z" and pid not in self._strangers:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)

    def _close(self) -> None:
        assert self._warden is not None
        assert self._reader is not None
        self._reader.join(DRAIN_S)
        for pipe in (self._warden.stdin, self._warden.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


def _temporary_folder(environment: Mapping[str, str]) -> str:
    """Make the folder for one engine's sockets and temporary files; raise `HostError` where that is impossible."""
    base = environment.get("TMPDIR") or tempfile.gettempdir()
    if len(base) > LONGEST_BASE:
        base = "/tmp"  # noqa: S108 - mkdtemp makes a folder of its own in it
    try:
        return tempfile.mkdtemp(prefix=PREFIX, dir=base)
    except OSError as error:
        raise HostError(
            f"no folder can be made in {base}: {error.strerror}", hint="set TMPDIR to one that can"
        ) from error


def _own_variables(environment: Mapping[str, str], temporary: str) -> dict[str, str]:
    """Return what the engine's environment needs beside the user's: prompt output, its own TMPDIR.

    The compile cache stays where it would have been, since it must outlive the attempt.
    """
    base = environment.get("TMPDIR") or tempfile.gettempdir()
    return {
        "PYTHONUNBUFFERED": environment.get("PYTHONUNBUFFERED", "1"),
        "TMPDIR": temporary,
        "TORCHINDUCTOR_CACHE_DIR": environment.get("TORCHINDUCTOR_CACHE_DIR")
        or str(Path(base, f"torchinductor_{os.getuid()}")),
    }
