"""How one host's starts deviate from the formulae: a few figures drawn from a seed, the same for every start. Pure.

The ranges are those that real starts show around the formulae (143 public boots): non-torch memory within
0.06 GiB of its base, activations exact for nine models of ten and up to 0.35 GiB more for the tenth, graphs within a
quarter of their usual size, their estimate off by up to 40 %. Seed 0 is a host without deviations.
"""

from __future__ import annotations

import zlib

from .record import Record

GIB = 1024**3
JITTER_GIB = 0.01


class Spread(Record):
    """What is added to a term, or what it is multiplied by."""

    weights_gib: float = 0.04
    context: float = 1.0
    base_gib: float = 0.0
    activation: float = 1.0
    activation_gib: float = 0.0
    graphs: float = 1.0
    estimate: float = 1.0
    holds_segment: bool = False


def draw(seed: int, what: str) -> float:
    """Give a number in [0, 1) that only these two decide."""
    return zlib.crc32(f"{seed} {what} {seed * 7919}".encode()) / 2**32


def between(seed: int, what: str, low: float, high: float) -> float:
    """Give a number in [low, high)."""
    return low + (high - low) * draw(seed, what)


def spread(seed: int, *, experts: bool, tied: bool) -> Spread:
    """Give the deviations of a seed; `holds_segment` is the allocator's copy of the logits' weights after a cold
    compile, seen in every model with experts, in half of the tied ones and in one of ten others."""
    if not seed:
        return Spread()
    missed = draw(seed, "missed") < 0.1
    held = 1.0 if experts else 0.6 if tied else 0.1
    return Spread(
        weights_gib=between(seed, "weights", 0.0, 0.08),
        context=between(seed, "context", 0.95, 1.1),
        base_gib=between(seed, "base", -0.06, 0.07),
        activation=between(seed, "activation", 0.99, 1.02),
        activation_gib=between(seed, "excess", 0.05, 0.35) if missed else 0.0,
        graphs=between(seed, "graphs", 0.75, 1.25),
        estimate=between(seed, "estimate", 0.75, 1.4),
        holds_segment=draw(seed, "held") < held,
    )


def jitter_gib(seed: int, start: int) -> float:
    """Give what differs between two starts of the same command: up to 0.01 GiB."""
    return between(seed, f"start {start}", -JITTER_GIB, JITTER_GIB) if seed else 0.0
