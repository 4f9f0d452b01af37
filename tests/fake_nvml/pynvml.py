"""A fake of the parts of nvidia-ml-py that autolaunch calls, driven by a JSON file that is read again at every call.

    FAKE_NVML=cards.json PYTHONPATH=tests/fake_nvml autolaunch doctor

Whoever changes the file must put a whole new one in its place (write beside it, then os.replace). The file holds:

    {"driver": "570.86.15",                     the driver's version
     "errors": {CALL: ERROR},                   what a call answers whatever the card; see below
     "hang": {CALL: SECONDS},                   how long a call takes before it answers
     "cards": [{
        "name": "NVIDIA GeForce RTX 4090",      every key but "total" has a default
        "uuid": "GPU-...",                      default: GPU-0000000N-0000-0000-0000-000000000000
        "total": 25757220864,                   bytes, as NVML counts them (the label)
        "reserved": 506593280,                  what the driver keeps; CUDA's total is total - reserved; default 0
        "free": 25250627584,                    default: total - reserved - what `processes` hold, not below 0
        "capability": [8, 9],
        "processes": [{"pid": 4711, "bytes": 1073741824, "kind": "compute"}],   or "graphics"; bytes may be null; an
                                                entry with "ticks" (the clock tick after boot at which that process
                                                was made) counts only as long as the very process lives
        "cores": 16384, "clock_mhz": 3105,      what FASTEST_FIRST may rest on; null: not supported
        "mig": [{"gi": 1, "ci": 0, "total": ...}],   slices; name, uuid, reserved, free and processes are their own,
                                                errors and capability the card's; [] is MIG mode without slices,
                                                no key at all is a card whose MIG mode is off
        "errors": {CALL: ERROR}, "hang": {CALL: SECONDS}}]}

CALL is a function's name ("nvmlInit", "nvmlDeviceGetHandleByIndex"); what only its newest version answers is
"nvmlDeviceGetMemoryInfo_v2" or "nvmlDeviceGetComputeRunningProcesses_v3". ERROR is NVML's name without its prefix
("GPU_IS_LOST"), or [ERROR, TIMES] for an error that goes away after so many calls of this process. Without FAKE_NVML
there is no driver library. A file that cannot be read is a mistake of the test's and raises what it raises.

In a test's own process: monkeypatch.setenv("FAKE_NVML", path) and monkeypatch.setitem(sys.modules, "pynvml", module).
"""

from __future__ import annotations

import functools
import json
import os
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

NVML_ERROR_UNINITIALIZED = 1
NVML_ERROR_INVALID_ARGUMENT = 2
NVML_ERROR_NOT_SUPPORTED = 3
NVML_ERROR_NO_PERMISSION = 4
NVML_ERROR_NOT_FOUND = 6
NVML_ERROR_DRIVER_NOT_LOADED = 9
NVML_ERROR_TIMEOUT = 10
NVML_ERROR_LIBRARY_NOT_FOUND = 12
NVML_ERROR_FUNCTION_NOT_FOUND = 13
NVML_ERROR_GPU_IS_LOST = 15
NVML_ERROR_RESET_REQUIRED = 16
NVML_ERROR_OPERATING_SYSTEM = 17
NVML_ERROR_LIB_RM_VERSION_MISMATCH = 18
NVML_ERROR_IN_USE = 19
NVML_ERROR_NOT_READY = 27
NVML_ERROR_UNKNOWN = 999
NVML_CLOCK_SM = 1
NVML_DEVICE_MIG_ENABLE = 1
nvmlMemory_v2 = 0x02000028

calls: Counter[str] = Counter()
"""How often this process made each call."""

_CODES = {
    name.removeprefix("NVML_ERROR_"): value for name, value in globals().items() if name.startswith("NVML_ERROR_")
}
_given: Counter[str] = Counter()
_open = 0

Arguments = ParamSpec("Arguments")
Answer = TypeVar("Answer")


