"""What an end means: an exit without words, whose fault a failure is, what an engine that came up said of itself.

Pure. The diagnosis of the output is `diagnose`'s, what follows from a verdict `machine`'s.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from autolaunch.errors import ExitCode
from autolaunch.failure import Failure, Kind, Phase
from autolaunch.figures import Effective


def early_exit(failure: Failure, code: int) -> Failure:
    """Return what an exit before readiness means; one with 0 is a failure as well."""
    if failure.kind not in (Kind.OK, Kind.UNKNOWN):
        return failure
    line = failure.line or f"the engine exited with {code} before it was ready and named no cause"
    return replace(failure, kind=Kind.UNKNOWN, line=line)


def died_in_service(failure: Failure, code: int) -> Failure:
    """Return what the exit of an engine that served means, where its output names nothing too."""
    if failure.kind not in (Kind.OK, Kind.UNKNOWN):
        return failure
    return Failure(
        Kind.UNKNOWN, line=f"the engine exited with {code} in service and named no cause", phase=Phase.SERVING
    )


def exit_code_of(failure: Failure, pinned_words: tuple[str, ...]) -> ExitCode:
    """Return whose fault a failure without a cure is.

    A model that does not exist, or a configuration error that names an option the user gave, is the user's; a
    port in use is the host's; memory is NOTHING_FITS; all else is the engine's.
    """
    if failure.memory:
        return ExitCode.NOTHING_FITS
    if failure.kind is Kind.PORT_IN_USE:
        return ExitCode.HOST_AT_FAULT
    if failure.kind is Kind.MODEL_NOT_FOUND:
        return ExitCode.USAGE
    named = set(re.findall(r"[a-z0-9]+(?:-[a-z0-9]+)*", failure.line.lower().replace("_", "-")))
    if failure.kind is Kind.CONFIG_ERROR and named & set(pinned_words):
        return ExitCode.USAGE
    return ExitCode.ENGINE_FAILED


def summary(effective: Effective) -> dict[str, Any]:
    """Return what the engine said of itself, as the record's `effective`."""
    names = ("max_model_len", "kv_cache_tokens", "available_kv_gib", "weights_gib", "max_concurrency")
    values = {name: getattr(effective, name) for name in names}
    return {name: value for name, value in values.items() if value is not None}
