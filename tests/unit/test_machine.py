"""Every (phase, event) pair of the machine has a deliberate outcome; the important paths are told whole."""

from __future__ import annotations

from dataclasses import replace

import pytest

from autolaunch import record
from autolaunch.arguments import given
from autolaunch.case import Limits
from autolaunch.climb import begin
from autolaunch.errors import ExitCode
from autolaunch.events import (
    AwaitDrain,
    AwaitRelease,
    Begun,
    CacheSized,
    CardFreed,
    CauseSeen,
    DeadlineReached,
    Drained,
    Effect,
    EngineEvent,
    EngineExited,
    EngineHung,
    Event,
    Finish,
    Launch,
    LaunchFailed,
    MemorySettled,
    NoteCrash,
    Overslept,
    ProbeFailed,
    ProbePassed,
    Reload,
    ReloadAsked,
    Remember,
    Signal,
    SignalReceived,
    Stirred,
    Tell,
    TreeGone,
)
from autolaunch.facts import Device, DeviceKind, Engine, Situation
from autolaunch.failure import Failure, Kind, Phase
from autolaunch.figures import Effective
from autolaunch.machine import advance
from autolaunch.phases import (
    MOVES,
    Aim,
    Backoff,
    ExhaustedEnd,
    Force,
    Idle,
    Policy,
    Ready,
    Run,
    Starting,
    State,
    Stopped,
    Stopping,
    Suspect,
    ToClimb,
    ToEnd,
    ToRestart,
)
from autolaunch.settings import AUTO, Settings
from autolaunch.strategy import load_strategy

CARD = Device(DeviceKind.CUDA, "card", 24 << 30, 24 << 30, (8, 9))
SITUATION = Situation(CARD, Engine("0.24.0", DeviceKind.CUDA))
POLICY = Policy(url="http://127.0.0.1:8000")
CLIMB = begin(load_strategy("default"), Limits(), Settings(), pins=frozenset(), situation=SITUATION)
RUN = Run(POLICY, CLIMB, SITUATION)

WEIGHTS = Failure(Kind.WEIGHTS_OOM, line="CUDA out of memory", phase=Phase.LOAD)
RUNTIME = Failure(Kind.RUNTIME_OOM, line="CUDA out of memory", phase=Phase.SERVING)
CONFIG = Failure(Kind.CONFIG_ERROR, line="--dtype: invalid choice")
CRASH = Failure(Kind.OTHER_CRASH, line="illegal memory access")
SAID = Effective(max_model_len=131072, available_kv_gib=3.2, kv_cache_tokens=140000, weights_gib=17.56)
SUSPECT = Suspect(WEIGHTS, SAID, 5.0)

NOW = 10.0
IDLE = Idle(RUN)
STARTING = Starting(RUN, 0.0, 4.0)
SUSPICIOUS = replace(STARTING, suspect=replace(SUSPECT, at=9.9))
READY = Ready(RUN, 0.0)
ILL = Ready(RUN, 0.0, Suspect(RUNTIME, SAID, 9.0))


def stopping(aim: Aim, force: Force = Force.POLITE, deadline: float = 30.0) -> Stopping:
    """Return a tree being ended."""
    return Stopping(RUN, aim, force, deadline)


TO_CLIMB = ToClimb(SUSPECT, 5.0)
TO_RESTART = ToRestart(CRASH, 2.0)
TO_END = ToEnd("SIGTERM", ExitCode.STOPPED)
BACKOFF = Backoff(RUN, CRASH, 2.0, 12.0)
ENDED = Stopped(ExitCode.STOPPED)
EXHAUSTED = ExhaustedEnd()

EVENTS: dict[str, Event] = {
    "Begun": Begun(),
    "LaunchFailed": LaunchFailed(1, "no such command"),
    "CardFreed": CardFreed(1),
    "Stirred": Stirred(1),
    "CacheSized": CacheSized(1, SAID),
    "CauseSeen": CauseSeen(1, WEIGHTS, SAID, 9.5),
    "EngineExited": EngineExited(1, 1, WEIGHTS, SAID),
    "ProbePassed": ProbePassed(1, SAID),
    "ProbeFailed": ProbeFailed(1, "HTTP 500", SAID),
    "EngineHung": EngineHung(1, "no answer", SAID),
    "Drained": Drained(1),
    "TreeGone": TreeGone(1),
    "MemorySettled": MemorySettled(1, CARD),
    "ReloadAsked": ReloadAsked(),
    "Overslept": Overslept(7.0),
    "SignalReceived": SignalReceived("SIGINT"),
    "DeadlineReached": DeadlineReached(),
}

