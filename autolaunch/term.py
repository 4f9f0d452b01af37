"""One term of the memory model: a best figure in bytes, the range it stays in, and what it rests on.

Pure. Owns the arithmetic of terms; which terms there are is `terms`', how they add up `budget`'s.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from autolaunch.facts import GIB, Basis


@dataclass(frozen=True, slots=True)
class Term:
    """Bytes of one term per GPU: the best figure, and the range that nine of ten starts stay within."""

    bytes: int
    low: int
    high: int
    basis: Basis

    @property
    def below(self) -> int:
        """How far the range reaches under the best figure, in bytes."""
        return self.bytes - self.low

    @property
    def above(self) -> int:
        """How far the range reaches over the best figure, in bytes."""
        return self.high - self.bytes

    @property
    def gib(self) -> float:
        """The best figure in GiB."""
        return self.bytes / GIB


NOTHING = Term(0, 0, 0, Basis.EXACT)


def exact(figure: float) -> Term:
    """Return a term that is known to the byte."""
    return Term(int(figure), int(figure), int(figure), Basis.EXACT)


def estimated(figure: float, low: float, high: float) -> Term:
    """Return a term that was worked out; the range always holds the figure."""
    return Term(int(figure), int(min(low, figure)), int(max(high, figure)), Basis.ESTIMATED)


def remainder(whole: int, parts: Sequence[Term]) -> Term:
    """Return what `parts` leave of `whole`, perhaps less than nothing.

    The parts err independently of each other, so their deviations add up as squares do.
    """
    least = math.sqrt(sum(part.above**2 for part in parts))
    most = math.sqrt(sum(part.below**2 for part in parts))
    left = whole - sum(part.bytes for part in parts)
    return Term(left, int(left - least), int(left + most), _weakest(parts))


def _weakest(parts: Sequence[Term]) -> Basis:
    bases = {part.basis for part in parts}
    return next((basis for basis in (Basis.ESTIMATED, Basis.MEASURED) if basis in bases), Basis.EXACT)
