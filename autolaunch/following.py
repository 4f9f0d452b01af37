"""The engine's output of a run, shown on stdout: once, or as it is written, across parts, attempts and runs.

I/O, reading only. Owns which log is meant and what of it may reach a terminal; how a log is read is `logfile`'s.
"""

from __future__ import annotations

import re
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from autolaunch.errors import HostError, WishError
from autolaunch.logfile import Reading, last_lines
from autolaunch.state import attempts_of, log_of, runs_in
from autolaunch.talk import say

POLL_S = 0.2

_HARMFUL = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f]|\xc2[\x80-\x9f]|\x1b(?!\[[0-9;]{0,20}m)")
"""Control characters but for ends of lines, tabs and colours: an engine's output may hold anything."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which log is asked for: the newest run and attempt where nothing is said of them."""

    state: Path
    run: str = ""
    attempt: int | None = None


@dataclass(frozen=True, slots=True)
class Log:
    """The output of one attempt."""

    run: Path
    attempt: int

    @property
    def path(self) -> Path:
        """Where it begins."""
        return log_of(self.run, self.attempt)

    def __str__(self) -> str:
        return f"run {self.run.name}, attempt {self.attempt}: {self.path}"


def find_run(state: Path, beginning: str = "") -> Path:
    """Return the newest run whose id begins so; `WishError` where there is none, `HostError` where none can be read."""
    runs = state / "runs"
    there = runs_in(runs)
    found = next((run for run in there if run.name.startswith(beginning)), None)
    try:
        next((runs if found is None else found).iterdir(), None)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise HostError(
            f"the runs in {runs} cannot be read: {error.strerror}",
            hint="run this as the user that autolaunch runs as, or name another folder with --state-dir",
        ) from error
    if found is not None:
        return found
    if there:
        raise WishError(
            f"no run in {runs} begins with {beginning!r}", hint=f"the newest of {len(there)} is {there[0].name}"
        )
    raise WishError(f"no run is kept in {runs}", hint="autolaunch MODEL makes one; --state-dir looks elsewhere")


def find(wanted: Wanted) -> Log:
    """Return the log that is asked for; raise `WishError` or `HostError` that says what is there instead."""
    run = find_run(wanted.state, wanted.run)
    there = attempts_of(run)
    if not there:
        others = (one for one in runs_in(run.parent) if attempts_of(one))
        older = next(others, None)
        raise WishError(
            f"run {run.name} kept no output of an engine: it started none, or the log could not be written",
            hint=f"the newest run with a log is --run {older.name}" if older else f"what it left is in {run}",
        )
    if wanted.attempt is not None and wanted.attempt not in there:
        raise WishError(
            f"run {run.name} has no log of attempt {wanted.attempt}",
            hint=f"there {'is' if len(there) == 1 else 'are'} {', '.join(map(str, there))}",
        )
    return Log(run, wanted.attempt or there[-1])


def show(log: Log, *, lines: int | None = None) -> None:
    """Write a log, or its last lines, to stdout; say on stderr where it is."""
    say(str(log))
    _drain(Reading(log.path, 0 if lines is None else last_lines(log.path, lines)))


def end_quietly() -> None:
    """From here on a signal ends the command without a word: to stop reading is no mishap."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: sys.exit(0))


def follow(wanted: Wanted, *, lines: int) -> None:
    """Write the last lines, then what is written, until a signal or until nobody reads; wait where nothing is yet."""
    log, waited = _await(wanted)
    say(str(log))
    reading = Reading(log.path, 0 if waited else last_lines(log.path, lines))
    while _drain(reading):
        newest = _newest(wanted, log)
        if newest == log:
            time.sleep(POLL_S)
        elif _drain(reading):  # what was written before it was looked for
            log, reading = newest, Reading(newest.path)
            say(str(log))


def _await(wanted: Wanted) -> tuple[Log, bool]:
    """Return the log to begin with and whether it had to be waited for: then it is the run's first."""
    waited = False
    while True:
        try:
            log = find(wanted)
        except WishError as error:
            if wanted.run or wanted.attempt:
                raise
            if not waited:
                say(f"{error.what}; waiting for one")
            waited = True
            time.sleep(POLL_S)
        else:
            return (Log(log.run, attempts_of(log.run)[0]), True) if waited else (log, False)


def _newest(wanted: Wanted, log: Log) -> Log:
    """Return the log that comes next: the run's next attempt, or the next run's first; the same while there is none."""
    if wanted.attempt is not None:
        return log
    later = next((attempt for attempt in attempts_of(log.run) if attempt > log.attempt), None)
    if later is not None:
        return Log(log.run, later)
    if not wanted.run:
        for run in reversed([one for one in runs_in(log.run.parent) if one.name > log.run.name]):
            there = attempts_of(run)
            if there:
                return Log(run, there[0])
    return log


def _drain(reading: Reading) -> bool:
    """Write what there is to stdout; whether somebody still reads it."""
    if sys.stdout is None:
        return False
    out, careful = sys.stdout.buffer, sys.stdout.isatty()
    try:
        while data := reading.read():
            out.write(_HARMFUL.sub(b"?", data) if careful else data)
            out.flush()
    except OSError:
        sys.stdout = None  # else Python complains of it at its exit
        return False
    return True
