"""What NVML says of the cards: their memory as CUDA counts it, who holds it, their slices.

I/O. Owns every call into nvidia-ml-py (the module `pynvml`). Nothing here raises and nothing takes longer than its
deadline: a driver that is missing, errs or hangs, and a card that has left the bus, become words (`Reading.trouble`),
since the engine may run where this host's driver does not matter. What cannot be read is None.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psutil

from autolaunch import host
from autolaunch.deadline import OneAtATime
from autolaunch.facts import Device, DeviceKind, Holder
from autolaunch.visible import Listed

DEADLINE_S = 5.0
"""NVML answers within 0.1 s; the first call after boot, without the persistence daemon, takes 2 to 3 s."""

AGAIN_S = 0.1
NOT_SUPPORTED, NO_PERMISSION, DRIVER_NOT_LOADED, LIBRARY_NOT_FOUND = 3, 4, 9, 12
GPU_IS_LOST, RESET_REQUIRED, VERSION_MISMATCH, UNKNOWN = 15, 16, 18, 999
HICCUPS = frozenset({10, 19, 27, UNKNOWN})
"""TIMEOUT, IN_USE, NOT_READY and UNKNOWN: worth one more call. A lost card answers UNKNOWN as well, but always."""

GONE = frozenset({GPU_IS_LOST, RESET_REQUIRED}) | HICCUPS
"""Errors after which a card is of no use; any other leaves a card whose memory is unknown."""

INTEGRATED = re.compile(r"\b(GB10|Thor|Orin|Xavier|Tegra|Jetson)\b")
"""GPUs without memory of their own; NVML answers NOT_SUPPORTED for their memory, or figures that mean little."""

COHERENT = re.compile(r"\b(GH200|GB200|GB300)\b")
"""GPUs with memory of their own in one address space with the host's: an overcommit can hang the host there too."""

_DRIVER_WORDS = {
    NO_PERMISSION: "no permission to talk to the driver: is /dev/nvidiactl readable for this user?",
    DRIVER_NOT_LOADED: "the driver's kernel module is not loaded; modprobe nvidia, or the kernel's log, says why",
    LIBRARY_NOT_FOUND: "no driver library (libnvidia-ml.so.1): no NVIDIA driver is installed, or the container was "
    "started without its GPUs",
    VERSION_MISMATCH: "Driver/library version mismatch; nvidia-smi says the same; reboot or reload the driver",
}
_CARD_WORDS = {
    NO_PERMISSION: "may not be used by this user",
    GPU_IS_LOST: "has fallen off the bus (GPU is lost) until the next reboot",
    RESET_REQUIRED: "must be reset before it can be used",
}
_HANGS = f"NVML has not answered for {DEADLINE_S:g} s: the driver hangs, and nvidia-smi will too; see the kernel's log"


@dataclass(frozen=True, slots=True)
class Reading:
    """Every card and slice that could be read, in the order of the bus, and what could not, in words."""

    listed: tuple[Listed, ...] = ()
    trouble: str = ""


_one_at_a_time = OneAtATime("nvml")


def read(*, deadline_s: float = DEADLINE_S) -> Reading:
    """Read every card of this host; at most `deadline_s` seconds, whatever the driver does."""
    answer = _one_at_a_time.within(deadline_s, _read)
    return answer if answer is not None else Reading(trouble=_HANGS)


def _read() -> Reading:
    try:
        import pynvml  # noqa: PLC0415 - not needed at all for a CPU engine

        with _open(pynvml):
            return _cards(pynvml)
    except Exception as error:  # whatever a binding or a driver comes up with: the engine may need neither
        words = _DRIVER_WORDS.get(getattr(error, "value", 0), f"the driver answers {type(error).__name__}: {error}")
        return Reading(trouble=f"NVML: {words}")


@contextlib.contextmanager
def _open(nvml: Any) -> Iterator[None]:
    _patiently(nvml, nvml.nvmlInit)
    try:
        yield
    finally:
        with contextlib.suppress(nvml.NVMLError):
            nvml.nvmlShutdown()


def _patiently(nvml: Any, call: Any, *arguments: Any) -> Any:
    """Make a call, and once more where its error is a hiccup."""
    import tenacity  # noqa: PLC0415 - not needed at all for a CPU engine

    def is_hiccup(error: BaseException) -> bool:
        return isinstance(error, nvml.NVMLError) and error.value in HICCUPS

    return tenacity.Retrying(
        retry=tenacity.retry_if_exception(is_hiccup),
        stop=tenacity.stop_after_attempt(2),
        wait=tenacity.wait_fixed(AGAIN_S),
        reraise=True,
    )(call, *arguments)


def _cards(nvml: Any) -> Reading:
    listed: list[Listed] = []
    troubles: list[str] = []
    count = nvml.nvmlDeviceGetCount()
    for index in range(count):
        try:
            found = _patiently(nvml, _card, nvml, index)
        except nvml.NVMLError as error:
            troubles.append(f"card {index} of {count} {_CARD_WORDS.get(error.value, f'cannot be read ({error})')}")
            continue
        listed += found
        if not found:
            troubles.append(f"card {index} of {count} is in MIG mode and has no instance: CUDA cannot use it")
    return Reading(tuple(listed), f"NVML: {'; '.join(troubles)}" if troubles else "")


