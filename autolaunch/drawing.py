"""A plan as a person sees it: a bar of where the card's memory goes, its legend, the settings and the command line.

Owns the picture and its words. Readable without colour: every part of the bar has a sign of its own.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from autolaunch.budget import Budget
from autolaunch.facts import Basis, DeviceKind
from autolaunch.narration import settings_text
from autolaunch.plan_form import kv_cache_tokens
from autolaunch.sizes import gib
from autolaunch.term import Term

if TYPE_CHECKING:
    from rich.console import Console

    from autolaunch.serving import Prepared

BAR_WIDTH = 64


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a card's memory: bytes, its sign in the bar, its colour, and what is known of it."""

    name: str
    size: int
    sign: str
    style: str
    known: str


def parts(
    budget: Budget, kind: DeviceKind = DeviceKind.CUDA, *, held_known: str = "measured", fits: bool | None = False
) -> tuple[Part, ...]:
    """Return where a card's (or a host's) memory goes; the sizes add up to its total where the plan fits.

    `held_known` says how it is known what others hold. Where the plan `fits`, nothing of it is missing: an engine
    before 0.8 may ask for more than is free.
    """
    cpu = kind is DeviceKind.CPU
    free = budget.total_bytes if budget.free_bytes is None else budget.free_bytes
    held = budget.total_bytes - free
    rest = free - budget.outside.bytes - budget.requested_bytes
    own = (
        Part("weights", budget.weights.bytes, "█", "blue", _known(budget.weights)),
        Part("activations", budget.activation.bytes, "▓", "magenta", _known(budget.activation)),
        Part(
            "worker's own" if cpu else "outside PyTorch", budget.non_torch.bytes, "▚", "cyan", _known(budget.non_torch)
        ),
        Part("CUDA graphs", budget.cudagraph.bytes, "▒", "yellow", _known(budget.cudagraph)),
        *_cache(budget, lacking=max(0, -rest) if fits is False else 0),
        Part("server's own" if cpu else "CUDA context", budget.outside.bytes, "x", "red", _known(budget.outside)),
        Part("held by others", held, "#", "red", held_known),
        Part("left free", max(0, rest), "·", "dim", ""),
    )
    return tuple(part for part in own if part.size)


def _known(term: Term) -> str:
    if term.basis is Basis.EXACT or term.low == term.high:
        return str(term.basis)
    return f"{term.basis}, {term.low / 2**30:.2f} to {term.high / 2**30:.2f}"


def _cache(budget: Budget, *, lacking: int) -> Iterator[Part]:
    """Give the KV cache; where the request is more than is free by `lacking`, what of the cache is there and what not.

    It is below zero where the engine's own needs are above what it may take.
    """
    there, tokens = budget.kv_cache.bytes - lacking, kv_cache_tokens(budget)
    if there < 0:
        yield Part("missing", -there, "!", "bold red", "before there is any KV cache")
    elif lacking:
        yield Part("KV cache", there, "░", "green", "what is left for it")
        yield Part("missing", lacking, "!", "bold red", "asked for, and not free")
    else:
        held = "" if tokens is None else f"; {tokens:,} tokens in all"
        yield Part("KV cache", there, "░", "green", _known(budget.kv_cache) + held)


def bar(shown: Sequence[Part], *, width: int) -> tuple[tuple[str, str], ...]:
    """Return the bar as (text, style); every part has at least one sign, the rounding is the largest part's."""
    positive = [part for part in shown if part.size > 0]
    total = sum(part.size for part in positive)
    counts = [max(1, round(part.size / total * width)) for part in positive]
    if counts:
        largest = counts.index(max(counts))
        counts[largest] = max(1, counts[largest] + width - sum(counts))
    return tuple((part.sign * count, part.style) for part, count in zip(positive, counts, strict=True))


def draw(ready: Prepared, *, command: str, closest: Sequence[str] = (), width: int | None = None) -> str:
    """Return the picture of a plan as text for a terminal; `width` in columns, None asks the terminal."""
    from rich.console import Console  # noqa: PLC0415 - only a plan is drawn

    out = io.StringIO()
    console = Console(file=out, width=width, highlight=False, force_terminal=width is None, soft_wrap=True)
    _header(console, ready)
    budget = ready.plan.budget
    if budget is not None:
        known = "measured" if ready.placement.names else "as given"
        _memory(console, parts(budget, ready.situation.device.kind, held_known=known, fits=ready.plan.fits))
    for name, text in _rows(ready, command, closest):
        console.print(f"  [bold]{name:<9}[/bold]" if name else " " * 11, end="")
        console.print(text, markup=False)
    return out.getvalue().rstrip("\n")


def _header(console: Console, ready: Prepared) -> None:
    situation, plan = ready.situation, ready.plan
    device, version = situation.device, situation.engine.version
    words, style = {
        True: ("fits, by a narrow margin" if plan.doubtful else "fits", "bold green"),
        False: ("does not fit", "bold red"),
        None: ("cannot be told before it is tried", "bold yellow"),
    }[plan.fits]
    console.print(f"{ready.asked.wish.model}: ", end="", markup=False)
    console.print(words, style=style, end="")
    length = plan.context
    console.print(f", {length:,} tokens of context" if plan.fits and length else "")
    engine = f"vLLM {version}" if version else "a vLLM of unknown version"
    card = ready.placement.words(ranks=plan.settings.tensor_parallel_size or 1)
    amount = f"{gib(device.free_bytes)} free of {gib(device.total_bytes)}" + (
        " each" if ready.placement.cards > 1 else ""
    )
    console.print(f"  {card}, {amount}; {engine}; strategy {ready.asked.strategy.name}", markup=False)


def _memory(console: Console, shown: Sequence[Part]) -> None:
    from rich.text import Text  # noqa: PLC0415

    console.print()
    console.print(Text("  ") + Text.assemble(*bar(shown, width=BAR_WIDTH)))
    for part in shown:
        line = Text.assemble("  ", (part.sign, part.style), f" {part.name:<16}{part.size / 2**30:7.2f} GiB  ")
        console.print(line + Text(part.known, style="dim"))
    console.print()


def _rows(ready: Prepared, command: str, closest: Sequence[str]) -> Iterator[tuple[str, str]]:
    plan = ready.plan
    yield "settings", settings_text(plan.settings, ready.asked.wish.pins)
    for index, why in enumerate(plan.why):
        yield ("" if index else "why"), why
    for index, way in enumerate(closest):
        yield ("" if index else "instead"), way
    if plan.fits is not False:
        yield "command", command
