"""What holds for any host and any CUDA_VISIBLE_DEVICES: nothing is invented, and what was chosen is what is seen."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from autolaunch.choice import choose, environment_for, is_slice
from autolaunch.facts import GIB, Device, DeviceKind
from autolaunch.visible import Listed, seen

NAMES = st.sampled_from(["RTX 3060", "RTX 4090", "NVIDIA H100"])
WORDS = st.sampled_from(["0", "1", "2", "7", "-1", "", " 1", "GPU-0", "GPU-1", "GPU-", "MIG-1", "MIG-GPU-1/3/0", "x"])
VARIABLES = st.one_of(st.lists(WORDS, max_size=4).map(",".join), st.text(max_size=12))
ORDERS = st.sampled_from(["", "PCI_BUS_ID", "FASTEST_FIRST"])


@st.composite
def hosts(draw: st.DrawFn) -> tuple[Listed, ...]:
    """Return up to four cards, some in MIG mode, some places empty because a card was lost."""
    listed: list[Listed] = []
    for index in draw(st.lists(st.integers(0, 4), max_size=4, unique=True).map(sorted)):
        name, speed = draw(NAMES), draw(st.integers(0, 3))
        free = draw(st.one_of(st.none(), st.integers(0, 80).map(lambda gib: gib * GIB)))
        unified = draw(st.booleans())
        pieces = draw(st.integers(0, 2))
        for number in range(pieces):
            device = Device(
                DeviceKind.CUDA, f"{name} MIG 1g", free, free, (9, 0), index=index, uuid=f"MIG-{index}{number}"
            )
            listed.append(Listed(device, speed, f"MIG-GPU-{index}/{number}/0"))
        if not pieces:
            device = Device(
                DeviceKind.CUDA, name, free, free, (8, 6), index=index, uuid=f"GPU-{index}", unified=unified
            )
            listed.append(Listed(device, speed))
    return tuple(listed)


@given(hosts(), VARIABLES, ORDERS)
@example((), "", "")
def test_what_is_seen_is_there_once_and_slices_are_alone(listed: tuple[Listed, ...], wanted: str, order: str) -> None:
    found = seen(listed, {"CUDA_VISIBLE_DEVICES": wanted, "CUDA_DEVICE_ORDER": order})
    assert set(found.devices) <= {one.device for one in listed}
    assert len(set(found.devices)) == len(found.devices)
    assert len(found.devices) == 1 or not any(is_slice(device) for device in found.devices)
    assert found.choosable == ()
    assert bool(found.trouble) or bool(found.devices) or not listed


@given(hosts(), st.integers(1, 3), st.sampled_from([None, (8, 0), (9, 0)]))
def test_what_is_chosen_is_what_the_engine_then_sees(
    listed: tuple[Listed, ...], count: int, least: tuple[int, int] | None
) -> None:
    found = seen(listed, {})
    chosen = choose(found.choosable, count=count, least_capability=least)
    assert len(chosen) in (0, count)
    environment = environment_for(chosen, among=found.choosable)
    if chosen:
        assert seen(listed, environment).devices == chosen
    else:
        assert environment == {}


@given(hosts(), st.integers(1, 3), st.randoms(use_true_random=False))
def test_the_choice_does_not_depend_on_the_order_of_what_there_is(
    listed: tuple[Listed, ...], count: int, chance: object
) -> None:
    choosable = list(seen(listed, {}).choosable)
    before = choose(choosable, count=count)
    chance.shuffle(choosable)  # type: ignore[attr-defined]  # random.Random, whose module tests of purity look for
    assert choose(choosable, count=count) == before


@given(hosts(), st.integers(1, 3))
def test_no_card_that_is_left_is_much_emptier_than_a_chosen_one_of_its_kind(
    listed: tuple[Listed, ...], count: int
) -> None:
    choosable = [device for device in seen(listed, {}).choosable if device.free_bytes is not None]
    choosable = [device for device in choosable if not device.unified and not is_slice(device)]
    chosen = choose(choosable, count=count)
    left = [device.free_bytes or 0 for device in choosable if device not in chosen]
    assert not chosen or max(left, default=0) <= min(device.free_bytes or 0 for device in chosen) + (256 << 20)