POLITE = (Signal(1, Force.POLITE),)
LAUNCH = (Launch(1, CLIMB.settings, "start"),)


def ended(reason: str, code: ExitCode) -> tuple[State, tuple[Effect, ...]]:
    """Return the end with a reason."""
    return Stopped(code), (Tell(record.Ended(reason, code)), Finish(code))


def climbing(failure: Failure, *, at: float = NOW, seconds: float = NOW) -> tuple[State, tuple[Effect, ...]]:
    """Return the stop of a failed start."""
    aim = ToClimb(Suspect(failure, SAID, at), seconds)
    return Stopping(RUN, aim, Force.POLITE, NOW + POLICY.failed_grace_s), POLITE


def asked_to_stop(name: str = "SIGINT", *, grace_s: float = POLICY.stop_grace_s) -> tuple[State, tuple[Effect, ...]]:
    """Return the polite stop that a signal orders."""
    return Stopping(RUN, ToEnd(name, ExitCode.STOPPED), Force.POLITE, NOW + grace_s), POLITE


CAME_UP = Tell(
    record.CameUp(
        1,
        10.0,
        CLIMB.settings,
        {"max_model_len": 131072, "kv_cache_tokens": 140000, "available_kv_gib": 3.2, "weights_gib": 17.56},
        "http://127.0.0.1:8000",
    )
)
CAME_UP_EFFECTS = (CAME_UP, Remember(CLIMB.settings, None, SAID, CARD, 10.0))


def remembered(failure: Failure, *, seconds: float = 5.0, in_service: bool = False) -> Remember:
    """Return the order to keep how a start failed."""
    return Remember(CLIMB.settings, failure, SAID, CARD, seconds, in_service)


PROBE = Failure(Kind.OTHER_CRASH, line="the first request was refused: HTTP 500", phase=Phase.SERVING)
DIED = Stopping(
    replace(RUN, crashes=(NOW,)), ToClimb(Suspect(WEIGHTS, SAID, NOW), 10.0, served=True), Force.POLITE, NOW + 0.4
)
ILL_DIED = replace(DIED, aim=ToClimb(Suspect(RUNTIME, SAID, 9.0), 10.0, served=True))
HUNG = Failure(Kind.OTHER_CRASH, line="the engine hangs: no answer", phase=Phase.SERVING)
HUNG_DIED = replace(DIED, aim=ToRestart(HUNG, 1.0))
RELEASING = stopping(TO_CLIMB, Force.RELEASE)
RESTARTING = stopping(TO_RESTART, Force.RELEASE)

