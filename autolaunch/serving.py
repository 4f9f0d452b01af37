"""From `serve`'s options to a run: everything is checked before anything is started, then it is supervised.

I/O. Owns the order of the checks, so that a mistake costs nothing and leaves nothing; decides nothing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from io import FileIO

from autolaunch import __version__, arenas, phases, record, secrets_file
from autolaunch.arguments import given, less
from autolaunch.candidates import Question
from autolaunch.climb import begin as begin_climb
from autolaunch.entry import misfit
from autolaunch.errors import ExitCode, HostError, WishError
from autolaunch.facts import DeviceKind, Situation
from autolaunch.identity import stands_for
from autolaunch.installation import Installation, find_engine
from autolaunch.job import Job
from autolaunch.liveness import Rules
from autolaunch.lock import CardLocks, Held
from autolaunch.memory import Memory
from autolaunch.model import look_at
from autolaunch.narration import memory_of
from autolaunch.options import Asked, Options, ask, environment_of, for_engine
from autolaunch.past import Key, Past, key_of
from autolaunch.pins import doubts, pool_of
from autolaunch.placement import Placement, claim, place
from autolaunch.plan_form import basis_as_json, budget_as_json
from autolaunch.planner import Plan, plan
from autolaunch.port import refuse_taken_port
from autolaunch.precision import precision
from autolaunch.recall import recall
from autolaunch.restarts import CrashLog, jittered
from autolaunch.shortfall import nearest_plan, shortfall
from autolaunch.sizes import gib
from autolaunch.state import new_id, state_folder
from autolaunch.supervisor import LOCK_WAIT_S, Supervisor
from autolaunch.sweep import sweep
from autolaunch.talk import Talk, give, say
from autolaunch.voices import Voices, begin, keep_record

OTHERS_WAIT_S = 20.0
OTHERS_POLL_S = 0.5
MOVED_BYTES = 64 << 20
"""How long, how often, and for how much memory of other processes it is worth to wait before nothing fits."""

LOOKING = "looking at the cards, at what is remembered and at the model: its files here, else the hub"
"""What is done before a plan is made, for whoever asks meanwhile."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """Everything a run needs before its first line: what was asked, of which engine, where, and the plan."""

    asked: Asked
    installation: Installation
    placement: Placement
    memory: Memory
    key: Key
    question: Question
    plan: Plan
    held: Held | None = None

    @property
    def situation(self) -> Situation:
        """What was measured and found out."""
        return self.question.situation

    @property
    def card(self) -> str:
        """Which cards are used, and how much of them is free, in words."""
        return memory_of(
            self.situation.device, self.placement.words(ranks=self.plan.settings.tensor_parallel_size or 1)
        )


def start(model: str | None, engine_args: Sequence[str], options: Options) -> ExitCode:
    """Make the wish and the run, supervise it to its end. Raises `AutolaunchError` before anything is started."""
    arenas.share_one()
    talk = Talk(run=new_id(options.state_dir), log_format=options.log_format)
    asked = ask(model, engine_args, options)
    installation = find_engine(options.engine, version=options.engine_version, environment=os.environ)
    asked = for_engine(asked, options, installation)
    installation.refuse_silent_runtime(os.environ)
    swept = sweep(os.environ)  # before the port is looked at: a container that was left holds it
    refuse_taken_port(asked.wish.address)
    voices = begin(talk, asked, installation, options)
    with voices.telling_errors():
        return _start(replace(asked, said=(*swept.told, *asked.said)), installation, options, voices)


def _start(asked: Asked, installation: Installation, options: Options, voices: Voices) -> ExitCode:
    notes = [*filter(None, (secrets_file.warning(os.environ),)), *asked.said]
    locks = CardLocks(asked.wish.model, voices.waits, beat=voices.watch.beat)
    voices.watch.waits(LOOKING)
    cards, environment = cards_for(asked, installation, options), installation.environment(environment_of(options))
    placement, held = claim(installation.engine, environment, cards=cards, locks=locks, wait_s=LOCK_WAIT_S)
    voices.watch.waits(LOOKING)
    ready = prepare(placement, asked, installation, options, note=notes.append)
    ready = replace(_await_others(ready, options, voices, note=notes.append), held=held)
    crash_log = CrashLog(state_folder(options.state_dir), f"{asked.digest}-{asked.wish.address.port}", notes.append)
    now = time.monotonic()
    run = _run(ready, options, crashes=tuple(now - age for age in crash_log.ages()))
    if not run.policy.retries:
        voices.bounded(1)
    job = _job(ready, options, voices, locks=locks)
    talk = voices.talk
    crash_log.warn = ready.memory.warn = talk.warn
    supervisor = Supervisor(replace(job, note_crash=crash_log.add, reload=talk.reload), run)
    supervisor.take_signals()
    talk.command = lambda event: supervisor.shell_line(event.settings)
    if not talk.speaks_json:
        _greet(ready)
    for text in dict.fromkeys(notes):
        talk.warn(text)
    refused = ready.plan.fits is False and not options.try_anyway
    talk.tell(_planned(nearest_plan(ready.question, ready.plan) if refused else ready.plan))
    if refused:
        return _refuse(ready, talk)
    code = supervisor.run()
    if options.check and code is ExitCode.STOPPED and supervisor.proven is not None:
        give(supervisor.shell_line(supervisor.proven))
    return code


def _planned(first: Plan) -> record.Planned:
    budget = first.budget
    outside = None if budget is None else budget.outside.bytes
    return record.Planned(first.settings, budget_as_json(budget), basis_as_json(budget), first.why, outside)


def prepare(
    placement: Placement, asked: Asked, installation: Installation, options: Options, *, note: Callable[[str], None]
) -> Prepared:
    """Find out what is known of the model and what is remembered, and plan; `note` hears what was skipped."""
    unfit = misfit(asked.entry, installation.engine.version)
    if unfit:
        note(unfit)
    if options.memory is not None and placement.device.total_bytes is None:
        raise HostError(
            "--memory needs the card's size, which cannot be read here", hint="use --gpu-memory-utilization"
        )
    if placement.trouble:
        note(placement.trouble)
    where = replace(asked.where, release=installation.engine.release)
    facts = look_at(asked.entry, online=True, environment=environment_of(options), where=where)
    for text in facts.notes:
        note(text)
    situation = Situation(placement.device, installation.engine, facts)
    asked = _in_its_type(asked, situation, note)
    _refuse_floor(asked, situation)
    _note_cards(asked, placement, note)
    for text in doubts(asked.wish.pinned, facts, moved=bool(asked.beyond)):
        note(text)
    memory = _memory(options, note)
    key = key_of(situation, model=stands_for(asked.entry.model), cards=placement.cards)
    asking = question(asked, situation, memory.past(key), cards=placement.cards)
    return Prepared(asked, installation, placement, memory, key, asking, recall(asking, now=time.time()))


def _in_its_type(asked: Asked, situation: Situation, note: Callable[[str], None]) -> Asked:
    """Return what is asked with the dtype that the card needs, which `note` hears."""
    typed = next((option.value for option in reversed(asked.options) if option.name == "dtype"), None)
    chosen = precision(situation.model, situation.device, asked=typed)
    if chosen.said:
        note(chosen.said)
    wish = asked.wish
    if chosen.words and typed is not None:  # --dtype auto, which would stand behind ours and win
        options = tuple(option for option in wish.options if option.name != "dtype")
        users, entrys = less(wish.engine_args, "dtype"), less(wish.entry_args, "dtype")
        wish = replace(wish, engine_args=users, entry_args=entrys, options=options)
    return replace(asked, wish=wish.adding(chosen.words))


def _memory(options: Options, note: Callable[[str], None]) -> Memory:
    if options.no_memory:
        return Memory(None, note)
    folder = state_folder(options.state_dir)
    return Memory(folder, note) if options.only_reads else Memory.open(folder, note)


def cards_for(asked: Asked, installation: Installation, options: Options) -> int:
    """Return how many cards to take: all that are allowed, or fewer where one of them is too full for anything."""
    counts = [max(asked.wish.cards, asked.wish.limits.gpus)]
    while counts[-1] > asked.wish.cards:
        counts.append(max(asked.wish.cards, counts[-1] // 2))
    if len(counts) == 1:
        return counts[0]

    def fits(count: int) -> bool:
        there = place(installation.engine, installation.environment(environment_of(options)), cards=count)
        return prepare(there, asked, installation, options, note=lambda _: None).plan.fits is not False

    return next(filter(fits, counts), counts[0])


def _refuse_floor(asked: Asked, situation: Situation) -> None:
    """Raise `WishError` for a floor that is above all the model has: no start could keep it."""
    limits, most = asked.wish.limits, situation.model.max_model_len
    if "max_model_len" in asked.wish.pins or asked.beyond:
        return
    if limits.floor_is_wish and most is not None and limits.min_context > most:
        raise WishError(
            f"--min-context {limits.min_context} is above the model's own {most} tokens",
            hint=f"give at most --min-context {most}",
        )


def _note_cards(asked: Asked, placement: Placement, note: Callable[[str], None]) -> None:
    """Say that fewer cards are there than were asked for, where that is known and they are of this host."""
    wished, there = max(asked.wish.cards, asked.wish.limits.gpus), len(placement.names)
    if placement.device.kind is DeviceKind.CUDA and 0 < there < wished:
        note(f"{wished} cards are asked for, {there} can be used here")


def _await_others(ready: Prepared, options: Options, voices: Voices, *, note: Callable[[str], None]) -> Prepared:
    """Where only what others hold stands in the way, wait a little for it: an engine that ends takes its time.

    A service that is restarted would otherwise give up over the memory of the one that it replaces.
    """
    device = ready.situation.device
    if ready.plan.fits is not False or options.try_anyway or not _fits_alone(ready):
        return ready
    holder = next((f"{one.name} (pid {one.pid})" for one in device.holders if one.used_bytes), "other processes")
    held = gib((device.total_bytes or 0) - (device.free_bytes or 0))
    voices.waits(f"  {held} of the memory are held by {holder}: waiting up to {OTHERS_WAIT_S:.0f} s for it")
    deadline = time.monotonic() + OTHERS_WAIT_S
    while ready.plan.fits is False and time.monotonic() < deadline:
        voices.watch.beat()
        time.sleep(OTHERS_POLL_S)
        there = ready.placement.measured()
        if (there.device.free_bytes or 0) > (device.free_bytes or 0) + MOVED_BYTES:
            device = there.device
            ready = prepare(there, ready.asked, ready.installation, options, note=note)
    return ready


def _fits_alone(ready: Prepared) -> bool:
    """Whether something would fit on the same card if nobody else held any of it."""
    situation = ready.situation
    empty = replace(situation, device=replace(situation.device, free_bytes=situation.device.total_bytes, holders=()))
    return plan(replace(ready.question, situation=empty)).fits is not False


def question(asked: Asked, situation: Situation, past: Past, *, cards: int) -> Question:
    """Return what is to be planned: no more cards are allowed than there are."""
    wish = asked.wish
    limits = replace(wish.limits, gpus=min(wish.limits.gpus, cards))
    climb = begin_climb(asked.strategy, limits, wish.pinned, pins=wish.pins, situation=situation)
    return Question(climb, situation, past, asked.digest, asked.beyond, pool_of(asked.options))


def _run(ready: Prepared, options: Options, *, crashes: tuple[float, ...]) -> phases.Run:
    (wish, entry), strategy, situation = (ready.asked.wish, ready.asked.entry), ready.asked.strategy, ready.situation
    settings = ready.plan.settings
    policy = phases.Policy(
        max_attempts=options.max_attempts or strategy.max_attempts,
        retries=options.max_attempts is not None or not situation.device.unified,
        start_timeout_s=options.start_timeout,
        stall_timeout_s=options.stall_timeout,
        drain_s=options.drain_timeout,
        max_restarts=options.max_restarts,
        restart_window_s=options.restart_window,
        restart_wait=jittered(1.0, 60.0),
        check=options.check,
        prove=not options.no_prove,
        url=wish.address.url,
        options=given((*(entry.engine_args if entry.file else ()), *wish.engine_args)),
    )
    climb = replace(ready.question.climb, settings=settings, tried=frozenset({settings}), content=ready.plan.recalled)
    return phases.Run(policy, climb, situation, crashes=crashes, question=ready.question)


def _job(ready: Prepared, options: Options, voices: Voices, *, locks: CardLocks) -> Job:
    """Make the run's folder and return what the run needs of the outside."""
    talk = voices.talk
    folder = keep_record(voices, options.state_dir, ready.key, ready.card)
    return Job(
        wish=ready.asked.wish,
        installation=ready.installation,
        placement=ready.placement,
        log_folder=folder,
        echo=FileIO(2, "wb", closefd=False) if options.engine_log == "inherit" else None,
        tell=talk.tell,
        warn=talk.warn,
        note=talk.note,
        show=talk.show,
        remember=partial(ready.memory.add, ready.key),
        digest=ready.question.wish,
        locks=CardLocks(locks.model, voices.waits_again, locks.folder),
        watch=voices.watch,
        held=ready.held,
        prove=not options.no_prove,
        rules=Rules.within(options.hang_timeout),
        secrets=voices.secrets,
    )


def _refuse(ready: Prepared, talk: Talk) -> ExitCode:
    """End before anything is started: nothing fits, and this would."""
    why, closest = shortfall(ready.question)
    talk.scene = replace(talk.scene, log_folder="")  # nothing was started: there is no log
    talk.tell(record.Gave(why, (*closest, "start it nevertheless with --try-anyway")))
    talk.tell(record.Ended("exhausted", ExitCode.NOTHING_FITS))
    return ExitCode.NOTHING_FITS


def _greet(ready: Prepared) -> None:
    engine = ready.situation.engine
    version = f"vLLM {engine.version}" if engine.version else "an engine of unknown version"
    say(f"autolaunch {__version__}: {ready.asked.wish.model}, {version}, strategy {ready.asked.strategy.name}")
    say(f"  {ready.card}")