def _card(nvml: Any, index: int) -> list[Listed]:
    """Return one card, or the slices of one in MIG mode (none where it has none)."""
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    uuid = _text(nvml.nvmlDeviceGetUUID(handle))
    if not _in_mig_mode(nvml, handle):
        return [Listed(_device(nvml, handle, index, uuid), _speed(nvml, handle))]
    speed = _speed(nvml, handle)
    return [
        Listed(_device(nvml, one, index, _text(nvml.nvmlDeviceGetUUID(one))), speed, _old_name(nvml, one, uuid))
        for one in _slices(nvml, handle)
    ]


def _in_mig_mode(nvml: Any, handle: Any) -> bool:
    with contextlib.suppress(nvml.NVMLError):  # NOT_SUPPORTED on every card without MIG
        current, _pending = nvml.nvmlDeviceGetMigMode(handle)
        return bool(current == nvml.NVML_DEVICE_MIG_ENABLE)
    return False


def _slices(nvml: Any, handle: Any) -> Iterator[Any]:
    for number in range(nvml.nvmlDeviceGetMaxMigDeviceCount(handle)):
        try:
            yield nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, number)
        except nvml.NVMLError as error:  # NOT_FOUND for a place without an instance
            if error.value in GONE:
                raise


def _old_name(nvml: Any, handle: Any, card: str) -> str:
    """Return a slice's name before R470, which CUDA still takes: MIG-<card>/<GPU instance>/<compute instance>."""
    return f"MIG-{card}/{nvml.nvmlDeviceGetGpuInstanceId(handle)}/{nvml.nvmlDeviceGetComputeInstanceId(handle)}"


def _device(nvml: Any, handle: Any, index: int, uuid: str) -> Device:
    name = _text(nvml.nvmlDeviceGetName(handle))
    total, free, unified = _memory(nvml, handle, name=name, whole=not uuid.startswith("MIG-"))
    return Device(
        kind=DeviceKind.CUDA,
        name=name,
        total_bytes=total,
        free_bytes=free,
        compute_capability=_capability(nvml, handle),
        holders=_holders(nvml, handle),
        index=index,
        uuid=uuid,
        unified=unified,
    )


def _memory(nvml: Any, handle: Any, *, name: str, whole: bool) -> tuple[int | None, int | None, bool]:
    """Return total and free bytes as the engine will count them, and whether the memory is unified.

    Raises NVML's error for a card that is gone.
    """
    if INTEGRATED.search(name):
        return (*host.shared_memory(), True)
    unified = COHERENT.search(name) is not None
    try:
        return (*_own_memory(nvml, handle), unified)
    except nvml.NVMLError as error:
        if error.value in GONE:
            raise
        if error.value == NOT_SUPPORTED and whole:
            return (*host.shared_memory(), True)
    return None, None, unified


def _own_memory(nvml: Any, handle: Any) -> tuple[int, int]:
    """Return CUDA's own total, which is NVML's less what the driver reserves, and what is free.

    On an H100 85,520,809,984 - 503,316,480 bytes are what CUDA reports, to the byte. A driver or a binding older
    than nvmlMemory_v2 (R510) gives NVML's total, which is up to 2 % too much.
    """
    try:
        memory = nvml.nvmlDeviceGetMemoryInfo(handle, version=nvml.nvmlMemory_v2)
        return memory.total - memory.reserved, memory.free
    except (nvml.NVMLError, TypeError, AttributeError) as error:
        if getattr(error, "value", None) in GONE:
            raise
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    return memory.total, memory.free


def _capability(nvml: Any, handle: Any) -> tuple[int, int] | None:
    with contextlib.suppress(nvml.NVMLError):
        major, minor = nvml.nvmlDeviceGetCudaComputeCapability(handle)
        return major, minor
    return None


def _speed(nvml: Any, handle: Any) -> int:
    """Return cores times clock in MHz; 0 where either is unknown."""
    with contextlib.suppress(nvml.NVMLError, AttributeError):  # a binding older than the calls
        return int(nvml.nvmlDeviceGetNumGpuCores(handle) * nvml.nvmlDeviceGetMaxClockInfo(handle, nvml.NVML_CLOCK_SM))
    return 0


def _holders(nvml: Any, handle: Any) -> tuple[Holder, ...]:
    """Return the processes on a card, the greatest first; one that computes and draws is listed by NVML twice."""
    used: dict[int, int | None] = {}
    for process in _processes(nvml, handle):
        used[process.pid] = max(used.get(process.pid) or 0, process.usedGpuMemory or 0) or None
    found = [_holder(pid, amount) for pid, amount in used.items()]
    return tuple(sorted(found, key=lambda holder: -(holder.used_bytes or 0)))


def _processes(nvml: Any, handle: Any) -> Iterator[Any]:
    mismatch = getattr(nvml, "NVMLLibraryMismatchError", AttributeError)  # no NVMLError, in spite of its name
    for kind in ("Compute", "Graphics"):
        for version in ("", "_v2"):  # the newest, else what drivers before R510 know
            try:
                yield from getattr(nvml, f"nvmlDeviceGet{kind}RunningProcesses{version}")(handle)
                break
            except nvml.NVMLError:
                break
            except (mismatch, AttributeError):
                continue


def _holder(pid: int, used_bytes: int | None) -> Holder:
    """Name a process; one of another container has a pid that means nothing here, and is said to be unknown."""
    try:
        process = psutil.Process(pid)
        return Holder(pid, process.name(), used_bytes, process.username())
    except psutil.Error:
        return Holder(pid, "a process of another container or user", used_bytes)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
