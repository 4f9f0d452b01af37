"""The state folder: where runs keep their engine logs, and where what is remembered of them lies.

I/O. Owns the layout, `runs/<run>/attempt-N.log` and `memory.sqlite3`, and the clearing of old runs.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import time
from pathlib import Path

import platformdirs

from autolaunch.errors import HostError

KEPT_RUNS = 20

MEMORY_FILE = "memory.sqlite3"
"""The database of `memory`, which begins a new one where it is damaged."""


def state_folder(chosen: Path | None) -> Path:
    """Return the folder that `--state-dir` names, else the platform's for this user."""
    return chosen if chosen is not None else platformdirs.user_state_path("autolaunch")


def new_run(chosen: Path | None) -> tuple[str, Path]:
    """Create the folder of a new run and return its id and path; raise `HostError` where that is impossible."""
    run = f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}-{secrets.token_hex(2)}"
    folder = state_folder(chosen) / "runs" / run
    try:
        folder.mkdir(parents=True, mode=0o700)
    except OSError as error:
        raise HostError(
            f"the state folder {state_folder(chosen)} cannot be used: {error.strerror}",
            hint="give a folder you may write to with --state-dir",
        ) from error
    _clear_old(folder.parent)
    return run, folder


def _clear_old(runs: Path) -> None:
    """Keep the newest runs and those whose supervisor may live; what cannot be removed stays."""
    with contextlib.suppress(OSError):
        for old in sorted(path for path in runs.iterdir() if path.is_dir())[:-KEPT_RUNS]:
            if not _lives(old.name):
                shutil.rmtree(old, ignore_errors=True)


def _lives(run: str) -> bool:
    """Whether the process that a run's id names exists: a server that runs for months keeps its log."""
    pid = run.split("-")[2:3]
    return bool(pid) and pid[0].isdigit() and Path("/proc", pid[0]).exists()
