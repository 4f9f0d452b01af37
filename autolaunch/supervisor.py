"""The loop: one queue of events, one machine, its effects carried out. The only writer of the state.

I/O. Signal handlers and threads only put events into the queue; everything that is decided is decided in
`machine`. The loop waits for an event until the state's deadline, advances, performs.
"""

from __future__ import annotations

import os
import queue
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType

from autolaunch import events, machine, phases, record
from autolaunch.attendant import Attendant
from autolaunch.diagnosis import Scanner
from autolaunch.engine import EngineProcess
from autolaunch.errors import LIMITS, ExitCode, HostError, shortage
from autolaunch.facts import Device
from autolaunch.job import Job
from autolaunch.liveness import ABSENT_S
from autolaunch.logfile import LogFile
from autolaunch.output import Output
from autolaunch.past import Outcome
from autolaunch.port import refuse_taken_port
from autolaunch.redaction import redact_argv
from autolaunch.release import await_release
from autolaunch.settings import Settings, render
from autolaunch.shell_line import shell_line
from autolaunch.state import open_log

TICK_S = 1.0
"""How long the loop waits at most while a deadline runs: so it notices when it was not run itself."""

LOCK_WAIT_S = 600.0
"""How long another start on the same card is waited for."""

LAST_WAIT_S = 5.0