MOVED: dict[tuple[str, str], tuple[State, tuple[Effect, ...]]] = {
    ("IDLE", "Begun"): (Starting(RUN, NOW, NOW), LAUNCH),
    ("IDLE", "SignalReceived"): ended("SIGINT", ExitCode.STOPPED),
    ("STARTING", "LaunchFailed"): ended("no such command", ExitCode.HOST_AT_FAULT),
    ("STARTING", "CardFreed"): (Starting(RUN, NOW, NOW), LAUNCH),
    ("SUSPICIOUS", "CardFreed"): (Starting(RUN, NOW, NOW), LAUNCH),
    ("STARTING", "Stirred"): (replace(STARTING, stirred=NOW), ()),
    ("STARTING", "CauseSeen"): (replace(STARTING, suspect=Suspect(WEIGHTS, SAID, 9.5)), ()),
    ("STARTING", "EngineExited"): climbing(WEIGHTS),
    ("STARTING", "ProbePassed"): (Ready(replace(RUN, climbing=0), NOW), CAME_UP_EFFECTS),
    ("STARTING", "ProbeFailed"): climbing(PROBE),
    ("STARTING", "SignalReceived"): asked_to_stop(grace_s=POLICY.start_grace_s),
    ("SUSPICIOUS", "LaunchFailed"): ended("no such command", ExitCode.HOST_AT_FAULT),
    ("SUSPICIOUS", "Stirred"): (replace(SUSPICIOUS, stirred=NOW), ()),
    ("SUSPICIOUS", "CauseSeen"): (SUSPICIOUS, ()),
    ("SUSPICIOUS", "EngineExited"): climbing(WEIGHTS, at=9.9),
    ("SUSPICIOUS", "ProbeFailed"): climbing(WEIGHTS, at=9.9),
    ("SUSPICIOUS", "SignalReceived"): asked_to_stop(grace_s=POLICY.start_grace_s),
    ("READY", "CauseSeen"): (replace(READY, suspect=Suspect(WEIGHTS, SAID, 9.5)), ()),
    ("READY", "EngineExited"): (DIED, (NoteCrash(), Tell(record.Crashed(WEIGHTS, 0.0)), *POLITE)),
    ("READY", "EngineHung"): (HUNG_DIED, (NoteCrash(), Tell(record.Crashed(HUNG, 1.0)), *POLITE)),
    ("ILL", "EngineHung"): (ILL_DIED, (NoteCrash(), Tell(record.Crashed(RUNTIME, 0.0)), *POLITE)),
    ("READY", "SignalReceived"): asked_to_stop(),
    ("ILL", "EngineExited"): (ILL_DIED, (NoteCrash(), Tell(record.Crashed(RUNTIME, 0.0)), *POLITE)),
    ("ILL", "SignalReceived"): asked_to_stop(),
    ("STOP_CLIMB", "EngineExited"): (stopping(TO_CLIMB, deadline=NOW + 0.4), ()),
    ("STOP_CLIMB", "TreeGone"): (
        replace(RELEASING, deadline=NOW + POLICY.kill_wait_s),
        (Tell(record.Failed(1, 5.0, 5.0, WEIGHTS)), remembered(WEIGHTS), AwaitRelease(1)),
    ),
    ("STOP_CLIMB", "SignalReceived"): (stopping(ToEnd("SIGINT", ExitCode.STOPPED)), ()),
    ("STOP_RESTART", "EngineExited"): (stopping(TO_RESTART, deadline=NOW + 0.4), ()),
    ("STOP_RESTART", "TreeGone"): (replace(RESTARTING, deadline=NOW + POLICY.kill_wait_s), (AwaitRelease(1),)),
    ("STOP_RESTART", "SignalReceived"): (stopping(ToEnd("SIGINT", ExitCode.STOPPED)), ()),
    ("STOP_END", "EngineExited"): (stopping(TO_END, deadline=NOW + 0.4), ()),
    ("STOP_END", "LaunchFailed"): ended("SIGTERM", ExitCode.STOPPED),
    ("STOP_END", "TreeGone"): ended("SIGTERM", ExitCode.STOPPED),
    ("STOP_END", "SignalReceived"): (
        stopping(TO_END, Force.KILL, NOW + POLICY.kill_wait_s),
        (Signal(1, Force.KILL),),
    ),
    ("KILLING", "LaunchFailed"): ended("SIGTERM", ExitCode.STOPPED),
    ("KILLING", "TreeGone"): ended("SIGTERM", ExitCode.STOPPED),
    ("RELEASING", "SignalReceived"): ended("SIGINT", ExitCode.STOPPED),
    ("RESTARTING", "MemorySettled"): (Backoff(RUN, CRASH, 2.0, NOW + 2.0), ()),
    ("RESTARTING", "SignalReceived"): ended("SIGINT", ExitCode.STOPPED),
    ("RESTARTING", "TreeGone"): (replace(RESTARTING, deadline=NOW + POLICY.kill_wait_s), (AwaitRelease(1),)),
    ("BACKOFF", "SignalReceived"): ended("SIGINT", ExitCode.STOPPED),
    ("STARTING", "Overslept"): (replace(STARTING, stirred=11.0, absent_s=7.0), ()),
    ("SUSPICIOUS", "Overslept"): (replace(SUSPICIOUS, stirred=11.0, absent_s=7.0), ()),
    ("STOP_CLIMB", "Overslept"): (stopping(TO_CLIMB, deadline=37.0), ()),
    ("STOP_RESTART", "Overslept"): (stopping(TO_RESTART, deadline=37.0), ()),
    ("STOP_END", "Overslept"): (stopping(TO_END, deadline=37.0), ()),
    ("KILLING", "Overslept"): (stopping(TO_END, Force.KILL, 37.0), ()),
    ("RELEASING", "Overslept"): (replace(RELEASING, deadline=37.0), ()),
    ("RESTARTING", "Overslept"): (replace(RESTARTING, deadline=37.0), ()),
}
"""What each pair does at NOW; a pair that is not here changes nothing. The ladder's own steps are told below."""

