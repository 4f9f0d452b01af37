"""Amounts as people and vLLM write them: bytes with a unit, token counts with a k.

Owns the reading of such text and nothing else. Refuses what is ambiguous instead of guessing.
"""

from __future__ import annotations

import re
from decimal import Decimal

_UNITS = {
    "b": 1,
    "k": 2**10, "ki": 2**10, "kib": 2**10, "kb": 10**3,
    "m": 2**20, "mi": 2**20, "mib": 2**20, "mb": 10**6,
    "g": 2**30, "gi": 2**30, "gib": 2**30, "gb": 10**9,
    "t": 2**40, "ti": 2**40, "tib": 2**40, "tb": 10**12,
}  # fmt: skip


_BYTES_FROM = 2**20
"""A number without a unit from here on is taken for bytes where one is proposed."""


def parse_bytes(text: str) -> int:
    """Return the bytes of "22GiB", "22Gi", "22G" (2**30), "22 GB" (10**9), "22,5GiB"; ValueError says what is wrong.

    A bare number is refused: nobody can tell GiB from bytes or from a share. So is a comma before three digits.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+|,\d{1,2})?|\.\d+)\s*([A-Za-z]*)\s*", text)
    if not found:
        raise ValueError(f"{text!r} is not an amount of memory; write for example 22GiB")
    if found[2].lower() not in _UNITS:
        what = f"unknown unit {found[2]!r}" if found[2] else "no unit"
        raise ValueError(f"{text!r} has {what}; write for example {_example(found[1])}")
    amount = int(Decimal(found[1].replace(",", ".")) * _UNITS[found[2].lower()])
    if not 0 < amount < 2**50:
        raise ValueError(f"{text!r} is {amount} bytes; it must be above 0 and below 1 PiB")
    return amount


def _example(figure: str) -> str:
    """Return a figure with the unit that was likely meant: so many are bytes, none is nothing."""
    number = Decimal(figure.replace(",", "."))
    if not number:
        return "22GiB"
    return f"{figure}B for bytes" if number >= _BYTES_FROM else f"{figure}GiB"


def parse_count(text: str) -> int:
    """Return a token count as vLLM reads it: 8192, 32k (32000), 32K (32768), 25.6k, 1m, 1M; ValueError."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([kmgtKMGT]?)", text.strip())
    if not found:
        raise ValueError(f"{text!r} is not a number of tokens; write for example 8192 or 32k")
    power = "kmgt".find(found[2].lower()) + 1 if found[2] else 0
    amount = Decimal(found[1]) * (1024 if found[2].isupper() else 1000) ** power
    if amount != int(amount):
        raise ValueError(f"{text!r} is not a whole number of tokens")
    return int(amount)


def gib(amount: int | None) -> str:
    """Return bytes as "22.03 GiB", or "unknown"."""
    return "unknown" if amount is None else f"{amount / 2**30:.2f} GiB"
