"""Who looks after one engine: how far its start is, whether it answers, whether it hangs, whether it has drained.

I/O. Each of these runs in a thread of its own and only posts events; what follows from them is `machine`'s.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from autolaunch import events
from autolaunch.activity import STIR_PERIOD_S
from autolaunch.diagnosis import Scanner
from autolaunch.engine import EngineProcess
from autolaunch.errors import LIMITS
from autolaunch.failure import Failure, Kind, Phase
from autolaunch.job import Job
from autolaunch.port import stranger

if TYPE_CHECKING:
    import tenacity

T = TypeVar("T")

HEALTH_PERIOD_S = 0.25
PROOF_TRIES = 5
PROOF_TIMEOUT_S = 300.0
"""How long the first request may take: kernels are compiled at the first use."""


class Attendant:
    """The watch over one engine; `spent` are the seconds of each phase of its start so far."""

    def __init__(self, job: Job, engine: EngineProcess, scanner: Scanner, post: Callable[[events.Event], None]) -> None:
        self._job = job
        self._engine = engine
        self._scanner = scanner
        self._post = post
        self.spent: dict[Phase, float] = {}

    def watch(self) -> None:
        """While it starts, tell whether the engine works and how far it is, and count the seconds of each phase."""
        engine, scanner, spent = self._engine, self._scanner, self.spent
        since = last = time.monotonic()
        while not engine.settled.wait(STIR_PERIOD_S):
            now = time.monotonic()
            spent[scanner.phase] = spent.get(scanner.phase, 0.0) + now - last
            last = now
            engine.stir()
            self._job.watch.stepped(scanner.phase)
            self._job.show(scanner.phase, now - since)

    def probe(self) -> None:
        """Poll until the engine is healthy and has answered a real request, or is gone."""
        from autolaunch import probe  # noqa: PLC0415 - HTTP is needed once the engine starts

        job, engine, scanner = self._job, self._engine, self._scanner
        address = job.wish.address
        healthy = self._poll(lambda: probe.healthy(address), bool, every_s=HEALTH_PERIOD_S)
        if not healthy:
            return
        holder = "" if engine.is_container else stranger(address, engine.members())  # a proxy's, or the container's
        if holder:  # before the first request: it carries the API key
            line = f"port {address.port} is answered by another process ({holder}), not by the engine"
            failure = Failure(Kind.PORT_IN_USE, line=line, phase=scanner.phase)
            self._post(events.CauseSeen(engine.attempt, failure, scanner.effective, time.monotonic()))
            return
        if job.prove:
            answer = self._poll(
                lambda: probe.prove(address, api_key=job.wish.api_key, timeout=PROOF_TIMEOUT_S),
                lambda answer: answer.final,
                every_s=1.0,
                tries=PROOF_TRIES,
            )
            if answer.short:
                self._post(events.LaunchFailed(engine.attempt, f"{answer.short}; hint: {LIMITS}"))
                return
            if answer.verdict is not probe.Verdict.PASSED:
                seen = job.secrets.hide(answer.seen)  # a server may echo the header that it was asked with
                reason = f"/health is 200 and the first request fails: {seen} (--no-prove leaves it out)"
                self._post(events.ProbeFailed(engine.attempt, reason, scanner.effective))
                return
        self._post(events.ProbePassed(engine.attempt, scanner.effective))

    def guard(self) -> None:
        """While it serves, notice that it hangs; returns when the engine is gone or was told to hang."""
        from autolaunch.guard import Guard  # noqa: PLC0415 - HTTP is needed once the engine starts

        job, engine = self._job, self._engine

        def hung(reason: str) -> None:
            self._post(events.EngineHung(engine.attempt, job.secrets.hide(reason), self._scanner.effective))

        Guard(job.wish.address, job.wish.api_key, job.rules).watch(engine.gone, hung, job.warn)

    def drain(self) -> None:
        """Wait until the requests that run are answered, by the engine's own gauges."""
        from autolaunch.guard import Guard  # noqa: PLC0415 - HTTP is needed once the engine starts

        job = self._job
        Guard(job.wish.address, job.wish.api_key, job.rules).drain(self._engine.gone, job.note)

    def _poll(
        self,
        ask: Callable[[], T],
        enough: Callable[[T], bool],
        *,
        every_s: float,
        tries: int | None = None,
    ) -> T:
        """Ask until the answer is enough, the tries are used, or the engine is gone; return the last answer."""
        import tenacity  # noqa: PLC0415 - while the engine starts, not before

        engine = self._engine
        stop: tenacity.stop.stop_base = tenacity.stop_when_event_set(engine.gone)
        if tries is not None:
            stop = tenacity.stop_any(stop, tenacity.stop_after_attempt(tries))
        return tenacity.Retrying(
            retry=tenacity.retry_if_result(lambda answer: not enough(answer)),
            stop=stop,
            wait=tenacity.wait_fixed(every_s),
            sleep=tenacity.sleep_using_event(engine.gone),
            retry_error_callback=_last_answer,
        )(ask)


def _last_answer(state: tenacity.RetryCallState) -> Any:
    """Give up with the last answer instead of an error."""
    assert state.outcome is not None
    return state.outcome.result()