STATES: dict[str, State] = {
    "IDLE": IDLE,
    "STARTING": STARTING,
    "SUSPICIOUS": SUSPICIOUS,
    "READY": READY,
    "ILL": ILL,
    "STOP_CLIMB": stopping(TO_CLIMB),
    "STOP_RESTART": stopping(TO_RESTART),
    "STOP_END": stopping(TO_END),
    "KILLING": stopping(TO_END, Force.KILL),
    "RELEASING": RELEASING,
    "RESTARTING": RESTARTING,
    "BACKOFF": BACKOFF,
    "ENDED": ENDED,
    "EXHAUSTED": EXHAUSTED,
}
TOLD_BELOW = {("RELEASING", "MemorySettled"), ("RELEASING", "TreeGone")}


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("event", EVENTS)
def test_every_pair_of_phase_and_event_has_its_outcome(state: str, event: str) -> None:
    if (state, event) in TOLD_BELOW:
        return
    reloads = event == "ReloadAsked" and state not in ("ENDED", "EXHAUSTED")
    nothing = (STATES[state], (Reload(),) if reloads else ())
    assert advance(STATES[state], EVENTS[event], NOW) == MOVED.get((state, event), nothing)


def test_no_expectation_names_a_pair_that_does_not_exist() -> None:
    assert {state for state, _ in MOVED} <= set(STATES)
    assert {event for _, event in MOVED} <= set(EVENTS)


def test_every_move_of_the_table_is_made_by_some_expectation_or_story() -> None:
    made = {(type(STATES[s]).__name__, type(after).__name__) for (s, _), (after, _) in MOVED.items()}
    made |= {("Stopping", "Starting"), ("Stopping", "ExhaustedEnd"), ("Backoff", "Starting")}  # stories below
    allowed = {(before, after) for before, afters in MOVES.items() for after in afters}
    assert {(before, after) for before, after in made if before != after} == allowed


@pytest.mark.parametrize("name", ["LaunchFailed", "CauseSeen", "EngineExited", "ProbePassed", "TreeGone", "CacheSized"])
@pytest.mark.parametrize("state", STATES)
def test_an_event_of_an_earlier_attempt_is_dropped(state: str, name: str) -> None:
    event = EVENTS[name]
    assert isinstance(event, EngineEvent)
    event = replace(event, attempt=0)
    assert advance(STATES[state], event, NOW) == (STATES[state], ())


@pytest.mark.parametrize("state", STATES)
def test_a_deadline_that_is_not_due_changes_nothing(state: str) -> None:
    due = STATES[state].deadline
    early = NOW if due is None else due - 0.001
    assert advance(STATES[state], DeadlineReached(), early) == (STATES[state], ())


# Deadlines


def test_a_suspect_is_acted_upon_after_its_settle() -> None:
    after, effects = advance(SUSPICIOUS, DeadlineReached(), 10.15)
    assert after == Stopping(RUN, ToClimb(Suspect(WEIGHTS, SAID, 9.9), 10.15), Force.POLITE, 10.15 + 0.4)
    assert effects == POLITE


def test_a_cause_that_is_settled_keeps_the_time_of_the_first_sight() -> None:
    later = Failure(Kind.KV_NONE, line="earlier in another rank's log")
    state, _ = advance(SUSPICIOUS, CauseSeen(1, later, SAID, 10.0), NOW)
    assert state == replace(SUSPICIOUS, suspect=Suspect(later, SAID, 9.9))


def test_a_start_that_takes_too_long_fails_with_both_numbers() -> None:
    state = replace(STARTING, run=replace(RUN, policy=replace(POLICY, start_timeout_s=60)), stirred=59.0)
    after, _ = advance(state, DeadlineReached(), 60.0)
    assert isinstance(after, Stopping)
    assert isinstance(after.aim, ToClimb)
    assert after.aim.suspect.failure == Failure(Kind.UNKNOWN, line="not ready after 60 s (start timeout 60 s)")


def test_a_start_that_is_silent_and_idle_is_stalled() -> None:
    after, _ = advance(STARTING, DeadlineReached(), 304.0)
    assert isinstance(after, Stopping)
    assert isinstance(after.aim, ToClimb)
    line = "no output, no processor time and no data moved for 300 s (stall timeout 300 s)"
    assert after.aim.suspect == Suspect(Failure(Kind.UNKNOWN, line=line), Effective(), 304.0)


