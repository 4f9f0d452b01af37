"""From `serve`'s options to a run: everything is checked before anything is started, then it is supervised.

I/O. Owns the order of the checks, so that a mistake costs nothing and leaves nothing; decides nothing.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

from autolaunch import __version__, hardware, ladder, phases, record
from autolaunch.arguments import given
from autolaunch.case import Limits
from autolaunch.catalog import find_model
from autolaunch.errors import ExitCode, HostError, WishError
from autolaunch.facts import Device, DeviceKind, Model, Situation
from autolaunch.installation import Installation, find_engine
from autolaunch.model import look_at
from autolaunch.narration import Scene, memory_of
from autolaunch.port import refuse_taken_port
from autolaunch.settings import Settings
from autolaunch.state import new_run
from autolaunch.strategy import Strategy, load_strategy
from autolaunch.supervisor import Job, Supervisor
from autolaunch.sweep import sweep
from autolaunch.talk import RecordFile, Talk, give, say
from autolaunch.wish import Wish, make_wish, model_from


@dataclass(frozen=True, slots=True)
class Options:
    """The options of `serve`, as the Contract names them."""

    engine: str | None = None
    engine_version: str | None = None
    strategy: str = "default"
    record: Path | None = None
    check: bool = False
    max_attempts: int | None = None
    start_timeout: float = 3600.0
    stall_timeout: float = 300.0
    min_context: int | None = None
    max_context: int | None = None
    concurrency: int = 1
    memory: int | None = None
    state_dir: Path | None = None
    no_memory: bool = False
    no_prove: bool = False
    engine_log: str = "file"
    log_format: str = "console"


def start(model: str | None, engine_args: Sequence[str], options: Options) -> ExitCode:
    """Make the wish and the run, supervise it to its end. Raises `AutolaunchError` before anything is started."""
    wish, facts, strategy = _wish(model, engine_args, options)
    installation = find_engine(options.engine, version=options.engine_version, environment=os.environ)
    refuse_taken_port(wish.address)
    swept = sweep(os.environ)
    run = _run(wish, strategy, Situation(_device(wish, installation, options), installation.engine, facts), options)
    talk, job = _open(wish, installation, options, run)
    supervisor = Supervisor(job, run)
    supervisor.take_signals()
    talk.command = lambda event: supervisor.shown_argv(event.settings)
    if options.log_format == "console":
        _greet(wish, strategy, run.situation)
    if swept:
        talk.warn(f"ended {len(swept)} processes of a run that was killed: {', '.join(map(str, swept))}")
    basis = _basis(run.climb.settings, wish.pins, run.situation.device.kind is not DeviceKind.UNKNOWN)
    talk.tell(record.Planned(run.climb.settings, {}, basis))
    code = supervisor.run()
    if options.check and code is ExitCode.STOPPED and supervisor.proven is not None:
        give(shlex.join(supervisor.shown_argv(supervisor.proven)))
    return code


def _wish(model: str | None, engine_args: Sequence[str], options: Options) -> tuple[Wish, Model, Strategy]:
    if model is None:
        model, engine_args = model_from(engine_args)
    if model is None:
        raise WishError(
            "no MODEL is given",
            hint="for example: autolaunch glm-4-9b (autolaunch models lists the short names)",
        )
    strategy = load_strategy(options.strategy)
    limits = limits_of(options)
    entry = find_model(model)
    return make_wish(entry, engine_args, limits, environment=os.environ), look_at(entry), strategy


def limits_of(options: Options) -> Limits:
    """Return what a fitted value may be; a floor that nobody named gives way to a cap that somebody did."""
    floor = options.min_context
    return Limits(
        min_context=floor or min(4096, options.max_context or 4096),
        max_context=options.max_context,
        floor_is_wish=floor is not None,
        concurrency=options.concurrency,
        memory_bytes=options.memory,
    )


def _device(wish: Wish, installation: Installation, options: Options) -> Device:
    device = hardware.measure(installation.engine.device, cards=wish.cards)
    if options.memory is not None and device.total_bytes is None:
        raise HostError(
            "--memory needs the card's size, which cannot be read here", hint="use --gpu-memory-utilization"
        )
    return device


def _run(wish: Wish, strategy: Strategy, situation: Situation, options: Options) -> phases.Run:
    climb = ladder.begin(strategy, wish.limits, wish.pinned, pins=wish.pins, situation=situation)
    policy = phases.Policy(
        max_attempts=options.max_attempts or strategy.max_attempts,
        start_timeout_s=options.start_timeout,
        stall_timeout_s=options.stall_timeout,
        check=options.check,
        prove=not options.no_prove,
        url=wish.address.url,
        options=given(wish.engine_args),
    )
    return phases.Run(policy, climb, situation)


def _open(wish: Wish, installation: Installation, options: Options, run: phases.Run) -> tuple[Talk, Job]:
    """Make the run's folder and open its record; nothing is left of either where one of them is impossible."""
    run_id, folder = new_run(options.state_dir)
    scene = Scene(str(folder), run.policy.max_attempts, wish.pins, wish.model)
    records: list[RecordFile] = []
    talk = Talk(scene, records, run=run_id, log_format=options.log_format)
    if options.record is not None:
        try:
            records.append(RecordFile(options.record, run_id, talk.warn))
        except HostError:
            folder.rmdir()
            raise
    echo = FileIO(2, "wb", closefd=False) if options.engine_log == "inherit" else None
    job = Job(wish, installation, os.environ, folder, echo, talk.tell, talk.warn, talk.show, not options.no_prove)
    return talk, job


def _greet(wish: Wish, strategy: Strategy, situation: Situation) -> None:
    engine, device = situation.engine, situation.device
    version = f"vLLM {engine.version}" if engine.version else "an engine of unknown version"
    say(f"autolaunch {__version__}: {wish.model}, {version}, strategy {strategy.name}")
    say(f"  {memory_of(device)}")


def _basis(settings: Settings, pins: frozenset[str], measured: bool) -> dict[str, str]:
    return {
        name: "pinned" if name in pins else "measured" if measured and name == "gpu_memory_utilization" else "strategy"
        for name in settings.as_json()
    }
