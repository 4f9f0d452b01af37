"""Cards and host together: what the engine will see, and the memory one rank of it gets."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from autolaunch import hardware
from autolaunch.choice import choose, environment_for
from autolaunch.facts import GIB, Device, DeviceKind
from autolaunch.hardware import look, measure, visible
from tests import fake_nvml


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Give a function that puts cards into this host."""
    return lambda *cards, **driver: fake_nvml.believe(monkeypatch, tmp_path, *cards, **driver)


def card(number: int, free_gib: int, **facts: Any) -> dict[str, Any]:
    return {"uuid": f"GPU-{number}", "total": 24 * GIB, "reserved": GIB, "free": free_gib * GIB, **facts}


def device(number: int, free_gib: int) -> Device:
    return Device(
        DeviceKind.CUDA, "NVIDIA GeForce RTX 4090", 23 * GIB, free_gib * GIB, (8, 9), index=number, uuid=f"GPU-{number}"
    )


@pytest.mark.parametrize(
    ("wanted", "free_gib"), [(None, 20), ("1", 5), ("1,0", 5), ("GPU-1", 5), ("", None), ("-1", None), ("7,0", None)]
)
def test_the_first_visible_card_is_measured(host: Any, wanted: str | None, free_gib: int | None) -> None:
    host(card(0, 20), card(1, 5))
    environment = {} if wanted is None else {"CUDA_VISIBLE_DEVICES": wanted}
    measured = measure(DeviceKind.CUDA, environment=environment)
    assert measured.free_bytes == (None if free_gib is None else free_gib * GIB)


def test_of_several_cards_the_fullest_counts(host: Any) -> None:
    host(card(0, 20), card(1, 5), card(2, 1))
    assert measure(DeviceKind.CUDA, cards=2, environment={}) == device(1, 5)
    assert measure(DeviceKind.CUDA, cards=2, environment={"CUDA_VISIBLE_DEVICES": "0"}) == device(0, 20)
    assert measure(DeviceKind.CUDA, cards=0, environment={}) == device(0, 20)


@pytest.mark.parametrize("kind", [DeviceKind.CUDA, DeviceKind.UNKNOWN])
def test_what_cannot_be_read_is_unknown(host: Any, kind: DeviceKind) -> None:
    host(card(0, 20), errors={"nvmlInit": "DRIVER_NOT_LOADED"})
    assert measure(kind, environment={}) == Device(kind)
    host()
    assert measure(kind, environment={}) == Device(kind)


def test_an_unknown_engine_is_measured_by_the_card_that_is_there(host: Any) -> None:
    host(card(0, 20))
    assert measure(DeviceKind.UNKNOWN, environment={}) == device(0, 20)


def test_a_cpu_engine_is_measured_by_the_host_whatever_cards_there_are(host: Any) -> None:
    host(card(0, 20))
    measured = measure(DeviceKind.CPU, environment=os.environ)
    assert measured.kind is DeviceKind.CPU
    assert measured.total_bytes


def test_a_lost_card_is_said_and_the_others_are_seen(host: Any) -> None:
    host(card(0, 20), card(1, 5, errors={"nvmlDeviceGetHandleByIndex": "GPU_IS_LOST"}), card(2, 7))
    found = look({})
    assert found.devices == found.choosable == (device(0, 20), device(2, 7))
    assert found.trouble == "NVML: card 1 of 3 has fallen off the bus (GPU is lost) until the next reboot"
    assert visible({"CUDA_VISIBLE_DEVICES": "2"}) == (device(2, 7),)
    assert visible({"CUDA_VISIBLE_DEVICES": "1"}) == ()


def test_the_chosen_card_is_the_one_the_engine_is_given_and_the_one_that_is_measured(host: Any) -> None:
    host(card(0, 3), card(1, 22), card(2, 10))
    found = look({})
    environment = environment_for(choose(found.choosable), among=found.choosable)
    assert measure(DeviceKind.CUDA, environment=environment) == device(1, 22)


def test_the_chosen_one_of_cards_that_differ_is_found_again_whatever_cudas_own_order(host: Any) -> None:
    slow = card(0, 20, name="NVIDIA GeForce RTX 3060", cores=3584, clock_mhz=2100)
    fast = card(1, 3, cores=16384, clock_mhz=3105)
    host(slow, fast)
    found = look({})
    assert [one.index for one in found.devices] == [1, 0]
    environment = environment_for(choose(found.choosable), among=found.choosable)
    assert environment == {"CUDA_VISIBLE_DEVICES": "0", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    assert measure(DeviceKind.CUDA, environment=environment).name == "NVIDIA GeForce RTX 3060"


def test_the_environment_is_the_processs_own_where_none_is_given(host: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    host(card(0, 20), card(1, 5))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert look().devices == visible() == (device(1, 5),)
    assert hardware.measure(DeviceKind.CUDA) == device(1, 5)
