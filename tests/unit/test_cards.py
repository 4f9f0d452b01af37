"""The table of cards, and the names people write."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from autolaunch import cards as cards_module
from autolaunch.cards import Card, cards, find_card
from autolaunch.errors import ExitCode, WishError
from autolaunch.facts import GIB, Basis, Device, DeviceKind

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

MIB = 1 << 20
CAPABILITIES = {(7, 0), (7, 5), (8, 0), (8, 6), (8, 7), (8, 9), (9, 0), (10, 0), (10, 3), (11, 0), (12, 0), (12, 1)}


@pytest.mark.parametrize(
    ("written", "name"),
    [
        *[(written, "NVIDIA GeForce RTX 4090")
          for written in ("RTX 4090", "4090", "rtx4090", "RTX_4090", "nvidia geforce rtx 4090", "GeForce RTX 4090 24GB",
                          "RTX 4090 24GiB", "4090-24G")],
        *[(written, "NVIDIA H100 80GB HBM3") for written in ("H100", "h100 80GB", "H100-80G", "H100 SXM5")],
        ("H100 PCIe", "NVIDIA H100 PCIe"),
        ("H100 NVL", "NVIDIA H100 NVL"),
        ("A100", "NVIDIA A100-SXM4-40GB"),
        ("A100-40GB", "NVIDIA A100-SXM4-40GB"),
        ("A100 80GB", "NVIDIA A100-SXM4-80GB"),
        ("NVIDIA A100 80GB PCIe", "NVIDIA A100 80GB PCIe"),
        ("L4", "NVIDIA L4"),
        ("T4", "Tesla T4"),
        ("V100", "Tesla V100-SXM2-16GB"),
        ("V100 32GB", "Tesla V100-SXM2-32GB"),
        ("RTX 3060", "NVIDIA GeForce RTX 3060"),
        ("3060 laptop", "NVIDIA GeForce RTX 3060 Laptop GPU"),
        ("RTX 3060 Mobile", "NVIDIA GeForce RTX 3060 Laptop GPU"),
        ("RTX 3090", "NVIDIA GeForce RTX 3090"),
        ("4060 ti", "NVIDIA GeForce RTX 4060 Ti"),
        ("4060 Ti 16GB", "NVIDIA GeForce RTX 4060 Ti 16GB"),
        ("RTX 5090", "NVIDIA GeForce RTX 5090"),
        ("RTX PRO 6000", "NVIDIA RTX PRO 6000 Blackwell Workstation Edition"),
        ("A10", "NVIDIA A10"),
        ("A10G", "NVIDIA A10G"),
        ("L40S", "NVIDIA L40S"),
        ("A6000", "NVIDIA RTX A6000"),
        ("RTX 6000 Ada", "NVIDIA RTX 6000 Ada Generation"),
        ("H200", "NVIDIA H200"),
        ("B200", "NVIDIA B200"),
        ("GH200", "NVIDIA GH200 480GB"),
        ("GB10", "NVIDIA GB10"),
        ("DGX Spark", "NVIDIA GB10"),
    ],
)  # fmt: skip
def test_a_card_is_found_by_the_names_people_write(written: str, name: str) -> None:
    assert find_card(written).name == name


@pytest.mark.parametrize(
    ("name", "total_bytes", "capability"),
    [
        ("H100", 85_017_493_504, (9, 0)),
        ("A100 80GB", 85_093_777_408, (8, 0)),
        ("A6000", 50_899_648_512, (8, 6)),
        ("RTX 4090", 25_250_627_584, (8, 9)),
        ("L4", 23_659_151_360, (8, 9)),
        ("RTX 5090", 32109 * MIB, (12, 0)),
        ("T4", 14904 * MIB, (7, 5)),
    ],
)
def test_the_total_is_what_cuda_counts_and_not_the_label(
    name: str, total_bytes: int, capability: tuple[int, int]
) -> None:
    card = find_card(name)
    assert (card.total_bytes, card.capability, card.basis) == (total_bytes, capability, Basis.MEASURED)


def test_a_total_without_a_measurement_says_so_and_how() -> None:
    card = find_card("RTX 4070 Ti")
    assert (card.total_bytes, card.basis) == ((12282 - 512) * MIB, Basis.ESTIMATED)
    assert card.source == (
        "NVML's total less 512 MiB (above 33 GiB: 768 MiB), the most that measured cards keep for the driver"
    )


@pytest.mark.parametrize("card", cards(), ids=lambda card: card.name)
def test_every_card_is_less_than_its_label_has_a_source_and_is_found_by_its_name(card: Card) -> None:
    assert 3 * GIB < card.total_bytes < 300 * GIB
    assert card.total_bytes % 4096 == 0
    assert card.capability in CAPABILITIES
    assert card.source
    assert find_card(card.name) == card


def test_no_two_cards_answer_to_one_name() -> None:
    table = tomllib.loads((Path(cards_module.__file__).with_name("cards.toml")).read_text(encoding="utf-8"))
    for name, facts in table["cards"].items():
        for written in (*facts.get("aliases", ()), f"{name} {facts['gb']}GB"):
            assert find_card(written).name == name, written


def test_a_note_that_names_another_card_names_one_with_another_size() -> None:
    named = [(card, card.note.rpartition(": ")[2]) for card in cards() if "there is one" in card.note]
    assert len(named) > 5
    for card, other in named:
        if "--gpu-memory-total" not in other:
            assert find_card(other).total_bytes != card.total_bytes, card.name


def test_cards_that_share_memory_with_the_host_are_marked() -> None:
    assert {card.name for card in cards() if card.unified} == {
        "NVIDIA GH200 480GB", "NVIDIA GH200 144G HBM3e", "NVIDIA GB200", "NVIDIA GB300", "NVIDIA GB300 DGX Station",
        "NVIDIA GB10", "NVIDIA Thor", "Orin", "Orin Nano",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("written", "near"),
    [
        ("RTX 9090", "did you mean NVIDIA GeForce RTX 5090, NVIDIA GeForce RTX 4090 or NVIDIA GeForce RTX 3090? "),
        ("4096", "did you mean NVIDIA GeForce RTX 4090, NVIDIA GeForce RTX 4060 or "),
        ("", ""),
        ("\0", "any other card"),
        ("MI300X", "any other card"),
    ],
)
def test_an_unknown_card_is_refused_with_the_nearest_ones(written: str, near: str) -> None:
    with pytest.raises(WishError) as raised:
        find_card(written)
    assert raised.value.exit_code is ExitCode.USAGE
    assert raised.value.what == f"no NVIDIA card is known as {written!r}"
    assert raised.value.hint.startswith(near)
    assert raised.value.hint.endswith("any other card: --gpu-memory-total 24GiB --compute-capability 8.9")


def test_a_size_that_a_card_does_not_have_is_refused() -> None:
    with pytest.raises(WishError):
        find_card("RTX 4090 48GB")


def test_a_card_becomes_a_device_with_all_of_its_memory_or_what_is_said_to_be_free() -> None:
    card = find_card("GB10")
    whole = Device(DeviceKind.CUDA, "NVIDIA GB10", 122502 * MIB, 122502 * MIB, (12, 1), unified=True, basis=card.basis)
    assert card.device() == whole
    assert card.device(free_bytes=0).free_bytes == 0
