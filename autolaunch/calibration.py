"""What earlier starts on this host measured, put in the place of what was worked out.

Pure. Owns which start measured what this one needs: the same settings measured the terms, other settings say by how
much the estimate is off. The engine prints two decimals of a GiB, and its compile cache may come and go.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from autolaunch.defaults import Era, Resolved, resolve
from autolaunch.estimate import Parts, Subject, estimate
from autolaunch.facts import GIB, Basis, Engine, Situation
from autolaunch.past import Outcome, Past
from autolaunch.settings import Settings
from autolaunch.term import NOTHING, Term

PRINTED = int(0.01 * GIB)
"""Twice what two decimals of a GiB may hide."""

MOVES = int(0.04 * GIB)
"""By how much the same start's figures differ from one day to the next."""

_LEAST, _MOST = 0.5, 2.0
"""An estimate that is off by more is not scaled further: what was measured was something else."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What one earlier start measured beside its weights, all in bytes: `graphs` None where it did not say."""

    settings: Settings
    situation: Situation
    beside: int
    graphs: int | None
    captured: int | None


def calibrated(parts: Parts, found: Subject, settings: Settings, situation: Situation, *, past: Past) -> Parts:
    """Return the terms with what earlier starts of this model on this card measured."""
    if not past.outcomes:
        return parts
    weights = _weights(parts.weights, settings, past)
    shift = weights.bytes - parts.weights.bytes
    loading = replace(
        parts.loading, bytes=parts.loading.bytes + shift, low=parts.loading.low + shift, high=parts.loading.high + shift
    )
    parts = replace(parts, weights=weights, loading=loading, outside=_outside(parts.outside, settings, situation, past))
    run, seen = resolve(settings, situation), tuple(_measured(found, settings, situation, past))
    same = next((one for one in seen if _alike(resolve(one.settings, one.situation), run)), None)
    if same is not None:
        return _measured_parts(parts, same)
    near = next((one for one in seen if _era(one.situation) is run.era), None)
    return parts if near is None else _scaled(parts, _ratio(near, estimate(found, near.settings, near.situation)))


def _weights(term: Term, settings: Settings, past: Past) -> Term:
    """Return the weights as an earlier start loaded them."""
    for outcome in past.outcomes:
        printed = outcome.effective.weights_gib
        if printed is not None and printed > 0 and _loads_alike(outcome.settings, settings):
            figure = int(printed * GIB)
            return Term(figure, figure - PRINTED, figure + PRINTED, Basis.MEASURED)
    return term


def _loads_alike(one: Settings, other: Settings) -> bool:
    return (one.model, one.quantization, one.tensor_parallel_size or 1) == (
        other.model,
        other.quantization,
        other.tensor_parallel_size or 1,
    )


def _outside(term: Term, settings: Settings, situation: Situation, past: Past) -> Term:
    """Return what an earlier engine took before it measured: the free memory before it, less what it found."""
    for outcome in past.outcomes:
        seen, before, total = outcome.effective.free_gib, outcome.free_bytes, outcome.total_bytes
        if seen is None or before is None or total != situation.device.total_bytes:
            continue
        if (outcome.settings.tensor_parallel_size or 1) != (settings.tensor_parallel_size or 1):
            continue
        taken = before - int(seen * GIB)
        if 0.5 * term.low <= taken <= 1.5 * term.high:  # else a neighbour came or went in between
            return Term(taken, max(0, taken - MOVES), taken + MOVES, Basis.MEASURED)
    return term


def _measured(found: Subject, settings: Settings, situation: Situation, past: Past) -> Iterator[Measured]:
    """Give what each earlier start of the same weights measured beside them, newest first."""
    for outcome in past.outcomes:
        if not _loads_alike(outcome.settings, settings):
            continue
        there = _there(outcome, situation)
        beside = _beside(outcome, there, found)
        if beside is not None and beside > 0:
            said = outcome.effective
            yield Measured(outcome.settings, there, beside, _bytes(said.cudagraph_gib), _bytes(said.captured_gib))


