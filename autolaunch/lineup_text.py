"""The list of models as a person and a script read it: a table that fits the terminal, one model in full, JSON.

Pure. Owns the wording; the verdicts are `lineup`'s.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from autolaunch.entry import REMOTE_CODE
from autolaunch.facts import GIB
from autolaunch.lineup import Fit, Listed, Verdict, tensor_parallel_sizes
from autolaunch.shape import kv_bytes_per_token
from autolaunch.sizes import gib

HEADINGS = ("name", "GiB", "context", "KV/1k", "fits", "model")
"""`GiB` are those of the weights, `KV/1k` the MiB that 1024 tokens take in the KV cache."""

_SPARED = (5, 3, 2)
"""The columns that go, in this order, where a terminal is too narrow; the last one is cut first."""

_LEAST = 20
"""A last column that would be cut below this is left out."""

_BITS = {"fp8": "FP8", "bitsandbytes": "4 bits"}
"""What weights are called that are quantized while they are loaded; a variant goes by its method."""


def table(listed: Sequence[Listed], *, width: int | None) -> Iterator[str]:
    """Return the table's lines, within `width` columns where that is possible; None is a file, which holds any."""
    rows = [HEADINGS, *(_row(one) for one in listed)]
    columns = [[row[index] for row in rows] for index in range(len(HEADINGS))]
    widths = [max(map(len, column)) for column in columns]
    shown = list(range(len(HEADINGS)))
    for spared in _SPARED:
        rest = (width or 1 << 20) - sum(widths[index] + 2 for index in shown if index != spared)
        if rest >= widths[spared]:
            break
        if spared == len(HEADINGS) - 1 and rest >= _LEAST:
            widths[spared] = rest
            break
        shown.remove(spared)
    for row in rows:
        yield "  ".join(_cell(row[index], widths[index], index) for index in shown).rstrip()


def _cell(text: str, width: int, index: int) -> str:
    text = text if len(text) <= width else text[: width - 1] + "…"
    return text.rjust(width) if index in (1, 2, 3) else text.ljust(width)


def _row(one: Listed) -> tuple[str, ...]:
    weights, length, kv = one.model.weights, one.model.max_model_len, _kv_bytes(one)
    return (
        one.entry.name,
        "" if weights is None else f"{weights.loaded_bytes / GIB:.1f}",
        "" if length is None else _length(length),
        "" if kv is None else f"{kv * 1024 / (1 << 20):.1f}",
        verdict(one.fit, full=length),
        _place(one),
    )


def _place(one: Listed) -> str:
    inside = one.entry.model.startswith("/") and bool(one.entry.alias) and not one.entry.file
    return "(ships with autolaunch)" if inside else one.entry.model


def _kv_bytes(one: Listed) -> float | None:
    """Return what one more token of a long context takes on one card, in 16 bits; None where that is not known."""
    return None if one.model.shape is None else kv_bytes_per_token(one.model.shape, ranks=1)


def _length(tokens: int) -> str:
    return f"{tokens // 1024}k" if tokens >= 1024 else str(tokens)


def verdict(fit: Fit, *, full: int | None) -> str:
    """Return the verdict in a few words; `full` is the model's own context in tokens."""
    if fit.verdict is Verdict.UNKNOWN:
        return "unknown"
    if fit.verdict is Verdict.REFUSED:
        return fit.short
    if fit.verdict is Verdict.TOO_BIG:
        each = " each" if fit.cards > 1 else ""
        return "too big" if fit.missing is None else f"too big by {fit.missing / GIB:.1f} GiB{each}"
    said = "may fit" if fit.hopeful else "fits"
    said += f" on {fit.cards} cards" if fit.cards > 1 else ""
    if fit.bits:
        said += f" {'in' if fit.bits == 'bitsandbytes' else 'with'} {_BITS.get(fit.bits, fit.bits.upper())}"
    shorter = fit.context is not None and full is not None and fit.context < full
    return f"{said}, {_length(fit.context)}" if shorter and fit.context is not None else said


def in_full(one: Listed) -> Iterator[str]:
    """Return everything that is known of one model, a fact a line."""
    entry, model, kv = one.entry, one.model, _kv_bytes(one)
    yield f"{entry.name}  {_place(one)}"
    if entry.description:
        yield f"  {entry.description}"
    facts = {
        "also": ", ".join(entry.also),
        "same size": ", ".join(entry.like),
        "from": entry.file,
        "weights": "" if model.weights is None else f"{gib(model.weights.loaded_bytes)} ({model.weights.basis})",
        "context": "" if model.max_model_len is None else f"{model.max_model_len} tokens",
        "KV cache": "" if kv is None else f"{kv * 1024 / (1 << 20):.2f} MiB for 1024 tokens",
        "cards": ", ".join(map(str, tensor_parallel_sizes(model))),
        "needs": "; ".join(_needs(one)),
        "fewer bits": "; ".join(_variants(one)),
        "here": verdict(one.fit, full=model.max_model_len) + (f": {one.fit.why}" if one.fit.why else ""),
    }
    for name, text in facts.items():
        if text:
            yield f"  {name:<11}{text}"


def _needs(one: Listed) -> Iterator[str]:
    entry = one.entry
    if entry.since:
        yield f"vLLM {entry.since} or newer" + (f" ({entry.before} is for older ones)" if entry.before else "")
    if entry.until:
        yield f"vLLM {entry.until} or older"
    if entry.remote_code:
        yield f"{REMOTE_CODE}, which the short name brings: code of its publisher runs"


def _variants(one: Listed) -> Iterator[str]:
    for variant in one.entry.variants:
        size = "" if variant.weights is None else f", {gib(variant.weights.loaded_bytes)}"
        yield f"{variant.model} ({variant.quantization}{size})"


def as_json(one: Listed) -> dict[str, Any]:
    """Return one model of `models --json`; None is what is not known, `fits` as in `plan --json`."""
    entry, model, fit = one.entry, one.model, one.fit
    fits: Mapping[Verdict, bool | None] = {Verdict.UNKNOWN: None, Verdict.FITS: True, Verdict.FEWER_BITS: True}
    return {
        "name": entry.name,
        "model": entry.model,
        "description": entry.description,
        "also": list(entry.also),
        "file": entry.file or None,
        "weights_bytes": None if model.weights is None else model.weights.loaded_bytes,
        "max_model_len": model.max_model_len,
        "kv_bytes_per_token": _kv_bytes(one),
        "tensor_parallel_sizes": list(tensor_parallel_sizes(model)),
        "since": entry.since or None,
        "until": entry.until or None,
        "trust_remote_code": entry.remote_code,
        "variants": [variant.model for variant in entry.variants],
        "verdict": str(fit.verdict),
        "fits": fits.get(fit.verdict, False),
        "quantization": fit.bits or None,
        "cards": fit.cards,
        "context": fit.context,
        "missing_bytes": fit.missing,
        "why": fit.why,
        "settings": dict(fit.settings),
    }
