"""What holds for any sequence of events: one engine at a time, one end, nothing after it, bounded attempts."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from hypothesis import given, settings
from hypothesis import strategies as st

from autolaunch import record
from autolaunch.case import Limits
from autolaunch.climb import begin
from autolaunch.errors import ExitCode
from autolaunch.events import (
    AwaitRelease,
    Begun,
    CacheSized,
    CauseSeen,
    DeadlineReached,
    Effect,
    EngineEvent,
    EngineExited,
    Event,
    Finish,
    Launch,
    LaunchFailed,
    MemorySettled,
    Overslept,
    ProbeFailed,
    ProbePassed,
    Signal,
    SignalReceived,
    Stirred,
    Tell,
    TreeGone,
)
from autolaunch.facts import Device, DeviceKind, Engine, Situation
from autolaunch.failure import MEMORY_KINDS, Failure, Kind
from autolaunch.figures import Effective
from autolaunch.machine import advance
from autolaunch.phases import MOVES, Backoff, ExhaustedEnd, Idle, Policy, Ready, Run, State, Stopped, Stopping
from autolaunch.settings import Settings
from autolaunch.strategy import load_strategy

CARD = Device(DeviceKind.CUDA, "card", 24 << 30, 23 << 30, (8, 9))
SITUATION = Situation(CARD, Engine("0.24.0", DeviceKind.CUDA, has_bitsandbytes=True))
STRATEGIES = {name: load_strategy(name) for name in ("default", "classic", "keep-context", "keep-quality")}

NUMBERS: st.SearchStrategy[dict[str, float]] = st.one_of(
    st.just({}),
    st.just({"needed_kv_gib": 5.0, "available_kv_gib": 2.7, "max_seq_len": 131072, "estimated_max_len": 70624}),
    st.just({"free_gib": 10.0, "total_gib": 24.0, "utilization": 0.9, "requested_gib": 21.6}),
    st.just({"tried_to_allocate_mib": 512.0, "free_gib": 0.1, "total_gib": 24.0}),
)
FAILURES = st.builds(lambda kind, numbers: Failure(kind, line="x", numbers=numbers), st.sampled_from(Kind), NUMBERS)
SAID = st.sampled_from(
    [Effective(), Effective(max_model_len=3000, auto_fit_from=131072, available_kv_gib=0.1, weights_gib=17.6)]
)
ATTEMPTS = st.sampled_from([0, 1, 1, 1])
"""How far behind the present attempt an event's number lies: 1 is the present one, 0 the one before."""


@st.composite
def events(draw: st.DrawFn) -> tuple[Event, int, float]:
    """Return an event, whether it is of the present attempt, and how much later it comes."""
    kind = draw(st.integers(0, 13))
    failure, said = draw(FAILURES), draw(SAID)
    made: Event
    match kind:
        case 0:
            made = Overslept(draw(st.sampled_from([0.5, 5000.0]))) if draw(st.booleans()) else Begun()
        case 1:
            made = SignalReceived("SIGTERM")
        case 2:
            made = LaunchFailed(0, "no")
        case 3:
            made = Stirred(0)
        case 4:
            made = CacheSized(0, said)
        case 5 | 6:
            made = CauseSeen(0, failure, said, 0.0)
        case 7:
            made = EngineExited(0, draw(st.sampled_from([0, 1, -9])), failure, said)
        case 8:
            made = ProbePassed(0, said)
        case 9:
            made = ProbeFailed(0, "HTTP 500", said)
        case 10:
            made = TreeGone(0, draw(st.sampled_from([(), (), (), (3,)])))
        case 11:
            made = MemorySettled(0, draw(st.sampled_from([CARD, Device()])))
        case _:
            made = DeadlineReached()
    return made, draw(ATTEMPTS), draw(st.sampled_from([0.0, 0.1, 0.3, 1.0, 30.0, 4000.0]))


@dataclass
class Witness:
    """What an outsider sees of a run: which engine lives, what was launched, how it ended."""

    alive: bool = False
    launched: list[Launch] = field(default_factory=list)
    finished: list[ExitCode] = field(default_factory=list)
    stop_wished: bool = False
    told_race: bool = False
    since_served: int = 0
    most_since_served: int = 0

    def see(self, event: Event, effects: tuple[Effect, ...], *, present: bool) -> None:
        """Take in one step and hold it to the rules."""
        if isinstance(event, TreeGone) and present:
            self.alive = False
        if isinstance(event, LaunchFailed) and present:
            self.alive = False
        for effect in effects:
            match effect:
                case Launch():
                    assert not self.alive, "a second engine beside a living one"
                    assert not self.finished, "a launch after the end"
                    assert not self.stop_wished, "a launch after a wish to stop"
                    assert effect.attempt == len(self.launched) + 1
                    self.alive = True
                    self.launched.append(effect)
                    self.since_served += 1
                    self.most_since_served = max(self.most_since_served, self.since_served)
                case Signal(attempt, _):
                    assert attempt == len(self.launched)
                case AwaitRelease(attempt):
                    assert attempt == len(self.launched)
                    assert not self.alive
                case Finish(code):
                    self.finished.append(code)
                case Tell(record.CameUp()):
                    self.since_served = 0
                case Tell(record.Restarting()):
                    self.since_served = 0
                case Tell():
                    pass
        if isinstance(event, SignalReceived):
            self.stop_wished = True
        assert len(self.finished) <= 1


