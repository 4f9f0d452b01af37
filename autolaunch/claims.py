"""What a configuration claims, read with doubt: a number is a number, and within what a model can have.

Pure. Owns the reading of single values; what they mean together is `configuration`'s and `caches`'.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Config = Mapping[str, Any]
"""The table of a config.json, of which nothing is known yet."""

MOST = 1 << 20
"""More than any dimension of a model known so far (a vocabulary has 262,208 entries)."""


class Doubt(ValueError):
    """A claim that is missing or cannot be true; the text says which and why."""


def count(config: Config, *names: str, most: int = MOST, least: int = 1) -> int | None:
    """Return the first of these values that is there; None where all are missing or null.

    Raises `Doubt` for anything but a whole number from `least` to `most`, or a list of such.
    """
    for name in names:
        value = _one(name, config.get(name))
        if value is None:
            continue
        if type(value) is not int:
            raise Doubt(f"{name} is {shown(value)}, not a number")
        if not least <= value <= most:
            raise Doubt(f"{name} is {shown(value)}, which no model has")
        return value
    return None


def _one(name: str, value: Any) -> Any:
    """Return the one number of a list: where they differ, the largest of experts, and a doubt of anything else."""
    if not isinstance(value, list) or not value or not all(type(number) is int for number in value):
        return value
    if len(set(value)) > 1 and not name.startswith("moe_"):  # ERNIE-VL gives its text's and its images' experts
        raise Doubt(f"{name} differs from layer to layer")
    return max(value)


def must(config: Config, *names: str, most: int = MOST) -> int:
    """Return the first of these values that is there; raise `Doubt` where there is none."""
    value = count(config, *names, most=most)
    if value is None:
        raise Doubt(f"it has no {names[0]}")
    return value


def words(config: Config, name: str) -> tuple[str, ...]:
    """Return a list of words, () where it is missing; raise `Doubt` where it is something else."""
    value = config.get(name)
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
        raise Doubt(f"{name} is {shown(value)}, not a list of words")
    return tuple(value)


def numbers(config: Config, name: str) -> tuple[int, ...]:
    """Return a list of whole numbers; raise `Doubt` where it is something else."""
    value = config.get(name)
    if not isinstance(value, list) or not all(type(number) is int for number in value):
        raise Doubt(f"{name} is {shown(value)}, not a list of numbers")
    return tuple(value)


def table(config: Config, name: str) -> Config:
    """Return a table inside a table, {} where it is missing or something else."""
    value = config.get(name)
    return value if isinstance(value, Mapping) else {}


def shown(value: Any) -> str:
    """Return a value as it is quoted in a note: cut off where it is long."""
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