class Supervisor:
    """One run from the first start to its exit code."""

    def __init__(self, job: Job, run: phases.Run) -> None:
        self.job = job
        self._state: phases.State = phases.Idle(run)
        self._events: queue.SimpleQueue[events.Event] = queue.SimpleQueue()
        self._engine: EngineProcess | None = None
        self._attendant: Attendant | None = None
        self._baseline: Device = run.situation.device
        self._exit_code: ExitCode | None = None
        self._looked = time.monotonic()
        self._keeps_logs = True
        self._held = job.held
        self._waited = job.held is None
        self.proven: Settings | None = None

    def run(self) -> ExitCode:
        """Run until the end; return the exit code. `take_signals` comes first."""
        self._looked = time.monotonic()
        try:
            self._take(events.Begun())
            while self._exit_code is None:
                self._take(self._next_event())
        except (MemoryError, RuntimeError) as error:
            if not shortage(error):
                raise
            self._exit_code = ExitCode.HOST_AT_FAULT
            self.job.tell(record.Ended(f"{shortage(error)}; hint: {LIMITS}", self._exit_code))
        if self._engine is not None and not self._engine.gone.is_set():
            self._engine.signal(phases.Force.KILL)
            self._engine.gone.wait(LAST_WAIT_S)
        return self._exit_code

    def _next_event(self) -> events.Event:
        deadline, beat_s = self._state.deadline, self.job.watch.beat_s
        self.job.watch.beat()
        wait = None if deadline is None else min(max(0.0, deadline - time.monotonic()), TICK_S)
        if beat_s is not None:
            wait = beat_s if wait is None else min(wait, beat_s)
        try:
            event: events.Event = self._events.get(timeout=wait)
        except queue.Empty:
            event = events.DeadlineReached()
        absent_s = time.monotonic() - self._looked - (wait or 0.0)
        if deadline is not None and absent_s > ABSENT_S:
            self._take(events.Overslept(absent_s))
        self._looked = time.monotonic()
        return event

    def _take(self, event: events.Event) -> None:
        before = self._state
        self._state, effects = machine.advance(before, event, time.monotonic())
        if self._engine is not None and not isinstance(self._state, phases.Starting):
            self._engine.settled.set()
        self.job.watch.moved(self._state)
        if isinstance(self._state, phases.Ready) and not isinstance(before, phases.Ready):
            self._give_card_back()
            if self._attendant is not None and self.job.prove:
                self._thread(self._attendant.guard)
        for effect in effects:
            self._perform(effect)

    def take_signals(self) -> None:
        """From here on a signal is an event. Nothing gives the signals back: the run's exit code must stand."""

        reloads = not has_terminal()  # there SIGHUP says that the terminal is gone

        def caught(number: int, _: FrameType | None) -> None:
            if number == signal.SIGHUP and reloads:
                self._events.put(events.ReloadAsked())
            else:
                self._events.put(events.SignalReceived(signal.Signals(number).name))

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if number is not signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:  # nohup ignores it
                signal.signal(number, caught)

    def _perform(self, effect: events.Effect) -> None:
        match effect:
            case events.Launch():
                self._launch(effect)
            case events.Signal(_, force):
                if self._engine is not None:  # a launch that the host refused left none
                    self._engine.signal(force)
            case events.AwaitDrain(attempt):
                self._thread(lambda: self._drain(attempt))
            case events.AwaitRelease(attempt):
                self._thread(lambda: self._await_release(attempt))
            case events.Tell(event):
                if isinstance(event, record.CameUp):
                    self.proven = event.settings
                self.job.tell(event)
            case events.Remember():
                self._remember(effect)
            case events.Reload():
                with self.job.watch.reloading():
                    self.job.reload()
            case events.NoteCrash():
                self.job.note_crash()
            case events.Finish(exit_code):
                self._exit_code = exit_code

    def _remember(self, end: events.Remember) -> None:
        spent = {} if end.in_service or self._attendant is None else self._attendant.spent
        self.job.remember(
            Outcome(
                end.settings,
                end.failure,
                end.effective,
                engine_version=self.job.installation.engine.version,
                total_bytes=end.device.total_bytes,
                free_bytes=end.device.free_bytes,
                seconds=round(end.seconds, 3),
                phases={str(phase): round(seconds, 1) for phase, seconds in spent.items()},
                at=time.time(),
                wish=self.job.digest,
                in_service=end.in_service,
            )
        )

    def _thread(self, target: Callable[[], None]) -> None:
        threading.Thread(target=target, daemon=True).start()

    def _needed(self, attempt: int, target: Callable[[], None]) -> None:
        """Start a thread without which nobody would see a start's end: where it fails, the start has failed."""

        def run() -> None:
            try:
                target()
            except Exception as error:
                words = shortage(error)
                reason = f"{words}; hint: {LIMITS}" if words else f"the start cannot be watched: {error!r}"
                self._events.put(events.LaunchFailed(attempt, reason))
                if not words:
                    raise

        self._thread(run)

    # --- starting

    def _has_card(self, attempt: int) -> bool:
        """Whether the launch may go on; where another supervisor is starting on the card it is told when that ends."""
        if self._held is None and not self._waited:
            self._held = self.job.locks.acquire(self.job.placement.names, wait_s=0.0)
            if self._held is None:
                self._thread(lambda: self._await_card(attempt))
                return False
        return True

    def _await_card(self, attempt: int) -> None:
        def unwanted() -> bool:
            self._events.put(events.Stirred(attempt))  # a wait is no stall
            return not isinstance(self._state, phases.Starting)

        self._held = self.job.locks.acquire(self.job.placement.names, wait_s=LOCK_WAIT_S, stop=unwanted)
        self._waited = True
        wanted = isinstance(self._state, phases.Starting)
        self._events.put(events.CardFreed(attempt) if wanted else events.LaunchFailed(attempt, "not started"))

    def _give_card_back(self) -> None:
        self._waited = False
        if self._held is not None:
            self._held.release()
            self._held = None

    def _launch(self, launch: events.Launch) -> None:
        job, attempt = self.job, launch.attempt
        if not self._has_card(attempt):
            return
        argv = self.argv(launch.settings)
        told = record.Attempted(
            attempt, launch.rung, self.shown_argv(launch.settings), launch.settings, launch.climbing
        )
        output = self._engine = self._attendant = None
        try:
            refuse_taken_port(job.wish.address)
            output = self._output(attempt)
            engine = EngineProcess(attempt, output, self._events.put)
            engine.start(argv, job.environment)
        except HostError as error:
            if output is not None:
                output.finish()
            self.job.tell(told)
            self._events.put(
                events.LaunchFailed(attempt, f"{error.what}; hint: {error.hint}" if error.hint else error.what)
            )
            return
        self._engine = engine
        self._attendant = attendant = Attendant(job, engine, output.scanner, self._events.put)
        self.job.tell(told)
        self._needed(attempt, attendant.watch)
        self._needed(attempt, attendant.probe)

    def argv(self, settings: Settings) -> tuple[str, ...]:
        """Return the whole command line of an attempt: catalogue's options, the user's untouched, the ladder's."""
        wish = self.job.wish
        model = settings.model or wish.model_path
        options = (*wish.entry_args, *wish.engine_args, *render(settings, pins=wish.pins))
        return self.job.installation.argv(model, options, self.job.environment)

    def shown_argv(self, settings: Settings) -> tuple[str, ...]:
        """Return the command line of an attempt with every secret replaced."""
        return redact_argv(self.argv(settings), self.job.secrets.anywhere)

    def shell_line(self, settings: Settings) -> str:
        """Return the plain command that starts the engine as it runs, with the variables that were set for it."""
        job = self.job
        return shell_line(self.shown_argv(settings), job.installation.variables(job.environment, os.environ))

    def _output(self, attempt: int) -> Output:
        job, log = self.job, self._log(attempt)
        scanner = Scanner(installed=job.installation.engine.version)
        return Output(log, scanner, secrets=job.secrets, echo=job.echo, warn=job.warn)

    def _log(self, attempt: int) -> LogFile | None:
        try:
            return open_log(self.job.log_folder, attempt)
        except OSError as error:
            if self._keeps_logs:
                self.job.warn(f"the engine's output cannot be kept in {self.job.log_folder}: {error}")
            self._keeps_logs = False
            return None

    # --- after it served, and between attempts

    def _drain(self, attempt: int) -> None:
        if self._attendant is not None:
            self._attendant.drain()
        self._events.put(events.Drained(attempt))

    def _await_release(self, attempt: int) -> None:
        settled = await_release(self._baseline, self._measure)
        if settled.free_bytes is not None:
            self._baseline = settled  # what the next start finds, neighbours included
        self._events.put(events.MemorySettled(attempt, settled))

    def _measure(self) -> Device:
        return self.job.placement.measure()


def has_terminal() -> bool:
    """Whether this process hangs on a terminal, whose end SIGHUP would tell."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True
