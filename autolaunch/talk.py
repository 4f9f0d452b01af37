"""How a run speaks: its story to stderr for people, or JSON for journals, and every event to who records it.

I/O over structlog. What is said is `narration`'s and `record`'s. A stderr that is closed, full or gone ends no run.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import click

from autolaunch import record
from autolaunch.errors import ExitCode, HostError
from autolaunch.failure import Phase
from autolaunch.journal import Priority, connected, prefixed
from autolaunch.narration import STEP_WORDS, Scene, narrate
from autolaunch.output import PATIENCE_S, takes
from autolaunch.recorder import Recorder, RecordFile

if TYPE_CHECKING:
    from autolaunch.status import Status

STYLES: dict[str, dict[str, Any]] = {
    "good": {"fg": "green", "bold": True},
    "bad": {"fg": "red", "bold": True},
    "step": {"fg": "yellow"},
    "dim": {"dim": True},
    "": {},
}
CLEAR_LINE = "\r\x1b[2K"
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]+")


class Voice:
    """stderr: whole lines, and on a terminal one line below them that is drawn over.

    Where stderr is systemd's journal every line has its priority. `log` is the logger that makes JSON of every line,
    None where people read them.
    """

    def __init__(self) -> None:
        self.journal: bool | None = None
        self.log: Any = None
        self._lock = threading.RLock()
        self._drawn = False
        self._patience_s = PATIENCE_S

    def say(self, text: str, priority: Priority = Priority.INFO) -> None:
        """Write a line; what cannot be written is lost without a word."""
        with self._lock:
            if self.journal is None:
                self.journal = connected(os.environ)
            if self.journal:
                text = prefixed(text, priority)
            self._put(f"{CLEAR_LINE if self._drawn else ''}{text}\n")
            self._drawn = False

    def draw(self, text: str) -> None:
        """Write text that the next line or drawing replaces; nothing where stderr is no terminal."""
        with self._lock:
            if self.draws:
                self._put(CLEAR_LINE + text[: max(20, shutil.get_terminal_size().columns - 1)])
                self._drawn = True

    @property
    def draws(self) -> bool:
        """Whether stderr is a terminal that can be drawn on."""
        return sys.stderr is not None and sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb"

    def _put(self, text: str) -> None:
        if sys.stderr is None:
            return
        try:
            taken = takes(2, self._patience_s)  # a reader that is stuck costs lines, not the run
            self._patience_s = PATIENCE_S if taken else 0.0
            if taken:
                click.echo(text, err=True, nl=False)
        except BlockingIOError:
            return
        except OSError:
            sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115 - lives as long as the process


VOICE = Voice()


def say(text: str, priority: Priority = Priority.INFO) -> None:
    """Write a line to stderr; a closed terminal must not end the run."""
    if VOICE.log is None:
        VOICE.say(text, priority)
    else:
        getattr(VOICE.log, priority.name.lower())(click.unstyle(text).strip())


def complain(what: str, hint: str, exit_code: ExitCode) -> None:
    """Say what ends the command, and what would help."""
    if VOICE.log is not None:
        VOICE.log.error(what, **({"hint": hint} if hint else {}), exit_code=int(exit_code))
        return
    say(f"error: {what}", Priority.ERROR)
    if hint:
        say(f"hint: {hint}", Priority.ERROR)


def give(text: str) -> None:
    """Write a line of data to stdout as the bytes it came from; a reader that is gone is no error."""
    if sys.stdout is None:
        return
    try:
        sys.stdout.flush()
        sys.stdout.buffer.write(text.encode("utf-8", "surrogateescape") + b"\n")
        sys.stdout.buffer.flush()
    except OSError:
        sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115 - lives as long as the process


class Talk:
    """Tells every event to the records and to stderr. Threads may warn and show; events come from one.

    From its making on every line on stderr has the form that is asked for, also those that are not its own.
    """

    def __init__(self, *, run: str, log_format: str) -> None:
        self.run = run
        self.scene = Scene("", 0)
        self.records: list[Recorder] = []
        self.command: Callable[[record.CameUp], str] = lambda _: ""
        self.watch: Callable[[record.Event], None] = lambda _: None
        self.status: Callable[[], Status] | None = None
        self.says_phases = False
        self._phase: Phase | None = None
        self.speaks_json = log_format == "json" or (log_format == "auto" and connected(os.environ))
        self._log = VOICE.log = _json_logger(run, self._where) if self.speaks_json else None

    def tell(self, event: record.Event) -> None:
        """Record and show an event."""
        for file in self.records:
            file.write(event)
        self.watch(event)
        priority = _priority(event)
        if self._log is not None:
            getattr(self._log, priority.name.lower())(event.event, **event.fields())
            return
        command = self.command(event) if isinstance(event, record.CameUp) else ""
        for style, text in narrate(event, self.scene, command):
            say(click.style(_CONTROL.sub(" ", text), **STYLES[style]), priority)

    def warn(self, text: str) -> None:
        """Show something that does not stop the run."""
        if self._log is not None:
            self._log.warning(text)
        else:
            say(click.style(f"  warning: {_CONTROL.sub(' ', text)}", fg="yellow"), Priority.WARNING)

    def note(self, text: str) -> None:
        """Show something that is as it should be."""
        say(click.style(f"  {_CONTROL.sub(' ', text)}", dim=True))

    def reload(self) -> None:
        """Open the record files anew and say what a running server does not read anew."""
        files = [file for file in self.records if isinstance(file, RecordFile)]
        try:
            for file in files:
                file.reopen()
        except HostError as error:
            self.warn(error.what)
        opened = "the record file was opened anew; " if files else ""
        self.warn(
            f"SIGHUP: {opened}the model, its options and the strategy are read at the start: restart to change them"
        )

    def show(self, phase: Phase, seconds: float) -> None:
        """Draw how far a start is, where somebody looks at a terminal; for a program a line as each phase begins."""
        if self.says_phases and self._log is None and phase is not self._phase:
            self._phase = phase
            say(f"  {STEP_WORDS[phase]}, {seconds:.0f} s after the start")
        elif self._log is None:
            VOICE.draw(click.style(f"  {STEP_WORDS[phase]}, {seconds:.0f} s", dim=True))

    def _where(self) -> dict[str, Any]:
        """Return what every line for a machine says of the moment: the attempt (0: none yet) and the phase."""
        if self.status is None:
            return {"attempt": 0, "phase": "planning"}
        status = self.status()
        step = {} if status.step is None else {"step": status.step.value}
        return {"attempt": status.attempt, "phase": status.phase, **step}


def _priority(event: record.Event) -> Priority:
    """Return how grave an event is to a journal, its explanation included: `-p err` shows what failed, and why."""
    if isinstance(event, record.Ended):
        return Priority.ERROR if event.exit_code else Priority.INFO
    return Priority.ERROR if event.event in ("failed", "exhausted", "crashed") else Priority.INFO


class _Lines:
    """Where a logger's finished lines go: each to stderr, with the priority of its level."""

    def __getattr__(self, level: str) -> Callable[[str], None]:
        return lambda text: VOICE.say(text, Priority[level.upper()])


def _json_logger(run: str, where: Callable[[], Mapping[str, Any]]) -> Any:
    import structlog  # noqa: PLC0415 - a tenth of a second that a terminal need not wait for

    return structlog.wrap_logger(
        _Lines(),
        processors=[
            lambda _, __, line: {"run": run, **where(), **line},
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(ensure_ascii=False),
        ],
    )
