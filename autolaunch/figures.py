"""Numbers out of the engine's sentences, in the units that their names say.

Owns the regular expressions that read figures, and `Effective`: what the engine said about itself. Must not
decide causes. vLLM prints 2**30 bytes under both names: its old "17.56 GB" divides by 2**30 as well, so GB
and GiB are the same unit here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

_KIB_PER = {"B": 1 / 1024, "BYTES": 1 / 1024, "K": 1.0, "M": 1024.0, "G": 1024.0**2, "T": 1024.0**3}
_N = r"(-?[\d.,]{1,24})"
_SIZE = r"(-?[\d.,]{1,24}) ?([KMGT]i?B|B\b|bytes)"

V0_BLOCK_TOKENS = 16
"""V0 prints blocks, not tokens; its default block holds 16."""


@dataclass(frozen=True, slots=True)
class Effective:
    """What the engine itself said about the start: nothing here is computed from settings.

    `cudagraph_gib` is the estimate that was subtracted for CUDA graphs, `captured_gib` what they took in the end.
    Recent releases (about 0.28 on) print `consumed_gib`, weights and non-torch in one, and an `activation_gib` that
    holds the estimate as well; on a CPU engine `consumed_gib` is its whole process without the cache.
    """

    max_model_len: int | None = None
    auto_fit_from: int | None = None
    kv_cache_tokens: int | None = None
    available_kv_gib: float | None = None
    weights_gib: float | None = None
    max_concurrency: float | None = None
    max_num_batched_tokens: int | None = None
    max_num_seqs: int | None = None
    requested_gib: float | None = None
    total_gib: float | None = None
    free_gib: float | None = None
    utilization: float | None = None
    activation_gib: float | None = None
    non_torch_gib: float | None = None
    cudagraph_gib: float | None = None
    captured_gib: float | None = None
    consumed_gib: float | None = None


def number(text: str) -> float | None:
    """Return the number in `text` ("7.06", "117,616", "-0.27"), None if it is none."""
    try:
        value = float(text.replace(",", "").rstrip("."))
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _kib(amount: str, unit: str) -> float | None:
    value = number(amount)
    unit = unit.upper()
    factor = _KIB_PER.get(unit) or _KIB_PER.get(unit[0])
    return None if value is None or factor is None else value * factor


def _gib(amount: str, unit: str) -> float | None:
    kib = _kib(amount, unit)
    return None if kib is None else round(kib / 1024**2, 6)


def _mib(amount: str, unit: str) -> float | None:
    kib = _kib(amount, unit)
    return None if kib is None else round(kib / 1024, 3)


_SIZED: tuple[tuple[str, str, re.Pattern[str]], ...] = (
    # name, unit of the name, where it stands (group 1 the amount, group 2 its unit)
    ("tried_to_allocate_mib", "mib", re.compile(r"[Tt]ried to allocate " + _SIZE)),
    ("tried_to_allocate_mib", "mib", re.compile(r"Unable to allocate " + _SIZE)),  # numpy
    ("total_gib", "gib", re.compile(r"total capaci?ty of " + _SIZE)),  # torch >= 2.1 ("capacty" until 2.2)
    ("free_gib", "gib", re.compile(r"of which " + _SIZE + r" is free")),
    ("total_gib", "gib", re.compile(_SIZE + r" total capacity")),  # torch < 2.1
    ("free_gib", "gib", re.compile(r"allocated; " + _SIZE + r" free")),
    ("needed_kv_gib", "gib", re.compile(_SIZE + r" KV cache is needed")),
    ("available_kv_gib", "gib", re.compile(r"available KV cache memory \(" + _SIZE)),
)
_PLAIN: tuple[tuple[tuple[str, ...], re.Pattern[str]], ...] = (
    (("free_gib", "total_gib"), re.compile(r"\(" + _N + "/" + _N + r" GiB\) on (?:startup|kv)")),
    (("utilization", "requested_gib"), re.compile(r"memory utilization \(" + _N + ", " + _N + r" ?GiB\)")),
    (("available_kv_gib", "requested_gib"), re.compile(r"memory for kv \(" + _N + "/" + _N + " GiB")),
    (("max_seq_len",), re.compile(r"max seq len\s*\(" + _N + r"\)")),
    (("estimated_max_len",), re.compile(r"estimated maximum model length is " + _N)),
    (("estimated_max_len",), re.compile(r"stored in(?: the)? KV cache \(" + _N + r"\)")),
    (("max_seq_len",), re.compile(r"max_model_len \(" + _N + r"\)")),
    (("num_seqs",), re.compile(r"cache blocks \(" + _N + r"\)")),
    (("num_seqs",), re.compile(_N + r" dummy requests")),
)
COUNTS = frozenset({"estimated_max_len", "max_seq_len", "num_seqs"})


def numbers_in(text: str) -> dict[str, float]:
    """Return every number of `NUMBER_NAMES` that a failure's own text states; the first statement wins."""
    found: dict[str, float] = {}
    for name, unit, pattern in _SIZED:
        match = pattern.search(text)
        if match is not None:
            value = (_mib if unit == "mib" else _gib)(match[1], match[2])
            if value is not None:
                found.setdefault(name, value)
    for names, pattern in _PLAIN:
        match = pattern.search(text)
        if match is not None:
            for name, raw in zip(names, match.groups(), strict=True):
                value = number(raw)
                if value is not None:
                    found.setdefault(name, value)
    return {name: int(value) if name in COUNTS else value for name, value in found.items()}


_HOLDER = re.compile(r"\bProcess (\d{1,10}) has " + _SIZE + r" memory in use")


