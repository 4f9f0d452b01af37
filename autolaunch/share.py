"""The arithmetic of the utilization rung: how large a share of the device, in which direction, by how much.

Pure. A share is always one of the total that the engine counts. Raising cures a missing cache, lowering cures
everything that ran out of real memory; the bounds of earlier attempts are respected, so that shares close in.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from autolaunch.case import RAISING, TAKEN, TOO_MUCH, Case, Limits, Proposal
from autolaunch.facts import GIB, Device, DeviceKind
from autolaunch.failure import Kind
from autolaunch.strategy import Rung

OUTSIDE_BUDGET_BYTES = {DeviceKind.CUDA: int(0.6 * GIB), DeviceKind.CPU: int(1.3 * GIB)}
"""What the engine itself takes before it measures free memory, and does not count: a CUDA context (0.51 GiB on
an H100), or on a host the API server, the engine core and the worker's imports (1.2 GiB with vLLM 0.32)."""

STEP = 0.005
"""The least difference between two shares worth a start."""

CLOSE = 0.015
"""How near two shares that failed in opposite directions may come before the room between them is not worth a start."""

WIDEST = 0.1
"""The largest margin taken without a number that asks for more: 93 MiB too few once cost half of a card."""

SLACK_GIB = 0.05
"""What a computed need is rounded up by, beside 2 %: the engine prints two decimals."""


def down(share: float) -> float:
    """Round a share down to three decimals."""
    return math.floor(share * 1000 + 1e-9) / 1000


def up(share: float) -> float:
    """Round a share up to three decimals."""
    return math.ceil(share * 1000 - 1e-9) / 1000


def memory_cap(total_gib: float | None, limits: Limits) -> float:
    """Return the share of the device that `--memory` allows (1.0 where it is not given or cannot be told)."""
    if limits.memory_bytes is None or not total_gib:
        return 1.0
    return min(1.0, down(limits.memory_bytes / GIB / total_gib))


def free_cap(device: Device) -> float:
    """Return the share that is free to a new engine when it measures (1.0 where unknown)."""
    if device.free_share is None or not device.total_bytes:
        return 1.0
    outside = OUTSIDE_BUDGET_BYTES.get(device.kind, 0)
    return min(1.0, down(max(0.0, device.free_share - outside / device.total_bytes - margin(device))))


def margin(device: Device) -> float:
    """Return the share to leave untouched, since free memory moves: 0.5 % of a card, 3 % of a host's memory."""
    return 0.03 if device.kind is DeviceKind.CPU else 0.005


def host_share(device: Device) -> float:
    """Return a considerate share of a host's memory for a CPU engine: half of what is available."""
    return down((1.0 if device.free_share is None else device.free_share) / 2)


def ceiling(rung: Rung, case: Case) -> float:
    """Return the largest share that may still be tried: limits, free memory, and what has failed before."""
    highest = min(rung.max, memory_cap(case.total_gib, case.limits))
    if case.measured_rightly:
        highest = min(highest, free_cap(case.situation.device))
    return highest if case.bounds.upper == math.inf else min(highest, down(case.bounds.upper - STEP))


def utilization(rung: Rung, case: Case) -> Iterator[Proposal]:
    """Raise the share for a missing cache, lower it for everything that ran out of real memory."""
    if case.pool_is_fixed and case.failure.kind is not Kind.FREE_MEMORY_LOW:
        return
    if rung.values:
        yield from _literal(rung, case)
    elif case.failure.kind in RAISING:
        yield from _raise(rung, case)
    else:
        yield from _lower(rung, case)


def _literal(rung: Rung, case: Case) -> Iterator[Proposal]:
    for value in rung.values:
        if value < case.utilization - 1e-9:
            yield Proposal({"gpu_memory_utilization": value}, f"the ladder's next share below {case.utilization:g}")
            return


def _raise(rung: Rung, case: Case) -> Iterator[Proposal]:
    now, highest, total = case.utilization, ceiling(rung, case), case.total_gib
    met = case.bounds.upper < math.inf  # something above was too much: close in instead of going back up to it
    far = down((now + highest) / 2) if met else highest
    apart = far >= now + (CLOSE if met else STEP) - 1e-9
    if case.failure.kind is Kind.KV_NONE:
        if apart:
            yield from _make_room(case, far, highest)
        return
    needed, available = case.needed_kv_gib, case.available_kv_gib
    why = f"this share is as far as the memory allows, for a context of {case.context} tokens"
    if needed is not None and available is not None and total:
        missing = max(0.0, needed - available)
        to = up(now + (missing * 1.02 + SLACK_GIB) / total)
        if to <= (highest if case.last_resort else far):
            why = f"{missing:.2f} GiB more make room for the whole KV cache, of {total:.2f} GiB in all"
            yield Proposal({"gpu_memory_utilization": to}, why)
            return
        why = f"{missing:.2f} GiB are missing; this is as far as the free memory allows"
    if apart and (_reaches_floor(case, far) or _worth_a_part(rung, case, met=met)):
        yield Proposal({"gpu_memory_utilization": far}, why)


