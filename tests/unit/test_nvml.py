"""What is read of the cards through a fake NVML: memory, holders, slices, and every way in which a driver fails."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from autolaunch import nvml
from autolaunch.facts import GIB, Device, DeviceKind, Holder
from autolaunch.nvml import Reading
from autolaunch.visible import Listed
from tests import fake_nvml
from tests.fake_nvml import pynvml

H100 = {
    "name": "NVIDIA H100 80GB HBM3",
    "uuid": "GPU-1",
    "total": 85_520_809_984,
    "reserved": 503_316_480,
    "capability": [9, 0],
}
STRANGER = "a process of another container or user"


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Give a function that puts cards into this host."""
    return lambda *cards, **driver: fake_nvml.believe(monkeypatch, tmp_path, *cards, **driver)


def only() -> Device:
    """Return the one card that is read, without trouble."""
    reading = nvml.read()
    assert reading.trouble == ""
    (one,) = reading.listed
    return one.device


def test_the_total_is_cudas_own_nvmls_less_what_the_driver_reserves(host: Any) -> None:
    host({**H100, "free": 70 * GIB, "cores": 16896, "clock_mhz": 1980})
    device = Device(DeviceKind.CUDA, "NVIDIA H100 80GB HBM3", 85_017_493_504, 70 * GIB, (9, 0), index=0, uuid="GPU-1")
    assert nvml.read() == Reading((Listed(device, 16896 * 1980),))
    assert pynvml.calls["nvmlShutdown"] == 1


@pytest.mark.parametrize("error", ["FUNCTION_NOT_FOUND", "INVALID_ARGUMENT", "NOT_SUPPORTED"])
def test_an_old_driver_gives_nvmls_total(host: Any, error: str) -> None:
    host({**H100, "errors": {"nvmlDeviceGetMemoryInfo_v2": error}})
    assert only().total_bytes == 85_520_809_984