def test_a_time_in_which_nobody_looked_is_no_stall_and_no_late_start() -> None:
    """A supervisor that was stopped found its deadlines passed when it woke up, and ended a healthy engine."""
    late = STARTING.stirred + POLICY.stall_timeout_s + 1
    (stalled, _), (awake, _) = advance(STARTING, DeadlineReached(), late), advance(STARTING, Overslept(2.0), late)
    assert isinstance(stalled, Stopping)
    assert advance(awake, DeadlineReached(), late) == (awake, ())
    assert isinstance(advance(awake, DeadlineReached(), late + 1)[0], Stopping)
    busy = replace(STARTING, stirred=POLICY.start_timeout_s)
    awake, _ = advance(busy, Overslept(2.0), POLICY.start_timeout_s + 2)
    assert awake.deadline == POLICY.start_timeout_s + 2
    after, _ = advance(awake, ProbePassed(1, SAID), POLICY.start_timeout_s + 3)
    assert isinstance(after, Ready)


def test_grace_over_is_sigkill_and_then_the_hosts_fault() -> None:
    killing, effects = advance(stopping(TO_CLIMB, deadline=NOW), DeadlineReached(), NOW)
    assert killing == stopping(TO_CLIMB, Force.KILL, NOW + POLICY.kill_wait_s)
    assert effects == (Signal(1, Force.KILL),)
    reason = "the engine's processes could not be ended with SIGKILL"
    assert advance(killing, DeadlineReached(), 30.0) == ended(reason, ExitCode.HOST_AT_FAULT)


def test_processes_that_outlive_sigkill_end_the_run_and_are_named() -> None:
    reason = "processes outlived SIGKILL: 12, 13"
    state = stopping(TO_CLIMB, Force.KILL)
    assert advance(state, TreeGone(1, (12, 13)), NOW) == ended(reason, ExitCode.HOST_AT_FAULT)


def test_a_container_that_could_not_be_ended_ends_the_run_with_the_words_for_it() -> None:
    reason = "the engine's container 0123 could not be ended (docker did not answer within 10 s)"
    for state in (stopping(TO_CLIMB, Force.KILL), stopping(TO_END, Force.POLITE)):
        assert advance(state, TreeGone(1, left=reason), NOW) == ended(reason, ExitCode.HOST_AT_FAULT)


def test_the_leaders_exit_does_not_hurry_a_killed_tree() -> None:
    """A worker of a killed engine may take seconds to be unmapped; 0.4 s ended the run as the host's fault."""
    state = stopping(TO_CLIMB, Force.KILL)
    assert advance(state, EVENTS["EngineExited"], NOW) == (state, ())
    assert advance(RELEASING, EVENTS["EngineExited"], NOW) == (RELEASING, ())


def test_a_crash_suspected_in_service_is_acted_upon_after_the_longer_settle() -> None:
    after, effects = advance(ILL, DeadlineReached(), 12.0)
    assert after == Stopping(
        replace(RUN, crashes=(12.0,)),
        ToClimb(Suspect(RUNTIME, SAID, 9.0), 12.0, served=True),
        Force.POLITE,
        12.4,
    )
    assert effects == (NoteCrash(), Tell(record.Crashed(RUNTIME, 0.0)), *POLITE)


# Verdicts


def test_an_exit_with_0_before_readiness_is_a_failure() -> None:
    after, _ = advance(STARTING, EngineExited(1, 0, Failure(Kind.OK), SAID), NOW)
    assert isinstance(after, Stopping)
    assert isinstance(after.aim, ToClimb)
    line = "the engine exited with 0 before it was ready and named no cause"
    assert after.aim.suspect.failure == Failure(Kind.UNKNOWN, line=line)


def test_a_failed_request_that_is_no_memory_failure_is_not_the_engines_end() -> None:
    assert advance(READY, CauseSeen(1, CRASH, SAID, 9.5), NOW) == (READY, ())


