"""Makes a large card look like one of SMALL_CARD_GIB to NVML's readers, in every process of this environment.

Only the view is smaller: `hold_memory.py` takes the memory away for real.
"""

import contextlib
import os

if os.environ.get("SMALL_CARD_GIB"):
    with contextlib.suppress(ImportError):
        import pynvml

        _total = int(float(os.environ["SMALL_CARD_GIB"]) * 2**30)
        _real = pynvml.nvmlDeviceGetMemoryInfo

        def _smaller(handle, version=None):  # type: ignore[no-untyped-def]
            memory = _real(handle) if version is None else _real(handle, version=version)
            memory.total = _total + getattr(memory, "reserved", 0)
            memory.free = min(memory.free, _total)
            return memory

        pynvml.nvmlDeviceGetMemoryInfo = _smaller
