"""Cards by the names people write, for a plan on a machine that does not have them.

Owns `cards.toml` and the reading of a card's name. What a card that is there says of itself goes before this table:
that is `nvml`'s.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from autolaunch.errors import WishError
from autolaunch.facts import Basis, Device, DeviceKind
from autolaunch.tables import shipped_table

_NOISE = re.compile(r"nvidia|geforce|tesla|rtx|gtx|gpu|generation|blackwell|[^a-z0-9]")
"""What a card's name is the same without."""


@dataclass(frozen=True, slots=True)
class Card:
    """A product: its name as NVML says it, the bytes that CUDA counts, its compute capability.

    `basis` is MEASURED where a card of this kind reported the total, ESTIMATED where it is worked out from NVML's;
    `source` says how in words. `note` tells it from others of the same name ("" where there are none), `unified` is
    as in `Device`.
    """

    name: str
    total_bytes: int
    capability: tuple[int, int]
    basis: Basis
    source: str
    unified: bool = False
    note: str = ""

    def device(self, *, free_bytes: int | None = None) -> Device:
        """Return such a card as a device of which `free_bytes` are free, all of it where not given."""
        return Device(
            kind=DeviceKind.CUDA,
            name=self.name,
            total_bytes=self.total_bytes,
            free_bytes=self.total_bytes if free_bytes is None else free_bytes,
            compute_capability=self.capability,
            unified=self.unified,
            basis=self.basis,
        )


def find_card(name: str) -> Card:
    """Return the card of a name such as "RTX 4090", "4090", "A100-40GB"; `WishError` names the nearest where none.

    Where a name fits cards of several sizes it is the smallest, or the usual one, and `note` says so.
    """
    known = _by_word()
    word = _word(name)
    if word in known:
        return known[word]
    near = dict.fromkeys(known[match].name for match in difflib.get_close_matches(word, known, n=8, cutoff=0.65))
    hint = f"did you mean {_listed(tuple(near)[:3])}? " if near else ""
    raise WishError(
        f"no NVIDIA card is known as {name!r}",
        hint=f"{hint}any other card: --gpu-memory-total 24GiB --compute-capability 8.9",
    )


@lru_cache(maxsize=1)
def cards() -> tuple[Card, ...]:
    """Load the shipped table, in its order."""
    table = _table()
    return tuple(_card(name, facts, table["sources"]) for name, facts in table["cards"].items())


def _table() -> dict[str, Any]:
    return shipped_table("cards.toml")


def _card(name: str, facts: Mapping[str, Any], sources: Mapping[str, Any]) -> Card:
    source = sources[facts["source"]]
    major, _, minor = facts["capability"].partition(".")
    return Card(
        name=name,
        total_bytes=facts["total_bytes"] if "total_bytes" in facts else facts["total_mib"] << 20,
        capability=(int(major), int(minor)),
        basis=Basis(source["basis"]),
        source=source["text"],
        unified=facts.get("unified", False),
        note=facts.get("note", ""),
    )


@lru_cache(maxsize=1)
def _by_word() -> dict[str, Card]:
    """Return every card by every word it is known by; a card's own name goes before another's alias."""
    words: dict[str, Card] = {}
    pairs = list(zip(cards(), _table()["cards"].values(), strict=True))
    for card, _ in pairs:
        words.setdefault(_word(card.name), card)
    for card, facts in pairs:
        for alias in (*facts.get("aliases", ()), f"{card.name} {facts['gb']}GB"):
            words.setdefault(_word(alias), card)
    return words


def _word(name: str) -> str:
    """Return a name without what does not tell cards apart: "NVIDIA GeForce RTX 4090" is "4090"."""
    word = _NOISE.sub("", name.lower().replace("mobile", "laptop").replace("gib", "gb"))
    return re.sub(r"(?<=\d)g$", "gb", word)


def _listed(names: tuple[str, ...]) -> str:
    return " or ".join(filter(None, (", ".join(names[:-1]), names[-1])))
