"""An end names what stands in the way: the user's own limits, who holds the memory, what this card cannot do."""

from __future__ import annotations

from typing import Any

import pytest

from autolaunch.case import Case, Effort, Limits
from autolaunch.ending import End, ending
from autolaunch.facts import GIB, Device, DeviceKind, Engine, Holder, Model, Situation
from autolaunch.failure import Failure, Kind
from autolaunch.figures import Effective
from autolaunch.settings import Settings
from autolaunch.strategy import load_strategy

CARDS = "use a card with more memory, or allow more cards with --gpus"
SMALLER = "serve a smaller or pre-quantized variant of the model"
KV = {"needed_kv_gib": 5.0, "available_kv_gib": 3.0, "max_seq_len": 131072, "estimated_max_len": 78640}
PINNED = frozenset({"gpu_memory_utilization"})


def card(free: float = 24, capability: tuple[int, int] | None = (8, 9), holders: tuple[Holder, ...] = ()) -> Device:
    """Return a card of 24 GiB."""
    return Device(DeviceKind.CUDA, "card", 24 * GIB, int(free * GIB), capability, holders)


def end(kind: Kind, numbers: dict[str, float] | None = None, **more: Any) -> tuple[str, tuple[str, ...]]:
    """Return the words of an end."""
    device, strategy = more.pop("device", card()), load_strategy(more.pop("strategy", "default"))
    situation = Situation(device, Engine("0.24.0", device.kind), more.pop("model", Model()))
    blocked = more.pop("blocked", {})
    settings, limits = more.pop("settings", Settings()), more.pop("limits", Limits())
    case = Case(Failure(kind, numbers=numbers or {}), settings, more.pop("effective", Effective()), situation, limits,
                effort=Effort.LAST_RESORT, **more)  # fmt: skip
    return ending(End(case, strategy, blocked))


BUDGET: dict[str, Any] = {"settings": Settings(0.417, 131072), "limits": Limits(memory_bytes=10 * GIB),
                          "pins": frozenset({"max_model_len"})}  # fmt: skip


@pytest.mark.parametrize(
    ("answer", "first"),
    [
        (end(Kind.KV_TOO_SMALL, KV, **BUDGET), "allow --memory 12.1GiB instead of 10.00 GiB"),
        (end(Kind.KV_NONE, effective=Effective(available_kv_gib=-0.8), **BUDGET),
         "allow --memory 10.9GiB instead of 10.00 GiB"),
        (end(Kind.KV_NONE, **BUDGET), "allow more than the 10.00 GiB of --memory"),
        (end(Kind.KV_TOO_SMALL, KV, device=card(11.5), **BUDGET), SMALLER),
        (end(Kind.KV_TOO_SMALL, KV, settings=Settings(None, 131072), pins=PINNED),
         "allow a larger --kv-cache-memory-bytes of 5.00 GiB for 131072 tokens, or leave it to the engine"),
        (end(Kind.KV_ALLOC_OOM, pins=PINNED), "allow a smaller --kv-cache-memory-bytes, or leave it to the engine"),
        (end(Kind.KV_TOO_SMALL, KV, limits=Limits(100000, floor_is_wish=True)),
         "allow --min-context 78640 instead of 100000"),
        (end(Kind.KV_TOO_SMALL, KV, blocked={"enforce_eager": True}),
         "allow --enforce-eager instead of --no-enforce-eager"),
    ],
)  # fmt: skip
def test_the_users_own_limit_comes_first_with_the_value_that_would_do(
    answer: tuple[str, tuple[str, ...]], first: str
) -> None:
    assert answer[1][0] == first


def test_a_ladder_without_the_rung_that_weights_need_says_which_has_it() -> None:
    why, closest = end(Kind.WEIGHTS_OOM, strategy="keep-quality")
    assert why == "no rung of the strategy 'keep-quality' answers weights_oom"
    assert closest == ("allow quantized weights with --strategy default", SMALLER, CARDS)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (end(Kind.WEIGHTS_OOM, device=card(capability=(7, 5))),
         "the weights do not fit and no way to quantize them applies: FP8 needs compute capability 8.0, "
         "this card has 7.5"),
        (end(Kind.WEIGHTS_OOM, device=card(capability=None)),
         "the weights do not fit and no way to quantize them applies: FP8 needs compute capability 8.0, "
         "it is unknown here"),
        (end(Kind.WEIGHTS_OOM, model=Model(quantization="awq")),
         "the weights do not fit although they are quantized already (awq)"),
        (end(Kind.WEIGHTS_OOM, settings=Settings(quantization="fp8")),
         "every rung of the strategy 'default' that answers weights_oom has been used"),
        (end(Kind.WEIGHTS_OOM, device=card(capability=(7, 5)), blocked={"model": "org/awq"}),
         "every rung of the strategy 'default' that answers weights_oom has been used or is pinned"),
    ],
)  # fmt: skip
def test_weights_that_no_method_lightens_say_why(answer: tuple[str, tuple[str, ...]], why: str) -> None:
    assert answer[0] == why


def test_memory_that_nobody_visible_holds_is_named() -> None:
    held = (Holder(7, "python", 3 * GIB),)
    assert end(Kind.FREE_MEMORY_LOW, device=card(1, holders=held))[1] == (
        "free the 3.00 GiB that python (pid 7) holds",
        "20.00 GiB are held by processes that cannot be seen from here: nvidia-smi on the host shows them",
        CARDS,
    )
    assert end(Kind.FREE_MEMORY_LOW, device=card(20.5, holders=held))[1][1:] == (CARDS,)


def test_an_engine_on_a_host_is_never_told_of_cards() -> None:
    host = Device(DeviceKind.CPU, "", 100 * GIB, 50 * GIB)
    for kind in (Kind.KV_NONE, Kind.WEIGHTS_OOM, Kind.OOM):
        closest = end(kind, device=host)[1]
        assert closest[-1] == "give the host (or its container) more memory, or stop other processes that use it"
        assert not any("card" in text or "tensor" in text for text in closest)


def test_what_is_not_memory_gets_no_advice_on_memory() -> None:
    assert end(Kind.OTHER_CRASH)[1] == ()
