"""The memory of threads: threads that allocate at the same moment share one pool."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

SCRIPT = """
import ctypes, sys, threading
if sys.argv[1] == "one":
    from autolaunch import arenas
    arenas.share_one()
together = threading.Barrier(12)

def allocate():
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    together.wait()
    kept = [libc.malloc(2000) for _ in range(50)]
    together.wait()
    places.update(place >> 26 for place in kept)

places = set()
threads = [threading.Thread(target=allocate) for _ in range(12)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(len(places))
"""


def pools(how: str) -> int:
    """Return how many pools twelve threads took their memory from; an arena begins at a multiple of 64 MiB."""
    done = subprocess.run([sys.executable, "-c", SCRIPT, how], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="arenas are glibc's")
def test_threads_share_one_pool() -> None:
    assert pools("many") > 2
    assert pools("one") <= 2, "one, which may lie across a border of 64 MiB"