def _there(outcome: Outcome, situation: Situation) -> Situation:
    """Return the situation of an earlier start: this one with the engine and the memory of then."""
    version = outcome.engine_version or situation.engine.version
    device = replace(situation.device, total_bytes=outcome.total_bytes or situation.device.total_bytes)
    return replace(situation, device=device, engine=replace(situation.engine, version=version))


def _beside(outcome: Outcome, there: Situation, found: Subject) -> int | None:
    """Return what an earlier start took beside its weights: what it requested, less them and the cache it had left."""
    said = outcome.effective
    loaded = _bytes(said.weights_gib)
    run = resolve(outcome.settings, there)
    if run.on_host:
        loaded = loaded or estimate(found, outcome.settings, there).weights.bytes
        return None if said.consumed_gib is None else int(said.consumed_gib * GIB) - loaded
    requested = _bytes(said.requested_gib)
    if requested is None:
        total = _bytes(said.total_gib) or there.device.total_bytes
        requested = None if total is None else int(total * run.utilization)
    pool = _bytes(said.available_kv_gib)
    return None if requested is None or pool is None or loaded is None else requested - loaded - pool


def _bytes(gib: float | None) -> int | None:
    return None if gib is None else int(gib * GIB)


def _era(situation: Situation) -> Era:
    return Era.of(Engine(situation.engine.version))


def _alike(one: Resolved, other: Resolved) -> bool:
    """Whether two starts profile the same: batch, graphs, ranks and release; on V0 the context too."""
    v0 = other.era is Era.V0
    return replace(one, utilization=0, max_model_len=one.max_model_len if v0 else None) == replace(
        other, utilization=0, max_model_len=other.max_model_len if v0 else None
    )


def _measured_parts(parts: Parts, same: Measured) -> Parts:
    """Return the terms as a start with the same settings measured them; the activations take up what is left.

    A start that compiled leaves its cache: the next one may have so much more room. One that did not compile may
    find the cache gone.
    """
    graphs = _known(parts.cudagraph, same.graphs)
    held = max(0, min(parts.non_torch.bytes, same.beside - graphs.bytes))
    outer = Term(held, held, held, Basis.MEASURED)
    left = same.beside - held - graphs.bytes
    gap = int(parts.peaks.cold - parts.peaks.warm)
    compiled = left >= (parts.peaks.cold + parts.peaks.warm) / 2
    low = left - MOVES - (gap if compiled else 0)
    high = left + MOVES + (0 if compiled else gap)
    return replace(
        parts,
        non_torch=outer,
        activation=Term(left, low, high, Basis.MEASURED),
        cudagraph=graphs,
        capture=_known(parts.capture, same.captured),
    )


def _known(term: Term, figure: int | None) -> Term:
    if figure is None or term == NOTHING:
        return term
    return Term(figure, figure - PRINTED, figure + PRINTED, Basis.MEASURED)


def _ratio(near: Measured, then: Parts) -> float:
    """Return what a start measured over what would have been predicted of it, compile cache cold or warm."""
    fixed = then.non_torch.bytes + then.cudagraph.bytes
    predictions = (fixed + then.peaks.warm, fixed + then.peaks.cold)
    nearest = min(predictions, key=lambda predicted: abs(near.beside - predicted))
    return min(_MOST, max(_LEAST, near.beside / nearest)) if nearest > 0 else 1.0


def _scaled(parts: Parts, ratio: float) -> Parts:
    return replace(
        parts,
        non_torch=_times(parts.non_torch, ratio),
        activation=_times(parts.activation, ratio),
        cudagraph=_times(parts.cudagraph, ratio),
    )


def _times(term: Term, ratio: float) -> Term:
    return Term(int(term.bytes * ratio), int(term.low * ratio), int(term.high * ratio), term.basis)
