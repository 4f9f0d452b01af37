"""CUDA_VISIBLE_DEVICES and CUDA_DEVICE_ORDER: what a CUDA process sees of the cards that NVML lists."""

from __future__ import annotations

import pytest

from autolaunch.facts import Device, DeviceKind
from autolaunch.visible import Listed, Seen, seen


def card(index: int, name: str = "NVIDIA H100 80GB HBM3", *, uuid: str = "", speed: int = 0) -> Listed:
    return Listed(Device(DeviceKind.CUDA, name, index=index, uuid=uuid or f"GPU-{index}{index}aa-{index}"), speed)


def piece(index: int, number: int) -> Listed:
    """Return a slice: the card's place on the bus, the GPU instance's number."""
    device = Device(DeviceKind.CUDA, "NVIDIA H100 80GB HBM3 MIG 1g.10gb", index=index, uuid=f"MIG-{index}{number}ff")
    return Listed(device, old_name=f"MIG-GPU-{index}{index}aa-{index}/{number}/0")


def uuids(found: Seen) -> list[str]:
    return [device.uuid for device in found.devices]


FOUR = tuple(card(index) for index in range(4))


@pytest.mark.parametrize(
    ("wanted", "numbers"),
    [
        (None, [0, 1, 2, 3]),
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
        ("0,2", [0, 2]),
        ("2,0", [2, 0]),
        (" 1 , 3 ", [1, 3]),
        ("+1", [1]),
        ("000000000002", [2]),
        ("1gpu,2ampere", [1, 2]),
        ("1,-1,2", [1]),
        ("1,9,2", [1]),
        ("9", []),
        ("1,1", []),
        ("1,2,1", []),
        ("9,1,1", []),
        ("1,,2", [1]),
        ("²", []),
        ("1,GPU-22", [1]),
        ("GPU-22aa-2", [2]),
        ("GPU-2", [2]),
        ("GPU-3,GPU-0", [3, 0]),
        ("GPU-3, GPU-0", [3, 0]),
        ("GPU-", []),
        ("GPU-3,GPU-33", []),
        ("GPU-3,0", [3]),
        ("GPU-7,GPU-0", []),
        ("gpu-3", []),
        ("MIG-12", []),
        ("1" * 5000, []),
    ],
)
def test_the_list_is_read_as_cuda_reads_it(wanted: str | None, numbers: list[int]) -> None:
    """The first word says what kind all are, the first wrong one ends the list, one that comes twice empties it."""
    environment = {} if wanted is None else {"CUDA_VISIBLE_DEVICES": wanted}
    assert [device.index for device in seen(FOUR, environment).devices] == numbers


def test_what_only_the_container_counts_is_not_counted_again() -> None:
    """What NVIDIA_VISIBLE_DEVICES hides, NVML does not list; the numbers begin at 0 behind it."""
    assert len(seen(FOUR[:1], {"NVIDIA_VISIBLE_DEVICES": "2"}).devices) == 1


def test_a_card_that_could_not_be_read_keeps_its_number() -> None:
    left = (card(0), card(2))
    assert [device.index for device in seen(left, {"CUDA_VISIBLE_DEVICES": "2"}).devices] == [2]
    assert seen(left, {"CUDA_VISIBLE_DEVICES": "1,2"}).devices == ()


# --- the order

MIXED = (card(0, "RTX 3060", speed=7), card(1, "RTX 4090", speed=50), card(2, "RTX 3060", speed=7))


@pytest.mark.parametrize(
    ("order", "numbers"),
    [
        (None, [1, 0, 2]),
        ("FASTEST_FIRST", [1, 0, 2]),
        ("PCI_BUS_ID", [0, 1, 2]),
        ("pci_bus_id", [0, 1, 2]),
        ("nonsense", [1, 0, 2]),
    ],
)
def test_cards_that_differ_are_taken_to_come_the_fastest_first(order: str | None, numbers: list[int]) -> None:
    environment = {} if order is None else {"CUDA_DEVICE_ORDER": order}
    assert [device.index for device in seen(MIXED, environment).devices] == numbers
    picked = seen(MIXED, {**environment, "CUDA_VISIBLE_DEVICES": "0"}).devices
    assert [device.index for device in picked] == numbers[:1]


