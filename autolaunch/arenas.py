"""The memory that the C library keeps for threads: one pool for all of them.

I/O on this process alone. Every life of an engine has some ten short threads here, and glibc gives threads that
allocate at the same moment a pool ("arena") each, up to eight for each core, none of which it gives back.
"""

from __future__ import annotations

import contextlib

M_ARENA_MAX = -8
"""glibc's malloc.h: the most arenas there may be. Another C library has neither arenas nor this call."""


def share_one() -> None:
    """Let every thread of this process take its memory from one pool; before the first thread is started."""
    import ctypes  # noqa: PLC0415 - only a supervisor lives long enough

    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)
