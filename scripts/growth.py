"""Whether a figure that was read again and again grows: first, median, last, slope, and a verdict.

Pure. Taking the readings is others'.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

SETTLING = 0.2
"""The share of the readings in which a program is still finding its size: modules and caches come with first uses."""


@dataclass(frozen=True, slots=True)
class Series:
    """Readings of one figure at some lives of an engine; `allowed` is how much it may grow in all, None any amount."""

    name: str
    lives: tuple[int, ...]
    values: tuple[float, ...]
    unit: str = ""
    allowed: float | None = 0.0

    @property
    def growth(self) -> float:
        """How far the median of the last quarter is above that of the first, after the settling."""
        values = self._settled(self.values)
        quarter = max(1, len(values) // 4)
        return statistics.median(values[-quarter:]) - statistics.median(values[:quarter])

    @property
    def slope(self) -> float:
        """The growth in 1,000 lives by a straight line through the settled readings (least squares)."""
        lives, values = self._settled(self.lives), self._settled(self.values)
        if len(set(lives)) < 2:
            return 0.0
        return 1000 * statistics.linear_regression(lives, values).slope

    @property
    def grew(self) -> bool:
        """Whether it grew more than it may."""
        return self.allowed is not None and self.growth > self.allowed

    def _settled(self, readings: Sequence[float]) -> Sequence[float]:
        return readings[min(int(len(readings) * SETTLING), len(readings) - 1) :]


def heading() -> str:
    """Return the heading of the rows."""
    return f"{'':<44}{'first':>9}{'median':>9}{'last':>9}{'slope/1000':>12}{'growth':>9}{'allowed':>9}"


def row(series: Series) -> str:
    """Return a series as a line of a table."""
    first, last, middle = series.values[0], series.values[-1], statistics.median(series.values)
    allowed = "any" if series.allowed is None else f"{series.allowed:g}"
    told = f"{series.name + (f', {series.unit}' if series.unit else ''):<44}"
    told += f"{first:>9.2f}{middle:>9.2f}{last:>9.2f}{series.slope:>12.3f}{series.growth:>9.2f}{allowed:>9}"
    return told + ("  GREW" if series.grew else "")