class NVMLError(Exception):
    """An error as the real module raises it: `value` is NVML's code."""

    def __init__(self, value: int) -> None:
        super().__init__(value)
        self.value = value

    def __str__(self) -> str:
        return next((name for name, value in _CODES.items() if value == self.value), str(self.value))


class NVMLLibraryMismatchError(Exception):
    """What the real module raises, outside NVMLError, when a driver lacks the newest version of a call."""


@dataclass(frozen=True)
class Handle:
    """A card (`mig` None) or a slice of it, by their places in the file."""

    card: int
    mig: int | None = None

    def facts(self) -> dict[str, Any]:
        """Give what the file says of it now; a card that has left the file is lost."""
        try:
            card: dict[str, Any] = _file()["cards"][self.card]
            inherited: dict[str, Any] = {key: card[key] for key in ("capability", "errors", "hang") if key in card}
            return card if self.mig is None else {**inherited, **card["mig"][self.mig]}
        except (LookupError, TypeError):
            raise NVMLError(NVML_ERROR_GPU_IS_LOST) from None


@dataclass(frozen=True)
class Memory:
    """Either version of NVML's memory structure; the first knows no `reserved`."""

    total: int
    free: int
    used: int
    reserved: int = 0


@dataclass(frozen=True)
class Process:
    """A process that holds memory of a card."""

    pid: int
    usedGpuMemory: int | None


def forget() -> None:
    """Begin anew: no call was made, no passing error was given."""
    calls.clear()
    _given.clear()


def _file() -> dict[str, Any]:
    where = os.environ.get("FAKE_NVML")
    if where is None:
        raise NVMLError(NVML_ERROR_LIBRARY_NOT_FOUND)
    found: dict[str, Any] = json.loads(Path(where).read_text(encoding="utf-8"))
    return found


def _answer(call: str, facts: dict[str, Any], whose: str) -> None:
    """Wait and fail as the file says for this call."""
    time.sleep(facts.get("hang", {}).get(call, 0))
    wanted = facts.get("errors", {}).get(call)
    if wanted is None:
        return
    name, times = wanted if isinstance(wanted, list) else (wanted, None)
    _given[whose + call] += 1
    if times is None or _given[whose + call] <= times:
        raise NVMLError(_CODES[name])


def _driver_call(function: Callable[Arguments, Answer]) -> Callable[Arguments, Answer]:
    @functools.wraps(function)
    def called(*args: Arguments.args, **named: Arguments.kwargs) -> Answer:
        calls[function.__name__] += 1
        _answer(function.__name__, _file(), "")
        if not _open and function.__name__ != "nvmlInit":
            raise NVMLError(NVML_ERROR_UNINITIALIZED)
        return function(*args, **named)

    return called


def _card_call(
    function: Callable[Concatenate[Handle, Arguments], Answer],
) -> Callable[Concatenate[Handle, Arguments], Answer]:
    @functools.wraps(function)
    def called(handle: Handle, /, *args: Arguments.args, **named: Arguments.kwargs) -> Answer:
        _answer(function.__name__, handle.facts(), f"{handle.card} ")
        return function(handle, *args, **named)

    return _driver_call(called)


@_driver_call
def nvmlInit() -> None:
    """Begin; calls are counted, as the real library does."""
    global _open  # noqa: PLW0603 - the library's own state is global too
    _open += 1


@_driver_call
def nvmlShutdown() -> None:
    """End what one nvmlInit began."""
    global _open  # noqa: PLW0603
    _open -= 1


@_driver_call
def nvmlSystemGetDriverVersion() -> str:
    return str(_file().get("driver", "570.86.15"))


@_driver_call
def nvmlDeviceGetCount() -> int:
    return len(_file()["cards"])


@_driver_call
def nvmlDeviceGetHandleByIndex(index: int) -> Handle:
    handle = Handle(index)
    if index >= len(_file()["cards"]):
        raise NVMLError(NVML_ERROR_INVALID_ARGUMENT)
    _answer("nvmlDeviceGetHandleByIndex", handle.facts(), f"{index} ")
    return handle


@_card_call
def nvmlDeviceGetName(handle: Handle) -> str:
    return str(handle.facts().get("name", "NVIDIA GeForce RTX 4090"))


