"""`autolaunch plan`: what a start would be, before any download and on a machine without a GPU.

I/O. Owns the imagined card and engine; the plan itself is `recall`'s and `planner`'s, its picture `drawing`'s.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from autolaunch.cards import find_card
from autolaunch.errors import ExitCode, HostError, WishError
from autolaunch.facts import Device, DeviceKind
from autolaunch.installation import Installation, find_engine, supposed
from autolaunch.options import Options, ask, environment_of, for_engine
from autolaunch.placement import Placement, place
from autolaunch.plan_form import as_json
from autolaunch.redaction import redact_argv, secrets_in
from autolaunch.serving import Prepared, cards_for, prepare
from autolaunch.settings import render
from autolaunch.shell_line import beside, shell_line
from autolaunch.shortfall import nearest_plan, shortfall
from autolaunch.sizes import gib
from autolaunch.talk import give, say

ASSUMED_VERSION = "0.32.0"
"""The newest release whose memory was measured for this project: what is assumed where no engine is found."""


LEAST_CARD_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class Imagined:
    """A card that need not be there: by its name, or by its memory in bytes and its compute capability."""

    gpu: str | None = None
    total_bytes: int | None = None
    free_bytes: int | None = None
    capability: tuple[int, int] | None = None

    def device(self) -> Device | None:
        """Return the card as a device, None where the one that is there is meant; raise `WishError` for nonsense."""
        if self.gpu is not None and self.total_bytes is not None:
            raise WishError("--gpu and --gpu-memory-total both name a card", hint="give one of the two")
        if self.gpu is None and self.total_bytes is None:
            return None
        if self.total_bytes is not None and self.total_bytes < LEAST_CARD_BYTES:
            raise WishError(
                f"--gpu-memory-total is {self.total_bytes} bytes: no card has less than 1 GiB", hint="give it as 24GiB"
            )
        if self.gpu is not None:
            device = find_card(self.gpu).device()
        else:
            device = Device(DeviceKind.CUDA, f"a card of {gib(self.total_bytes)}", self.total_bytes, self.total_bytes)
        return self.changed(device)

    @property
    def note(self) -> str:
        """What tells the card that was taken from others of its name, "" where its size was named too."""
        if self.gpu is None or re.search(r"\d\s*gi?b?$", self.gpu.strip().lower()):
            return ""
        card = find_card(self.gpu)
        return f"{self.gpu} is taken for {card.name}, {card.note}" if card.note else ""

    def changed(self, device: Device) -> Device:
        """Return a device with the free memory and the capability that were given."""
        free, total = self.free_bytes, device.total_bytes
        if free is not None and total is not None and free > total:
            raise WishError(
                f"--gpu-memory-free {gib(free)} is more than the card's {gib(total)}",
                hint="give what is free of it",
            )
        if free is not None:
            device = replace(device, free_bytes=free, holders=())
        return device if self.capability is None else replace(device, compute_capability=self.capability)


@dataclass(frozen=True, slots=True)
class Foretold:
    """A plan with everything it rests on: `notes` are what was skipped or assumed, `closest` what would help."""

    ready: Prepared
    notes: tuple[str, ...]
    closest: tuple[str, ...]

    @property
    def argv(self) -> tuple[str, ...]:
        """The whole command line of the planned start, secrets replaced."""
        return command(self.ready)

    @property
    def variables(self) -> Mapping[str, str]:
        """What the engine's environment has beside ours: the cards that were chosen. Nothing for a container."""
        return self.ready.installation.variables(self.ready.placement.environment, os.environ)

    def as_json(self) -> Mapping[str, Any]:
        """Return the Contract's `plan --json`."""
        form = as_json(self.ready.plan, model=self.ready.asked.wish.model, argv=self.argv, closest=self.closest)
        return {**form, "environment": dict(self.variables)}


def plan(
    model: str | None, engine_args: Sequence[str], options: Options, *, imagined: Imagined, as_json_: bool
) -> ExitCode:
    """Print the plan for a model; 3 where nothing fits. Raises `AutolaunchError`; starts and writes nothing."""
    told = foretell(model, engine_args, options, imagined=imagined)
    _tell(told, as_json_=as_json_)
    return ExitCode.NOTHING_FITS if told.ready.plan.fits is False else ExitCode.STOPPED


def foretell(model: str | None, engine_args: Sequence[str], options: Options, *, imagined: Imagined) -> Foretold:
    """Return the plan for a model. Raises `AutolaunchError`; starts and writes nothing."""
    options = replace(options, only_reads=True)
    asked = ask(model, engine_args, options)
    device = imagined.device()
    notes: list[str] = [imagined.note] if imagined.note else []
    installation = engine_or_newest(options, imagined=device is not None, notes=notes)
    asked = for_engine(asked, options, installation)
    notes += asked.said
    if device is None:
        environment = installation.environment(environment_of(options))
        placement = place(installation.engine, environment, cards=cards_for(asked, installation, options))
        if placement.device.total_bytes is None:
            raise HostError(
                "no card can be read here" + (f": {placement.trouble}" if placement.trouble else ""),
                hint='name one with --gpu "RTX 4090" or --gpu-memory-total 24GiB --compute-capability 8.9',
            )
        placement = replace(placement, device=imagined.changed(placement.device))
    else:
        cards = max(asked.wish.cards, asked.wish.limits.gpus)
        placement, options = Placement(_added(options), device, cards), replace(options, no_memory=True)
    ready = prepare(placement, asked, installation, options, note=notes.append)
    closest: tuple[str, ...] = ()
    if ready.plan.fits is False:
        why, closest = shortfall(ready.question)
        shown = nearest_plan(ready.question, ready.plan)
        ready = replace(ready, plan=replace(shown, why=(*shown.why, why)))
    return Foretold(ready, tuple(dict.fromkeys(notes)), closest)


def _added(options: Options) -> Mapping[str, str]:
    """Return what the engine's environment has beside ours."""
    return beside(environment_of(options), os.environ)


def engine_or_newest(options: Options, *, imagined: bool, notes: list[str]) -> Installation:
    """Return the engine that is there, else the newest known; for an imagined card one that runs on it."""
    try:
        found = find_engine(options.engine, version=options.engine_version, environment=os.environ)
    except HostError:
        if options.engine is not None:
            raise
        version = options.engine_version or ASSUMED_VERSION
        if options.engine_version is None:
            notes.append(f"no vLLM was found here: {version} is assumed; --engine-version says another")
        found = supposed(version)
    if not imagined:
        return found
    return replace(found, engine=replace(found.engine, device=DeviceKind.CUDA))


def command(ready: Prepared) -> tuple[str, ...]:
    """Return the whole command line of the planned start, secrets replaced."""
    asked, settings = ready.asked, ready.plan.settings
    wish = asked.wish
    options = (*wish.entry_args, *wish.engine_args, *render(settings, pins=wish.pins))
    secrets = secrets_in(wish.options, os.environ, ready.installation.command).anywhere
    environment = {**os.environ, **ready.placement.environment}  # that of an imagined card has only what is added
    argv = ready.installation.argv(settings.model or wish.model_path, options, environment)
    return redact_argv(argv, secrets)


def _tell(told: Foretold, *, as_json_: bool) -> None:
    for note in told.notes:
        say(f"note: {note}")
    if as_json_:
        give(json.dumps(told.as_json(), ensure_ascii=False))
        return
    from autolaunch.drawing import draw  # noqa: PLC0415 - rich takes a while

    width = None if sys.stdout is not None and sys.stdout.isatty() else 100
    words = shell_line(told.argv, told.variables)
    give(draw(told.ready, command=words, closest=told.closest, width=width))