def held_by_others(text: str) -> Mapping[int, float]:
    """Return what PyTorch's own message says other processes hold of the device: GiB by pid, as the host counts them.

    A message without a neighbour names none, one of a release before 2.1 never does.
    """
    found = {int(match[1]): _gib(match[2], match[3]) for match in _HOLDER.finditer(text)}
    return {pid: gib for pid, gib in found.items() if gib is not None}


Update = Callable[[Effective, "re.Match[str]"], Effective]


def _set(field: str, convert: type[int] | type[float] = float) -> Update:
    def update(known: Effective, match: re.Match[str]) -> Effective:
        value = number(match[1])
        return known if value is None else replace(known, **{field: convert(value)})  # type: ignore[arg-type]  # the field's name is data

    return update


def _least(field: str, convert: type[int] | type[float] = float) -> Update:
    """Every worker states its own figure; the engine lives with the smallest."""

    def update(known: Effective, match: re.Match[str]) -> Effective:
        value, before = number(match[1]), getattr(known, field)
        if value is None or (before is not None and before <= value):
            return known
        return replace(known, **{field: convert(value)})  # type: ignore[arg-type]  # the field's name is data

    return update


def _auto_fit(known: Effective, match: re.Match[str]) -> Effective:
    old, new = number(match[1]), number(match[2])
    if old is None or new is None:
        return known
    return replace(known, auto_fit_from=int(old), max_model_len=int(new))


def _blocks(known: Effective, match: re.Match[str]) -> Effective:
    value = number(match[1])
    return known if value is None else replace(known, kv_cache_tokens=int(value) * V0_BLOCK_TOKENS)


_STATED: tuple[tuple[str, re.Pattern[str], Update], ...] = (
    # literal that must be there, where the figure stands, what it says
    (
        "LLM engine (v",
        re.compile(r"max_seq_len=(\d{1,12})"),
        _set("max_model_len", int),
    ),  # all, 0.8 and older say no more
    ("Using max model len", re.compile(r"Using max model len " + _N), _set("max_model_len", int)),
    ("Auto-fit", re.compile(r"reduced from " + _N + " to " + _N), _auto_fit),
    ("Auto-fit", re.compile(r"full model context length " + _N), _set("max_model_len", int)),
    ("KV cache size", re.compile(r"KV cache size: " + _N + " tokens"), _least("kv_cache_tokens", int)),
    ("blocks: ", re.compile(r"\b(?:GPU|cuda|CUDA|xpu|rocm|hip) blocks: " + _N), _blocks),
    ("KV cache memory:", re.compile(r"Available KV cache memory: " + _N), _least("available_kv_gib")),
    ("for KV Cache is", re.compile(r"reserved for KV Cache is " + _N), _set("available_kv_gib")),
    ("for KV cache on node", re.compile(r"Auto set \(" + _N), _set("available_kv_gib")),
    ("loading took", re.compile(r"Model loading took " + _N + " Gi?B"), _set("weights_gib")),
    ("model weights took", re.compile(r"model weights took " + _N + " Gi?B"), _set("weights_gib")),
    ("model weights take", re.compile(r"model weights take " + _N), _set("weights_gib")),
    ("concurrency for", re.compile(r"tokens per request: " + _N), _set("max_concurrency")),
    (
        "max_num_batched_tokens",
        re.compile(r"max_num_batched_tokens['\"]?[=:] ?" + _N),
        _set("max_num_batched_tokens", int),
    ),
    ("max_num_seqs", re.compile(r"max_num_seqs['\"]?[=:] ?" + _N), _set("max_num_seqs", int)),
    ("on device", re.compile(r"device (?:\S+ )?\(" + _N + r"/[\d.]+ GiB\) on startup\. "), _set("free_gib")),
    ("on device", re.compile(r"device (?:\S+ )?\([\d.]+/" + _N + r" GiB\) on startup\. "), _set("total_gib")),
    ("Desired GPU", re.compile(r"Desired GPU memory utilization is \(" + _N), _set("utilization")),
    ("Desired GPU", re.compile(r"utilization is \([\d.]+, " + _N), _set("requested_gib")),
    ("for weight", re.compile(r"usage is " + _N + " GiB for weight"), _set("weights_gib")),
    ("peak activation", re.compile(_N + " GiB for peak activation"), _set("activation_gib")),
    ("for non-torch", re.compile(_N + " GiB for non-torch"), _set("non_torch_gib")),
    ("by non-kv", re.compile(_N + " GiB memory was consumed by non-kv"), _set("consumed_gib")),
    ("consumed memory", re.compile(_N + " GiB for consumed memory"), _set("consumed_gib")),
    ("for CUDAGraph", re.compile(_N + " GiB for CUDAGraph"), _set("captured_gib")),
    (
        "Graph capturing",
        re.compile(r"Graph capturing finished in \S+ secs?, took " + _N + " Gi?B"),
        _set("captured_gib"),
    ),
    ("CUDA graph memory:", re.compile(r"Estimated CUDA graph memory: " + _N), _set("cudagraph_gib")),
    ("total_gpu_memory", re.compile(r"total_gpu_memory \(" + _N), _set("total_gib")),
    ("gpu_memory_utilization (", re.compile(r"gpu_memory_utilization \(" + _N), _set("utilization")),
    ("gpu_memory_utilization (", re.compile(r"\) = " + _N + " ?GiB"), _set("requested_gib")),
    ("non_torch_memory takes", re.compile(r"non_torch_memory takes " + _N), _set("non_torch_gib")),
    ("activation peak memory", re.compile(r"peak memory takes " + _N), _set("activation_gib")),
)


def learn(known: Effective, text: str) -> Effective:
    """Return `known` with what one line of a healthy start adds."""
    for literal, pattern, update in _STATED:
        if literal in text:
            match = pattern.search(text)
            if match is not None:
                known = update(known, match)
    return known
