"""How long a start would take: simulated seconds, of which nothing is waited for. Pure.

Taken from starts that were measured: 45 s to a refusal at the snapshot on a busy machine and 25 s on a quiet one, 30 s
for a cold compile of 40 layers and 6 s from its cache, about 1 GiB of weights a second.
"""

from __future__ import annotations

from .behaviours import PHASES

TO_SNAPSHOT_S = 25.0
LOAD_BYTES_PER_S = 1024**3
COMPILE_S, COMPILE_WARM_S, COMPILED_LAYERS = 30.0, 6.0, 40
PROFILE_S, CAPTURE_S, SERVER_S = 5.0, 8.0, 4.0


def seconds(phase: str, *, weight_bytes: int, layers: int, eager: bool, cold: bool) -> float:
    """Give the seconds from the command to the end of a phase ("serving" is READY)."""
    compiling = 0.0 if eager else COMPILE_S * layers / COMPILED_LAYERS if cold else COMPILE_WARM_S
    spent = {
        "config": 12.0,
        "init": TO_SNAPSHOT_S - 12.0,
        "load": weight_bytes / LOAD_BYTES_PER_S,
        "profile": PROFILE_S + compiling,
        "kv_cache": 1.0,
        "graphs": 0.0 if eager else CAPTURE_S,
        "warmup": 1.0,
        "serving": SERVER_S,
    }
    return round(sum(spent[name] for name in PHASES[1 : PHASES.index(phase) + 1]), 1)