def test_a_crash_in_service_restarts_with_the_same_settings_after_a_wait() -> None:
    state, effects = advance(READY, EngineExited(1, -6, CRASH, SAID), NOW)
    assert state == Stopping(replace(RUN, crashes=(NOW,)), ToRestart(CRASH, 1.0), Force.POLITE, NOW + 0.4)
    assert effects == (NoteCrash(), Tell(record.Crashed(CRASH, 1.0)), *POLITE)
    state, effects = advance(state, TreeGone(1), 10.1)
    assert effects == (AwaitRelease(1),)
    state, effects = advance(state, MemorySettled(1, CARD), 10.5)
    assert (state.deadline, effects) == (11.5, ())
    state, effects = advance(state, DeadlineReached(), 11.5)
    assert effects == (Tell(record.Restarting(CRASH, 1.0)), Launch(2, CLIMB.settings, "start"))
    assert state == Starting(replace(RUN, attempt=2, climbing=1, crashes=(NOW,)), 11.5, 11.5)


def test_every_further_crash_waits_twice_as_long_up_to_a_bound() -> None:
    waits = []
    for crashes in range(5):
        state = replace(READY, run=replace(RUN, crashes=tuple(float(n) for n in range(crashes))))
        after, _ = advance(state, EngineExited(1, 1, CRASH, SAID), NOW)
        assert isinstance(after, Stopping)
        assert isinstance(after.aim, ToRestart)
        waits.append(after.aim.wait_s)
    assert waits == [1.0, 2.0, 4.0, 8.0, 16.0]


def test_too_many_crashes_within_the_window_spend_the_restarts() -> None:
    state = replace(READY, run=replace(RUN, crashes=(1.0, 2.0, 3.0, 4.0, 5.0)))
    after, effects = advance(state, EngineExited(1, 1, CRASH, SAID), NOW)
    assert isinstance(after, Stopping)
    assert after.aim == ToEnd("6 crashes within 600 s", ExitCode.RESTARTS_SPENT)
    assert effects == (NoteCrash(), Tell(record.Crashed(CRASH, 0.0)), *POLITE)
    assert advance(after, TreeGone(1), NOW) == ended("6 crashes within 600 s", ExitCode.RESTARTS_SPENT)


def test_memory_that_ran_out_once_too_often_is_remembered_although_the_run_ends() -> None:
    state = replace(READY, run=replace(RUN, crashes=(5.0, 6.0, 7.0, 8.0, 9.0)))
    _, effects = advance(state, EngineExited(1, 1, RUNTIME, SAID), NOW)
    assert effects == (
        NoteCrash(),
        Tell(record.Crashed(RUNTIME, 0.0)),
        remembered(RUNTIME, seconds=NOW, in_service=True),
        *POLITE,
    )


def test_where_the_card_shares_the_hosts_memory_no_start_follows_unasked() -> None:
    state = replace(RELEASING, run=replace(RUN, policy=replace(POLICY, retries=False)))
    after, effects = advance(state, MemorySettled(1, CARD), NOW)
    assert after == ExhaustedEnd()
    assert effects[0] == Tell(
        record.Gave(
            "this card shares the host's memory, and another start that overcommits it can hang the host",
            ("ask for more starts with --max-attempts; the next would be quantized_weights: "
             "quantization (engine default) -> fp8",),
            stops_short=True,
        )
    )  # fmt: skip


DRAINING = stopping(TO_END, Force.DRAIN)


def test_an_engine_that_serves_gets_time_to_finish_its_requests() -> None:
    state = replace(READY, run=replace(RUN, policy=replace(POLICY, drain_s=30.0)))
    after, effects = advance(state, SignalReceived("SIGTERM"), NOW)
    assert after == Stopping(state.run, TO_END, Force.DRAIN, NOW + 30.0)
    assert effects == (AwaitDrain(1),)


@pytest.mark.parametrize("event", [Drained(1), DeadlineReached()])
def test_a_drained_engine_and_one_that_takes_too_long_are_asked_to_end(event: Event) -> None:
    after, effects = advance(replace(DRAINING, deadline=NOW), event, NOW)
    assert (after, effects) == (stopping(TO_END, deadline=NOW + POLICY.stop_grace_s), POLITE)


def test_a_second_signal_skips_the_drain_and_the_grace() -> None:
    after, effects = advance(DRAINING, SignalReceived("SIGINT"), NOW)
    assert (after, effects) == (stopping(TO_END, Force.KILL, NOW + POLICY.kill_wait_s), (Signal(1, Force.KILL),))


