"""What of the models with a short name would fit where: each one put to the planner, as a launch of it would be.

Pure. Owns the verdict on a model; what is known of the models and where they could run is `listing`'s to find out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from autolaunch.candidates import Question
from autolaunch.case import Limits
from autolaunch.climb import begin
from autolaunch.entry import Entry, misfit
from autolaunch.errors import WishError
from autolaunch.facts import Device, Engine, Model, Situation
from autolaunch.planner import Plan, plan
from autolaunch.precision import precision
from autolaunch.settings import Settings
from autolaunch.shortfall import missing_bytes
from autolaunch.strategy import Strategy


class Verdict(str, Enum):
    """Whether a model could be served; FEWER_BITS is with its weights in fewer bits than its own."""

    FITS = "fits"
    FEWER_BITS = "fits_in_fewer_bits"
    TOO_BIG = "too_big"
    UNKNOWN = "unknown"
    REFUSED = "refused"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True, slots=True)
class Where:
    """Where models could run: a device for each number of cards that may be used, the engine, and the strategy."""

    devices: Mapping[int, Device]
    engine: Engine
    strategy: Strategy


@dataclass(frozen=True, slots=True)
class Fit:
    """The verdict on a model: in `bits` ("FP8", "AWQ"), on `cards`, with a `context` in tokens, `missing` bytes a card.

    `hopeful` where it fits only if the engine needs less than is usual, `why` what stands in the way and `short` the
    same in a few words, `settings` what would be started.
    """

    verdict: Verdict
    bits: str = ""
    cards: int = 1
    context: int | None = None
    missing: int | None = None
    hopeful: bool = False
    why: str = ""
    short: str = ""
    settings: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Listed:
    """A model of the list: what the catalogue says, what is known of it, and whether it fits."""

    entry: Entry
    model: Model
    fit: Fit


def judge(entry: Entry, model: Model, where: Where) -> Fit:
    """Return whether a model fits, on as few cards as will do; what is remembered of earlier starts is left aside."""
    if entry.refusal:
        return Fit(Verdict.REFUSED, why=entry.refusal, short="not for vLLM")
    why = misfit(entry, where.engine.version)
    if why:
        return Fit(Verdict.REFUSED, why=why, short=why.removeprefix(f"{entry.name} ").split(",")[0])
    last = Fit(Verdict.UNKNOWN, why="no card can be read here")
    for cards, device in where.devices.items():
        last = _on(model, device, where, cards)
        if last.verdict is not Verdict.TOO_BIG:
            return last
    return last


def _on(model: Model, device: Device, where: Where, cards: int) -> Fit:
    situation = Situation(device, where.engine, model)
    try:
        precision(model, device, asked=None)
    except WishError as error:
        return Fit(Verdict.REFUSED, why=error.what, short="needs a newer card")
    limits = Limits(gpus=cards)
    climb = begin(where.strategy, limits, Settings(), pins=frozenset(), situation=situation)
    question = Question(climb, situation)
    found = plan(question)
    if found.fits is None:
        return Fit(Verdict.UNKNOWN, cards=cards, why="; ".join(found.why))
    if not found.fits:
        return Fit(Verdict.TOO_BIG, cards=cards, missing=missing_bytes(question))
    return _fitting(model, found)


def _fitting(model: Model, found: Plan) -> Fit:
    bits = _bits(model, found.settings)
    return Fit(
        Verdict.FEWER_BITS if bits else Verdict.FITS,
        bits=bits,
        cards=found.settings.tensor_parallel_size or 1,
        context=found.context,
        hopeful=found.hopeful,
        settings=found.settings.as_json(),
    )


def _bits(model: Model, settings: Settings) -> str:
    """Return in what the weights would be loaded, "" for their own type."""
    if settings.model is not None:
        return next((one.quantization for one in model.variants if one.model == settings.model), settings.model)
    return settings.quantization or ""


def tensor_parallel_sizes(model: Model, *, most: int = 16) -> Sequence[int]:
    """Return over how many cards the model's heads can be shared out; () where its dimensions are not known."""
    shape = model.shape
    return () if shape is None else tuple(count for count in range(1, most + 1) if shape.divides(count))
