"""What was found of cards and host memory, as lines a person reads.

Pure. Owns the wording; `autolaunch doctor` prints it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from autolaunch.facts import Device, DeviceKind
from autolaunch.sizes import gib
from autolaunch.visible import VISIBLE, Seen

UNSEEN_BYTES = 256 << 20
"""Less than this in use beyond what the listed processes hold is the driver's own."""


def describe(seen: Seen, *, chosen: Sequence[Device] = ()) -> tuple[str, ...]:
    """Return one line for each card the engine sees and for what holds it, then what is wrong; without indentation.

    `chosen` are the cards autolaunch would take where the user named none.
    """
    shown = seen.devices if not chosen or len(seen.choosable) < 2 else seen.choosable
    lines = [line for device in shown for line in _card(device, taken=device in chosen and len(shown) > 1)]
    if not shown:
        lines.append("no card is visible")
    if len(seen.choosable) > 1:
        lines.append(f"{VISIBLE} is not set: of {len(seen.choosable)} cards the emptiest suitable ones are taken")
    return (*lines, *([seen.trouble] if seen.trouble else []))


def _card(device: Device, *, taken: bool) -> Iterator[str]:
    capability = device.compute_capability
    facts = [
        f"{gib(device.free_bytes)} free of {gib(device.total_bytes)}" if device.total_bytes else "memory unknown",
        f"compute capability {capability[0]}.{capability[1]}" if capability else "",
        "taken" if taken else "",
    ]
    number = "host" if device.kind is DeviceKind.CPU else f"card {device.index}"
    yield f"{number}: {device.name}, {', '.join(filter(None, facts))}"
    if device.unified:
        yield "  unified memory: host and card share one address space, an overcommit can hang the host"
    yield from _held(device)


def _held(device: Device) -> Iterator[str]:
    for holder in device.holders:
        amount = gib(holder.used_bytes) if holder.used_bytes is not None else "an unknown amount is"
        yield f"  {amount} held by {holder.name}{f' of {holder.user}' if holder.user else ''} (pid {holder.pid})"
    amounts = [holder.used_bytes for holder in device.holders]
    if device.unified or device.total_bytes is None or device.free_bytes is None or None in amounts:
        return
    unseen = device.total_bytes - device.free_bytes - sum(amount or 0 for amount in amounts)
    if unseen > UNSEEN_BYTES:
        yield f"  {gib(unseen)} held by what cannot be seen from here: another container, or another user"
