"""The life of the leader: phase by phase as the outcome says, until it serves, fails, hangs or is stopped."""

from __future__ import annotations

import _socket
import os
import select
import signal
import time

from .behaviours import (
    PHASES,
    AllocateMib,
    Behaviour,
    BusySilent,
    CoreDies,
    DieAfterReady,
    DoubleFork,
    ExitBeforeReady,
    HoldMemory,
    NoOutputHang,
    Pooling,
    PrintSecret,
    ReusePort,
)
from .failures import aftermath, cause, phase_of
from .line import ask, say_core_died
from .noise import noise, say, write
from .processes import STOPS, Family
from .release import release
from .texts import STDOUT, Speech, Texts
from .values import fill_values, numbers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from threading import Event
    from types import FrameType
    from typing import NoReturn

    from .arguments import Arguments
    from .ground import Ground
    from .ledger import Ledger
    from .scenario import Outcome, Scenario


class Stopped(BaseException):
    """A signal asked the leader to stop."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def _stop(number: int, _frame: FrameType | None) -> None:
    raise Stopped(number)


class Life:
    """One start."""

    def __init__(
        self, scenario: Scenario, outcome: Outcome, arguments: Arguments, ledger: Ledger, ground: Ground
    ) -> None:
        self.outcome = outcome
        self.arguments = arguments
        self.ground = ground
        self.ledger = ledger
        self.version = scenario.version
        self.release = release(scenario.version)
        self.family = Family(ledger, outcome)
        self.listening: _socket.socket | None = None
        self.answering: object = None
        self.kept: list[bytearray] = []
        self.serving = False
        given = arguments.with_defaults()
        texts = Texts(scenario.version)
        verdict = ground.verdict
        self.kind = outcome.kind if outcome.kind != "auto" else verdict.kind if verdict else "ok"
        found = numbers(self.kind, {**(verdict.numbers if verdict else {}), **outcome.numbers}, given)
        self.max_model_len = int(found["max_model_len"])
        self.speech = Speech(texts, *self._said(found), int(arguments.number("tensor_parallel_size", 1)))
        death = outcome.find(DieAfterReady)
        if death and death.kind:
            phase_of(self.speech, death.kind)  # refuses a kind without a text now, not when it strikes
        own = phase_of(self.speech, self.kind) if self.kind != "ok" else ""
        self.failing = (self.kind != "ok" and (outcome.phase or own)) or ""

    def _said(self, found: dict[str, float]) -> tuple[dict[str, object], frozenset[str]]:
        reveal = self.outcome.find(PrintSecret) is not None
        values = fill_values(self.arguments, found, reveal=reveal)
        task = "embed" if self.outcome.find(Pooling) else "generate"
        secret = os.environ.get("HF_TOKEN", "")
        values |= {"api_pid": os.getpid(), "core_pid": os.getpid() + 64, "task": task, "hf_token": secret}
        values["core_prefix"] = f"(EngineCore pid={values['core_pid']}) "
        given = self.arguments.given
        auto = given.get("max_model_len") == -1
        eager, known = bool(given.get("enforce_eager")), self.release
        flags = {
            "eager": eager,
            "ranks": self.arguments.number("tensor_parallel_size", 1) > 1,
            "estimate": known.estimates_graphs and not eager,
            "subtracted": known.subtracts_graphs and not eager,
            known.budget: self.ground.verdict is not None,
            "small_batch": self.ground.verdict is not None and found["max_seq_len"] <= found["model_max_len"],
            "auto": auto,
            "reduced": auto and found["max_model_len"] < found["model_max_len"],
            "full": auto and found["max_model_len"] >= found["model_max_len"],
            "absolute": "kv_cache_memory_bytes" in given,
        }
        return values, frozenset(name for name, holds in flags.items() if holds)

    def run(self) -> NoReturn:
        """Live; ends the process."""
        try:
            self._listen_to_signals()
            if self.outcome.log:
                self._replay()
            else:
                for phase in PHASES[:-1]:
                    self._enter(phase)
            self._serve()
        except Stopped as stopped:
            self._shut_down(stopped.number)

    def _listen_to_signals(self) -> None:
        for number in STOPS:
            signal.signal(number, signal.SIG_IGN if number in self.family.deaf else _stop)

    def _enter(self, phase: str) -> None:
        self._wait(phase)
        self.ground.neighbours(phase)
        if phase == "init":
            self._grow()
        self.ground.hold(self.family.core or os.getpid(), phase)
        for behaviour in self.outcome.at(phase):
            self._act(behaviour)
        if phase == "config" and not self.release.serves_last and not self._bind():
            self.kind, self.failing = "port_in_use", "config"
        if self.family.line >= 0 and not ask(self.family.line):
            self._lose_core()
        fails = phase == self.failing
        say(self.speech.phase(phase, self.kind if fails else ""))
        if phase == "import" and self.outcome.find(PrintSecret):
            say(self.speech.phase("secret"))
        if fails:
            self._fail()

    def _replay(self) -> None:
        self._wait("import")
        self._bind()
        self._grow()
        with open(self.outcome.log, "rb") as file:  # noqa: PTH123  pathlib costs 5 ms of the start
            for line in file:
                write(STDOUT, line)
        if self.kind != "ok":
            self.ledger.event("cause")
            self._end_of_failure()

    def _bind(self) -> bool:
        """Bind the port, as vLLM does before the engine is made; False if it is taken."""
        self.listening = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM)
        self.listening.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
        if self.outcome.find(ReusePort):
            self.listening.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEPORT, 1)
        try:
            self.listening.bind((self.arguments.text("host", "0.0.0.0"), self.arguments.number("port", 8000)))
        except OSError:
            return False
        return True

    def _grow(self) -> None:
        self.family.grow(self.listening.fileno() if self.listening else -1)
        if memory := self.outcome.find(HoldMemory):
            self.ground.keep(self.family.holder, memory.gib)
        if self.family.core:
            self.speech.values["core_pid"] = self.family.core
            self.speech.values["core_prefix"] = f"(EngineCore pid={self.family.core}) "

    def _wait(self, name: str) -> None:
        if self.outcome.delay_s.get(name):
            self._sleep(self.outcome.delay_s[name])

    def _sleep(self, seconds: float | None) -> None:
        """Sleep, for ever with None; a core that takes part and dies meanwhile ends the leader."""
        if self.family.line < 0:
            signal.pause() if seconds is None else time.sleep(seconds)
            return
        core = os.pidfd_open(self.family.core)
        died, _, _ = select.select([core], [], [], seconds)
        os.close(core)
        if died:
            self._lose_core()

    def _lose_core(self) -> NoReturn:
        _, status = os.waitpid(self.family.core, 0)
        self.family.core = 0
        self._leave(say_core_died(status, serving=self.serving))

    def _act(self, behaviour: Behaviour) -> None:
        if isinstance(behaviour, NoOutputHang):
            self._hang()
        elif isinstance(behaviour, BusySilent):
            until = time.monotonic() + (behaviour.seconds or float("inf"))
            while time.monotonic() < until:
                pass
        elif isinstance(behaviour, ExitBeforeReady):
            self._leave(behaviour.code)
        elif isinstance(behaviour, DoubleFork):
            self.family.detach(behaviour)
        elif isinstance(behaviour, AllocateMib):
            self.kept.append(bytearray(b"\1") * (behaviour.mib << 20))
        else:
            for block in noise(behaviour, self.speech):
                write(STDOUT, block)

    def _fail(self) -> NoReturn:
        if self.outcome.lines:
            say([(STDOUT, line) for line in self.outcome.lines])
        else:
            say(cause(self.speech, self.kind))
        self.ledger.event("cause")
        if self.outcome.then == "hang":
            self._hang()
        self._wait("exit")
        if not self.outcome.lines:
            say(aftermath(self.speech, self.kind))
        self._end_of_failure()

    def _end_of_failure(self) -> NoReturn:
        if self.outcome.then == "hang":
            self._hang()
        if self.outcome.then == "hang_core":
            self.family.start_core()
        else:
            self.family.end()
        number = self.outcome.signal
        if number is None and self.outcome.code is None and self.kind == "host_oom":
            number = signal.SIGKILL
        self._leave(1 if self.outcome.code is None else self.outcome.code, number)

    def _serve(self) -> NoReturn:
        from socket import socket

        from .server import Service, serve

        self._wait("serving")
        if self.kind == "port_in_use" or (self.listening is None and not self._bind()):
            self.kind = "port_in_use"
            say(self.speech.phase("serving", self.kind))
            self._fail()
        recorded = self.ledger.recorded()
        if self.listening is None:
            raise AssertionError("a start serves on a bound port")
        service = Service(
            self.arguments,
            self.outcome,
            version=self.version,
            max_model_len=self.max_model_len,
            log=self._log_request,
            line=self.family.line,
        )
        self.answering = listening = socket(fileno=self.listening.detach())
        serve(listening, service)
        self.serving = True
        self.ground.neighbours("serving")
        if not self.outcome.log:
            say(self.speech.phase("serving"))
        self.ledger.event("ready")
        for behaviour in self.outcome.at("serving"):
            self._act(behaviour)
        if self.failing == "serving":
            self._fail()
        dead = self.outcome.find(CoreDies)
        if dead:
            self._outlive_the_core(service.died, exits=dead.exits)
        death = self.outcome.find(DieAfterReady)
        if death:
            if death.recorded:
                self.ledger.await_ready(recorded)
            self._die(death)
        self._hang()

    def _log_request(self, request: str, status: str) -> None:
        self.speech.values |= {"request": request, "status": status}
        say(self.speech.phase("request"))

    def _outlive_the_core(self, died: Event, *, exits: bool) -> None:
        died.wait()
        say(cause(self.speech, "other_crash", serving=True))
        self.ledger.event("cause")
        say(aftermath(self.speech, "other_crash", serving=True))
        self.family.end()
        if exits:
            self._leave(0)

    def _die(self, death: DieAfterReady) -> NoReturn:
        time.sleep(death.seconds)
        if death.kind:
            say(cause(self.speech, death.kind, serving=True))
            self.ledger.event("cause")
            self._wait("exit")
            say(aftermath(self.speech, death.kind, serving=True))
        self.family.end()
        self._leave(death.code, death.signal)

    def _shut_down(self, number: int) -> NoReturn:
        for other in STOPS:
            signal.signal(other, signal.SIG_IGN)
        self.ledger.event("stopping")
        if not self.serving and self.release.serves_last:
            self.family.end()
            self._leave(1, number)
        if not self.serving:
            say([(2, "KeyboardInterrupt: terminated")])
            self.family.end()
            self._leave(1, signal.SIGINT)
        self.speech.values["signal"] = signal.Signals(number).name
        self._wait("shutdown")
        say(self.speech.phase("shutdown"))
        self.family.end()
        self._leave(0)

    def _hang(self) -> NoReturn:
        while True:
            self._sleep(None)

    def _leave(self, code: int, number: int | None = None) -> NoReturn:
        self.ledger.event("exit")
        if number is not None:
            if number not in (signal.SIGKILL, signal.SIGSTOP):
                signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            self._hang()
        os._exit(code)
