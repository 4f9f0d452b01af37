"""What operators are told: one value that grows with every event, and watchers that can never hurt the run."""

from __future__ import annotations

from dataclasses import replace

import pytest

from autolaunch import phases, record
from autolaunch.case import Limits
from autolaunch.climb import begin
from autolaunch.errors import ExitCode
from autolaunch.facts import Device, DeviceKind, Engine, Situation
from autolaunch.failure import Failure, Kind, Phase
from autolaunch.figures import Effective
from autolaunch.settings import AUTO, Change, Settings
from autolaunch.status import MOST_KEPT, Past, Status, moved, stepped, told, waited
from autolaunch.strategy import load_strategy
from autolaunch.verdict import died_in_service, hung
from autolaunch.watching import Watch

FIRST = Status(run="r", model="glm", max_attempts=6, url="http://127.0.0.1:8000", since=1.0)
NUMBERS = {"max_seq_len": 131072, "needed_kv_gib": 5.0, "available_kv_gib": 2.69, "estimated_max_len": 70624}
FAILURE = Failure(Kind.KV_TOO_SMALL, line="To serve at least one request", numbers=NUMBERS)
STEP = record.Stepped("context", "70624 fit", (Change("max_model_len", 131072, 70624),))
SHORT = Settings(max_model_len=70624)
SITUATION = Situation(Device(DeviceKind.CUDA), Engine("0.24.0"))
CLIMB = begin(load_strategy("default"), Limits(), Settings(), pins=frozenset(), situation=SITUATION)
RUN = phases.Run(phases.Policy(), CLIMB, SITUATION)


def story(*events: record.Event) -> Status:
    """Return the status after some events, one second apart."""
    status = FIRST
    for second, event in enumerate(events):
        status = told(status, event, 10.0 + second)
    return status


CLIMBED = (
    record.Planned(Settings(max_model_len=AUTO), {"total_bytes": 1}, {"total_bytes": "exact"}, ("it fits",)),
    record.Attempted(1, "start", ("vllm",), Settings(), 1),
    record.Failed(1, 61.0, 0.7, FAILURE),
    STEP,
    record.Attempted(2, "context", ("vllm",), SHORT, 2),
)


def test_a_climb_is_told_as_it_went() -> None:
    status = story(*CLIMBED)
    assert (status.attempt, status.rung, status.settings) == (2, "context", SHORT)
    assert (status.budget, status.basis, status.why) == ({"total_bytes": 1}, {"total_bytes": "exact"}, ("70624 fit",))
    assert status.failures == {"kv_too_small": 1}
    assert status.past == (
        Past(12.0, "failed", 1, "kv_too_small", "131072 tokens need 5.00 GiB of KV cache, 2.69 GiB are there; 70624 "
             "tokens fit", "To serve at least one request", 61.0),
        Past(13.0, "step", 2, "", "context: max_model_len 131072 -> 70624", "70624 fit"),
    )  # fmt: skip
    assert not status.came_up


def test_one_line_says_what_an_operator_wants_to_know() -> None:
    starting = replace(story(*CLIMBED), phase="starting")
    assert starting.line == "attempt 2 of at most 6: kv_too_small, context: max_model_len 131072 -> 70624"
    first = replace(story(*CLIMBED[:2]), phase="starting")
    assert first.line == "attempt 1 of at most 6: first start"
    assert stepped(first, Phase.LOAD).line == f"attempt 1 of at most 6: {Phase.LOAD.value}"
    up = told(starting, record.CameUp(2, 48.0, SHORT, {"max_model_len": 70624}, "http://h:1"), 20.0)
    assert replace(up, phase="ready").line == "serving glm at http://h:1, context 70624 tokens"
    crash = told(up, record.Crashed(Failure(Kind.OTHER_CRASH), 2.0), 30.0)
    assert replace(crash, phase="backoff").line == "waiting to start again after other_crash"
    ended = told(up, record.Ended("SIGTERM", ExitCode.STOPPED), 40.0)
    assert replace(ended, phase="stopped").line == "stopped (SIGTERM), exit code 0"
    spent = told(
        told(up, record.Gave("a and b do not fit", ("c",)), 40.0), record.Ended("exhausted", ExitCode(3)), 41.0
    )
    assert replace(spent, phase="exhausted").line == "exhausted (a and b do not fit), exit code 3"
    assert replace(up, phase="exhausted").line == "exhausted", "the moment before it is said why"


