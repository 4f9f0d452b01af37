"""The cards that one start runs on, as the file of FAKE_NVML describes them: read, and what is held written there.

The file is tests/fake_nvml's; what this engine holds carries its pid and `ticks`, so that it is gone with the process.
Neighbours are one entry of NEIGHBOUR_PID on the first card that the engine may use.
"""

from __future__ import annotations

import json
import os

from .ledger import stat_fields
from .memory import MemoryModel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Facts = dict[str, Any]

VARIABLE = "FAKE_NVML"
NEIGHBOUR_PID = 2**22 + 1
"""Above the largest pid that Linux gives: never a process of this machine's."""

GIB = 1024**3


class Cards:
    """The first `ranks` cards that CUDA_VISIBLE_DEVICES leaves of the file."""

    def __init__(self, path: str, visible: str | None, ranks: int) -> None:
        self.path = path
        self.chosen = _visible(self._read(), visible)[: max(1, ranks)]

    def facts(self, model: MemoryModel) -> MemoryModel:
        """Give the model on these cards, of which the fullest counts."""
        cards = [self._read()["cards"][place] for place in self.chosen]
        free = min(_free(card) + _neighbours(card) * (card is cards[0]) for card in cards)
        first = cards[0]
        found = {
            "total_gib": (first["total"] - first.get("reserved", 0)) / GIB,
            "free_gib": free / GIB - model.neighbours,
            "capability": tuple(first.get("capability", (8, 9))),
            "name": first.get("name", "NVIDIA GeForce RTX 4090"),
        }
        return MemoryModel(**{**vars(model), **found})

    def neighbours(self, held: int) -> None:
        """Let the neighbours hold that many bytes of the first card."""
        entry: Facts = {"pid": NEIGHBOUR_PID, "bytes": held}
        self._change(lambda place: entry if place == self.chosen[0] else None, NEIGHBOUR_PID, erase=not held)

    def hold(self, pid: int, held: int) -> None:
        """Let a process of the engine hold that many bytes of every card."""
        entry: Facts = {"pid": pid, "bytes": held, "ticks": int(stat_fields(pid)[19])}
        self._change(lambda place: entry, pid, erase=not held)

    def _read(self) -> Facts:
        with open(self.path, encoding="utf-8") as file:  # noqa: PTH123  pathlib costs 5 ms of the start
            found: Facts = json.load(file)
        return found

    def _change(self, entry_of: Callable[[int], Facts | None], pid: int, *, erase: bool) -> None:
        import fcntl

        lock = os.open(f"{self.path}.lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            whole = self._read()
            for place in self.chosen:
                card, entry = whole["cards"][place], entry_of(place)
                if entry is not None:
                    others = [one for one in card.get("processes", ()) if one["pid"] != pid and alive(one)]
                    card["processes"] = others if erase else [*others, entry]
            part = f"{self.path}.{os.getpid()}"
            with open(part, "w", encoding="utf-8") as file:  # noqa: PTH123
                json.dump(whole, file)
            os.replace(part, self.path)  # noqa: PTH105
        finally:
            os.close(lock)


def alive(entry: Facts) -> bool:
    """Whether a file's entry still counts: one with `ticks` does as long as that very process lives."""
    if "ticks" not in entry:
        return True
    try:
        fields = stat_fields(entry["pid"])
    except OSError:
        return False
    return fields[0] not in "ZX" and int(fields[19]) == entry["ticks"]


def _free(card: Facts) -> int:
    if "free" in card:
        return int(card["free"])
    held = sum(one["bytes"] or 0 for one in card.get("processes", ()) if alive(one))
    return int(card["total"]) - int(card.get("reserved", 0)) - held


def _neighbours(card: Facts) -> int:
    return sum(one["bytes"] for one in card.get("processes", ()) if one["pid"] == NEIGHBOUR_PID)


def _visible(whole: Facts, words: str | None) -> list[int]:
    every = list(range(len(whole["cards"])))
    if not words:
        return every
    chosen = []
    for word in words.split(","):
        known = [place for place in every if str(whole["cards"][place].get("uuid", "")).startswith(word)]
        chosen += [int(word)] if word.isdecimal() else known[:1]
    return chosen
