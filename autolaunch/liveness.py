"""Whether a serving engine lives: it moves its own counters, or answers a tiny request.

Pure. Owns the judgement over readings of the engine's metrics; taking them is `guard`'s. An engine that is busy and
makes progress is never asked anything: its counters are proof enough. One that stands still is asked for one token,
and one that gives none for long enough hangs, whatever its `/health` says.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

MOVING = (
    "vllm:prompt_tokens_total",
    "vllm:generation_tokens_total",
    "vllm:request_success_total",
    "vllm:iteration_tokens_total_count",
)
"""Counters that grow with every piece of work (vllm/v1/metrics/loggers.py; the first three in V0 as well)."""

HELD = ("vllm:num_requests_running", "vllm:num_requests_waiting")
"""Gauges of the requests that an engine has taken and not answered."""

ABSENT_S = 1.0
"""Who waited for so much longer than it meant to was not run itself: stopped, frozen, starved, suspended."""

_SAMPLE = re.compile(r"^([a-zA-Z_:][\w:]*)(?:\{[^}]*\})?\s+([-+.\deE]+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Rules:
    """Seconds: how often a reading is taken, how long an engine may stand still before it is asked, and hang.

    `answer_s` is what a question is given at least; `patience` says how much more.
    """

    every_s: float = 15.0
    ask_after_s: float = 60.0
    hang_s: float = 180.0
    answer_s: float = 60.0

    @classmethod
    def within(cls, hang_s: float) -> Rules:
        """Return rules that notice a hang within some more seconds than these."""
        return cls(min(15.0, hang_s / 4), min(60.0, hang_s / 3), hang_s, min(60.0, hang_s / 3))


@dataclass(frozen=True, slots=True)
class Pulse:
    """The last sign of life, and the counters at that time; None where the engine has none."""

    alive: float
    counters: float | None = None


def counters_in(text: str) -> float | None:
    """Return the sum of the counters that move with work in an answer of `/metrics`, None where there are none."""
    values = [float(value) for name, value in _SAMPLE.findall(text) if name in MOVING and _is_number(value)]
    return sum(values) if values else None


def requests_in(text: str) -> float | None:
    """Return how many requests run or wait by an answer of `/metrics`, None where it does not say."""
    values = [float(value) for name, value in _SAMPLE.findall(text) if name in HELD and _is_number(value)]
    return sum(values) if values else None


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def felt(pulse: Pulse, counters: float | None, now: float) -> Pulse:
    """Return the pulse after a reading; counters that changed (in any direction) are a sign of life."""
    if counters is None or counters == pulse.counters:
        return pulse
    return Pulse(now if pulse.counters is not None else pulse.alive, counters)


def wants_asking(pulse: Pulse, rules: Rules, now: float) -> bool:
    """Whether the engine stood still for so long that it is asked for a token."""
    return now - pulse.alive >= rules.ask_after_s


def patience(pulse: Pulse, rules: Rules, now: float) -> float:
    """Return for how many seconds an answer is waited for: for all that is left until it hangs, or longer.

    Several short questions, each given up and asked anew, would be no kinder and end half a bound too late.
    """
    return max(rules.answer_s, pulse.alive + rules.hang_s - now)


def answered(pulse: Pulse, now: float) -> Pulse:
    """Return the pulse after an answer."""
    return replace(pulse, alive=now)


def hangs(pulse: Pulse, rules: Rules, now: float) -> bool:
    """Whether an engine that gave no answer just now hangs."""
    return now - pulse.alive >= rules.hang_s
