"""Which concession of ours an engine refused: a failure that is not memory, of settings that nobody asked for.

Pure. An FP8 cache that an attention backend does not know, weights that a release cannot quantize, a variant that
cannot be fetched, heads that cannot be shared out: none of these is the user's fault, nor a reason to end. What to do
about it is `ladder`'s.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from autolaunch.failure import Failure, Kind
from autolaunch.settings import Settings

SUSPECTS: Mapping[str, re.Pattern[str]] = {
    "kv_cache_dtype": re.compile(
        r"kv[-_ ]?cache[-_ ]?dtype|kv[-_ ]?cache.*fp8|fp8.*kv[-_ ]?cache|kv_scale", re.IGNORECASE
    ),
    "quantization": re.compile(r"quanti[sz]|fp8|bitsandbytes|marlin|bnb", re.IGNORECASE),
    "model": re.compile(r"quanti[sz]|awq|gptq|nvfp4|compressed", re.IGNORECASE),
    "tensor_parallel_size": re.compile(
        r"tensor[-_ ]?parallel|divisible|world[-_ ]?size|attention heads|nccl", re.IGNORECASE
    ),
}
"""The concessions that an engine may refuse, in the order in which they are suspected, and the words that name them."""

NAMED = frozenset({Kind.CONFIG_ERROR, Kind.UNKNOWN, Kind.DISTRIBUTED_ERROR, Kind.COMPILE_ERROR})
"""Failures that must name a concession to be put down to it."""

ANY = frozenset({Kind.HARDWARE_UNSUPPORTED, Kind.OTHER_CRASH})
"""Failures that are put down to an unusual setting of ours even where they do not name it."""


def blamed(failure: Failure, settings: Settings, *, pins: frozenset[str]) -> tuple[str, Any] | None:
    """Return the field and value of ours that this failure is put down to, None where it is not ours."""
    made = [name for name in SUSPECTS if getattr(settings, name) is not None]
    ours = [name for name in made if name not in pins]
    if failure.kind is Kind.MODEL_NOT_FOUND and "model" in ours:
        return "model", settings.model
    if failure.kind not in NAMED | ANY:
        return None
    said = next((name for name in made if SUSPECTS[name].search(failure.line)), None)
    if said is None and failure.kind in ANY:
        said = next((name for name in ours if name != "tensor_parallel_size"), None)
    return None if said not in ours or said is None else (said, getattr(settings, said))
