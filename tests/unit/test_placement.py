"""Where an engine runs: the emptiest cards, the user's own where named, others where those are being started on."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from autolaunch.facts import GIB, Device, DeviceKind, Engine
from autolaunch.lock import CardLocks
from autolaunch.placement import Placement, claim, every_place, place
from tests import fake_nvml

ENGINE = Engine("0.24.0", DeviceKind.CUDA)


def card(free: float, **more: Any) -> dict[str, Any]:
    """Return a card of 24 GiB of which so many are free."""
    return {"name": "card", "total": 24 * GIB, "free": int(free * GIB), "capability": [8, 9], **more}


@pytest.fixture(autouse=True)
def no_choice_of_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def locks(folder: Path, said: list[str] | None = None) -> CardLocks:
    return CardLocks("glm", (said if said is not None else []).append, folder=folder)


def test_the_emptiest_card_is_taken_and_cuda_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake_nvml.believe(monkeypatch, tmp_path, card(2.0), card(23.0), card(12.0))
    found = place(ENGINE, os.environ, cards=1)
    assert found.environment["CUDA_VISIBLE_DEVICES"] == "1"
    assert found.environment["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    assert (found.device.free_bytes, found.cards, len(found.names)) == (23 * GIB, 1, 1)
    assert found.measure().free_bytes == 23 * GIB


def test_a_card_that_was_chosen_is_named_by_its_number(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake_nvml.believe(monkeypatch, tmp_path, card(2.0), card(23.0), card(12.0))
    assert place(ENGINE, os.environ, cards=1).words(ranks=1) == "card 1: card"
    assert place(ENGINE, {"CUDA_VISIBLE_DEVICES": "2"}, cards=1).words(ranks=1) == "card 2: card"


def test_several_cards_are_counted_and_how_many_of_them_are_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake_nvml.believe(monkeypatch, tmp_path, card(2.0), card(23.0), card(12.0))
    two = place(ENGINE, os.environ, cards=2)
    assert two.words(ranks=2) == "cards 1, 2: 2 x card"
    assert two.words(ranks=1) == "cards 1, 2: 1 of 2 x card"


def test_the_only_card_needs_no_number_and_an_unknown_one_no_words(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake_nvml.believe(monkeypatch, tmp_path, card(2.0))
    assert place(ENGINE, {}, cards=1).words(ranks=1) == "card"
    assert Placement({}, Device(), 2).words(ranks=2) == ""


def test_one_card_needs_no_word_to_cuda(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake_nvml.believe(monkeypatch, tmp_path, card(2.0))
    assert place(ENGINE, {"HOME": "/"}, cards=1).environment == {"HOME": "/"}


def test_the_users_own_cards_are_left_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake_nvml.believe(monkeypatch, tmp_path, card(2.0), card(23.0))
    environment = {"CUDA_VISIBLE_DEVICES": "0"}
    found = place(ENGINE, environment, cards=2)
    assert found.environment == environment
    assert (found.device.free_bytes, found.cards) == (2 * GIB, 1)


def test_every_number_of_cards_that_ranks_may_have_is_a_place_after_one_look(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake_nvml.believe(monkeypatch, tmp_path, card(2.0), card(23.0), card(12.0))
    assert [(one.cards, one.device.free_bytes) for one in every_place(ENGINE, os.environ)] == [
        (1, 23 * GIB), (2, 12 * GIB)
    ]  # fmt: skip
    assert every_place(ENGINE, os.environ) == tuple(place(ENGINE, os.environ, cards=count) for count in (1, 2))


def test_the_host_of_a_cpu_engine_is_one_place() -> None:
    (found,) = every_place(Engine("0.32.0", DeviceKind.CPU), os.environ)
    assert (found.device.kind, found.cards) == (DeviceKind.CPU, 1)


def test_of_several_cards_the_fullest_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake_nvml.believe(monkeypatch, tmp_path, card(2.0), card(23.0), card(12.0))
    found = place(ENGINE, os.environ, cards=2)
    assert found.environment["CUDA_VISIBLE_DEVICES"] == "1,2"
    assert (found.device.free_bytes, found.cards) == (12 * GIB, 2)


def test_without_a_driver_the_device_is_unknown_and_the_trouble_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake_nvml.believe(monkeypatch, tmp_path)
    monkeypatch.delenv("FAKE_NVML")
    found = place(ENGINE, os.environ, cards=1)
    assert found.device.total_bytes is None
    assert found.trouble


def test_an_engine_on_the_cpu_is_placed_on_its_node(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake_nvml.believe(monkeypatch, tmp_path, card(20.0))
    found = place(Engine("0.32.0", DeviceKind.CPU), os.environ, cards=4)
    assert (found.device.kind, found.cards, found.names) == (DeviceKind.CPU, 1, (found.device.name,))


def test_a_card_that_another_start_holds_is_passed_over_for_one_as_empty(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake_nvml.believe(monkeypatch, tmp_path, card(23.5), card(23.0))
    other = locks(tmp_path).acquire(place(ENGINE, os.environ, cards=1).names, wait_s=0)
    assert other is not None
    found, held = claim(ENGINE, os.environ, cards=1, locks=locks(tmp_path), wait_s=0)
    assert held is not None
    assert found.environment["CUDA_VISIBLE_DEVICES"] == "1"


def test_where_the_others_are_full_the_busy_card_is_waited_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = fake_nvml.believe(monkeypatch, tmp_path, card(23.5), card(3.0))
    said: list[str] = []
    other = locks(tmp_path).acquire(place(ENGINE, os.environ, cards=1).names, wait_s=0)
    assert other is not None

    def when_told(text: str) -> None:
        said.append(text)
        fake_nvml.write(file, card(11.0), card(3.0))
        other.release()

    found, held = claim(ENGINE, os.environ, cards=1, locks=CardLocks("glm", when_told, folder=tmp_path), wait_s=60)
    assert held is not None
    assert len(said) == 1
    assert "waiting up to 60 s" in said[0]
    assert found.device.free_bytes == 11 * GIB, "what is free is measured after the wait"


def test_a_card_that_the_other_start_has_filled_is_left_for_one_that_is_emptier_by_then(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = fake_nvml.believe(monkeypatch, tmp_path, card(23.5), card(20.0))
    other = locks(tmp_path).acquire(place(ENGINE, os.environ, cards=1).names, wait_s=0)
    assert other is not None

    def when_told(_: str) -> None:
        fake_nvml.write(file, card(1.0), card(20.0))
        other.release()

    found, held = claim(ENGINE, os.environ, cards=1, locks=CardLocks("glm", when_told, folder=tmp_path), wait_s=60)
    assert (found.environment["CUDA_VISIBLE_DEVICES"], found.device.free_bytes) == ("1", 20 * GIB)
    assert held is not None
    assert locks(tmp_path).acquire(found.names, wait_s=0) is None, "the card that is taken is held"
    full = locks(tmp_path).acquire(place(ENGINE, {"CUDA_VISIBLE_DEVICES": "0"}, cards=1).names, wait_s=0)
    assert full is not None, "the full card is not"


def test_a_wait_in_vain_costs_the_hold_and_not_the_launch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake_nvml.believe(monkeypatch, tmp_path, card(23.5))
    other = locks(tmp_path).acquire(place(ENGINE, os.environ, cards=1).names, wait_s=0)
    assert other is not None
    found, held = claim(ENGINE, os.environ, cards=1, locks=locks(tmp_path), wait_s=0.1)
    assert held is None
    assert found.device.free_bytes == int(23.5 * GIB)