@_card_call
def nvmlDeviceGetUUID(handle: Handle) -> str:
    kind, number = ("GPU", handle.card) if handle.mig is None else ("MIG", handle.card * 16 + handle.mig)
    return str(handle.facts().get("uuid", f"{kind}-{number:08x}-0000-0000-0000-000000000000"))


@_card_call
def nvmlDeviceGetCudaComputeCapability(handle: Handle) -> tuple[int, int]:
    major, minor = handle.facts().get("capability", (8, 9))
    return major, minor


@_card_call
def nvmlDeviceGetMemoryInfo(handle: Handle, version: int | None = None) -> Memory:
    facts = handle.facts()
    total, reserved = facts["total"], facts.get("reserved", 0)
    held = sum(process["bytes"] or 0 for process in _living(facts))
    free = facts.get("free", max(0, total - reserved - held))
    if version is None:
        return Memory(total, free, total - free)
    _answer("nvmlDeviceGetMemoryInfo_v2", facts, f"{handle.card} ")
    return Memory(total, free, total - reserved - free, reserved)


def _processes(handle: Handle, kind: str) -> list[Process]:
    found = _living(handle.facts())
    return [Process(one["pid"], one["bytes"]) for one in found if one.get("kind", "compute") == kind]


def _living(facts: dict[str, Any]) -> list[dict[str, Any]]:
    """Give a card's processes, less those that say when they were made and are gone since, however they ended."""
    return [one for one in facts.get("processes", ()) if "ticks" not in one or _ticks(one["pid"]) == one["ticks"]]


def _ticks(pid: int) -> int | None:
    """Give the clock tick after boot at which a living process was made; None for one that is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return None
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


@_card_call
def nvmlDeviceGetComputeRunningProcesses(handle: Handle) -> list[Process]:
    try:
        _answer("nvmlDeviceGetComputeRunningProcesses_v3", handle.facts(), f"{handle.card} ")
    except NVMLError as error:
        if error.value == NVML_ERROR_FUNCTION_NOT_FOUND:
            raise NVMLLibraryMismatchError from error
        raise
    return _processes(handle, "compute")


@_card_call
def nvmlDeviceGetComputeRunningProcesses_v2(handle: Handle) -> list[Process]:
    return _processes(handle, "compute")


@_card_call
def nvmlDeviceGetGraphicsRunningProcesses(handle: Handle) -> list[Process]:
    return _processes(handle, "graphics")


@_card_call
def nvmlDeviceGetNumGpuCores(handle: Handle) -> int:
    return _supported(handle, "cores")


@_card_call
def nvmlDeviceGetMaxClockInfo(handle: Handle, clock: int) -> int:
    assert clock == NVML_CLOCK_SM
    return _supported(handle, "clock_mhz")


def _supported(handle: Handle, key: str) -> int:
    figure = handle.facts().get(key)
    if figure is None:
        raise NVMLError(NVML_ERROR_NOT_SUPPORTED)
    return int(figure)


@_card_call
def nvmlDeviceGetMigMode(handle: Handle) -> list[int]:
    if "mig" not in handle.facts():
        raise NVMLError(NVML_ERROR_NOT_SUPPORTED)
    return [NVML_DEVICE_MIG_ENABLE, NVML_DEVICE_MIG_ENABLE]


@_card_call
def nvmlDeviceGetMaxMigDeviceCount(handle: Handle) -> int:
    return 7 if "mig" in handle.facts() else 0


@_card_call
def nvmlDeviceGetMigDeviceHandleByIndex(handle: Handle, index: int) -> Handle:
    if index >= len(handle.facts().get("mig", ())):
        raise NVMLError(NVML_ERROR_NOT_FOUND)
    return Handle(handle.card, index)


@_card_call
def nvmlDeviceGetGpuInstanceId(handle: Handle) -> int:
    return int(handle.facts().get("gi", 0))


@_card_call
def nvmlDeviceGetComputeInstanceId(handle: Handle) -> int:
    return int(handle.facts().get("ci", 0))
