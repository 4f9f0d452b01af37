"""The longest context that vLLM takes a model's configuration for; a longer --max-model-len it refuses.

Pure. Owns the many names of that length and what a scaling of the rotary positions makes of it. What cannot be a
length is said in words and counts as not known.
Sources: `_get_and_verify_max_len` of vllm/config.py and vllm/config/model.py (0.6 to 0.33),
`derive_max_model_len_and_key` of vllm/transformers_utils/model_arch_config_convertor.py (0.14 on).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from autolaunch.claims import Config, Doubt, shown
from autolaunch.shape import LONGEST

_NAMES = (
    "max_position_embeddings",
    "n_positions",
    "max_seq_len",
    "seq_length",
    "model_max_length",
    "max_target_positions",
    "max_sequence_length",
    "max_seq_length",
    "seq_len",
)
"""Where configurations keep the longest context; vLLM takes the least of those that are there."""

_FIRST = "model_max_length"
"""The name that goes before all others, whatever they say (Command-R; from 0.8.3 on)."""

_WITHIN = ("su", "longrope", "llama3")
"""Kinds of scaling within the length that the configuration states: their factor is not multiplied into it."""

_YARN = ("yarn", "deepseek_yarn", "deepseek_llama_scaling")
"""Kinds that are within the stated length from 0.30 on. Before, their factor was multiplied: that of `yarn` into the
length before the scaling, that of the others into the stated one."""

YARN_WITHIN = (0, 30)


@dataclass(frozen=True, slots=True)
class Longest:
    """The longest context in tokens, None where nothing says it; `note` says what is wrong with what is said."""

    tokens: int | None = None
    note: str = ""


def longest(text: Config, *, release: tuple[int, int] | None = None) -> Longest:
    """Return the longest context that a release takes from a language model's configuration; never raises.

    `release` None is any: the least of what they take. Where a scaling cannot be made out, the stated length counts,
    which no release refuses.
    """
    stated, note = _stated(text, release)
    if stated is None:
        return Longest(None, note)
    releases = ((0, 29), YARN_WITHIN) if release is None else (release,)
    try:
        return Longest(min(_scaled(text, stated, one) for one in releases), note)
    except Doubt as doubt:
        return Longest(stated, f"{doubt}: no more than the stated {stated} tokens of context are taken")


def _stated(text: Config, release: tuple[int, int] | None) -> tuple[int | None, str]:
    """Return the length before any scaling, and what is wrong with a length that cannot be one."""
    given = {name: text[name] for name in _NAMES if text.get(name) is not None}
    good = {name: length for name, value in given.items() if (length := _length(value)) is not None}
    bad = next((name for name in given if name not in good), None)
    note = "" if bad is None else f"{bad} is {shown(given[bad])}, which is the longest context of no model"
    if _FIRST in good and (release is None or release >= (0, 9)):
        least = min(good.values()) if release is None else good[_FIRST]
        return least, note
    return min(good.values(), default=None), note


def _length(value: Any) -> int | None:
    """Return a number of tokens, None for what can be none; some configurations write 32768.0."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if type(value) is int and 0 < value <= LONGEST else None


def _scaled(text: Config, stated: int, release: tuple[int, int]) -> int:
    """Return the length after the scaling that a configuration asks for; raise `Doubt` where that is not clear."""
    length, factor = float(stated), 1.0
    if "gemma3" in str(text.get("model_type")):
        return stated  # what they state is scaled already
    for scaling in _scalings(text):
        kind = scaling.get("rope_type", scaling.get("type"))
        if not isinstance(kind, str):
            if scaling.get("factor", 1) in (1, None):
                continue
            raise Doubt("the scaling of its positions has no kind")
        if kind in _WITHIN or (kind in _YARN and release >= YARN_WITHIN):
            continue
        if scaling.get("factor") is not None:
            factor = _factor(scaling["factor"])
        if kind == "yarn":
            length = _before(scaling)
    if not 1 <= length * factor <= LONGEST:
        raise Doubt(f"{stated} tokens scaled by {factor:g} are the longest context of no model")
    return int(length * factor)


def _scalings(text: Config) -> Iterator[Mapping[str, Any]]:
    """Give the scaling of the rotary positions, one for each kind of layer where they differ."""
    given = text.get("rope_scaling") or text.get("rope_parameters")
    if given is None or given == {}:
        return
    if not isinstance(given, Mapping):
        raise Doubt(f"the scaling of its positions is {shown(given)}, not a table")
    tables = [value for value in given.values() if isinstance(value, Mapping)]
    yield from tables if len(tables) == len(given) else [given]


def _factor(value: Any) -> float:
    if type(value) not in (int, float) or not math.isfinite(value) or value <= 0:
        raise Doubt(f"the scaling of its positions has the factor {shown(value)}")
    return float(value)


def _before(scaling: Mapping[str, Any]) -> int:
    """Return the length before YaRN scales it, which releases before 0.30 demand."""
    length = _length(scaling.get("original_max_position_embeddings"))
    if length is None:
        raise Doubt("YaRN without original_max_position_embeddings")
    return length
