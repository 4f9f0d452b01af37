"""Cards through a fake NVML, the host through files of another root."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from autolaunch.facts import Device, DeviceKind, Holder
from autolaunch.hardware import host_memory, measure

GIB = 1 << 30
KB_PER_GIB = 1 << 20


class NVMLError(Exception):
    """Any failure of the driver."""


@dataclass
class Memory:
    total: int
    free: int
    reserved: int = 0


@dataclass
class Process:
    pid: int
    usedGpuMemory: int | None


@dataclass(eq=False)
class Card:
    """A card as the driver knows it; `broken` is a call that fails."""

    uuid: str
    free_gib: float = 70
    capability: tuple[int, int] | None = (9, 0)
    processes: tuple[Process, ...] = ()
    broken: str = ""
    name: str | bytes = "NVIDIA H100 80GB HBM3"


@dataclass
class Driver:
    """The module pynvml with these cards; an old one knows no second version of the memory structure."""

    cards: list[Card] = field(default_factory=list)
    old: bool = False
    missing: bool = False
    calls: list[str] = field(default_factory=list)
    NVMLError: type[Exception] = NVMLError
    nvmlMemory_v2: int = 2

    def nvmlInit(self) -> None:
        if self.missing:
            raise NVMLError("no driver")
        self.calls.append("init")

    def nvmlShutdown(self) -> None:
        self.calls.append("shutdown")

    def nvmlDeviceGetCount(self) -> int:
        return len(self.cards)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Card:
        return self.cards[index]

    def nvmlDeviceGetUUID(self, card: Card) -> bytes:
        return card.uuid.encode()

    def nvmlDeviceGetName(self, card: Card) -> str | bytes:
        return card.name

    def nvmlDeviceGetCudaComputeCapability(self, card: Card) -> tuple[int, int]:
        if card.capability is None:
            raise NVMLError("not supported")
        return card.capability

    def nvmlDeviceGetMemoryInfo(self, card: Card, version: int | None = None) -> Memory:
        if card.broken == "memory":
            raise NVMLError("the card has fallen off the bus")
        if version is None:
            return Memory(85_520_809_984, int(card.free_gib * GIB))
        if self.old:
            raise NVMLError("the structure's version is unknown")
        return Memory(85_520_809_984, int(card.free_gib * GIB), 503_316_480)

    def nvmlDeviceGetComputeRunningProcesses(self, card: Card) -> tuple[Process, ...]:
        if card.broken == "processes":
            raise NVMLError("no permission")
        return card.processes


def see(monkeypatch: pytest.MonkeyPatch, driver: Driver, visible: str | None = None, cards: int = 1) -> Device:
    monkeypatch.setitem(sys.modules, "pynvml", as_module(driver))
    environment = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    return measure(DeviceKind.UNKNOWN, cards=cards, environment=environment)


def as_module(driver: Driver) -> ModuleType:
    module: Any = ModuleType("pynvml")
    for name in (name for name in dir(driver) if name.lower().startswith("nvml")):
        setattr(module, name, getattr(driver, name))
    return module  # type: ignore[no-any-return]


def two_cards() -> Driver:
    return Driver([Card("GPU-aaaa-1", free_gib=70), Card("GPU-aabb-2", free_gib=20)])


def test_the_total_is_cudas_own_nvmls_less_what_the_driver_reserves(monkeypatch: pytest.MonkeyPatch) -> None:
    device = see(monkeypatch, Driver([Card("GPU-1", free_gib=70)]))
    assert device == Device(
        DeviceKind.CUDA, "NVIDIA H100 80GB HBM3", 85_017_493_504, 70 * GIB, compute_capability=(9, 0)
    )


def test_an_old_driver_gives_nvmls_total(monkeypatch: pytest.MonkeyPatch) -> None:
    assert see(monkeypatch, Driver([Card("GPU-1")], old=True)).total_bytes == 85_520_809_984


@pytest.mark.parametrize(
    ("visible", "free_gib"),
    [
        (None, 70),
        ("0", 70),
        ("1", 20),
        ("1,0", 20),
        (" 1 ", 20),
        ("GPU-aab", 20),
        ("GPU-aaaa-1", 70),
        ("1,7", 20),
        ("", None),
        ("-1", None),
        ("7,0", None),
        ("0,0", None),
        ("GPU-a", None),
        ("MIG-1234", None),
        ("²", None),
        ("NoDevFiles", None),
    ],
)
def test_the_first_visible_card_is_measured(
    monkeypatch: pytest.MonkeyPatch, visible: str | None, free_gib: int | None
) -> None:
    device = see(monkeypatch, two_cards(), visible)
    assert device.free_bytes == (None if free_gib is None else free_gib * GIB)


def test_of_several_cards_the_fullest_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    assert see(monkeypatch, two_cards(), cards=2).free_bytes == 20 * GIB
    assert see(monkeypatch, two_cards(), "0", cards=2).free_bytes == 70 * GIB


@pytest.mark.parametrize("driver", [Driver(missing=True), Driver([]), Driver([Card("GPU-1", broken="memory")])])
def test_what_cannot_be_read_is_unknown(monkeypatch: pytest.MonkeyPatch, driver: Driver) -> None:
    assert see(monkeypatch, driver) == Device(DeviceKind.UNKNOWN)
    assert driver.calls in ([], ["init", "shutdown"])


def test_a_broken_card_that_is_not_used_does_no_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = Driver([Card("GPU-1", free_gib=60), Card("GPU-2", broken="memory")])
    assert see(monkeypatch, driver).free_bytes == 60 * GIB


def test_holders_are_named_the_greatest_first_unknown_amounts_last(monkeypatch: pytest.MonkeyPatch) -> None:
    processes = (Process(4_000_000, None), Process(os.getpid(), 5 * GIB), Process(4_000_001, 7 * GIB))
    card = Card("GPU-1", processes=processes, capability=None, name=b"an old binding's name")
    device = see(monkeypatch, Driver([card]))
    assert device.name == "an old binding's name"
    assert device.compute_capability is None
    greatest, ours, unknown = device.holders
    assert greatest == Holder(4_000_001, "a process of another container or user", 7 * GIB)
    assert (ours.pid, ours.used_bytes) == (os.getpid(), 5 * GIB)
    assert (unknown.pid, unknown.used_bytes) == (4_000_000, None)


def test_holders_that_may_not_be_listed_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    assert see(monkeypatch, Driver([Card("GPU-1", broken="processes")])).holders == ()


# --- the host


def node(root: Path, number: int, *, total: int = 16, free: int = 4, first_cpu: bool = False) -> None:
    folder = root / f"sys/devices/system/node/node{number}"
    folder.mkdir(parents=True)
    figures = {
        "MemTotal": total, "MemFree": free, "MemUsed": total - free, "Active(file)": 1, "Inactive(file)": 2,
        "SReclaimable": 1,
    }  # fmt: skip
    lines = [f"Node {number} {name}: {gib * KB_PER_GIB:>10} kB" for name, gib in figures.items()]
    (folder / "meminfo").write_text("\n".join([*lines, f"Node {number} HugePages_Total:     0"]) + "\n")
    if first_cpu:
        (folder / f"cpu{min(os.sched_getaffinity(0))}").mkdir()


def allow(root: Path, nodes: str) -> None:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/status").write_text(f"Name:\tpython\nMems_allowed_list:\t{nodes}\n")


def limit(root: Path, most: str, used: str) -> None:
    folder = root / "sys/fs/cgroup"
    folder.mkdir(parents=True)
    (folder / "memory.max").write_text(most)
    (folder / "memory.current").write_text(used)


def in_gib(device: Device) -> tuple[str, float, float]:
    assert device.kind is DeviceKind.CPU
    assert device.total_bytes is not None
    assert device.free_bytes is not None
    return device.name, device.total_bytes / GIB, device.free_bytes / GIB


def test_available_is_free_plus_file_cache_plus_reclaimable(tmp_path: Path) -> None:
    node(tmp_path, 0, first_cpu=True)
    assert in_gib(host_memory({}, root=tmp_path)) == ("host memory, node 0", 16, 8)


def test_the_node_of_the_first_processor_is_measured(tmp_path: Path) -> None:
    allow(tmp_path, "0-1")
    node(tmp_path, 0)
    node(tmp_path, 1, total=32, free=20, first_cpu=True)
    assert in_gib(host_memory({}, root=tmp_path)) == ("host memory, node 1", 32, 24)


@pytest.mark.parametrize(("allowed", "wanted", "chosen"), [("0", "", 0), ("0-2", "2", 2), ("0-2", "2,1", 1)])
def test_a_node_we_may_not_use_is_not_measured(tmp_path: Path, allowed: str, wanted: str, chosen: int) -> None:
    allow(tmp_path, allowed)
    for number in range(3):
        node(tmp_path, number, first_cpu=number == 1)
    device = host_memory({"CPU_VISIBLE_MEMORY_NODES": wanted}, root=tmp_path)
    assert device.name == f"host memory, node {chosen}"


@pytest.mark.parametrize(
    ("most", "used", "total", "free"),
    [
        (str(8 * GIB), str(6 * GIB), 8, 2),
        (str(8 * GIB), str(9 * GIB), 8, 0),
        (str(12 * GIB), "0", 12, 8),
        (str(64 * GIB), str(6 * GIB), 16, 8),
        ("max", "1", 16, 8),
        ("nonsense", "", 16, 8),
    ],
)
def test_a_cgroup_limit_below_the_nodes_total_counts(
    tmp_path: Path, most: str, used: str, total: float, free: float
) -> None:
    node(tmp_path, 0, first_cpu=True)
    limit(tmp_path, most, used)
    assert in_gib(host_memory({}, root=tmp_path)) == ("host memory, node 0", total, free)


def test_the_first_version_of_cgroups_is_read(tmp_path: Path) -> None:
    node(tmp_path, 0, first_cpu=True)
    folder = tmp_path / "sys/fs/cgroup/memory"
    folder.mkdir(parents=True)
    (folder / "memory.limit_in_bytes").write_text(str(8 * GIB))
    (folder / "memory.usage_in_bytes").write_text(str(2 * GIB))
    assert in_gib(host_memory({}, root=tmp_path)) == ("host memory, node 0", 8, 6)
    (folder / "memory.limit_in_bytes").write_text(str(2**63 - 4096))
    assert in_gib(host_memory({}, root=tmp_path)) == ("host memory, node 0", 16, 8)


def test_a_host_without_nodes_is_measured_by_what_psutil_says(tmp_path: Path) -> None:
    device = host_memory({}, root=tmp_path)
    assert device.total_bytes
    assert device.free_bytes


def test_this_host_can_be_measured() -> None:
    device = measure(DeviceKind.CPU)
    assert device.total_bytes
    assert device.free_bytes
    assert 0 < device.free_bytes <= device.total_bytes
