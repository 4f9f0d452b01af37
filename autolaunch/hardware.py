"""What memory there is: cards through NVML, the host as vLLM's CPU engine counts it.

I/O. Owns every reading of a card or of the host; decides nothing, guesses nothing: what cannot be read is None.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil

from autolaunch.facts import Device, DeviceKind, Holder

_NODES = Path("/sys/devices/system/node")
_CGROUP_FILES = (
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")),
    (
        Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
        Path("/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ),
)


def measure(kind: DeviceKind, *, cards: int = 1, environment: Mapping[str, str] = os.environ) -> Device:
    """Measure the memory one rank of the engine gets.

    `kind` as the engine says; UNKNOWN looks for a card and settles for nothing known. `cards` is the number of
    cards the engine will use; of these the fullest counts. Bytes throughout.
    """
    if kind is DeviceKind.CPU:
        return _host(environment)
    return _fullest_card(cards, environment) or Device(kind=kind)


def _fullest_card(cards: int, environment: Mapping[str, str]) -> Device | None:
    with _nvml() as nvml:
        if nvml is None:
            return None
        try:
            handles = _visible(nvml, environment.get("CUDA_VISIBLE_DEVICES"))[: max(1, cards)]
            devices = [_card(nvml, handle) for handle in handles]
        except nvml.NVMLError:
            return None
    return min(devices, key=lambda device: device.free_bytes or 0, default=None)


@contextlib.contextmanager
def _nvml() -> Iterator[Any]:
    """Give the NVML module between init and shutdown, or None where there is no driver."""
    import pynvml  # noqa: PLC0415 - not needed at all for a CPU engine

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        yield None
        return
    try:
        yield pynvml
    finally:
        with contextlib.suppress(pynvml.NVMLError):
            pynvml.nvmlShutdown()


def _visible(nvml: Any, wanted: str | None) -> list[Any]:
    """Return the cards that CUDA_VISIBLE_DEVICES leaves, in its order (indices, UUIDs or their beginnings)."""
    every = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
    if wanted is None:
        return every
    chosen = []
    for word in filter(None, (part.strip() for part in wanted.split(","))):
        if word.isdigit() and int(word) < len(every):
            chosen.append(every[int(word)])
            continue
        match = [h for h in every if _text(nvml.nvmlDeviceGetUUID(h)).startswith(word)]
        if len(match) != 1:
            break  # as CUDA does: the first invalid entry ends the list
        chosen += match
    return chosen


def _card(nvml: Any, handle: Any) -> Device:
    total, free = _memory(nvml, handle)
    capability: tuple[int, int] | None = None
    with contextlib.suppress(nvml.NVMLError):
        major, minor = nvml.nvmlDeviceGetCudaComputeCapability(handle)
        capability = (major, minor)
    return Device(
        kind=DeviceKind.CUDA,
        name=_text(nvml.nvmlDeviceGetName(handle)),
        total_bytes=total,
        free_bytes=free,
        compute_capability=capability,
        holders=_holders(nvml, handle),
    )


def _memory(nvml: Any, handle: Any) -> tuple[int, int]:
    """Return CUDA's own total (NVML's less what the driver reserves) and what is free."""
    try:
        memory = nvml.nvmlDeviceGetMemoryInfo(handle, version=nvml.nvmlMemory_v2)
        return memory.total - memory.reserved, memory.free
    except (nvml.NVMLError, TypeError, AttributeError):  # a driver older than nvmlMemory_v2
        memory = nvml.nvmlDeviceGetMemoryInfo(handle)
        return memory.total, memory.free


def _holders(nvml: Any, handle: Any) -> tuple[Holder, ...]:
    try:
        processes = nvml.nvmlDeviceGetComputeRunningProcesses(handle)
    except nvml.NVMLError:
        return ()
    found = [Holder(process.pid, _process_name(process.pid), process.usedGpuMemory) for process in processes]
    return tuple(sorted(found, key=lambda holder: -(holder.used_bytes or 0)))


def _process_name(pid: int) -> str:
    try:
        return psutil.Process(pid).name()
    except psutil.Error:
        return "a process of another container or user"


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _host(environment: Mapping[str, str]) -> Device:
    """Measure the NUMA node that vLLM's CPU engine budgets (vllm/utils/cpu_resource_utils.py of 0.32).

    Its available memory is free plus file cache plus reclaimable slab, not /proc/meminfo's MemAvailable; a
    cgroup limit below the node's total takes the total's place.
    """
    node = _node(environment)
    memory = psutil.virtual_memory()
    total, available = memory.total, memory.available
    with contextlib.suppress(OSError, KeyError, ValueError):
        table = _meminfo(_NODES / f"node{node}" / "meminfo")
        total = table["MemTotal"]
        available = table["MemFree"] + table["Active(file)"] + table["Inactive(file)"] + table["SReclaimable"]
    limit, used = _cgroup()
    if limit is not None and limit < total:
        total, available = limit, max(0, min(available, limit - used))
    return Device(kind=DeviceKind.CPU, name=f"host memory, node {node}", total_bytes=total, free_bytes=available)


def _node(environment: Mapping[str, str]) -> int:
    """Return the NUMA node of the first processor we may run on."""
    wanted = environment.get("CPU_VISIBLE_MEMORY_NODES", "").split(",")[0].strip()
    if wanted.isdigit():
        return int(wanted)
    first = min(os.sched_getaffinity(0), default=0)
    for folder in _NODES.glob("node[0-9]*"):
        if (folder / f"cpu{first}").exists():
            return int(folder.name.removeprefix("node"))
    return 0


def _meminfo(file: Path) -> dict[str, int]:
    table: dict[str, int] = {}
    for line in file.read_text(encoding="ascii").splitlines():
        words = line.split()  # Node 0 MemTotal: 7822336 kB
        table[words[2].rstrip(":")] = int(words[3]) * 1024
    return table


def _cgroup() -> tuple[int | None, int]:
    for limit, used in _CGROUP_FILES:
        with contextlib.suppress(OSError, ValueError):
            return int(limit.read_text()), int(used.read_text())
    return None, 0
