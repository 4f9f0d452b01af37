"""When settings that ran out of memory in service are tried again: at a planned start, after a quiet time.

Pure. Owns the quiet time and what counts as one step back up. Service itself never steps up: what serves is left
alone, and only a start that somebody asked for may risk something. A single crowded hour must not keep a model
small for ever; settings that fail again and again must not cost a crash every day. So the quiet time doubles with
every failure of the same settings.
"""

from __future__ import annotations

import math

from autolaunch.past import Outcome, Past
from autolaunch.settings import AUTO, Settings

QUIET_S = 86_400.0
"""A day: the load of most services repeats daily, so that a day without failure says something."""

KINDS = ("kv_cache_dtype", "tensor_parallel_size", "quantization", "model")
"""Fields whose every value is a concession of its own kind."""


def comeback(past: Past, settings: Settings, *, wish: str, now: float) -> Outcome | None:
    """Return the newest failure in service whose settings may be tried in place of `settings`, None if none may.

    `now` is the time of day in Unix seconds. Only the last step down is undone, so that several take as many planned
    starts; a clock that was set back makes the quiet time longer, never shorter than what it shows.
    """
    failures = [one for one in past.outcomes if one.wish == wish and ran_out(one)]
    if not failures or now - failures[0].at < QUIET_S:
        return None
    for failure in failures:
        if failure.settings == settings or not asks_more(failure.settings, settings):
            continue
        times = sum(one.settings == failure.settings for one in failures)
        return failure if now - failure.at >= QUIET_S * 2 ** min(times - 1, 10) else None
    return None


def ran_out(outcome: Outcome) -> bool:
    """Whether a start ended by running out of memory after it had served."""
    return outcome.in_service and outcome.failure is not None and outcome.failure.memory


def asks_more(one: Settings, other: Settings) -> bool:
    """Whether settings ask for more than others in something, and for less in nothing."""
    numbers = list(zip(_demand(one), _demand(other), strict=True))
    kinds = [(getattr(one, kind), getattr(other, kind)) for kind in KINDS]
    least = all(a >= b for a, b in numbers) and all(a in (None, b) for a, b in kinds)
    return least and any(a != b for a, b in (*numbers, *kinds))


def _demand(settings: Settings) -> tuple[float, ...]:
    """Return the numbers that ask for memory; what is left to the engine is its most."""
    length = None if settings.max_model_len == AUTO else settings.max_model_len
    sizes = settings.cudagraph_capture_sizes
    numbers = (
        settings.gpu_memory_utilization,
        length,
        settings.max_num_seqs,
        settings.max_num_batched_tokens,
        None if sizes is None else len(sizes),
        0 if settings.enforce_eager else 1,
    )
    return tuple(math.inf if number is None else number for number in numbers)