def test_an_old_binding_gives_nvmls_total(host: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    host(H100)
    monkeypatch.delattr(pynvml, "nvmlMemory_v2")
    monkeypatch.delattr(pynvml, "nvmlDeviceGetNumGpuCores")
    assert only().total_bytes == 85_520_809_984


def test_what_cannot_be_learnt_of_a_card_is_unknown(host: Any) -> None:
    refused = dict.fromkeys(
        ("nvmlDeviceGetMemoryInfo", "nvmlDeviceGetCudaComputeCapability", "nvmlDeviceGetComputeRunningProcesses"),
        "NO_PERMISSION",
    )
    host({**H100, "errors": refused})
    assert only() == Device(DeviceKind.CUDA, "NVIDIA H100 80GB HBM3", index=0, uuid="GPU-1")


# --- who holds the memory


def test_holders_are_named_the_greatest_first_unknown_amounts_last(host: Any) -> None:
    host(
        {
            **H100,
            "processes": [
                {"pid": 4_000_000, "bytes": None},
                {"pid": os.getpid(), "bytes": 5 * GIB},
                {"pid": 4_000_001, "bytes": 7 * GIB},
            ],
        }
    )
    ourselves = psutil.Process()
    assert only().holders == (
        Holder(4_000_001, STRANGER, 7 * GIB),
        Holder(os.getpid(), ourselves.name(), 5 * GIB, ourselves.username()),
        Holder(4_000_000, STRANGER, None),
    )


def test_a_process_that_computes_and_draws_is_counted_once(host: Any) -> None:
    both = [{"pid": 4_000_001, "bytes": GIB, "kind": kind} for kind in ("compute", "graphics")]
    host({**H100, "processes": [*both, {"pid": 4_000_002, "bytes": GIB // 2, "kind": "graphics"}]})
    assert only().holders == (Holder(4_000_001, STRANGER, GIB), Holder(4_000_002, STRANGER, GIB // 2))


def test_a_driver_that_lacks_the_newest_version_of_the_list_is_asked_for_the_one_before(host: Any) -> None:
    processes = [{"pid": 4_000_001, "bytes": GIB}]
    lacks = {"nvmlDeviceGetComputeRunningProcesses_v3": "FUNCTION_NOT_FOUND"}
    host({**H100, "processes": processes, "errors": lacks})
    assert only().holders == (Holder(4_000_001, STRANGER, GIB),)


def test_a_neighbour_that_comes_is_seen_at_the_next_reading(host: Any) -> None:
    file = host(H100)
    before = only()
    fake_nvml.write(file, {**H100, "processes": [{"pid": 4_000_001, "bytes": 10 * GIB}]})
    after = only()
    assert before.free_bytes is not None
    assert (before.holders, after.free_bytes) == ((), before.free_bytes - 10 * GIB)


# --- slices


def test_a_card_in_mig_mode_is_its_slices_each_with_its_own_memory(host: Any) -> None:
    slices = [
        {"gi": 7, "ci": 0, "name": "NVIDIA H100 80GB HBM3 MIG 1g.10gb", "uuid": "MIG-a", "total": 9728 << 20},
        {"gi": 3, "ci": 1, "name": "NVIDIA H100 80GB HBM3 MIG 3g.40gb", "uuid": "MIG-b", "total": 40448 << 20,
         "free": 20 * GIB, "processes": [{"pid": 4_000_001, "bytes": 19 * GIB}]},
    ]  # fmt: skip
    host({**H100, "mig": slices})
    assert nvml.read() == Reading(
        (
            Listed(
                Device(DeviceKind.CUDA, "NVIDIA H100 80GB HBM3 MIG 1g.10gb", 9728 << 20, 9728 << 20, (9, 0), index=0,
                       uuid="MIG-a"),
                old_name="MIG-GPU-1/7/0",
            ),
            Listed(
                Device(DeviceKind.CUDA, "NVIDIA H100 80GB HBM3 MIG 3g.40gb", 40448 << 20, 20 * GIB, (9, 0),
                       (Holder(4_000_001, STRANGER, 19 * GIB),), index=0, uuid="MIG-b"),
                old_name="MIG-GPU-1/3/1",
            ),
        )
    )  # fmt: skip


def test_a_slice_whose_memory_nvml_does_not_say_is_no_unified_memory(host: Any) -> None:
    host({**H100, "mig": [{"uuid": "MIG-a", "total": GIB}], "errors": {"nvmlDeviceGetMemoryInfo": "NOT_SUPPORTED"}})
    device = only()
    assert (device.total_bytes, device.free_bytes, device.unified) == (None, None, False)


def test_a_card_in_mig_mode_without_slices_is_of_no_use(host: Any) -> None:
    host({**H100, "mig": []}, {**H100, "uuid": "GPU-2"})
    reading = nvml.read()
    assert [one.device.uuid for one in reading.listed] == ["GPU-2"]
    assert reading.trouble == "NVML: card 0 of 2 is in MIG mode and has no instance: CUDA cannot use it"


# --- unified memory


@pytest.mark.parametrize("name", ["NVIDIA GB10", "NVIDIA Thor", "Orin (nvgpu)", "NVIDIA Jetson AGX Orin"])
def test_a_gpu_without_memory_of_its_own_has_the_hosts(host: Any, name: str) -> None:
    host({**H100, "name": name, "errors": {"nvmlDeviceGetMemoryInfo": "NOT_SUPPORTED"}})
    device = only()
    assert (device.total_bytes, device.unified) == (psutil.virtual_memory().total, True)
    assert device.free_bytes is not None
    assert device.free_bytes > 0


def test_a_gpu_without_memory_of_its_own_has_the_hosts_whatever_nvml_says(host: Any) -> None:
    """Some drivers answer for a GB10 with figures that leave out what the page cache would give back."""
    host({**H100, "name": "NVIDIA GB10", "total": 4 * GIB, "reserved": 0})
    assert only().total_bytes == psutil.virtual_memory().total


def test_an_unknown_gpu_whose_memory_nvml_does_not_know_has_the_hosts(host: Any) -> None:
    host({**H100, "name": "NVIDIA N1X", "errors": {"nvmlDeviceGetMemoryInfo": "NOT_SUPPORTED"}})
    device = only()
    assert (device.total_bytes, device.unified) == (psutil.virtual_memory().total, True)


@pytest.mark.parametrize("name", ["NVIDIA GH200 480GB", "NVIDIA GH200 144G HBM3e", "NVIDIA GB200", "NVIDIA GB300"])
def test_a_card_in_one_address_space_with_the_host_has_its_own_memory(host: Any, name: str) -> None:
    host({**H100, "name": name})
    device = only()
    assert (device.total_bytes, device.unified) == (85_017_493_504, True)


@pytest.mark.parametrize("name", ["NVIDIA H200", "NVIDIA B200", "NVIDIA GeForce RTX 4090", "NVIDIA GB102"])
def test_any_other_card_is_not_unified(host: Any, name: str) -> None:
    host({**H100, "name": name})
    assert not only().unified


# --- what fails


def test_without_a_driver_there_is_no_card(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", pynvml)
    monkeypatch.delenv("FAKE_NVML", raising=False)
    assert nvml.read() == Reading(
        trouble="NVML: no driver library (libnvidia-ml.so.1): no NVIDIA driver is installed, or the container was "
        "started without its GPUs"
    )


@pytest.mark.parametrize(
    ("error", "words"),
    [
        ("DRIVER_NOT_LOADED",
         "the driver's kernel module is not loaded; modprobe nvidia, or the kernel's log, says why"),
        ("LIB_RM_VERSION_MISMATCH",
         "Driver/library version mismatch; nvidia-smi says the same; reboot or reload the driver"),
        ("NO_PERMISSION", "no permission to talk to the driver: is /dev/nvidiactl readable for this user?"),
        ("OPERATING_SYSTEM", "the driver answers NVMLError: OPERATING_SYSTEM"),
        ("UNKNOWN", "the driver answers NVMLError: UNKNOWN"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("call", ["nvmlInit", "nvmlDeviceGetCount"])
def test_a_driver_that_errs_is_said_in_words(host: Any, call: str, error: str, words: str) -> None:
    host(H100, errors={call: error})
    assert nvml.read() == Reading(trouble=f"NVML: {words}")


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        ("nvmlDeviceGetHandleByIndex", "GPU_IS_LOST", "has fallen off the bus (GPU is lost) until the next reboot"),
        ("nvmlDeviceGetMemoryInfo", "GPU_IS_LOST", "has fallen off the bus (GPU is lost) until the next reboot"),
        ("nvmlDeviceGetMemoryInfo_v2", "GPU_IS_LOST", "has fallen off the bus (GPU is lost) until the next reboot"),
        ("nvmlDeviceGetHandleByIndex", "UNKNOWN", "cannot be read (UNKNOWN)"),
        ("nvmlDeviceGetMemoryInfo", "RESET_REQUIRED", "must be reset before it can be used"),
        ("nvmlDeviceGetHandleByIndex", "NO_PERMISSION", "may not be used by this user"),
    ],
)
def test_a_card_that_is_lost_does_the_others_no_harm(host: Any, call: str, error: str, words: str) -> None:
    cards = [{**H100, "uuid": f"GPU-{index}"} for index in range(3)]
    host(cards[0], {**cards[1], "errors": {call: error}}, cards[2])
    reading = nvml.read()
    assert [(one.device.index, one.device.uuid) for one in reading.listed] == [(0, "GPU-0"), (2, "GPU-2")]
    assert reading.trouble == f"NVML: card 1 of 3 {words}"
    assert pynvml.calls["nvmlShutdown"] == 1


def test_a_slice_of_a_lost_card_is_lost(host: Any) -> None:
    host({**H100, "mig": [{"total": GIB}], "errors": {"nvmlDeviceGetMigDeviceHandleByIndex": "GPU_IS_LOST"}})
    assert nvml.read() == Reading(
        trouble="NVML: card 0 of 1 has fallen off the bus (GPU is lost) until the next reboot"
    )


@pytest.mark.parametrize("call", ["nvmlInit", "nvmlDeviceGetHandleByIndex", "nvmlDeviceGetMemoryInfo"])
@pytest.mark.parametrize("error", ["UNKNOWN", "TIMEOUT", "IN_USE", "NOT_READY"])
def test_a_hiccup_is_asked_once_more(host: Any, call: str, error: str) -> None:
    passing = {"errors": {call: [error, 1]}}
    host({**H100, **(passing if call != "nvmlInit" else {})}, **(passing if call == "nvmlInit" else {}))
    assert only().total_bytes == 85_017_493_504


def test_an_error_that_stays_is_asked_no_third_time(host: Any) -> None:
    host(H100, errors={"nvmlInit": ["UNKNOWN", 2]})
    assert nvml.read() == Reading(trouble="NVML: the driver answers NVMLError: UNKNOWN")
    assert pynvml.calls["nvmlInit"] == 2


def test_a_real_error_is_not_asked_again(host: Any) -> None:
    host(H100, errors={"nvmlInit": "LIB_RM_VERSION_MISMATCH"})
    nvml.read()
    assert pynvml.calls["nvmlInit"] == 1


def test_whatever_else_a_binding_does_is_words_and_no_exception(host: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    host(H100)
    monkeypatch.delattr(pynvml, "nvmlDeviceGetName")
    assert nvml.read().trouble.startswith("NVML: the driver answers AttributeError: ")


def test_a_driver_that_hangs_is_left_and_read_again_when_it_answers(host: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    hangs = Reading(
        trouble="NVML has not answered for 5 s: the driver hangs, and nvidia-smi will too; see the kernel's log"
    )
    file = host(H100, hang={"nvmlDeviceGetMemoryInfo": 2.0})
    assert nvml.read(deadline_s=0.05) == hangs
    assert nvml.read() == hangs, "at once, while it is known to hang"
    fake_nvml.write(file, H100)
    end = time.monotonic() + 60
    while nvml.read() == hangs:
        assert time.monotonic() < end
        threading.Event().wait(0.01)
    assert only().total_bytes == 85_017_493_504