def test_an_engine_that_dies_while_it_drains_is_gone() -> None:
    assert advance(DRAINING, TreeGone(1), NOW) == ended("SIGTERM", ExitCode.STOPPED)
    assert advance(stopping(TO_CLIMB), Drained(1), NOW) == (stopping(TO_CLIMB), ())


def test_crashes_before_the_window_are_forgotten() -> None:
    state = replace(READY, run=replace(RUN, crashes=(1.0, 2.0, 3.0, 4.0, 5.0)))
    after, _ = advance(state, EngineExited(1, 1, CRASH, SAID), 700.0)
    assert isinstance(after, Stopping)
    assert after.run.crashes == (700.0,)
    assert after.aim == ToRestart(CRASH, 1.0)


def test_a_wish_to_stop_beats_spent_restarts() -> None:
    state = stopping(ToEnd("6 crashes within 600 s", ExitCode.RESTARTS_SPENT))
    after, effects = advance(state, SignalReceived("SIGTERM"), NOW)
    assert (after, effects) == (stopping(TO_END), ())


def test_check_stops_what_came_up_and_ends_with_0() -> None:
    state = replace(STARTING, run=replace(RUN, policy=replace(POLICY, check=True)))
    after, effects = advance(state, EVENTS["ProbePassed"], NOW)
    assert isinstance(after, Stopping)
    assert after.aim == ToEnd("check", ExitCode.STOPPED)
    assert effects == (*CAME_UP_EFFECTS, *POLITE)


# The climb


def test_a_failed_start_is_followed_by_the_ladders_step_once_memory_is_back() -> None:
    state, effects = advance(RELEASING, MemorySettled(1, CARD), NOW)
    assert isinstance(state, Starting)
    settings = CLIMB.settings.changed(quantization="fp8")
    assert (state.run.attempt, state.run.climbing, state.run.climb.settings) == (2, 2, settings)
    told, launch = effects
    assert isinstance(told, Tell)
    assert isinstance(told.event, record.Stepped)
    assert told.event.fields() == {
        "rung": "quantized_weights",
        "why": "about half the weight bytes, native FP8 on this card",
        "from": {"quantization": None},
        "to": {"quantization": "fp8"},
    }
    assert launch == Launch(2, settings, "quantized_weights", 2)


def test_the_climb_goes_on_with_the_last_measurement_if_nobody_tells_about_the_memory() -> None:
    state, effects = advance(RELEASING, DeadlineReached(), 30.0)
    assert isinstance(state, Starting)
    assert isinstance(effects[-1], Launch)


def test_what_is_measured_after_a_failed_start_is_kept_for_the_next_decision() -> None:
    full = replace(CARD, free_bytes=4 << 30)
    state, _ = advance(RELEASING, MemorySettled(1, full), NOW)
    assert isinstance(state, Starting)
    assert state.run.situation.device == full


def test_a_ladder_without_an_answer_ends_with_3_and_what_would_help() -> None:
    pinned = Settings(quantization="awq")
    climb = begin(
        load_strategy("default"), Limits(), pinned, pins=frozenset({"quantization", "model"}), situation=SITUATION
    )
    state = replace(RELEASING, run=replace(RUN, climb=climb))
    after, effects = advance(state, MemorySettled(1, CARD), NOW)
    assert after == ExhaustedEnd(ExitCode.NOTHING_FITS)
    gave = record.Gave(
        "every rung of the strategy 'default' that answers weights_oom has been used",
        ("use a card with more memory, or allow more cards with --gpus",),
    )
    assert effects == (
        Tell(gave),
        Tell(record.Ended("exhausted", ExitCode.NOTHING_FITS)),
        Finish(ExitCode.NOTHING_FITS),
    )


