"""What a person reads of the cards that were found."""

from __future__ import annotations

from dataclasses import replace

from autolaunch.facts import GIB, Device, DeviceKind, Holder
from autolaunch.inventory import describe
from autolaunch.visible import Seen

CARD = Device(DeviceKind.CUDA, "NVIDIA L4", 22 * GIB, 12 * GIB, (8, 9), index=0, uuid="GPU-0")


def test_a_card_is_said_with_its_memory_and_capability() -> None:
    idle = replace(CARD, free_bytes=22 * GIB - (200 << 20))
    assert describe(Seen((idle,))) == ("card 0: NVIDIA L4, 21.80 GiB free of 22.00 GiB, compute capability 8.9",)


def test_who_holds_it_is_said_and_what_nobody_listed_holds() -> None:
    holders = (Holder(7, "python3", 6 * GIB, "alice"), Holder(9, "a process of another container or user", GIB))
    assert describe(Seen((replace(CARD, holders=holders),)))[1:] == (
        "  6.00 GiB held by python3 of alice (pid 7)",
        "  1.00 GiB held by a process of another container or user (pid 9)",
        "  3.00 GiB held by what cannot be seen from here: another container, or another user",
    )


def test_an_amount_that_is_unknown_makes_no_sum() -> None:
    assert describe(Seen((replace(CARD, holders=(Holder(7, "X", None, "root"),)),)))[1:] == (
        "  an unknown amount is held by X of root (pid 7)",
    )


def test_memory_that_cannot_be_read_is_unknown() -> None:
    bare = replace(CARD, total_bytes=None, free_bytes=None, compute_capability=None)
    assert describe(Seen((bare,))) == ("card 0: NVIDIA L4, memory unknown",)


def test_unified_memory_is_said() -> None:
    assert describe(Seen((replace(CARD, unified=True),)))[1:] == (
        "  unified memory: host and card share one address space, an overcommit can hang the host",
    )


def test_no_card_is_said_with_the_reason() -> None:
    assert describe(Seen(trouble="NVML: no driver")) == ("no card is visible", "NVML: no driver")


def test_of_several_cards_the_ones_that_would_be_taken_are_marked() -> None:
    idle = replace(CARD, free_bytes=22 * GIB, compute_capability=None)
    two = (idle, replace(idle, index=1))
    assert describe(Seen(two, two, "a word"), chosen=two[1:]) == (
        "card 0: NVIDIA L4, 22.00 GiB free of 22.00 GiB",
        "card 1: NVIDIA L4, 22.00 GiB free of 22.00 GiB, taken",
        "CUDA_VISIBLE_DEVICES is not set: of 2 cards the emptiest suitable ones are taken",
        "a word",
    )


def test_the_cards_that_cuda_hides_beside_a_slice_are_shown_where_one_of_them_is_taken() -> None:
    piece = replace(CARD, uuid="MIG-0", name="NVIDIA H100 MIG 1g.10gb")
    whole = replace(CARD, index=1, free_bytes=22 * GIB)
    lines = describe(Seen((piece,), (piece, whole)), chosen=(whole,))
    assert [line for line in lines if line.endswith("taken")] == [
        "card 1: NVIDIA L4, 22.00 GiB free of 22.00 GiB, compute capability 8.9, taken",
        "CUDA_VISIBLE_DEVICES is not set: of 2 cards the emptiest suitable ones are taken",
    ]
