"""Where an engine will run: on which cards, with which environment, and how much memory is there now.

I/O through `hardware` and `lock`; the choice itself is `choice`'s.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from itertools import takewhile

from autolaunch import hardware
from autolaunch.choice import choose, environment_for
from autolaunch.facts import Device, DeviceKind, Engine
from autolaunch.lock import CardLocks, Held
from autolaunch.visible import VISIBLE, Seen


@dataclass(frozen=True, slots=True)
class Placement:
    """The place of a run.

    `environment` is the engine's; `cards` how many cards its ranks may take, `names` what tells each of them (or the
    host's memory) from others; `device` the fullest of them as measured now; `trouble` what could not be read.
    `numbers` are the cards' on the bus where there are others beside them.
    """

    environment: Mapping[str, str]
    device: Device
    cards: int = 1
    names: tuple[str, ...] = ()
    trouble: str = ""
    numbers: tuple[int, ...] = ()

    def words(self, *, ranks: int) -> str:
        """Return which cards these are, of which `ranks` are used: "card 1: NAME", "cards 0, 1: 2 x NAME", or ""."""
        if not self.device.name:
            return ""
        some = f"{ranks} of {self.cards} x " if ranks < self.cards else f"{self.cards} x "
        where = f"card{'s' if len(self.numbers) > 1 else ''} {', '.join(map(str, self.numbers))}: "
        return (where if self.numbers else "") + (some if self.cards > 1 else "") + self.device.name

    def measure(self) -> Device:
        """Return the device as it is now."""
        return hardware.measure(self.device.kind, cards=self.cards, environment=self.environment)

    def measured(self) -> Placement:
        """Return the same place with its memory as it is now."""
        return replace(self, device=self.measure())


def place(engine: Engine, environment: Mapping[str, str], *, cards: int, avoid: Collection[str] = ()) -> Placement:
    """Return the place for an engine of `cards` ranks: the user's cards, else the emptiest suitable ones.

    `avoid` names cards that are not chosen. Where fewer cards are there than asked for, all of them are taken and
    `cards` says how many. Where none can be read, the device is unknown and `trouble` says why: the engine may be
    remote or in a container.
    """
    if engine.device is DeviceKind.CPU:
        return _host(environment)
    return _among(hardware.look(environment), engine, environment, cards=cards, avoid=avoid)


def every_place(engine: Engine, environment: Mapping[str, str]) -> tuple[Placement, ...]:
    """Return the places on 1, 2, 4, ... cards, up to all that are there, after one look at them."""
    if engine.device is DeviceKind.CPU:
        return (_host(environment),)
    seen = hardware.look(environment)
    there = max(1, len(seen.choosable) or len(seen.devices))
    counts = takewhile(lambda count: count <= there, (1 << power for power in range(7)))
    return tuple(_among(seen, engine, environment, cards=count) for count in counts)


def _host(environment: Mapping[str, str]) -> Placement:
    device = hardware.measure(DeviceKind.CPU, environment=environment)
    return Placement(environment, device, 1, (device.name,))


def _among(
    seen: Seen, engine: Engine, environment: Mapping[str, str], *, cards: int, avoid: Collection[str] = ()
) -> Placement:
    """Return the place among the cards that were seen."""
    choosable = [device for device in seen.choosable if _name(device) not in avoid]
    chosen = choose(choosable, count=min(cards, len(choosable)))
    if chosen:
        environment = {**environment, **environment_for(chosen, among=seen.choosable)}
    used = chosen or seen.devices[:cards]
    device = min(used, key=lambda one: one.free_bytes or 0, default=Device(kind=engine.device))
    numbers = tuple(one.index for one in used if one.index is not None) if VISIBLE in environment else ()
    return Placement(environment, device, len(used) or cards, tuple(map(_name, used)), seen.trouble, numbers)


def _name(device: Device) -> str:
    return device.uuid or f"{device.name} {device.index}"


MOVES = 3
"""How often a place is chosen anew after a wait: others wait too, and may move with us."""

AS_EMPTY = 0.9
"""How much of the emptiest card's free memory another one must have to be taken while the emptiest is busy."""


def claim(
    engine: Engine, environment: Mapping[str, str], *, cards: int, locks: CardLocks, wait_s: float
) -> tuple[Placement, Held | None]:
    """Return the place and the hold on its cards, waiting up to `wait_s` for another start on them to end.

    Where the cards are busy and others are about as empty, those are taken. After a wait the memory is not what it
    was, and the other start may have filled the card: the place is chosen anew. The hold is None where the wait was
    in vain: the launch goes on without.
    """
    first = place(engine, environment, cards=cards)
    held = locks.acquire(first.names, wait_s=0.0)
    if held is not None:
        return first, held
    other = place(engine, environment, cards=cards, avoid=first.names)
    if set(other.names).isdisjoint(first.names) and _as_empty(other.device, first.device):
        held = locks.acquire(other.names, wait_s=0.0)
        if held is not None:
            return other, held
    deadline = time.monotonic() + wait_s
    for _ in range(MOVES):
        held = locks.acquire(first.names, wait_s=max(0.0, deadline - time.monotonic()))
        first, best = first.measured(), place(engine, environment, cards=cards)
        if set(best.names) == set(first.names) or _as_empty(first.device, best.device):
            break
        if held is not None:
            held.release()
        first = best
    else:
        held = locks.acquire(first.names, wait_s=max(0.0, deadline - time.monotonic()))
    return first, held


def _as_empty(other: Device, first: Device) -> bool:
    if other.free_bytes is None or first.free_bytes is None:
        return False
    return other.free_bytes >= AS_EMPTY * first.free_bytes