def test_used_up_attempts_end_with_3_and_name_the_next_step() -> None:
    state = replace(RELEASING, run=replace(RUN, climbing=2, policy=replace(POLICY, max_attempts=2)))
    after, effects = advance(state, MemorySettled(1, CARD), NOW)
    assert after == ExhaustedEnd()
    assert effects[0] == Tell(
        record.Gave(
            "2 of at most 2 attempts are used",
            (
                "allow more with --max-attempts; the next would be quantized_weights: "
                "quantization (engine default) -> fp8",
            ),
            stops_short=True,
        )
    )


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (CONFIG, ExitCode.ENGINE_FAILED),
        (Failure(Kind.MODEL_NOT_FOUND, line="no such repository"), ExitCode.USAGE),
        (Failure(Kind.PORT_IN_USE, line="address already in use"), ExitCode.HOST_AT_FAULT),
        (Failure(Kind.HARDWARE_UNSUPPORTED, line="compute capability 6.1"), ExitCode.ENGINE_FAILED),
        (Failure(Kind.DISTRIBUTED_ERROR, line="NCCL"), ExitCode.ENGINE_FAILED),
        (Failure(Kind.OTHER_CRASH, line="boom"), ExitCode.ENGINE_FAILED),
        (Failure(Kind.UNKNOWN, line="?"), ExitCode.ENGINE_FAILED),
    ],
    ids=lambda value: str(getattr(value, "kind", value)),
)
def test_what_no_rung_answers_ends_at_once_without_waiting_for_memory(failure: Failure, code: ExitCode) -> None:
    state = stopping(ToClimb(Suspect(failure, SAID, 5.0), 5.0))
    after, effects = advance(state, TreeGone(1), NOW)
    assert after == Stopped(code)
    assert effects == (
        Tell(record.Failed(1, 5.0, 5.0, failure)),
        remembered(failure),
        Tell(record.Ended(str(failure.kind), code)),
        Finish(code),
    )


def test_a_configuration_error_about_an_option_of_the_users_is_the_users() -> None:
    state = stopping(ToClimb(Suspect(CONFIG, SAID, 5.0), 5.0))
    state = replace(state, run=replace(RUN, policy=replace(POLICY, options=given(["--dtype", "x"]))))
    assert advance(state, TreeGone(1), NOW)[0] == Stopped(ExitCode.USAGE)


def test_a_word_that_only_contains_the_option_is_not_the_users_fault() -> None:
    failure = Failure(Kind.CONFIG_ERROR, line="cannot proceed")
    state = stopping(ToClimb(Suspect(failure, SAID, 5.0), 5.0))
    state = replace(state, run=replace(RUN, policy=replace(POLICY, options=given(["--seed", "1", "--proc"]))))
    assert advance(state, TreeGone(1), NOW)[0] == Stopped(ExitCode.ENGINE_FAILED)


def test_host_memory_ends_with_3_and_no_step() -> None:
    state = stopping(ToClimb(Suspect(Failure(Kind.HOST_OOM, line="killed"), SAID, 5.0), 5.0))
    after, effects = advance(state, TreeGone(1), NOW)
    assert after == ExhaustedEnd()
    assert effects[2] == Tell(
        record.Gave(
            "the host's own memory ran out; no setting of the engine's device memory changes that",
            ("give the host (or its container) more memory, or stop what uses it",),
        )
    )


def test_an_engine_that_fits_too_little_by_itself_is_stopped_at_its_cache_line() -> None:
    climb = replace(CLIMB, strategy=load_strategy("keep-context"), settings=Settings(max_model_len=AUTO))
    state = replace(STARTING, run=replace(RUN, climb=climb))
    little = Effective(max_model_len=2000, auto_fit_from=131072, available_kv_gib=0.08)
    after, effects = advance(state, CacheSized(1, little), NOW)
    assert isinstance(after, Stopping)
    assert isinstance(after.aim, ToClimb)
    assert after.aim.suspect.failure.kind is Kind.KV_TOO_SMALL
    assert effects == POLITE


def test_an_engine_that_fits_what_the_context_rung_would_set_is_left_to_come_up() -> None:
    climb = replace(CLIMB, settings=Settings(max_model_len=AUTO, gpu_memory_utilization=0.95))
    state = replace(STARTING, run=replace(RUN, climb=climb))
    enough = Effective(max_model_len=70624, auto_fit_from=131072, available_kv_gib=2.69)
    assert advance(state, CacheSized(1, enough), NOW) == (state, ())


def test_memory_that_runs_out_in_service_climbs_without_a_failed_line() -> None:
    state = Stopping(RUN, ToClimb(Suspect(RUNTIME, SAID, 9.0), 100.0, served=True), Force.POLITE, 30.0)
    after, effects = advance(state, TreeGone(1), NOW)
    assert effects == (remembered(RUNTIME, seconds=100.0, in_service=True), AwaitRelease(1))
    after, effects = advance(after, MemorySettled(1, CARD), NOW)
    assert isinstance(after, Starting)
    assert after.run.climb.rung == "utilization"
