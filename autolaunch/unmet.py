"""An engine that comes up with less than was wished: accepted, or answered like the failure that it hides.

Pure. The next attempt is `ladder`'s.
"""

from __future__ import annotations

from autolaunch.climb import Climb, Exhausted, Step
from autolaunch.facts import Situation
from autolaunch.failure import Failure, Kind, Phase
from autolaunch.figures import Effective
from autolaunch.ladder import next_step

NEARLY = 0.03
"""A fitted context that lacks no more than this share of the wished one is not worth another start."""

PRINTED = 0.005
"""The engine prints how many requests fit with two decimals: what it says may be this much too much."""


def unmet(climb: Climb, effective: Effective, situation: Situation) -> tuple[Failure, Step | Exhausted] | None:
    """Judge an engine that is coming up with less than was wished: None accepts it.

    `--max-model-len auto` may fit less than a rung before `context` could give, or less than the floor, and
    an engine only guarantees one full-length request. Such a start is answered like the failure it hides.
    An `auto` of the user's own is what was wished, as long as it keeps the floor. What no rung can better is
    accepted where it is of use to anyone and breaks no named wish.
    """
    failure = _shortfall(climb, effective)
    if failure is None:
        return None
    fitted, limits = effective.max_model_len or 0, climb.limits
    wished = effective.auto_fit_from or fitted
    pinned = "max_model_len" in climb.pins or climb.content
    if limits.concurrency == 1 and fitted >= limits.min_context and (pinned or fitted >= wished * (1 - NEARLY)):
        return None
    answer = next_step(climb, failure, effective, situation)
    if isinstance(answer, Step):
        return None if limits.concurrency == 1 and answer.rung == "context" else (failure, answer)
    return None if limits.concurrency == 1 and fitted >= limits.least_context else (failure, answer)


def _shortfall(climb: Climb, effective: Effective) -> Failure | None:
    length, at_once, holds = effective.max_model_len, climb.limits.concurrency, effective.max_concurrency
    if length is None:
        return None
    numbers: dict[str, float] = {}
    if at_once > 1 and holds is not None and holds + PRINTED < at_once:
        numbers = {"max_seq_len": length, "estimated_max_len": max(0, int((holds - PRINTED) * length))}
        line = f"the KV cache holds {holds:.2f} requests of {length} tokens, {at_once} are wished"
    elif effective.auto_fit_from is not None and length < effective.auto_fit_from:
        numbers = {"max_seq_len": effective.auto_fit_from, "estimated_max_len": length}
        line = f"the engine fitted {length} tokens, {effective.auto_fit_from} are wished"
    else:
        return None
    if effective.available_kv_gib is not None:
        numbers["available_kv_gib"] = effective.available_kv_gib
    return Failure(Kind.KV_TOO_SMALL, line=line, phase=Phase.KV_CACHE, numbers=numbers)
