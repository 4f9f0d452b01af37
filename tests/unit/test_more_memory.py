"""Every suggestion, typed as it is meant, is a plan that fits: nobody buys a card that does not do."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest

from autolaunch import planning
from autolaunch.cli import imagined_of
from autolaunch.cli import plan as command
from autolaunch.facts import GIB, Device, DeviceKind, Engine, Situation
from autolaunch.more_memory import LARGEST_CARD_GIB, least, more_memory
from autolaunch.options import Options
from autolaunch.planner import plan
from autolaunch.settings import Settings
from autolaunch.shortfall import shortfall
from tests.unit.test_planner import MODEL, ask, situation


@dataclass(frozen=True, slots=True)
class Asked:
    """A command line of `plan`, in parts that a suggestion may change; sizes as they are typed."""

    model: str
    card: tuple[str, ...]
    capability: str
    more: tuple[str, ...] = ()

    @property
    def words(self) -> list[str]:
        """The whole command line."""
        capability = () if "--gpu" in self.card or not self.capability else ("--compute-capability", self.capability)
        return [self.model, *self.card, *capability, *self.more, "--engine-version", "0.32.0"]

    def having(self, option: str, value: str) -> Asked:
        """The same with another value of an option, or with one more option."""
        card, more = _with(self.card, option, value), _with(self.more, option, value)
        if (card, more) == (self.card, self.more):
            more = (*more, option, value)
        return replace(self, card=card, more=more)


def _with(words: tuple[str, ...], option: str, value: str) -> tuple[str, ...]:
    return tuple(value if before == option else word for before, word in zip(("", *words), words, strict=False))


def foretold(asked: Asked) -> planning.Foretold:
    """Return the plan for a command line."""
    with command.make_context("plan", asked.words) as context:
        chosen = dict(context.params)
        imagined = imagined_of(chosen)
        del chosen["as_json_"]
        words = context.meta["engine_args"]
        return planning.foretell(context.meta["model"], words, Options(**chosen), imagined=imagined)


def followed(asked: Asked, way: str) -> Asked | None:
    """Return the command line of somebody who does what is suggested; None where there is nothing to type."""
    changed = asked
    if found := re.search(r"(?:use (?:a card|\d+ cards)) with (\d+) GiB", way):
        changed = replace(changed, card=("--gpu-memory-total", f"{found[1]}GiB"))
    if found := re.match(r"free ([\d.]+) GiB more of this card", way):
        free = float(asked.card[asked.card.index("--gpu-memory-free") + 1].removesuffix("GiB"))
        changed = changed.having("--gpu-memory-free", f"{free + float(found[1]):.2f}GiB")
    if found := re.match(r"use (\d+) such cards", way):
        changed = changed.having("--gpus", found[1])
    if found := re.match(r"serve (\S+) instead", way):
        changed = replace(changed, model=found[1])
    if found := re.match(r"say --compute-capability: from ([\d.]+) on", way):
        changed = replace(changed, capability=found[1])
    if found := re.search(r"(?:allow|give) (--[\w-]+) (\S+) instead of", way):
        changed = changed.having(found[1], found[2])
    return None if changed == asked else changed


CARDS = (
    (("--gpu-memory-total", "8GiB"), "8.9"),
    (("--gpu-memory-total", "8GiB"), ""),
    (("--gpu", "RTX 4090"), "8.9"),
    (("--gpu", "A100-40GB"), "8.0"),
    (("--gpu", "RTX 4090", "--gpu-memory-free", "9GiB"), "8.9"),
)
MORE: Sequence[tuple[str, ...]] = (
    (),
    ("--max-model-len", "30000", "--concurrency", "8"),
    ("--memory", "6GiB"),
    ("--min-context", "32k"),
    ("--gpu-memory-utilization", "0.3"),
    ("--gpus", "2"),
    ("--max-num-batched-tokens", "65536"),
)


@pytest.fixture(autouse=True)
def nobody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("PATH", "/nonexistent")


@pytest.mark.parametrize("more", MORE, ids=" ".join)
@pytest.mark.parametrize("model", ["glm-4-9b", "qwen2.5-72b-instruct"])
def test_whoever_follows_a_suggestion_has_a_plan_that_fits(model: str, more: tuple[str, ...]) -> None:
    """Of 252 plans 28 suggestions still did not fit: --memory was the bound, or defaults grew with the card."""
    for card, capability in CARDS if model == "glm-4-9b" else CARDS[3:]:
        asked = Asked(model, card, capability, more)
        told = foretold(asked)
        if told.ready.plan.fits is False:
            assert told.closest, asked
        for way in told.closest:
            changed = followed(asked, way)
            if changed is not None:
                assert foretold(changed).ready.plan.fits is not False, (asked.words, way)


@pytest.mark.parametrize(
    ("total", "memory", "way"),
    [
        ("8GiB", "6GiB", "use a card with {} GiB and allow --memory {}GiB instead of 6.00 GiB"),
        ("24GiB", "6GiB", "allow --memory {}GiB instead of 6.00 GiB"),
    ],
)
def test_a_bound_of_the_users_that_stands_in_the_way_is_named(total: str, memory: str, way: str) -> None:
    """A larger card was named, and with --memory 6GiB it does not fit either."""
    asked = Asked("glm-4-9b", ("--gpu-memory-total", total), "8.9", ("--memory", memory))
    pattern = re.escape(way).replace(r"\{\}", r"([\d.]+)")
    assert re.fullmatch(pattern, foretold(asked).closest[0])


def test_the_card_that_is_named_is_the_smallest_that_is_likely_to_do() -> None:
    there = situation(16.0)
    (way,) = more_memory(ask(there, strategy="keep-quality"))
    found = re.fullmatch(r"use a card with (\d+) GiB", way)
    assert found is not None
    size = int(found[1])
    assert plan(ask(situation(size), strategy="keep-quality")).fits
    smaller = plan(ask(situation(size - 1), strategy="keep-quality"))
    assert not smaller.fits or smaller.hopeful


def test_a_card_of_which_others_hold_a_part_is_replaced_by_one_that_need_not_be_as_large() -> None:
    held = ask(situation(16.0, 9.0), strategy="keep-quality")
    assert tuple(more_memory(held)) == tuple(more_memory(ask(situation(16.0), strategy="keep-quality")))


def test_no_card_is_named_that_nobody_makes() -> None:
    huge = ask(situation(40.0), Settings(max_model_len=9_999_999), strategy="keep-quality")
    assert tuple(more_memory(huge)) == ()
    assert not any("card with" in way for way in shortfall(huge)[1])


def test_several_cards_are_named_with_their_size() -> None:
    ways = tuple(more_memory(ask(situation(6.0), strategy="keep-quality", gpus=2)))
    assert len(ways) == 1
    assert re.fullmatch(r"use 2 cards with \d+ GiB each", ways[0])


def test_a_host_keeps_what_others_hold() -> None:
    host = Situation(Device(DeviceKind.CPU, "host", 16 * GIB, 12 * GIB), Engine("0.32.0", DeviceKind.CPU), MODEL)
    (way,) = more_memory(ask(host, strategy="keep-quality"))
    found = re.fullmatch(r"give the host (\d+) GiB of memory", way)
    assert found is not None
    total = int(found[1]) * GIB
    grown = replace(host, device=replace(host.device, total_bytes=total, free_bytes=total - 4 * GIB))
    assert plan(ask(grown, strategy="keep-quality")).fits


def test_where_the_compute_capability_is_not_known_what_it_would_allow_is_named() -> None:
    """Without it FP8 was left out in silence: "with every concession that is allowed"."""
    asked = Asked("glm-4-9b", ("--gpu-memory-total", "16GiB"), "")
    told = foretold(asked)
    assert told.ready.plan.fits is False
    assert told.closest[0] == "say --compute-capability: from 8.0 on it fits with FP8"
    assert foretold(replace(asked, capability="8.0")).ready.plan.fits is True


@pytest.mark.parametrize("first", [*range(1, 12), 99])
def test_the_least_number_that_does_is_found(first: int) -> None:
    assert least(1, 10, lambda number: number >= first) == (first if first <= 10 else None)
    assert least(5, 4, lambda _: True) is None


def test_the_search_asks_seldom() -> None:
    asked: list[int] = []

    def does(size: int) -> bool:
        asked.append(size)
        return size >= 70

    assert least(1, LARGEST_CARD_GIB, does) == 70
    assert len(asked) <= 10
