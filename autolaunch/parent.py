"""The Python interpreter that started this supervisor through `autolaunch.launch`: it hears the record, it may die.

I/O. Owns the variable by which the two find each other, the pipe between them, and the watch over the parent. A process
has one parent for its life, so that it is kept here. `server` is the other side.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import MutableMapping
from pathlib import Path

from autolaunch.errors import ExitCode

VARIABLE = "AUTOLAUNCH_PARENT"
"""PID:FD, the interpreter's process and the pipe's end; taken out of the environment before an engine sees it."""

LOOK_S = 0.25
"""How often the parent is looked for: a pipe's end would tell as well, did no fork of the parent inherit it."""


class Parent:
    """An interpreter that waits for this process."""

    def __init__(self, pid: int, descriptor: int) -> None:
        self.pid = pid
        self._descriptor = descriptor
        os.set_inheritable(descriptor, False)

    @property
    def record(self) -> Path:
        """The file to write the record to."""
        return Path(f"/dev/fd/{self._descriptor}")

    def refuse(self, what: str, hint: str, exit_code: ExitCode) -> None:
        """Tell why nothing was started."""
        told = {"event": "refused", "what": what, "hint": hint, "exit_code": int(exit_code)}
        os.write(self._descriptor, json.dumps(told).encode() + b"\n")

    def watch(self) -> None:
        """Ask this process to stop as soon as the parent is gone."""
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while os.getppid() == self.pid:
            time.sleep(LOOK_S)
        main = threading.main_thread().ident
        assert main is not None
        signal.pthread_kill(main, signal.SIGTERM)  # one that this thread takes would not wake the main one


_parents: list[Parent] = []


def adopt(environment: MutableMapping[str, str]) -> None:
    """Remember the parent that the environment names, and watch it; one that cannot be is none."""
    pid, _, descriptor = environment.pop(VARIABLE, "").partition(":")
    if pid.isdecimal() and descriptor.isdecimal():
        with contextlib.suppress(OSError):
            parent = Parent(int(pid), int(descriptor))
            _parents.append(parent)
            parent.watch()


def parent() -> Parent | None:
    """Return the parent of this process, None where nobody waits for it."""
    return _parents[0] if _parents else None