def test_a_wait_has_words_until_something_else_is_told() -> None:
    waiting = waited(FIRST, "  2 GiB are held\nby x  ")
    assert waiting.line == "2 GiB are held by x"
    assert replace(waiting, phase="starting").line == "2 GiB are held by x"
    assert told(waiting, CLIMBED[0], 2.0).line == "planning"
    assert told(replace(waiting, phase="starting"), CLIMBED[1], 2.0).line == "attempt 1 of at most 6: first start"
    assert moved(replace(waiting, phase="starting"), phases.Stopped(ExitCode.STOPPED), 2.0).waits == ""


def test_an_error_before_the_run_is_told_to_those_who_watch() -> None:
    watcher = Note()
    watch = Watch(FIRST, (watcher,), lambda _: None)
    watch.waits("looking")
    assert watch.status.line == "looking"
    watch.refused("--memory needs the card's size", ExitCode.HOST_AT_FAULT)
    assert watch.status.line == "nothing was started: --memory needs the card's size, exit code 5"
    assert len(watcher.shown) == 2


def test_coming_up_crashing_and_restarting_are_counted() -> None:
    up = record.CameUp(2, 48.0, SHORT, {"max_model_len": 70624}, "http://h:1")
    crash = record.Crashed(Failure(Kind.RUNTIME_OOM), 2.0)
    again = record.Attempted(3, "context", ("vllm",), SHORT, 1)
    status = story(*CLIMBED, up, crash, record.Restarting(Failure(Kind.RUNTIME_OOM), 2.0), again, up)
    assert (status.restarts, status.failures) == (1, {"kv_too_small": 1, "runtime_oom": 1})
    assert (status.ready_at, status.ready_seconds, status.came_up) == (19.0, 48.0, True)
    assert status.last_failure is not None
    assert status.last_failure.kind == "runtime_oom"


UP = record.CameUp(2, 48.0, SHORT, {"max_model_len": 70624}, "http://h:1")


def attempt(n: int, climbing: int) -> record.Attempted:
    return record.Attempted(n, "context", ("vllm",), SHORT, climbing)


def test_a_step_down_after_memory_ran_out_in_service_is_a_restart_and_a_climb_is_none() -> None:
    """autolaunch_restarts_total once missed every start that followed a runtime OOM: no wait is told before it."""
    ran_out = record.Crashed(Failure(Kind.RUNTIME_OOM), 0.0)
    assert story(*CLIMBED, UP, ran_out, STEP, attempt(3, 1)).restarts == 1
    assert (
        story(*CLIMBED, UP, ran_out, STEP, attempt(3, 1), record.Failed(3, 1.0, 0.1, FAILURE), attempt(4, 2)).restarts
        == 1
    )
    assert story(*CLIMBED).restarts == 0


@pytest.mark.parametrize(
    ("failure", "death"),
    [
        (Failure(Kind.OTHER_CRASH, line="KeyError: 'x'"), "crash"),
        (Failure(Kind.UNKNOWN, line="the engine exited with 1 in service and named no cause"), "crash"),
        (Failure(Kind.OTHER_CRASH, line="Engine core proc EngineCore_DP0 died unexpectedly"), "engine_dead"),
        (Failure(Kind.OTHER_CRASH, line="vllm.v1.engine.exceptions.EngineDeadError: EngineCore"), "engine_dead"),
        (hung("no work and no answer for 180 s: HTTP 500"), "hang"),
        (died_in_service(Failure(Kind.HOST_OOM), -9), "killed"),
        (Failure(Kind.RUNTIME_OOM, line="CUDA out of memory"), "memory"),
    ],
)
def test_how_an_engine_in_service_ended_is_counted(failure: Failure, death: str) -> None:
    status = story(*CLIMBED, UP, record.Crashed(failure, 1.0))
    assert status.deaths == {death: 1}
    assert status.past[-1].death == death