def _worth_a_part(rung: Rung, case: Case, *, met: bool) -> bool:
    """Whether to raise a share although that does not give the whole context, or nobody can tell."""
    fit = case.fitting
    if met:  # each such start may be one too many: only where nothing useful fits otherwise
        return case.last_resort and (fit or 0) < case.limits.least_context
    return rung.partial or case.last_resort or (fit is None and case.number("needed_kv_gib") is None)


def _make_room(case: Case, far: float, highest: float) -> Iterator[Proposal]:
    """Raise from "nothing left for the cache": to the usual share if that can do, else as far as there is memory."""
    now, total, available = case.utilization, case.total_gib, case.available_kv_gib
    least = now + STEP
    if available is not None and total:
        least = now + (max(0.0, -available) + SLACK_GIB) / total
        if least > highest and not case.last_resort:
            return  # not even that gives a single token; something else has to give way first
    device = case.situation.device
    usual = min(far, case.situation.engine.default_utilization)
    if device.kind is DeviceKind.CPU and case.measured_rightly:
        usual = min(usual, host_share(device))
    to = usual if usual >= max(least, now + 0.02) else max(far, min(highest, up(least)))
    yield Proposal({"gpu_memory_utilization": to}, "nothing was left for the KV cache at this share")


def _reaches_floor(case: Case, far: float) -> bool:
    """Whether a share that does not give the whole context still lifts it over the floor, where it is below."""
    total, needed, available, now = case.total_gib, case.needed_kv_gib, case.available_kv_gib, case.context
    if total is None or not needed or available is None or not now:
        return False
    fits = now * (available + (far - case.utilization) * total) / needed
    return now * available / needed < case.limits.min_context <= fits


def _lower(rung: Rung, case: Case) -> Iterator[Proposal]:
    now = case.utilization
    if case.failure.kind in (Kind.GRAPH_OOM, Kind.OOM) and case.before_cache:
        return  # the budget was not taken yet: a smaller one leaves as little room for compiling
    if case.failure.kind in TOO_MUCH and case.bounds.overruns > 1 and not case.last_resort:
        return  # a little less was no cure: fewer or no graphs, fewer sequences and tokens
    if case.failure.kind is Kind.FREE_MEMORY_LOW:
        to, why = _to_what_is_free(case)
    else:
        to, why = _by_what_is_short(case)
    lowest = max(rung.min, case.bounds.too_low + STEP if case.bounds.too_low else 0.0)
    if to < lowest and case.failure.kind is not Kind.FREE_MEMORY_LOW:
        to, why = down((now + lowest) / 2), f"{why}; half of the way down to {lowest:.3f}, which is the least"
    if lowest <= to <= now - STEP + 1e-9:
        yield Proposal({"gpu_memory_utilization": to}, why)


def _to_what_is_free(case: Case) -> tuple[float, str]:
    """Return the share that is free less a margin: the engine's own figure, or more if more was free since.

    A measured figure is believed once: if the engine finds too little again, it counts something else.
    """
    device, now = case.situation.device, case.utilization
    free, total = case.number("free_gib"), case.number("total_gib")
    stated = free / total if free is not None and total else None
    measured = free_cap(device) + margin(device) if case.measured_rightly else None
    if stated is not None and (measured is None or case.bounds.refusals > 1 or stated >= measured):
        share, why = stated, f"{free:.2f} of {total:.2f} GiB were free"
    elif measured is not None:
        share, why = measured, f"{measured:.3f} of the memory is free"
    else:
        return down(now - 0.1), "less was free, the engine did not say how much"
    return min(down(share - margin(device)), down(now - STEP)), why


def _by_what_is_short(case: Case) -> tuple[float, str]:
    """Return the share less the shortfall, at least by a margin that doubles with every further failure of its kind."""
    now, total, bounds = case.utilization, case.total_gib, case.bounds
    tried, free = case.number("tried_to_allocate_mib"), case.number("free_gib")
    least = (0.03 if case.failure.kind is Kind.GRAPH_OOM else 0.05) * 2 ** max(0, min(bounds.overruns, 4) - 1)
    least = min(least, WIDEST)
    short = max(0.0, tried / 1024 - (free or 0.0)) / total if tried and total else 0.0
    to = down(now - min(0.5, max(least, short + 0.01)))
    what = "ran out of memory beside the budget" if tried is None else f"{tried:.0f} MiB did not fit beside the budget"
    if case.failure.kind in TAKEN and case.measured_rightly and free_cap(case.situation.device) < to:
        return free_cap(case.situation.device), f"{what}; no more than this share is free"
    if short + 0.01 > least:
        return to, f"{what}: so much less, and a little"
    again = f", after {bounds.overruns} failures of this kind" if bounds.overruns > 1 else ""
    return to, f"{what}: {least:.0%} of the memory is left outside it{again}"
