"""A serving engine lives as long as it moves its counters or answers; a hang is told within a bound."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from autolaunch import probe
from autolaunch.guard import RESTING, Guard
from autolaunch.liveness import (
    Pulse,
    Rules,
    answered,
    counters_in,
    felt,
    hangs,
    patience,
    requests_in,
    wants_asking,
)
from autolaunch.wish import Address

RULES = Rules(every_s=15, ask_after_s=60, hang_s=180, answer_s=60)
METRICS = """# HELP vllm:prompt_tokens_total Number of prefill tokens processed.
# TYPE vllm:prompt_tokens_total counter
vllm:prompt_tokens_total{engine="0",model_name="glm"} 5120.0
vllm:generation_tokens_total{engine="0",model_name="glm"} 1.5e+03
vllm:num_requests_running{engine="0",model_name="glm"} 3.0
vllm:iteration_tokens_total_count{engine="0"} 12.0
vllm:request_success_total{finished_reason="stop"} 7.0
vllm:prompt_tokens_total nonsense
process_cpu_seconds_total 4711.0
"""


def test_the_counters_are_those_that_move_with_work() -> None:
    assert counters_in(METRICS) == 5120 + 1500 + 12 + 7
    assert counters_in("process_cpu_seconds_total 1.0") is None
    assert counters_in("") is None


def test_the_requests_held_are_those_that_run_or_wait() -> None:
    assert requests_in(METRICS + 'vllm:num_requests_waiting{engine="0"} 2.0\n') == 5
    assert requests_in("process_cpu_seconds_total 1.0") is None


def test_counters_that_move_are_a_sign_of_life_and_the_first_reading_is_none() -> None:
    pulse = felt(Pulse(100.0), 5.0, 110.0)
    assert pulse == Pulse(100.0, 5.0)
    assert felt(pulse, 5.0, 120.0) == pulse
    assert felt(pulse, None, 120.0) == pulse
    assert felt(pulse, 6.0, 120.0) == Pulse(120.0, 6.0)
    assert felt(pulse, 0.0, 120.0) == Pulse(120.0, 0.0), "an engine that was started anew by somebody lives"


def test_one_that_stands_still_is_asked_and_hangs_only_after_the_bound() -> None:
    pulse = Pulse(100.0, 5.0)
    assert [wants_asking(pulse, RULES, now) for now in (159.0, 160.0)] == [False, True]
    assert [hangs(pulse, RULES, now) for now in (279.0, 280.0)] == [False, True]
    assert not wants_asking(answered(pulse, 170.0), RULES, 200.0)


@pytest.mark.parametrize("hang_s", [1.0, 30.0, 180.0, 3600.0])
def test_rules_within_a_bound_ask_before_it_is_over(hang_s: float) -> None:
    rules = Rules.within(hang_s)
    assert rules.hang_s == hang_s
    assert rules.ask_after_s + rules.every_s <= hang_s
    assert rules.answer_s <= hang_s


def test_a_question_is_given_all_the_time_until_the_bound_and_never_less_than_its_own() -> None:
    pulse = Pulse(100.0, 5.0)
    assert [patience(pulse, RULES, now) for now in (160.0, 219.0, 220.0, 250.0, 400.0)] == [
        120.0,
        61.0,
        60.0,
        60.0,
        60.0,
    ]


class Engine:
    """What the guard sees: counters and answers, in turn; the last of each stays."""

    def __init__(self, counters: list[float | None], answers: list[probe.Verdict]) -> None:
        self.counters = counters
        self.answers = answers
        self.asked = 0
        self.short = ""
        self.warned: list[str] = []
        self.gone = threading.Event()
        self.rests: list[bool] | None = None
        self.looked = 0

    def request(self, _: Address, path: str, **__: Any) -> tuple[int, Any]:
        if path in RESTING:
            self.looked += 1
            if self.rests is None or path != "/is_sleeping":
                return 404, {"detail": "Not Found"}
            return 200, {"is_sleeping": self.rests.pop(0) if len(self.rests) > 1 else self.rests[0]}
        if not self.counters:
            self.gone.set()
            return 200, ""
        value = self.counters.pop(0)
        if value is None:
            raise ConnectionRefusedError
        return 200, f"vllm:prompt_tokens_total {value}\n"

    def prove(self, *_: Any, **__: Any) -> probe.Answer:
        self.asked += 1
        verdict = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return probe.Answer(verdict, "HTTP 500", self.short)


def watched(monkeypatch: pytest.MonkeyPatch, engine: Engine, rules: Rules) -> list[str]:
    """Return what the guard tells of an engine."""
    monkeypatch.setattr(probe, "request", engine.request)
    monkeypatch.setattr(probe, "prove", engine.prove)
    hung: list[str] = []
    Guard(Address(), rules=rules).watch(engine.gone, hung.append, engine.warned.append)
    return hung


AT_ONCE = Rules(every_s=0.001, ask_after_s=0.0, hang_s=0.0, answer_s=1.0)


def test_an_engine_that_works_is_never_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine([float(count) for count in range(20)], [probe.Verdict.NOT_YET])
    assert watched(monkeypatch, engine, Rules(0.001, 10.0, 20.0, 1.0)) == []
    assert engine.asked == 0


def test_an_idle_engine_is_asked_and_lives_by_its_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine([5.0] * 20, [probe.Verdict.PASSED])
    assert watched(monkeypatch, engine, AT_ONCE) == []
    assert engine.asked > 10


def test_one_that_neither_works_nor_answers_hangs_and_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine([5.0] * 20, [probe.Verdict.NOT_YET])
    told = watched(monkeypatch, engine, AT_ONCE)
    assert len(told) == 1
    assert "no work and no answer" in told[0]
    assert "HTTP 500" in told[0]


def test_one_that_lost_the_question_and_works_again_does_not_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine([float(count) for count in range(20)], [probe.Verdict.REFUSED])
    assert watched(monkeypatch, engine, Rules(0.001, 0.0, 0.001, 1.0)) == []
    assert engine.asked > 5


def test_one_that_was_put_to_sleep_is_asked_nothing_and_does_not_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine([5.0] * 20, [probe.Verdict.NOT_YET])
    engine.rests = [True]
    assert watched(monkeypatch, engine, AT_ONCE) == []
    assert engine.asked == 0


def test_one_that_woke_up_is_judged_from_then_on(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine([5.0] * 20, [probe.Verdict.NOT_YET])
    engine.rests = [True, True, False]
    assert len(watched(monkeypatch, engine, AT_ONCE)) == 1
    assert engine.looked == 3 + 1  # is_paused is not there, which one question shows


def test_one_that_cannot_sleep_is_asked_about_it_only_once(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine([5.0] * 20, [probe.Verdict.PASSED])
    assert watched(monkeypatch, engine, AT_ONCE) == []
    assert engine.looked == len(RESTING)


def test_metrics_that_cannot_be_had_leave_it_to_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    assert watched(monkeypatch, Engine([None] * 20, [probe.Verdict.PASSED]), AT_ONCE) == []
    assert len(watched(monkeypatch, Engine([None] * 20, [probe.Verdict.REFUSED]), AT_ONCE)) == 1


def test_who_has_no_means_to_ask_judges_nobody_and_says_so_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Out of descriptors, the supervisor took a healthy engine for one that hangs, and ended it."""
    engine = Engine([5.0] * 20, [probe.Verdict.NOT_YET])
    engine.short = "autolaunch is short of memory"
    assert watched(monkeypatch, engine, AT_ONCE) == []
    assert engine.warned == ["whether the engine hangs cannot be seen: autolaunch is short of memory"]
    assert engine.asked > 10