def test_after_a_crash_the_line_counts_the_climb_and_names_no_step_of_an_earlier_one() -> None:
    """It once said "attempt 3 of at most 2: unknown, utilization: ...": an old step beside a new crash."""
    crash = record.Crashed(Failure(Kind.OTHER_CRASH, line="x"), 1.0)
    again = replace(story(*CLIMBED, UP, crash, attempt(3, 1)), phase="starting")
    assert again.line == "attempt 3, 1 of at most 6 since it last served: starting again after other_crash"
    climbed = story(*CLIMBED, UP, crash, attempt(3, 1), record.Failed(3, 1.0, 0.1, FAILURE), STEP, attempt(4, 2))
    assert replace(climbed, phase="starting").line == (
        "attempt 4, 2 of at most 6 since it last served: kv_too_small, context: max_model_len 131072 -> 70624"
    )
    first = story(CLIMBED[0], CLIMBED[1], UP, crash, attempt(2, 1))
    assert replace(first, phase="starting").line == (
        "attempt 2, 1 of at most 6 since it last served: starting again after other_crash"
    )


def test_the_same_settings_again_are_said_so() -> None:
    ran_out = record.Crashed(Failure(Kind.RUNTIME_OOM), 0.0)
    same = record.Stepped("again", "nothing is safer: the same settings again", (), ("allow less",))
    status = replace(story(*CLIMBED, UP, ran_out, same, attempt(3, 1)), phase="starting")
    assert status.line == ("attempt 3, 1 of at most 6 since it last served: runtime_oom, the same settings again")
    assert status.why == ("70624 fit",), "it is still true of them"


@pytest.mark.parametrize(
    ("aim", "line"),
    [
        (phases.ToRestart(Failure(Kind.OTHER_CRASH), 1.0), "clearing up after other_crash"),
        (phases.ToClimb(phases.Suspect(Failure(Kind.KV_NONE), Effective(), 1.0), 1.0), "clearing up after kv_none"),
        (phases.ToEnd("SIGTERM", ExitCode.STOPPED), "stopping"),
    ],
)
def test_what_a_dead_engine_leaves_is_cleared_and_only_a_service_is_stopped(aim: phases.Aim, line: str) -> None:
    assert moved(FIRST, phases.Stopping(RUN, aim, phases.Force.POLITE, 9.0), 5.0).line == line


def test_the_end_says_its_code_and_what_would_have_helped() -> None:
    status = story(record.Gave("nothing fits", ("a larger card",)), record.Ended("exhausted", ExitCode.NOTHING_FITS))
    assert (status.why, status.exit_code) == (("nothing fits", "a larger card"), 3)


def test_a_run_of_months_keeps_the_newest_only() -> None:
    crash = record.Crashed(Failure(Kind.OTHER_CRASH, line="x"), 1.0)
    status = story(*[crash] * (MOST_KEPT + 5))
    assert len(status.past) == MOST_KEPT
    assert status.failures == {"other_crash": MOST_KEPT + 5}


@pytest.mark.parametrize(
    ("state", "phase"),
    [
        (phases.Stopped(ExitCode.STOPPED), "stopped"),
        (phases.ExhaustedEnd(), "exhausted"),
    ],
)
def test_a_phase_is_the_machines(state: phases.State, phase: str) -> None:
    status = moved(FIRST, state, 50.0)
    assert (status.phase, status.since) == (phase, 50.0)
    assert moved(status, state, 60.0) is status