def test_equal_cards_keep_the_order_of_the_bus_whatever_their_clocks() -> None:
    equal = (card(0, speed=1), card(1, speed=9))
    found = seen(equal, {"CUDA_VISIBLE_DEVICES": "0"})
    assert [device.index for device in found.devices] == [0]
    assert found.trouble == ""


@pytest.mark.parametrize("wanted", ["0", "1,0"])
def test_a_choice_by_number_among_cards_that_differ_is_said_to_be_a_guess(wanted: str) -> None:
    assert seen(MIXED, {"CUDA_VISIBLE_DEVICES": wanted}).trouble == (
        "the cards differ, and CUDA puts the fastest first by a rule of its own: which ones "
        f"CUDA_VISIBLE_DEVICES={wanted} names is a guess; "
        "CUDA_DEVICE_ORDER=PCI_BUS_ID makes it the numbers of nvidia-smi"
    )


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"CUDA_VISIBLE_DEVICES": "GPU-22"},
        {"CUDA_VISIBLE_DEVICES": "0", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"},
    ],
)
def test_nothing_is_a_guess_where_no_number_rests_on_cudas_order(environment: dict[str, str]) -> None:
    assert seen(MIXED, environment).trouble == ""


# --- slices

SLICED = (card(0), piece(1, 5), piece(1, 6), piece(2, 5))


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (None, ["MIG-15ff"]),
        ("0", ["GPU-00aa-0"]),
        ("1", ["MIG-15ff"]),
        ("2", ["MIG-25ff"]),
        ("0,1", ["MIG-15ff"]),
        ("2,1", ["MIG-25ff"]),
        ("GPU-11", ["MIG-15ff"]),
        ("GPU-22aa-2,GPU-00", ["MIG-25ff"]),
        ("MIG-16ff", ["MIG-16ff"]),
        ("MIG-16", ["MIG-16ff"]),
        ("MIG-1", []),
        ("MIG-16ff,MIG-15ff", ["MIG-16ff"]),
        ("MIG-16ff,MIG-16ff", []),
        ("MIG-GPU-11aa-1/6/0", ["MIG-16ff"]),
        ("MIG-GPU-11aa-1/9/0", []),
    ],
)
def test_of_slices_cuda_shows_one_and_no_whole_card_beside_it(wanted: str | None, found: list[str]) -> None:
    environment = {} if wanted is None else {"CUDA_VISIBLE_DEVICES": wanted}
    assert uuids(seen(SLICED, environment)) == found


def test_slices_of_one_kind_of_card_are_no_cards_that_differ() -> None:
    assert seen(SLICED, {"CUDA_VISIBLE_DEVICES": "0"}).trouble == ""


# --- what is there to choose from, and what is wrong


def test_without_a_choice_of_the_users_there_is_every_card_to_choose_from_one_in_mig_mode_as_its_first_slice() -> None:
    assert [device.uuid for device in seen(SLICED, {}).choosable] == ["GPU-00aa-0", "MIG-15ff", "MIG-25ff"]


@pytest.mark.parametrize("wanted", ["", "0", "GPU-00"])
def test_where_the_user_chose_there_is_nothing_to_choose_from(wanted: str) -> None:
    assert seen(FOUR, {"CUDA_VISIBLE_DEVICES": wanted}).choosable == ()


def test_a_choice_that_leaves_no_card_is_said() -> None:
    found = seen(FOUR, {"CUDA_VISIBLE_DEVICES": "7"}, trouble="NVML: a card is lost")
    assert found == Seen(
        trouble="NVML: a card is lost; CUDA_VISIBLE_DEVICES='7' leaves no card of the 4 that are there"
    )


def test_no_card_at_all_is_nobodys_choice() -> None:
    assert seen((), {"CUDA_VISIBLE_DEVICES": "7"}) == Seen()
