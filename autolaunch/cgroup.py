"""Limits of the process's own cgroups: the container's, and those of the units it runs in.

I/O. Owns the reading of /proc/self/cgroup and /sys/fs/cgroup, both versions; decides nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

UNLIMITED_BYTES = 1 << 62
"""Version 1 writes "no limit" as a number close to 2**63."""


@dataclass(frozen=True, slots=True)
class Limit:
    """One cgroup's memory limit and what is left of it, in bytes."""

    limit_bytes: int
    left_bytes: int


@dataclass(frozen=True, slots=True)
class _Files:
    """Where one version of cgroups keeps its figures; `stat` names are file cache, which the kernel gives back."""

    mount: str
    limit: str
    used: str
    cache: tuple[str, ...]


_VERSION_2 = _Files("sys/fs/cgroup", "memory.max", "memory.current", ("active_file", "inactive_file"))
_VERSION_1 = _Files(
    "sys/fs/cgroup/memory",
    "memory.limit_in_bytes",
    "memory.usage_in_bytes",
    ("total_active_file", "total_inactive_file"),
)


def outermost(root: Path) -> Limit | None:
    """Return the limit at the root of the mounted hierarchy, which in a container is the container's own.

    As vLLM reads it (get_cgroup_memory_limit, get_cgroup_memory_usage): what is used is all that is charged, file
    cache included. None where there is no limit.
    """
    for files in (_VERSION_2, _VERSION_1):
        folder = root / files.mount
        limit = _number(folder / files.limit)
        if limit is not None and 0 < limit < UNLIMITED_BYTES:
            return Limit(limit, max(0, limit - (_number(folder / files.used) or 0)))
    return None


def around(root: Path) -> tuple[Limit, ...]:
    """Return the limits of the cgroup the process is in and of all around it.

    What is left does not count file cache as used: the kernel gives it back before it kills.
    """
    return tuple(
        Limit(limit, max(0, limit - max(0, (_number(folder / files.used) or 0) - _cache(folder, files))))
        for files, folder in _folders(root)
        if (limit := _number(folder / files.limit)) is not None and 0 < limit < UNLIMITED_BYTES
    )


def _folders(root: Path) -> Iterator[tuple[_Files, Path]]:
    """Give the process's own folder of each hierarchy, then its parents up to the hierarchy's root."""
    for files, path in _own(root):
        for group in (path, *path.parents):
            yield files, root / files.mount / group.relative_to("/")


def _own(root: Path) -> Iterator[tuple[_Files, PurePosixPath]]:
    """Give the path of the process's cgroup in each hierarchy that accounts memory: "0::/a/b", "4:memory:/a/b"."""
    with contextlib.suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text(encoding="utf-8", errors="replace").splitlines():
            number, _, rest = line.partition(":")
            controllers, _, path = rest.partition(":")
            if not path.startswith("/") or ".." in path.split("/"):
                continue  # outside our cgroup namespace: not mounted here
            if number == "0" and not controllers:
                yield _VERSION_2, PurePosixPath(path)
            elif "memory" in controllers.split(","):
                yield _VERSION_1, PurePosixPath(path)


def _cache(folder: Path, files: _Files) -> int:
    """Return the bytes of file cache that are charged to a cgroup (0 where that cannot be read)."""
    with contextlib.suppress(OSError, ValueError):
        words = (line.split() for line in (folder / "memory.stat").read_text(encoding="ascii").splitlines())
        return sum(int(pair[1]) for pair in words if len(pair) == 2 and pair[0] in files.cache)
    return 0


def _number(file: Path) -> int | None:
    """Return the number in a file; None where there is none ("max", no such file)."""
    with contextlib.suppress(OSError, ValueError):
        return int(file.read_text(encoding="ascii"))
    return None