def test_a_sign_of_work_shows_while_a_start_goes_on_and_is_kept_behind_it() -> None:
    begun = moved(FIRST, phases.Starting(RUN, 1.0, 2.0), 50.0)
    assert (begun.phase, begun.since, begun.stirred) == ("starting", 50.0, 2.0)
    worked = moved(stepped(begun, Phase.LOAD), phases.Starting(RUN, 1.0, 9.0), 60.0)
    assert (worked.since, worked.step, worked.stirred) == (50.0, Phase.LOAD, 9.0)
    assert moved(worked, phases.Ready(RUN, 10.0), 61.0).stirred == 9.0


@pytest.mark.parametrize(
    ("aim", "ending"),
    [
        (phases.ToEnd("SIGTERM", ExitCode.STOPPED), True),
        (phases.ToRestart(Failure(Kind.OTHER_CRASH), 1.0), False),
        (phases.ToClimb(phases.Suspect(Failure(Kind.KV_NONE), Effective(), 1.0), 1.0), False),
    ],
)
def test_an_engine_that_is_stopped_for_good_is_told_from_one_that_is_followed(aim: phases.Aim, ending: bool) -> None:
    stopping = phases.Stopping(RUN, aim, phases.Force.POLITE, 9.0)
    assert moved(FIRST, stopping, 50.0).ending is ending


def test_a_signal_while_an_engine_is_ended_for_the_next_makes_it_the_end() -> None:
    climbing = phases.ToClimb(phases.Suspect(Failure(Kind.KV_NONE), Effective(), 1.0), 1.0)
    before = moved(FIRST, phases.Stopping(RUN, climbing, phases.Force.POLITE, 9.0), 50.0)
    ending = phases.ToEnd("SIGTERM", ExitCode.STOPPED)
    after = moved(before, phases.Stopping(RUN, ending, phases.Force.POLITE, 9.0), 60.0)
    assert (after.phase, after.since, after.ending) == ("stopping", 50.0, True)


class Note:
    """A watcher that keeps what it was shown."""

    def __init__(self, beat_s: float | None = None, *, broken: bool = False) -> None:
        self.beat_s = beat_s
        self.broken = broken
        self.shown: list[str] = []
        self.beats = 0

    def show(self, shown: Status) -> None:
        if self.broken:
            raise BrokenPipeError(32, "Broken pipe")
        self.shown.append(shown.phase if shown.attempt == 0 else f"attempt {shown.attempt}")

    def beat(self) -> None:
        self.beats += 1


def test_watchers_see_every_change_once_and_the_beat_they_asked_for() -> None:
    one, other = Note(5.0), Note()
    watch = Watch(FIRST, (one, other), lambda _: None)
    watch.told(CLIMBED[1])
    watch.moved(phases.ExhaustedEnd())
    watch.moved(phases.ExhaustedEnd())
    watch.beat()
    assert one.shown == other.shown == ["attempt 1", "attempt 1"]
    assert (watch.beat_s, one.beats) == (5.0, 1)
    assert watch.status.phase == "exhausted"


def test_a_reload_is_shown_for_as_long_as_it_lasts_however_it_ends() -> None:
    watch = Watch(FIRST, (), lambda _: None)
    seen: list[bool] = []

    def fail() -> None:
        with watch.reloading():
            seen.append(watch.status.reloading)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert [*seen, watch.status.reloading] == [True, False]


def test_a_watcher_that_fails_is_told_once_and_costs_nothing() -> None:
    warnings: list[str] = []
    good = Note()
    watch = Watch(FIRST, (Note(1.0, broken=True), good), warnings.append)
    watch.told(CLIMBED[1])
    watch.told(CLIMBED[4])
    assert good.shown == ["attempt 1", "attempt 2"]
    assert warnings == ["Note is not told any more: Broken pipe"]
    assert watch.beat_s is None
