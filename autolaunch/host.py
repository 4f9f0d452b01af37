"""The host's memory: as vLLM's CPU engine counts it, and as a GPU that shares it does.

I/O. Owns the reading of /sys and /proc; decides nothing, guesses nothing. The limits of the process's own cgroups
are `cgroup`'s.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path

import psutil

from autolaunch import cgroup
from autolaunch.facts import Device, DeviceKind

_AVAILABLE = ("MemFree", "Active(file)", "Inactive(file)", "SReclaimable")


def host_memory(environment: Mapping[str, str], *, root: Path = Path("/")) -> Device:
    """Measure the NUMA node that vLLM's CPU engine budgets (vllm/utils/cpu_resource_utils.py of 0.32).

    Its available memory is free plus file cache plus reclaimable slab, not /proc/meminfo's MemAvailable; a limit of
    the cgroup at the root of /sys/fs/cgroup (a container's) below the node's total takes the total's place. A limit
    further down (a systemd unit's MemoryMax) vLLM does not see, but the kernel kills for it: it leaves the total, of
    which the engine takes its share, and bounds what is free. Bytes; `root` is where /sys and /proc are found.
    """
    node = _node(environment, root)
    memory = psutil.virtual_memory()
    total, available = memory.total, memory.available
    with contextlib.suppress(OSError, LookupError, ValueError):
        table = _meminfo(root / f"sys/devices/system/node/node{node}/meminfo")
        total, available = table["MemTotal"], sum(table[name] for name in _AVAILABLE)
    outermost = cgroup.outermost(root)
    if outermost is not None and outermost.limit_bytes < total:
        total, available = outermost.limit_bytes, min(available, outermost.left_bytes)
    available = min([available, *(limit.left_bytes for limit in cgroup.around(root))])
    return Device(kind=DeviceKind.CPU, name=f"host memory, node {node}", total_bytes=total, free_bytes=available)


def shared_memory() -> tuple[int, int]:
    """Return the total and the available bytes of a GPU whose memory is the host's, as vLLM counts them there.

    vllm/utils/mem_utils.py (0.32) takes psutil's available memory on an integrated GPU, since CUDA's free figure
    leaves out what the page cache would give back.
    """
    memory = psutil.virtual_memory()
    return memory.total, memory.available


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