def numbered(event: Event, attempt: int) -> Event:
    """Return an engine's event with an attempt's number."""
    return replace(event, attempt=attempt) if isinstance(event, EngineEvent) else event


@given(
    st.sampled_from(sorted(STRATEGIES)),
    st.integers(1, 6),
    st.lists(events(), max_size=60),
)
@settings(max_examples=400, deadline=None)
def test_any_events_keep_the_rules_of_a_run(
    name: str, max_attempts: int, happened: list[tuple[Event, int, float]]
) -> None:
    climb = begin(STRATEGIES[name], Limits(), Settings(), pins=frozenset(), situation=SITUATION)
    state: State = Idle(Run(Policy(max_attempts=max_attempts), climb, SITUATION))
    witness, now = Witness(), 0.0
    for template, behind, later in [(Begun(), 1, 0.0), *happened]:
        now += later
        if isinstance(state, (Stopped, ExhaustedEnd)):
            attempt = len(witness.launched) - 1 + behind
        else:
            attempt = state.run.attempt - 1 + behind
        event = numbered(template, attempt)
        due = state.deadline
        after, effects = advance(state, event, now)
        if isinstance(event, EngineEvent) and behind == 0:
            assert (after, effects) == (state, ()), "a stale event was taken"
        if isinstance(event, DeadlineReached) and (due is None or now < due):
            assert (after, effects) == (state, ()), "a deadline hit early"
        before_name, after_name = type(state).__name__, type(after).__name__
        assert after_name == before_name or after_name in MOVES[before_name]
        if isinstance(state, (Stopped, ExhaustedEnd)):
            assert (after, effects) == (state, ()), "something happened after the end"
        witness.see(event, effects, present=behind == 1)
        state = after
    assert witness.most_since_served <= max_attempts
    assert bool(witness.finished) == isinstance(state, (Stopped, ExhaustedEnd))


@given(st.sampled_from(sorted(STRATEGIES)), st.lists(events(), max_size=80))
@settings(max_examples=200, deadline=None)
def test_no_setting_is_started_twice_within_a_climb_except_after_a_race_or_a_crash(
    name: str, happened: list[tuple[Event, int, float]]
) -> None:
    climb = begin(STRATEGIES[name], Limits(), Settings(), pins=frozenset(), situation=SITUATION)
    state: State = Idle(Run(Policy(max_attempts=1000), climb, SITUATION))
    now, tried = 0.0, set()
    for template, _, later in [(Begun(), 1, 0.0), *happened]:
        now += later
        attempt = 0 if isinstance(state, (Stopped, ExhaustedEnd)) else state.run.attempt
        state, effects = advance(state, numbered(template, attempt), now)
        restarting = any(isinstance(e, Tell) and isinstance(e.event, record.Restarting) for e in effects)
        for effect in effects:
            if isinstance(effect, Launch):
                if not restarting and effect.rung != "retry":
                    assert effect.settings not in tried
                tried.add(effect.settings)


PINNABLE = Settings(0.9, 8192, max_num_seqs=64, max_num_batched_tokens=2048, enforce_eager=True)
PINS = ("gpu_memory_utilization", "max_model_len", "max_num_seqs", "max_num_batched_tokens", "enforce_eager")


@given(
    st.sampled_from(sorted(STRATEGIES)),
    st.frozensets(st.sampled_from(PINS)),
    st.integers(0, 6),
    st.lists(st.sampled_from(sorted(MEMORY_KINDS)), min_size=8, max_size=8),
    NUMBERS,
)
@settings(max_examples=200, deadline=None)
def test_an_engine_that_comes_up_whenever_it_is_started_ends_by_its_restarts_alone(
    name: str, pins: frozenset[str], max_restarts: int, kinds: list[Kind], numbers: dict[str, float]
) -> None:
    """Memory that ran out in service once ended the run for good where the ladder had nothing left."""
    climb = begin(STRATEGIES[name], Limits(), PINNABLE, pins=pins, situation=SITUATION)
    run = Run(Policy(max_restarts=max_restarts, max_attempts=1), climb, SITUATION)
    state: State = Ready(replace(run, climbing=0), 0.0)
    now, crashes = 0.0, 0
    while not isinstance(state, (Stopped, ExhaustedEnd)):
        attempt, now = state.run.attempt, now + 0.5
        if isinstance(state, Ready):
            failure, crashes = Failure(kinds[crashes], line="x", numbers=numbers), crashes + 1
            state, _ = advance(state, EngineExited(attempt, 1, failure, Effective()), now)
        elif isinstance(state, Stopping):
            state, _ = advance(state, TreeGone(attempt), now)
            state, _ = advance(state, MemorySettled(attempt, CARD), now)
        elif isinstance(state, Backoff):
            now = state.deadline
            state, _ = advance(state, DeadlineReached(), now)
        else:
            state, _ = advance(state, ProbePassed(attempt, Effective()), now)
    assert state == Stopped(ExitCode.RESTARTS_SPENT)
    assert crashes == max_restarts + 1
