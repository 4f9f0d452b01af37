"""How much more memory would do where nothing fits: a wider bound of the user's, freed memory, a larger card or host.

Pure. Every amount was put to the planner: the least one at which it finds something that is likely to come up. What
else would help is `shortfall`'s.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace

from autolaunch.candidates import Question
from autolaunch.climb import begin
from autolaunch.defaults import HUGE_CARD_BYTES, LARGE_CARD_BYTES
from autolaunch.facts import GIB, Device, DeviceKind, Situation
from autolaunch.past import Past
from autolaunch.planner import plan
from autolaunch.settings import Settings
from autolaunch.sizes import gib

LARGEST_CARD_GIB = 288
"""No card has more: a B300's label."""

LARGEST_HOST_GIB = 4096

CARD_RANGES_GIB = (LARGE_CARD_BYTES // GIB - 1, HUGE_CARD_BYTES // GIB - 1, LARGEST_CARD_GIB)
"""The last whole GiB of each range in which a larger card only has more room: the engine's defaults grow between."""

FREED_STEPS = 20
LIMIT_STEPS = 10
"""Steps in a GiB in which freed memory and `--memory` are named."""


def would_do(question: Question) -> bool:
    """Whether something is found that is likely to come up; what fits only at its best is no advice."""
    found = plan(question)
    return bool(found.fits) and not found.hopeful


def asked_of(question: Question, device: Device, *, memory_bytes: int | None, same: bool = True) -> Question:
    """Return the question for another amount of memory; of a card that is not the `same` nothing is remembered."""
    situation = Situation(device, question.situation.engine, question.situation.model)
    climb, limits = question.climb, replace(question.limits, memory_bytes=memory_bytes)
    pinned = Settings().changed(**{name: getattr(climb.settings, name) for name in climb.pins})
    fresh = begin(climb.strategy, limits, pinned, pins=climb.pins, situation=situation)
    return replace(question, climb=fresh, situation=situation, past=question.past if same else Past())


def least(low: int, high: int, does: Callable[[int], bool]) -> int | None:
    """Return the least whole number from `low` to `high` that does, where every larger one does; None where none."""
    if low > high or not does(high):
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if does(middle) else (middle + 1, high)
    return high


def more_memory(question: Question) -> Iterator[str]:
    """Name the nearest amount of memory that would do: of the user's bound, of what is free, of a card or host."""
    device, limit = question.situation.device, question.limits.memory_bytes
    if device.total_bytes is None or device.free_bytes is None:
        return
    raised = _limit(question, device)
    if raised is not None:
        yield f"allow --memory {raised} instead of {gib(limit)}"
        return
    freed = _freed(question, device)
    if freed is not None:
        more, holder = gib((freed.free_bytes or 0) - device.free_bytes), held_by(device)
        yield f"free {more} more of {named(device)}{_and_limit(question, freed)}" + (f": {holder}" if holder else "")
        return
    larger = _larger(question, device)
    if larger is not None:
        yield _as_card(question, larger) + _and_limit(question, larger, same=False)


def _as_card(question: Question, larger: Device) -> str:
    size = f"{(larger.total_bytes or 0) // GIB} GiB"
    if larger.kind is DeviceKind.CPU:
        return f"give the host {size} of memory"
    cards = question.climb.settings.tensor_parallel_size if "tensor_parallel_size" in question.climb.pins else None
    many = cards or question.limits.gpus
    return f"use a card with {size}" if many < 2 else f"use {many} cards with {size} each"


def _limit(question: Question, device: Device, *, same: bool = True) -> str | None:
    """Return the least --memory that would do on a device, as it is typed; None where none is given or none would."""
    limit, free = question.limits.memory_bytes, device.free_bytes
    if limit is None or free is None:
        return None

    def does(tenths: int) -> bool:
        asked = asked_of(question, device, memory_bytes=tenths * GIB // LIMIT_STEPS, same=same)
        return would_do(asked)

    tenths = least(math.ceil(limit * LIMIT_STEPS / GIB), free * LIMIT_STEPS // GIB, does)
    return None if tenths is None else f"{tenths / LIMIT_STEPS:g}GiB"


def _and_limit(question: Question, device: Device, *, same: bool = True) -> str:
    """Return the words for --memory where more memory alone would not do."""
    limit = question.limits.memory_bytes
    if limit is None or would_do(asked_of(question, device, memory_bytes=limit, same=same)):
        return ""
    return f" and allow --memory {_limit(question, device, same=same)} instead of {gib(limit)}"


def _freed(question: Question, device: Device) -> Device | None:
    """Return the device with as much memory freed as would do, the user's bound of it aside."""
    total, free = device.total_bytes or 0, device.free_bytes or 0

    def freed(steps: int) -> Device:
        return replace(device, free_bytes=min(total, free + steps * GIB // FREED_STEPS), holders=())

    most = (total - free) * FREED_STEPS // GIB
    steps = least(1, most, lambda steps: would_do(asked_of(question, freed(steps), memory_bytes=None)))
    return None if steps is None else freed(steps)


def _larger(question: Question, device: Device) -> Device | None:
    """Return the least device of the same kind that would do: a card that is empty, a host that holds what it holds."""
    total, free = device.total_bytes or 0, device.free_bytes or 0
    host = device.kind is DeviceKind.CPU
    held = total - free if host else 0

    def sized(size: int) -> Device:
        name = device.name if host else f"a card of {size} GiB"
        return replace(device, name=name, total_bytes=size * GIB, free_bytes=size * GIB - held, holders=(), uuid="")

    def does(size: int) -> bool:
        return would_do(asked_of(question, sized(size), memory_bytes=None, same=False))

    low = total // GIB + 1
    for last in (LARGEST_HOST_GIB,) if host else CARD_RANGES_GIB:
        size = least(low, last, does)
        if size is not None:
            return sized(size)
        low = max(low, last + 1)
    return None


def named(device: Device) -> str:
    """Return what a device is called in advice."""
    return "the host's memory" if device.kind is DeviceKind.CPU else "this card"


def held_by(device: Device) -> str:
    """Return who holds memory of a device, "" where nobody is seen."""
    held = (f"{one.name} (pid {one.pid}) holds {gib(one.used_bytes)}" for one in device.holders if one.used_bytes)
    return next(held, "")
