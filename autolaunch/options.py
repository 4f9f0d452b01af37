"""The options of a launch, and what the user asks with them: the wish, the limits and the strategy, all checked.

I/O only where a check needs it (a strategy file, vLLM's own config file). Starts nothing.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from autolaunch import modelscope
from autolaunch.arguments import Given, engine_options, given
from autolaunch.asked import wish_digest
from autolaunch.beyond import MARK, beyond, variables
from autolaunch.case import Limits
from autolaunch.catalog import Known, before, find_model, hides, load_models
from autolaunch.container import container_in
from autolaunch.crossing import downloads_anew, reached
from autolaunch.dialect import fit
from autolaunch.entry import Entry, code_notice, misfit, modelscope_notice, runs_code, taken_from_modelscope
from autolaunch.errors import WishError
from autolaunch.executor import without_ray
from autolaunch.facts import Engine
from autolaunch.installation import Installation
from autolaunch.model import Where
from autolaunch.published import as_published, unlike_published
from autolaunch.releases import parse_version
from autolaunch.snapshot import on_hub
from autolaunch.status_address import StatusAddress
from autolaunch.strategy import Strategy, load_strategy
from autolaunch.translation import Translated, translate
from autolaunch.wish import Wish, blamed, make_wish, model_from

OLDEST = (0, 4, 0, 0)
"""The first release whose command line and texts are known."""


@dataclass(frozen=True, slots=True)
class Options:
    """The options of `serve`, as the Contract names them; `only_reads` leaves the state folder as it is.

    `as_published` gives a model of a known family the options that its publisher's files need, remote code included.
    """

    engine: str | None = None
    engine_version: str | None = None
    strategy: str = "default"
    record: Path | None = None
    check: bool = False
    try_anyway: bool = False
    max_attempts: int | None = None
    start_timeout: float = 3600.0
    stall_timeout: float = 300.0
    hang_timeout: float = 180.0
    drain_timeout: float = 30.0
    max_restarts: int = 5
    restart_window: float = 600.0
    min_context: int | None = None
    max_context: int | None = None
    concurrency: int = 1
    memory: int | None = None
    gpus: int = 1
    state_dir: Path | None = None
    only_reads: bool = False
    no_memory: bool = False
    no_prove: bool = False
    engine_log: str = "file"
    log_format: str = "auto"
    status: StatusAddress | None = None
    as_published: bool = False
    models: Path | None = None
    modelscope: bool = False


@dataclass(frozen=True, slots=True)
class Asked:
    """What a user asked of one model, and the model as it was found by its name.

    `around` are options that stand in the engine's command and in its environment, `said` what became of engine
    options in the spelling of the engine at hand, `typed` those options before. `modelscope` says that the model comes
    from there; `known` are the models that have a short name.
    """

    wish: Wish
    entry: Entry
    strategy: Strategy
    around: tuple[Given, ...] = ()
    said: tuple[str, ...] = ()
    typed: tuple[Given, ...] = ()
    modelscope: bool = False
    known: Known | None = field(default=None, repr=False)

    @property
    def where(self) -> Where:
        """How the engine will be told to find the model."""
        options = {option.name: option.value for option in self.wish.options}
        return Where(
            revision=options.get("revision", ""),
            download_dir=options.get("download-dir", ""),
            text_only="language-model-only" in options,
        )

    @property
    def digest(self) -> str:
        """What outcomes of the same wish are remembered under."""
        wish = self.wish
        limits, strategy, options = wish.limits, self.strategy, self.options
        digest = wish_digest(wish.pinned, pins=wish.pins, limits=limits, strategy=strategy, options=options)
        return digest + MARK if self.beyond else digest

    @property
    def beyond(self) -> str:
        """An engine option that the memory model does not know, "" where it knows all."""
        return beyond(self.options)

    @property
    def options(self) -> tuple[Given, ...]:
        """All that the engine gets, the last of a name wins: its command's, then the wish's."""
        return (*self.around, *self.wish.options)


def ask(model: str | None, engine_args: Sequence[str], options: Options) -> Asked:
    """Return what is asked; raise `WishError` or `StrategyError` for what cannot be read or contradicts itself."""
    if model is None:
        model, engine_args = model_from(engine_args)
    if model is None:
        raise WishError(
            "no MODEL is given",
            hint="for example: autolaunch glm-4-9b (autolaunch models lists the short names)",
        )
    if options.engine_version is not None and parse_version(options.engine_version) is None:
        raise WishError(
            f"--engine-version {options.engine_version} is no version", hint="give one such as 0.24.0 or 0.8.5.post1"
        )
    strategy = load_strategy(options.strategy)
    known = load_models(options.models)
    entry = find_model(model, known)
    said = tuple(filter(None, (unlike_published(entry),))) if options.as_published else ()
    entry = as_published(entry) if options.as_published else entry
    there = modelscope.wanted(environment_of(options))
    entry = taken_from_modelscope(entry) if there else entry
    wish = make_wish(entry, engine_args, limits_of(options), environment=os.environ)
    address = wish.address
    if options.status is not None and not address.uds and options.status.meets(address.host, address.port):
        raise WishError(
            f"--status {options.status} is where the engine is to serve, port {address.port}",
            hint="choose another port with --status or --port",
        )
    around = (*_in_command(options.engine), *variables(os.environ))
    return Asked(wish, entry, strategy, around, said, modelscope=there, known=known)


def environment_of(options: Options) -> Mapping[str, str]:
    """Return the environment that the engine and the looks at its model share, with ModelScope in it if asked for."""
    on = options.modelscope or modelscope.wanted(os.environ)
    return {**os.environ, modelscope.VARIABLE: "True"} if on else os.environ  # older releases read no 1


def _notices(entry: Entry, wish: Wish) -> tuple[str, ...]:
    """Return what the user has to be told of the model that was found by its name."""
    said = any(option.name.removeprefix("no-") == "trust-remote-code" for option in wish.options)
    allowed = said and not runs_code(wish.entry_args)
    hidden = f"{entry.name} is the one of {entry.file}, not the one that ships with autolaunch"
    return tuple(filter(None, (hidden if hides(entry) else "", code_notice(entry, allowed=allowed))))


def _source(asked: Asked, engine: Engine) -> tuple[str, ...]:
    """Return what has to be said of a model that comes from ModelScope."""
    if not asked.modelscope or not on_hub(asked.entry.model):
        return ()
    lacks = f"the engine's environment lacks the package modelscope: pip install '{modelscope.PACKAGE}' there"
    return tuple(filter(None, (modelscope_notice(asked.entry), lacks if engine.has_modelscope is False else "")))


def for_engine(asked: Asked, options: Options, installation: Installation) -> Asked:
    """Return what is asked as this engine takes it; raise `WishError` for what it has no words for or cannot serve."""
    engine = installation.engine
    if not options.try_anyway:
        _refuse_ancient(engine.version)
    asked = _of_release(asked, options, version=engine.version)
    _refuse_misfit(asked, options, version=engine.version)
    return speaking(_spelled_for(asked, engine, lenient=options.try_anyway), installation)


def _of_release(asked: Asked, options: Options, *, version: str | None) -> Asked:
    """Return what is asked with the form of its model that an older vLLM takes, and what has to be said of it."""
    entry = before(asked.entry, version, asked.known)
    if entry is asked.entry:
        return replace(asked, said=(*asked.said, *_notices(entry, asked.wish)))
    taken = f"{misfit(asked.entry, version)}: {entry.model} is taken"
    entry = as_published(entry) if options.as_published else entry
    entry = taken_from_modelscope(entry) if asked.modelscope else entry
    wish = make_wish(entry, asked.wish.engine_args, asked.wish.limits, environment=os.environ)
    return replace(asked, wish=wish, entry=entry, said=(*asked.said, *_notices(entry, wish), taken))


def _refuse_ancient(version: str | None) -> None:
    release = parse_version(version or "")
    if release is not None and release < OLDEST:
        raise WishError(
            f"vLLM {version} is older than 0.4, the oldest that autolaunch knows",
            hint="name another vLLM with --engine, or start it nevertheless with --try-anyway",
        )


def _spelled_for(asked: Asked, engine: Engine, *, lenient: bool) -> Asked:
    """Return what is asked with the engine options as that vLLM takes them; raise `WishError` where it has no words."""
    wish, entry = asked.wish, asked.entry
    users = _as_taken(wish.engine_args, wish, engine, lenient=lenient)
    ours = Translated(wish.entry_args)
    if entry.file:  # what ships names the releases that take its options, and --try-anyway means them too
        with blamed(entry):
            ours = _as_taken(wish.entry_args, wish, engine, lenient=lenient, others=users.tokens)
    said = (*asked.said, *users.said, *(f"{entry.file}: {text}" for text in ours.said))
    if (users.tokens, ours.tokens) == (wish.engine_args, wish.entry_args):
        return replace(asked, said=said)
    made = make_wish(replace(entry, engine_args=ours.tokens), users.tokens, wish.limits, environment=os.environ)
    return replace(asked, wish=made, said=said, typed=wish.options)


def _as_taken(
    tokens: tuple[str, ...], wish: Wish, engine: Engine, *, lenient: bool, others: tuple[str, ...] = ()
) -> Translated:
    """Return tokens of a wish as an engine takes them; `others` are the rest of what it gets."""
    spread = Translated(tokens)
    if engine.has_ray is False:
        spread = without_ray(tokens, cards=max(wish.cards, wish.limits.gpus))
    translated = translate(spread.tokens, version=engine.version, lenient=lenient, others=others)
    return Translated(translated.tokens, (*spread.said, *translated.said))


def _refuse_misfit(asked: Asked, options: Options, *, version: str | None) -> None:
    """Raise `WishError` for a model that this release of vLLM does not serve, before anything is downloaded."""
    why = misfit(asked.entry, version)
    if why and not options.try_anyway:
        raise WishError(why, hint="name another vLLM with --engine, or start it nevertheless with --try-anyway")


def speaking(asked: Asked, installation: Installation) -> Asked:
    """Return what is asked with what the model's dialect needs of this engine; `said` has what it goes without."""
    users = (*asked.around, *asked.typed, *asked.wish.options)
    sees = installation.sees_files(os.environ)
    fitted = fit(asked.entry.dialect, options=users, version=installation.engine.version, sees=sees)
    wish = asked.wish.adding(fitted.words)
    said = (*asked.said, *_source(asked, installation.engine), *fitted.said)
    return _reaching(replace(asked, wish=wish, said=said), installation)


