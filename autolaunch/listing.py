"""`autolaunch models`: the models with a short name and which of them fit here, without network and without an engine.

I/O. Owns the looking: files, cards, the engine's version. The verdicts are `lineup`'s, the words `lineup_text`'s.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from autolaunch import lineup_text
from autolaunch.catalog import Known, before, find_model, load_models
from autolaunch.entry import Entry
from autolaunch.facts import Device, DeviceKind
from autolaunch.lineup import Listed, Where, judge
from autolaunch.model import Where as Reading
from autolaunch.model import look_at
from autolaunch.options import Options
from autolaunch.placement import every_place, place
from autolaunch.planning import Imagined, engine_or_newest
from autolaunch.sizes import gib
from autolaunch.strategy import load_strategy
from autolaunch.talk import give, say


@dataclass(frozen=True, slots=True)
class Here:
    """Where the models are judged for, and what is to be said of it."""

    where: Where
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Asking:
    """What `models` was asked: one name or "", the card, most cards, and the options that a launch has too."""

    name: str = ""
    imagined: Imagined = field(default_factory=Imagined)
    gpus: int | None = None
    options: Options = field(default_factory=Options)


def show(asking: Asking, *, as_json: bool) -> None:
    """Print the list, or one model in full. Raises `AutolaunchError`; starts and writes nothing."""
    known = load_models(asking.options.models)
    entries = [_named(asking.name, known)] if asking.name else list(known.entries().values())
    here = _here(asking)
    listed = [_judged(entry, here.where, known) for entry in entries]
    for note in here.notes:
        say(note)
    if as_json:
        give(json.dumps({"v": 1, "on": _on(here.where), "models": [lineup_text.as_json(one) for one in listed]}))
        return
    for line in _lines(listed, asking.name):
        give(line)


def _lines(listed: Sequence[Listed], name: str) -> Iterator[str]:
    if name:
        return lineup_text.in_full(listed[0])
    wide = shutil.get_terminal_size().columns if sys.stdout is not None and sys.stdout.isatty() else None
    return lineup_text.table(listed, width=wide)


def _named(name: str, known: Known) -> Entry:
    """Return a model by its name; one that vLLM cannot serve is shown with the reason."""
    named = known.names.get(name.lower())
    return find_model(name, known) if named is None or not named.facts.get("refusal") else named.entry()


def _judged(entry: Entry, where: Where, known: Known) -> Listed:
    started = before(entry, where.engine.version, known)
    model = look_at(started, where=Reading(release=where.engine.release))
    return Listed(entry, model, judge(started, model, where))


def _here(asking: Asking) -> Here:
    """Return the cards and the engine: those that are named, else those that are here."""
    options, device = asking.options, asking.imagined.device()
    said: list[str] = [asking.imagined.note] if asking.imagined.note else []
    installation = engine_or_newest(options, imagined=device is not None, notes=said)
    engine = installation.engine
    strategy = load_strategy(options.strategy)
    if device is not None:
        return _told(Where({asking.gpus or 1: device}, engine, strategy), said)
    places = every_place(engine, os.environ) if asking.gpus is None else (place(engine, os.environ, cards=asking.gpus),)
    seen = {one.cards: asking.imagined.changed(one.device) for one in places if one.device.total_bytes}
    if not seen:
        trouble = next((one.trouble for one in places if one.trouble), "")
        said.append("no card can be read here" + (f": {trouble}" if trouble else "") + '; --gpu "RTX 4090" names one')
    return _told(Where(seen, engine, strategy), said)


def _told(where: Where, said: Sequence[str]) -> Here:
    version = f"vLLM {where.engine.version}" if where.engine.version else "a vLLM of unknown version"
    if not where.devices:
        return Here(where, tuple(said))
    most = max(where.devices)
    card = where.devices[most]
    count = f"{most} x " if most > 1 else ""
    memory = f"{gib(card.free_bytes)} of {gib(card.total_bytes)} free"
    return Here(where, (f"on {count}{card.name or 'a card'}, {memory}, {version}", *said))


def _on(where: Where) -> dict[str, object] | None:
    """Return what the verdicts are for, None where no card can be read."""
    if not where.devices:
        return None
    most = max(where.devices)
    device: Device = where.devices[most]
    return {
        "device": device.name,
        "kind": str(DeviceKind.CPU if device.kind is DeviceKind.CPU else DeviceKind.CUDA),
        "cards": most,
        "total_bytes": device.total_bytes,
        "free_bytes": device.free_bytes,
        "engine_version": where.engine.version,
    }
