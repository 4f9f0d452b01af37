"""Which cards are taken where the user named none, and how CUDA is told."""

from __future__ import annotations

import pytest

from autolaunch.choice import choose, environment_for
from autolaunch.facts import GIB, Device, DeviceKind


def card(
    index: int,
    free_gib: float | None = 20.0,
    *,
    capability: tuple[int, int] | None = (8, 9),
    unified: bool = False,
    piece: bool = False,
) -> Device:
    return Device(
        DeviceKind.CUDA,
        "a card",
        24 * GIB if free_gib is not None else None,
        int(free_gib * GIB) if free_gib is not None else None,
        capability,
        index=index,
        uuid=f"{'MIG' if piece else 'GPU'}-{index}",
        unified=unified,
    )


def numbers(*devices: Device, count: int = 1, least_capability: tuple[int, int] | None = None) -> list[int | None]:
    return [device.index for device in choose(devices, count=count, least_capability=least_capability)]


def test_the_emptiest_card_is_taken() -> None:
    assert numbers(card(0, 3), card(1, 22), card(2, 10)) == [1]


def test_equal_cards_are_taken_from_the_lowest_number_up_whatever_a_display_takes() -> None:
    assert numbers(card(2, 23.9), card(0, 23.8), card(1, 23.9), count=2) == [0, 1]


def test_the_emptiest_ones_are_given_in_the_order_of_the_bus() -> None:
    assert numbers(card(3, 22), card(0, 3), card(1, 20), card(2, 5), count=2) == [1, 3]


@pytest.mark.parametrize(("least", "taken"), [(None, [0]), ((7, 5), [0]), ((8, 0), [1]), ((9, 0), [])])
def test_a_card_must_be_able_to(least: tuple[int, int] | None, taken: list[int]) -> None:
    assert numbers(card(0, 22, capability=(7, 5)), card(1, 10, capability=(8, 9)), least_capability=least) == taken


def test_a_card_of_unknown_capability_is_given_the_benefit_of_the_doubt() -> None:
    assert numbers(card(0, capability=None), least_capability=(9, 0)) == [0]


def test_unified_memory_is_taken_only_where_there_is_nothing_else() -> None:
    assert numbers(card(0, 100, unified=True), card(1, 2)) == [1]
    assert numbers(card(0, 100, unified=True), card(1, 2), count=2) == [0, 1]
    assert numbers(card(0, 100, unified=True)) == [0]


def test_a_card_of_unknown_memory_is_taken_only_where_there_is_nothing_else() -> None:
    assert numbers(card(0, None), card(1, 0.1)) == [1]
    assert numbers(card(0, None)) == [0]


def test_slices_are_for_one_rank_only() -> None:
    """CUDA shows a process no more than one of them."""
    assert numbers(card(0, 9, piece=True), card(1, 5)) == [0]
    assert numbers(card(0, 9, piece=True), card(1, 5), card(2, 4), count=2) == [1, 2]


@pytest.mark.parametrize("count", [3, 0, -1])
def test_what_is_not_there_is_not_chosen(count: int) -> None:
    assert numbers(card(0), card(1), count=count) == []
    assert choose(()) == ()


def test_cards_go_by_number_with_the_order_of_the_bus() -> None:
    """vLLM reads the variable with int(): 0.20.1 dies of a UUID in it."""
    among = (card(0), card(1), card(3))
    assert environment_for((card(1), card(3)), among=among) == {
        "CUDA_VISIBLE_DEVICES": "1,3",
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
    }


def test_a_cards_first_slice_goes_by_the_number_of_the_card() -> None:
    among = (card(0), card(1, piece=True))
    assert environment_for(among[1:], among=among) == {"CUDA_VISIBLE_DEVICES": "1", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


@pytest.mark.parametrize(
    ("chosen", "among"),
    [((card(0),), (card(0),)), ((), (card(0), card(1))), ((card(0),), ()), ((card(0), card(1)), ())],
)
def test_nothing_is_said_of_one_card_and_where_the_user_chose(
    chosen: tuple[Device, ...], among: tuple[Device, ...]
) -> None:
    assert environment_for(chosen, among=among) == {}