def _reaching(asked: Asked, installation: Installation) -> Asked:
    """Return what is asked with the address at which an engine in a container is reached from here."""
    container, wish, said = installation.container, asked.wish, asked.said
    if container is None:
        return asked
    if not wish.address.uds:
        listening = {option.name: option.value for option in (*given(container.arguments), *wish.options)}
        inside = listening.get("port", "")
        port = int(inside) if inside.isdecimal() else wish.address.port
        host, port = reached(container, host=listening.get("host", ""), port=port)
        wish = replace(wish, address=replace(wish.address, host=host, port=port))
    mount = "" if Path(wish.model_path).exists() else downloads_anew(container)
    if mount:
        said = (*said, f"the container keeps nothing of what it downloads: {mount} would")
    return replace(asked, wish=wish, said=said)


def _in_command(engine: str | None) -> tuple[Given, ...]:
    """Return the engine options that stand in the command itself; what cannot be read is `installation`'s to refuse."""
    try:
        words = shlex.split(engine or "")
    except ValueError:
        return ()
    known, container = engine_options().arity, container_in(words)
    words = words[1:] if container is None else list(container.arguments)
    return tuple(option for option in given(words) if option.name in known)


def limits_of(options: Options) -> Limits:
    """Return what a fitted value may be; a floor that nobody named gives way to a cap that somebody did."""
    floor = options.min_context
    return Limits(
        min_context=floor or min(4096, options.max_context or 4096),
        max_context=options.max_context,
        floor_is_wish=floor is not None,
        concurrency=options.concurrency,
        memory_bytes=options.memory,
        gpus=options.gpus,
    )
