"""The cards that an engine is given where the user named none, and how CUDA is told.

Pure. Owns the choice and the environment that carries it out; what there is to choose from is `visible`'s.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from autolaunch.facts import Device
from autolaunch.visible import ORDER, PCI_BUS_ID, VISIBLE

ALIKE_BYTES = 256 << 20
"""Free memory is compared in steps of this: a few MiB of a display are no reason to take another card."""


def choose(
    choosable: Sequence[Device], *, count: int = 1, least_capability: tuple[int, int] | None = None
) -> tuple[Device, ...]:
    """Return the `count` emptiest suitable cards, in the order of the bus; () where there are not so many.

    Suitable is a card that has at least this compute capability (an unknown one is given the benefit of the doubt),
    and whose memory is known where any card's is. Unified memory is taken only where there is nothing else. Slices
    are for one rank only: CUDA shows a process no more than one. Equal cards are taken from the lowest number up.
    """
    able = [device for device in choosable if _able(device, least_capability)]
    if count > 1:
        able = [device for device in able if not is_slice(device)]
    able = _preferred(able, count)
    emptiest = sorted(able, key=lambda device: (-((device.free_bytes or 0) // ALIKE_BYTES), device.index or 0))
    chosen = emptiest[:count] if count >= 1 else []
    return tuple(sorted(chosen, key=lambda device: device.index or 0)) if len(chosen) == count else ()


def _able(device: Device, least: tuple[int, int] | None) -> bool:
    return least is None or device.compute_capability is None or device.compute_capability >= least


def _preferred(devices: list[Device], count: int) -> list[Device]:
    """Drop what is second best where enough is left: unknown memory first, then unified memory."""
    for second_best in (lambda device: device.free_bytes is None, lambda device: device.unified):
        best = [device for device in devices if not second_best(device)]
        devices = best if len(best) >= count else devices
    return devices


def is_slice(device: Device) -> bool:
    """Whether this is a MIG instance."""
    return device.uuid.startswith("MIG-")


def environment_for(chosen: Sequence[Device], *, among: Sequence[Device]) -> Mapping[str, str]:
    """Return what the engine's environment gets so that it uses `chosen` of `among`; {} where nothing need be said.

    Cards go by their number on the bus, with CUDA told to count so too: vLLM reads the variable with int() and dies
    of a card's or a slice's UUID (0.20.1, vllm#41848; 0.32 asks NVML for the card with the slice's number). A card
    in MIG mode by its number is its first slice. Nothing is said where there is one card, and where the user chose
    (`among` is () then).
    """
    if not chosen or len(among) < 2:
        return {}
    return {VISIBLE: ",".join(str(device.index) for device in chosen), ORDER: PCI_BUS_ID}
