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

_CGROUP_FILES = (
    ("sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory.current"),
    ("sys/fs/cgroup/memory/memory.limit_in_bytes", "sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


def measure(kind: DeviceKind, *, cards: int = 1, environment: Mapping[str, str] = os.environ) -> Device:
    """Measure the memory one rank of the engine gets.

    `kind` as the engine says; UNKNOWN looks for a card and settles for nothing known. `cards` is the number of
    cards the engine will use; of these the fullest counts. Bytes throughout.
    """
    if kind is DeviceKind.CPU:
        return host_memory(environment)
    return fullest_card(cards, environment) or Device(kind=kind)


def fullest_card(cards: int, environment: Mapping[str, str]) -> Device | None:
    """Measure the cards an engine will use and return the fullest; None where none can be read."""
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
        if word.isdecimal():
            match = every[int(word) : int(word) + 1]
        else:
            match = [h for h in every if _text(nvml.nvmlDeviceGetUUID(h)).startswith(word)]
        if len(match) != 1:
            break  # as CUDA does: the first invalid entry ends the list
        if match[0] in chosen:
            return []  # as CUDA does: a card named twice leaves none
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


def host_memory(environment: Mapping[str, str], *, root: Path = Path("/")) -> Device:
    """Measure the NUMA node that vLLM's CPU engine budgets (vllm/utils/cpu_resource_utils.py of 0.32).

    Its available memory is free plus file cache plus reclaimable slab, not /proc/meminfo's MemAvailable; a
    cgroup limit below the node's total takes the total's place. `root` is where /sys and /proc are found.
    """
    node = _node(environment, root)
    memory = psutil.virtual_memory()
    total, available = memory.total, memory.available
    with contextlib.suppress(OSError, LookupError, ValueError):
        table = _meminfo(root / f"sys/devices/system/node/node{node}/meminfo")
        total, available = table["MemTotal"], sum(table[name] for name in _AVAILABLE)
    limit, used = _cgroup(root)
    if limit is not None and limit < total:
        total, available = limit, max(0, min(available, limit - used))
    return Device(kind=DeviceKind.CPU, name=f"host memory, node {node}", total_bytes=total, free_bytes=available)


_AVAILABLE = ("MemFree", "Active(file)", "Inactive(file)", "SReclaimable")


def _node(environment: Mapping[str, str], root: Path) -> int:
    """Return the node of the first processor we may run on, if we may use its memory, else the first we may use."""
    allowed = _allowed_nodes(root)
    wanted = _numbers(environment.get("CPU_VISIBLE_MEMORY_NODES", ""))
    allowed = [node for node in allowed if node in wanted] if wanted else allowed
    first = min(os.sched_getaffinity(0), default=0)
    for folder in (root / "sys/devices/system/node").glob("node[0-9]*"):
        node = int(folder.name.removeprefix("node"))
        if (folder / f"cpu{first}").exists() and node in allowed:
            return node
    return allowed[0] if allowed else 0


def _allowed_nodes(root: Path) -> list[int]:
    with contextlib.suppress(OSError):
        for line in (root / "proc/self/status").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("Mems_allowed_list:"):
                return _numbers(line.partition(":")[2])
    return [0]


def _numbers(text: str) -> list[int]:
    """Return the numbers of a kernel list ("0-2,4"); what is none is left out."""
    found: list[int] = []
    for part in text.split(","):
        first, _, last = part.strip().partition("-")
        if first.isdecimal() and (last or first).isdecimal():
            found += range(int(first), int(last or first) + 1)
    return found


def _meminfo(file: Path) -> dict[str, int]:
    table: dict[str, int] = {}
    for line in file.read_text(encoding="ascii").splitlines():
        words = line.split()  # Node 0 MemTotal: 7822336 kB
        table[words[2].rstrip(":")] = int(words[3]) * 1024
    return table


def _cgroup(root: Path) -> tuple[int | None, int]:
    for limit, used in _CGROUP_FILES:
        with contextlib.suppress(OSError, ValueError):
            return int((root / limit).read_text()), int((root / used).read_text())
    return None, 0
