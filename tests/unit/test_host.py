"""The host's memory as vLLM's CPU engine counts it, through files of another root."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import pytest

from autolaunch.facts import GIB, Device, DeviceKind
from autolaunch.host import host_memory, shared_memory

KB_PER_GIB = 1 << 20


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
    (root / "proc/self").mkdir(parents=True, exist_ok=True)
    (root / "proc/self/status").write_text(f"Name:\tpython\nMems_allowed_list:\t{nodes}\n")


def belong(root: Path, *lines: str) -> None:
    """Put this process into cgroups, as /proc/self/cgroup says it."""
    (root / "proc/self").mkdir(parents=True, exist_ok=True)
    (root / "proc/self/cgroup").write_text("".join(f"{line}\n" for line in lines))


def limit(root: Path, path: str, most: object, used: object, *, cache_gib: int = 0) -> None:
    """Limit a cgroup of version 2."""
    folder = (root / "sys/fs/cgroup" / path).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.max").write_text(f"{most}\n")
    (folder / "memory.current").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 1\nfile 5\nactive_file {cache_gib * GIB}\ninactive_file 0\nodd\n")


def limit_v1(root: Path, path: str, most: int, used: int, *, cache_gib: int = 0) -> None:
    """Limit a cgroup of version 1."""
    folder = root / "sys/fs/cgroup/memory" / path
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.limit_in_bytes").write_text(f"{most}\n")
    (folder / "memory.usage_in_bytes").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"total_active_file 0\ntotal_inactive_file {cache_gib * GIB}\n")


def in_gib(device: Device) -> tuple[str, float, float]:
    assert device.kind is DeviceKind.CPU
    assert device.total_bytes is not None
    assert device.free_bytes is not None
    return device.name, device.total_bytes / GIB, device.free_bytes / GIB


def figures(root: Path) -> tuple[float, float]:
    return in_gib(host_memory({}, root=root))[1:]


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


# --- a container's limit, which vLLM counts as the memory there is


@pytest.mark.parametrize(
    ("most", "used", "total", "free"),
    [
        (8 * GIB, 6 * GIB, 8, 2),
        (8 * GIB, 9 * GIB, 8, 0),
        (12 * GIB, 0, 12, 8),
        (8 * GIB, "", 8, 8),
        (64 * GIB, 6 * GIB, 16, 8),
        ("max", 1, 16, 8),
        ("nonsense", "", 16, 8),
    ],
)
def test_a_containers_limit_below_the_nodes_total_takes_its_place(
    tmp_path: Path, most: object, used: object, total: float, free: float
) -> None:
    node(tmp_path, 0, first_cpu=True)
    limit(tmp_path, "", most, used)
    assert figures(tmp_path) == (total, free)


def test_file_cache_counts_as_used_in_a_container_as_vllm_counts_it(tmp_path: Path) -> None:
    node(tmp_path, 0, first_cpu=True)
    limit(tmp_path, "", 8 * GIB, 6 * GIB, cache_gib=5)
    assert figures(tmp_path) == (8, 2)


def test_the_first_version_of_cgroups_is_read(tmp_path: Path) -> None:
    node(tmp_path, 0, first_cpu=True)
    limit_v1(tmp_path, "", 8 * GIB, 2 * GIB)
    assert figures(tmp_path) == (8, 6)
    limit_v1(tmp_path, "", 2**63 - 4096, 2 * GIB)
    assert figures(tmp_path) == (16, 8)


# --- the limits of the units this process runs in, which vLLM does not see


def test_a_units_limit_bounds_what_is_free_and_leaves_the_total(tmp_path: Path) -> None:
    """vLLM takes its share of the node's total; the kernel kills at the unit's MemoryMax."""
    node(tmp_path, 0, first_cpu=True)
    belong(tmp_path, "0::/system.slice/autolaunch.service")
    limit(tmp_path, "system.slice/autolaunch.service", 6 * GIB, GIB)
    assert figures(tmp_path) == (16, 5)


def test_the_tightest_of_all_units_around_counts(tmp_path: Path) -> None:
    node(tmp_path, 0, first_cpu=True)
    belong(tmp_path, "0::/user.slice/user-1000.slice/app.scope")
    limit(tmp_path, "user.slice/user-1000.slice/app.scope", "max", 0)
    limit(tmp_path, "user.slice/user-1000.slice", 7 * GIB, 4 * GIB)
    limit(tmp_path, "user.slice", 64 * GIB, 60 * GIB)
    assert figures(tmp_path) == (16, 3)


def test_file_cache_of_a_unit_does_not_count_as_used(tmp_path: Path) -> None:
    """Weights read from disk fill it, and the kernel gives it back before it kills."""
    node(tmp_path, 0, first_cpu=True)
    belong(tmp_path, "0::/a.service")
    limit(tmp_path, "a.service", 6 * GIB, 6 * GIB, cache_gib=4)
    assert figures(tmp_path) == (16, 4)


def test_units_of_the_first_version_are_read(tmp_path: Path) -> None:
    node(tmp_path, 0, first_cpu=True)
    belong(tmp_path, "12:cpu,cpuacct:/x", "4:memory:/system.slice/a.service", "0::/")
    limit_v1(tmp_path, "system.slice/a.service", 6 * GIB, 5 * GIB, cache_gib=2)
    assert figures(tmp_path) == (16, 3)


def test_a_limit_of_the_container_and_one_of_a_unit_in_it_both_count(tmp_path: Path) -> None:
    node(tmp_path, 0, first_cpu=True)
    belong(tmp_path, "0::/a.service")
    limit(tmp_path, "", 12 * GIB, 6 * GIB)
    limit(tmp_path, "a.service", 9 * GIB, 5 * GIB)
    assert figures(tmp_path) == (12, 4)


def test_a_containers_limit_above_the_nodes_total_bounds_what_is_free_once_it_is_used_up(tmp_path: Path) -> None:
    """On a host of several nodes the others' memory counts into it too."""
    node(tmp_path, 0, first_cpu=True)
    belong(tmp_path, "0::/")
    limit(tmp_path, "", 64 * GIB, 61 * GIB)
    assert figures(tmp_path) == (16, 3)


@pytest.mark.parametrize("line", ["0::/../outside", "0::/docker/0123", "", "nonsense", "0::relative", "4:memory:"])
def test_a_cgroup_that_is_not_mounted_here_bounds_nothing(tmp_path: Path, line: str) -> None:
    node(tmp_path, 0, first_cpu=True)
    belong(tmp_path, line)
    limit(tmp_path, "../outside", GIB, 0)
    assert figures(tmp_path) == (16, 8)


# --- without nodes


def test_a_host_without_nodes_is_measured_by_what_psutil_says(tmp_path: Path) -> None:
    device = host_memory({}, root=tmp_path)
    assert device.total_bytes == psutil.virtual_memory().total
    assert device.free_bytes


def test_this_host_can_be_measured() -> None:
    device = host_memory(os.environ)
    assert device.total_bytes
    assert device.free_bytes
    assert 0 < device.free_bytes <= device.total_bytes


def test_memory_that_a_gpu_shares_is_all_of_the_hosts() -> None:
    total, available = shared_memory()
    assert total == psutil.virtual_memory().total
    assert 0 < available <= total
