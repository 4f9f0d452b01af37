"""`autolaunch.plan` and `autolaunch.diagnose`: the commands of these names for Python code, as values.

I/O for `plan`, as the command has it; the same core. `autolaunch.launch` is `server`'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from autolaunch.errors import WishError
from autolaunch.failure import Failure


@dataclass(frozen=True, slots=True)
class Forecast:
    """What would be started and where the memory goes.

    `fits` is None where it cannot be told. `settings` are by vLLM's names, `argv` is the whole command line with every
    secret replaced, `environment` the variables that it needs in front. `budget` is in bytes per GPU, `basis` says of
    each of its terms whether it is exact, measured or estimated. `why` tells how the settings came about, `closest`
    what would help where nothing fits, `notes` what was assumed or skipped.
    """

    model: str
    fits: bool | None
    settings: Mapping[str, Any]
    argv: tuple[str, ...]
    budget: Mapping[str, Any]
    basis: Mapping[str, str]
    why: tuple[str, ...]
    closest: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


def plan(model: str | None = None, /, **options: Any) -> Forecast:
    """Say what would be started for a model, here or on a card that need not be here; starts and writes nothing.

    `options` are those of `autolaunch plan` and vLLM's own, with underscores: `plan("glm-4-9b", gpu="RTX 4090",
    max_model_len=32768)`. Raises `WishError` for what cannot be read, `HostError` where no card can be.
    """
    import click  # noqa: PLC0415 - the import of the package is cheap

    from autolaunch import planning  # noqa: PLC0415
    from autolaunch.cli import imagined_of  # noqa: PLC0415
    from autolaunch.cli import plan as command  # noqa: PLC0415
    from autolaunch.cli_options import own_options  # noqa: PLC0415
    from autolaunch.keywords import with_model, words_of  # noqa: PLC0415
    from autolaunch.options import Options  # noqa: PLC0415

    words = words_of(with_model(model, options), own=own_options(command)).words
    try:
        with command.make_context("autolaunch.plan", list(words)) as context:
            chosen = dict(context.params)
            imagined = imagined_of(chosen)
            del chosen["as_json_"]
            told = planning.foretell(
                context.meta["model"], context.meta["engine_args"], Options(**chosen), imagined=imagined
            )
    except click.ClickException as error:
        raise WishError(error.format_message(), hint="help(autolaunch.plan) names the options") from error
    form = told.as_json()
    return Forecast(
        model=form["model"],
        fits=form["fits"],
        settings=MappingProxyType(form["settings"]),
        argv=told.argv,
        budget=MappingProxyType(form["budget"]),
        basis=MappingProxyType(form["basis"]),
        why=tuple(form["why"]),
        closest=told.closest,
        notes=told.notes,
        environment=MappingProxyType(form["environment"]),
    )


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Why a start failed: a kind of docs/diagnosis.md, the engine's own line, its numbers, and what to do.

    `memory` says whether the cause is memory, `phase` where the start was, `line_number` counts from 1 (0: no line).
    """

    kind: str
    line: str
    line_number: int
    phase: str
    numbers: Mapping[str, float]
    memory: bool
    advice: tuple[str, ...]
    engine_version: str | None


def diagnose(text: str) -> Diagnosis:
    """Say why an engine's start failed, from what it printed. A log with several starts is judged by its last."""
    from autolaunch.diagnosis import diagnose as judge  # noqa: PLC0415 - the import of the package is cheap

    return _diagnosis(judge(text))


def _diagnosis(failure: Failure) -> Diagnosis:
    from autolaunch.diagnosis import advice  # noqa: PLC0415

    return Diagnosis(
        kind=failure.kind.value,
        line=failure.line,
        line_number=failure.line_number,
        phase=failure.phase.value,
        numbers=MappingProxyType(dict(failure.numbers)),
        memory=failure.memory,
        advice=advice(failure),
        engine_version=failure.engine_version,
    )
