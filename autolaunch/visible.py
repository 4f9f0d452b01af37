"""Which of a host's cards a CUDA process sees, and in which order.

Pure. Owns the meaning of CUDA_VISIBLE_DEVICES and CUDA_DEVICE_ORDER; reading the cards is `nvml`'s, choosing among
them `choice`'s. NVIDIA_VISIBLE_DEVICES is the container's matter: what it hides, NVML does not list either. Sources:
the CUDA programming guide (environment variables), the MIG user guide (device enumeration), PyTorch's own reading
of the variable (torch/cuda/__init__.py of 2.13).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from autolaunch.facts import Device

VISIBLE = "CUDA_VISIBLE_DEVICES"
ORDER = "CUDA_DEVICE_ORDER"
PCI_BUS_ID = "PCI_BUS_ID"


@dataclass(frozen=True, slots=True)
class Listed:
    """A card, or a slice of one, as NVML lists it: `device.index` is the card's number, on the PCI bus.

    `speed` is cores times clock (0 where unknown); `old_name` is a slice's name before R470
    ("MIG-GPU-<uuid>/<GPU instance>/<compute instance>"), empty for a whole card.
    """

    device: Device
    speed: int = 0
    old_name: str = ""

    @property
    def is_slice(self) -> bool:
        """Whether this is a MIG instance."""
        return bool(self.old_name)


@dataclass(frozen=True, slots=True)
class Seen:
    """What was found on a host.

    `devices` are those a CUDA process in this environment sees, in its order; `choosable` those to choose from
    where the user chose none: every card, one in MIG mode as its first slice; () where CUDA_VISIBLE_DEVICES is set.
    `trouble` is what could not be read or is uncertain, in words for the user; "" where all is well.
    """

    devices: tuple[Device, ...] = ()
    choosable: tuple[Device, ...] = ()
    trouble: str = ""


def seen(listed: Sequence[Listed], environment: Mapping[str, str], *, trouble: str = "") -> Seen:
    """Return what a CUDA process in `environment` sees of the cards that NVML lists in PCI order."""
    wanted = environment.get(VISIBLE)
    numbered = _numbered(listed, by_bus=environment.get(ORDER, "").strip().upper() == PCI_BUS_ID)
    shown = tuple(numbered.values()) if wanted is None else _named(listed, numbered, wanted)
    troubles = (trouble, _hidden(listed, shown, wanted), _doubt(listed, environment))
    return Seen(
        devices=tuple(one.device for one in _enumerated(shown)),
        choosable=tuple(one.device for one in _on_the_bus(listed).values()) if wanted is None else (),
        trouble="; ".join(filter(None, troubles)),
    )


def _numbered(listed: Sequence[Listed], *, by_bus: bool) -> dict[int, Listed]:
    """Return every card by CUDA's number.

    CUDA's own order is FASTEST_FIRST: "a simple heuristic" puts the fastest card first and promises nothing of the
    rest. Equal cards keep the order of the bus; cards that differ are taken to be ordered by cores times clock, and
    `_doubt` says that this is a guess. On the bus's order a card that could not be read keeps its number.
    """
    cards = _on_the_bus(listed)
    if by_bus or not _mixed(listed):
        return cards
    return dict(enumerate(sorted(cards.values(), key=lambda one: -one.speed)))


def _on_the_bus(listed: Sequence[Listed]) -> dict[int, Listed]:
    """Return every card by its number on the bus; one in MIG mode is its first slice, as CUDA takes it."""
    cards: dict[int, Listed] = {}
    for one in listed:
        cards.setdefault(one.device.index or 0, one)
    return cards


def _mixed(listed: Sequence[Listed]) -> bool:
    """Whether cards of different kinds are among them (the name of a slice ends with its profile)."""
    return len({one.device.name.partition(" MIG ")[0] for one in listed}) > 1


def _named(listed: Sequence[Listed], numbered: Mapping[int, Listed], wanted: str) -> tuple[Listed, ...]:
    """Return the cards that the variable names, in its order.

    As CUDA does: the first entry says whether all are numbers, cards' or slices' UUIDs (or their unambiguous
    beginnings); the first one that is none of the kind ends the list; one that comes twice empties it.
    """
    first = wanted.strip()
    prefix = next((prefix for prefix in ("GPU-", "MIG-") if first.startswith(prefix)), "")
    chosen: list[Listed] = []
    for word in wanted.split(","):
        found = _by_uuid(listed, word.strip(), prefix) if prefix else numbered.get(_number(word))
        if found is None:
            break
        if found in chosen:
            return ()
        chosen.append(found)
    return tuple(chosen)


def _number(word: str) -> int:
    """Return the number a word begins with, as strtol reads it ("1gpu" is 1); -1, which is no card, where none."""
    found = re.match(r"\s*\+?0*([0-9]{1,9})(?![0-9])", word)
    return int(found[1]) if found else -1


def _by_uuid(listed: Sequence[Listed], word: str, prefix: str) -> Listed | None:
    """Return the only card or slice whose UUID begins so; a card in MIG mode stands for its first slice."""
    if not word.startswith(prefix):
        return None
    if prefix == "MIG-":
        found = [one for one in listed if one.is_slice and (one.device.uuid.startswith(word) or one.old_name == word)]
    else:
        parents = {one.device.index: one for one in reversed(listed) if _parent(one).startswith(word)}
        found = list(parents.values())
    return found[0] if len(found) == 1 else None


def _parent(one: Listed) -> str:
    """Return the UUID of the card, a slice's too."""
    return one.old_name.removeprefix("MIG-").partition("/")[0] if one.is_slice else one.device.uuid


def _enumerated(shown: tuple[Listed, ...]) -> tuple[Listed, ...]:
    """Return what CUDA counts: one slice and nothing else where any slice is visible, else every card."""
    slices = [one for one in shown if one.is_slice]
    return (slices[0],) if slices else shown


def _hidden(listed: Sequence[Listed], shown: tuple[Listed, ...], wanted: str | None) -> str:
    """Return the words for a variable that leaves nothing of what is there."""
    if wanted is None or shown or not listed:
        return ""
    return f"{VISIBLE}={wanted!r} leaves no card of the {len({one.device.index for one in listed})} that are there"


def _doubt(listed: Sequence[Listed], environment: Mapping[str, str]) -> str:
    """Return the words for an order of CUDA's that can only be guessed, where the user's choice rests on it."""
    wanted = environment.get(VISIBLE, "")
    by_bus = environment.get(ORDER, "").strip().upper() == PCI_BUS_ID
    if by_bus or not _mixed(listed) or _number(wanted) < 0:
        return ""
    return (
        f"the cards differ, and CUDA puts the fastest first by a rule of its own: which ones {VISIBLE}={wanted} names "
        f"is a guess; {ORDER}={PCI_BUS_ID} makes it the numbers of nvidia-smi"
    )
