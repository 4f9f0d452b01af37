"""What memory there is: the cards a CUDA engine will see, or the host a CPU engine counts.

I/O. Owns the joining of `nvml`, `host` and `visible`; decides nothing, guesses nothing: what cannot be read is None
or said in words.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from autolaunch import nvml
from autolaunch.facts import Device, DeviceKind
from autolaunch.host import host_memory
from autolaunch.visible import Seen, seen


def look(environment: Mapping[str, str] = os.environ) -> Seen:
    """Return the cards a CUDA process in `environment` sees, those to choose from, and what is wrong, in words.

    Never raises; at most `nvml.DEADLINE_S` seconds.
    """
    reading = nvml.read()
    return seen(reading.listed, environment, trouble=reading.trouble)


def visible(environment: Mapping[str, str] = os.environ) -> tuple[Device, ...]:
    """Return every card a CUDA process in `environment` sees, in CUDA's order."""
    return look(environment).devices


def measure(kind: DeviceKind, *, cards: int = 1, environment: Mapping[str, str] = os.environ) -> Device:
    """Measure the memory one rank of the engine gets.

    `kind` as the engine says; UNKNOWN looks for a card and settles for nothing known. `cards` is the number of
    cards the engine will use, the first ones it sees; of these the fullest counts. Bytes throughout.
    """
    if kind is DeviceKind.CPU:
        return host_memory(environment)
    used = visible(environment)[: max(1, cards)]
    return min(used, key=lambda device: device.free_bytes or 0, default=Device(kind=kind))
