"""What an end means: an exit without words, whose fault a failure is, what an engine that came up said of itself.

Pure. The diagnosis of the output is `diagnose`'s, what follows from a verdict `machine`'s.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from enum import Enum
from typing import Any

from autolaunch.arguments import Given
from autolaunch.crashes import hub_is_away
from autolaunch.errors import ExitCode
from autolaunch.failure import Failure, Kind, Phase
from autolaunch.figures import Effective
from autolaunch.progress import DIED, ENGINE_DEAD

SIGNALS = {
    1: "SIGHUP", 2: "SIGINT", 3: "SIGQUIT", 4: "SIGILL", 6: "SIGABRT", 7: "SIGBUS", 8: "SIGFPE", 9: "SIGKILL",
    11: "SIGSEGV", 13: "SIGPIPE", 15: "SIGTERM",
}  # fmt: skip
"""Linux' signals that end an engine; the module `signal` acts, and knows those of its own host only."""


def early_exit(failure: Failure, code: int) -> Failure:
    """Return what an exit before readiness means; one with 0 is a failure as well."""
    if failure.kind not in (Kind.OK, Kind.UNKNOWN):
        return _with_line(failure, code)
    line = failure.line or f"the engine {ended(code)} before it was ready and named no cause"
    return replace(failure, kind=Kind.UNKNOWN, line=line)


def died_in_service(failure: Failure, code: int) -> Failure:
    """Return what the exit of an engine that served means, where its output names nothing too.

    Host memory that ran out, or a SIGKILL from whoever, is no fault of the settings that served: a crash like any
    other, started again within the bounds of restarts.
    """
    if failure.kind is Kind.HOST_OOM:
        return short_of_host_memory(failure, f"it {ended(code)}")
    if failure.kind not in (Kind.OK, Kind.UNKNOWN):
        return _with_line(failure, code)
    return Failure(Kind.UNKNOWN, line=f"the engine {ended(code)} in service and named no cause", phase=Phase.SERVING)


def _with_line(failure: Failure, code: int) -> Failure:
    """Return a failure that the exit alone tells of (a signal) with a line that says so."""
    return failure if failure.line else replace(failure, line=f"the engine {ended(code)}")


def short_of_host_memory(failure: Failure, otherwise: str = "") -> Failure:
    """Return host memory that ran out in service as the crash that it is; `otherwise` stands for a missing line."""
    line = f"{KILLED}: {failure.line or otherwise}"
    return replace(failure, kind=Kind.OTHER_CRASH, line=line)


def ended(code: int) -> str:
    """Return how a process ended: its exit code (one of a shell with the signal that it stands for), or its signal."""
    if code < 0:
        return f"was killed by {SIGNALS.get(-code, f'signal {-code}')}"
    return f"exited with {code}" + (f" ({SIGNALS[code - 128]})" if code - 128 in SIGNALS else "")


REFUSED = "the first request was refused"
START_TIMEOUT = "start timeout"
STALL_TIMEOUT = "stall timeout"
HUNG = "the engine hangs"
KILLED = "the engine was killed or the host's memory ran out"
OWN_HINTS = {
    REFUSED: "see the engine log for the request; --no-prove serves without asking the engine anything first",
    START_TIMEOUT: "allow a slower start with --start-timeout SECONDS",
    STALL_TIMEOUT: "allow a longer silence with --stall-timeout SECONDS",
    HUNG: "allow a longer standstill with --hang-timeout SECONDS",
    KILLED: "look for the kernel's own words with dmesg or journalctl -k: out of memory, or who sent the signal",
}
"""What helps against the ends that are ours and not the engine's, by what their line says."""


class Death(str, Enum):
    """How an engine in service ended; the values are a metric's labels."""

    CRASH = "crash"
    ENGINE_DEAD = "engine_dead"
    HANG = "hang"
    KILLED = "killed"
    MEMORY = "memory"

    def __str__(self) -> str:
        return self.value


def death_of(failure: Failure) -> Death:
    """Return how an engine in service ended: a core or worker that died without a cause is `ENGINE_DEAD`."""
    if failure.memory:
        return Death.MEMORY
    if failure.line.startswith(HUNG):
        return Death.HANG
    if failure.line.startswith(KILLED):
        return Death.KILLED
    low = failure.line.lower()
    return Death.ENGINE_DEAD if DIED in low or ENGINE_DEAD in low else Death.CRASH


def refused(reason: str) -> Failure:
    """Return what a healthy engine means that does not answer its first request."""
    return Failure(Kind.OTHER_CRASH, line=f"{REFUSED}: {reason}", phase=Phase.SERVING)


def hung(reason: str) -> Failure:
    """Return what it means that a serving engine does no work and gives no answer."""
    return Failure(Kind.OTHER_CRASH, line=f"{HUNG}: {reason}", phase=Phase.SERVING)


def own_hint(failure: Failure) -> str:
    """Return what helps against an end of ours ("" for the engine's own)."""
    if failure.kind not in (Kind.OTHER_CRASH, Kind.UNKNOWN):
        return ""
    return next((hint for words, hint in OWN_HINTS.items() if words in failure.line), "")


def exit_code_of(failure: Failure, options: Sequence[Given]) -> ExitCode:
    """Return whose fault a failure without a cure is; `options` are those the user gave to the engine.

    A model that does not exist, or a configuration error that names one of these options, is the user's; a port in
    use is the host's; memory is NOTHING_FITS; all else, a hub that does not answer with it, is the engine's.
    """
    if failure.memory:
        return ExitCode.NOTHING_FITS
    if failure.kind is Kind.PORT_IN_USE:
        return ExitCode.HOST_AT_FAULT
    if failure.kind is Kind.MODEL_NOT_FOUND:
        return ExitCode.ENGINE_FAILED if hub_is_away(failure.line) else ExitCode.USAGE
    if failure.kind is Kind.CONFIG_ERROR and any(_names(failure.line, option) for option in options):
        return ExitCode.USAGE
    return ExitCode.ENGINE_FAILED


def _names(line: str, option: Given) -> bool:
    """Whether an error's line is about this option.

    A name of several words is found however it is spelled; one word (`config`, `host`) is also plain English and
    counts only as `--host`, `-q`, in quotes, or beside the value that was given.
    """
    words = option.name.split("-")
    name = "[-_ ]".join(map(re.escape, words))
    if any(re.search(rf"(?<![\w-]){re.escape(typed)}(?![\w-])", line) for typed in option.tokens[:1]):
        return True
    if re.search(rf"--{name}(?![\w-])|[`'\"]{name}[`'\"]", line, re.IGNORECASE):
        return True
    named = re.search(rf"(?<!\w){name}(?!\w)", line, re.IGNORECASE)
    if named is None or len(words) > 1:
        return named is not None
    return any(value and re.search(rf"(?<![\w.-]){re.escape(value)}(?![\w-])", line) for value in option.values)


def summary(effective: Effective) -> dict[str, Any]:
    """Return what the engine said of itself, as the record's `effective`."""
    names = (
        "max_model_len", "kv_cache_tokens", "available_kv_gib", "weights_gib", "max_concurrency", "non_torch_gib",
        "cudagraph_gib", "requested_gib",
    )  # fmt: skip
    values = {name: getattr(effective, name) for name in names}
    return {name: value for name, value in values.items() if value is not None}
