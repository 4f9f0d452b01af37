"""What the user asked for: the model, the pinned engine arguments, the limits, where the server will listen.

The boundary between the command line and the core. Validates once, refuses what contradicts itself, and
never corrects silently.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from autolaunch.arguments import Given, given, walk, with_all_values
from autolaunch.case import Limits
from autolaunch.entry import Entry
from autolaunch.errors import WishError
from autolaunch.pins import PINNING, pins_of
from autolaunch.settings import AUTO, Settings


@dataclass(frozen=True, slots=True)
class Address:
    """Where the engine will serve: TCP host and port (perhaps TLS) or a unix socket."""

    host: str = ""
    port: int = 8000
    uds: str = ""
    tls: bool = False
    root_path: str = ""

    @property
    def local_host(self) -> str:
        """The host by which this machine reaches it."""
        if self.host in ("", "0.0.0.0"):  # noqa: S104 - compared with, not bound
            return "127.0.0.1"
        return "::1" if self.host == "::" else self.host

    @property
    def url(self) -> str:
        """The base URL for clients on this machine."""
        if self.uds:
            return f"unix:{self.uds}"
        host = f"[{self.local_host}]" if ":" in self.local_host else self.local_host
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}{self.root_path}"


@dataclass(frozen=True, slots=True)
class Wish:
    """One run as asked: `engine_args` are the user's tokens, untouched and in their order.

    `entry_args` are what the model's entry adds to them. `options` are all that the engine gets of both and of its own
    configuration file; the last of a name wins.
    """

    model: str
    model_path: str
    engine_args: tuple[str, ...]
    entry_args: tuple[str, ...]
    pinned: Settings
    pins: frozenset[str]
    limits: Limits
    address: Address
    api_key: str = ""
    served_names: tuple[str, ...] = ()
    cards: int = 1
    options: tuple[Given, ...] = field(default=(), repr=False)

    def adding(self, words: Sequence[str]) -> Wish:
        """Return the wish with more words of ours, before which every other option goes."""
        return replace(self, entry_args=(*self.entry_args, *words), options=(*given(words), *self.options))


def make_wish(entry: Entry, engine_args: Sequence[str], limits: Limits, *, environment: Mapping[str, str]) -> Wish:
    """Build the wish from a catalogue entry, the user's engine tokens, limits and environment.

    Raises `WishError` for values that cannot be read and for options that contradict each other.
    """
    typed = given(engine_args)
    _refuse_second_model(entry, typed)
    typed = (*_config_file(typed), *typed)
    read = _read(typed, limits)
    kept = _kept(entry, typed)
    with blamed(entry):
        configured = () if any(option.name == "config" for option in typed) else _config_file(kept)
        options = (*configured, *kept, *typed)
        read = _read(options, limits) if kept else read
    keys = _values(options, "api-key") or tuple(filter(None, [environment.get("VLLM_API_KEY", "")]))
    return Wish(
        model=entry.name,
        model_path=entry.model,
        engine_args=tuple(engine_args),
        entry_args=tuple(token for option in kept for token in option.tokens),
        pinned=read.pinned,
        pins=read.pins,
        limits=limits,
        address=read.address,
        api_key=keys[0] if keys else "",
        served_names=_values(options, "served-model-name"),
        cards=_cards(options),
        options=options,
    )


@dataclass(frozen=True, slots=True)
class _Read:
    """What options say of the settings and of the address."""

    pinned: Settings
    pins: frozenset[str]
    address: Address


def _read(options: Sequence[Given], limits: Limits) -> _Read:
    pinned, pins = pins_of(options)
    _refuse_contradictions(pinned, pins, limits, options)
    return _Read(pinned, pins, _address(options))


@contextmanager
def blamed(entry: Entry) -> Iterator[None]:
    """Name the user's models file in an error that its options are the cause of."""
    try:
        yield
    except WishError as error:
        if not entry.file:
            raise
        raise WishError(f"engine_args of {entry.alias!r} in {entry.file}: {error.what}", hint=error.hint) from error


def _kept(entry: Entry, typed: Sequence[Given]) -> tuple[Given, ...]:
    """Return the entry's own options but for those that the user gives, or takes back with `--no-`."""
    named = {option.name.removeprefix("no-") for option in typed}
    return tuple(
        option for option in with_all_values(entry.engine_args) if option.name.removeprefix("no-") not in named
    )


def model_from(engine_args: Sequence[str]) -> tuple[str | None, tuple[str, ...]]:
    """Take `--model X` out of engine tokens, for the old command line that names the model so.

    A `model` in vLLM's own config file is found as well; the file stays as it is, the command line wins in it.
    """
    model: str | None = None
    rest = list(engine_args)
    for begin, end, option in reversed(list(walk(engine_args))):
        if option.name == "model" and option.values:
            model = model or option.value
            del rest[begin:end]
    if model is None:
        model = next((o.value for o in _config_file(given(engine_args)) if o.name == "model" and o.values), None)
    return model, tuple(rest)


def _refuse_second_model(entry: Entry, options: Sequence[Given]) -> None:
    for option in options:
        if option.name == "model":
            raise WishError(
                f"two models are named: {entry.name} and --model {option.value}", hint="name the model once"
            )


def _config_file(options: Sequence[Given]) -> tuple[Given, ...]:
    """Read vLLM's own `--config FILE`: what it sets is pinned like the command line.

    vLLM looks for these two words only: `--config=FILE` is taken by its parser and never read.
    """
    files = [option.value for option in options if option.tokens[:1] == ("--config",) and option.values]
    if not files:
        return ()
    file = files[-1]
    import yaml  # noqa: PLC0415 - only for the few who use a config file

    try:
        table = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise WishError(
            f"--config {file} cannot be read: {error}", hint="check the file; vLLM would fail on it"
        ) from error
    if not isinstance(table, dict):
        raise WishError(f"--config {file} is not a table of options", hint="write one 'option: value' per line")
    return given(token for key, value in table.items() for token in _configured(str(key), value))


def _configured(key: str, value: Any) -> tuple[str, ...]:
    """Return the tokens that vLLM makes of one entry of its config file."""
    if isinstance(value, bool):
        return (f"--{key}" if value else f"--no-{key}",)
    if isinstance(value, list):
        return (f"--{key}", *map(str, value)) if value else ()
    return (f"--{key}", json.dumps(value) if isinstance(value, dict) else str(value))


def _refuse_contradictions(pinned: Settings, pins: frozenset[str], limits: Limits, options: Sequence[Given]) -> None:
    if limits.max_context is not None and limits.floor_is_wish and limits.min_context > limits.max_context:
        raise WishError(
            f"--min-context {limits.min_context} is above --max-context {limits.max_context}",
            hint="the floor must not be above the cap",
        )
    if limits.memory_bytes is not None and "gpu_memory_utilization" in pins:
        name = next(o.name for o in options if PINNING.get(o.name) == "gpu_memory_utilization")
        raise WishError(f"--memory and --{name} both set the engine's memory", hint="give one of the two")
    seqs, length = pinned.max_num_seqs, pinned.max_model_len
    if seqs is not None and seqs < limits.concurrency:
        raise WishError(
            f"--concurrency {limits.concurrency} is above --max-num-seqs {seqs}",
            hint="that many requests are never served at once; raise --max-num-seqs or drop one of the two",
        )
    if length == AUTO and limits.max_context is not None:
        raise WishError(
            f"--max-model-len auto has no cap and --max-context {limits.max_context} is one",
            hint="drop --max-model-len auto: autolaunch fits the context itself, up to --max-context",
        )
    if length is None or length == AUTO:
        return
    if limits.max_context is not None and length > limits.max_context:
        raise WishError(
            f"--max-model-len {length} is above --max-context {limits.max_context}",
            hint="give one of the two",
        )
    if limits.floor_is_wish and length < limits.min_context:
        raise WishError(
            f"--max-model-len {length} is below --min-context {limits.min_context}",
            hint="give one of the two",
        )


def _values(options: Sequence[Given], name: str) -> tuple[str, ...]:
    return next((option.values for option in reversed(options) if option.name == name), ())


def _address(options: Sequence[Given]) -> Address:
    def last(name: str, default: str) -> str:
        return (_values(options, name) or (default,))[-1]

    try:
        port = int(last("port", "8000"))
    except ValueError:
        port = -1
    if not 0 < port < 65536:
        raise WishError(f"--port {last('port', '')} is not a port", hint="give a number from 1 to 65535")
    return Address(
        host=last("host", ""),
        port=port,
        uds=last("uds", ""),
        tls=bool(_values(options, "ssl-certfile")),
        root_path=last("root-path", "").rstrip("/"),
    )


def _cards(options: Sequence[Given]) -> int:
    """Return how many cards of this host the engine spreads over: tensor times pipeline times data parallel ranks."""
    cards = 1
    here = "data-parallel-size-local" if _values(options, "data-parallel-size-local") else "data-parallel-size"
    for name in ("tensor-parallel-size", "pipeline-parallel-size", here):
        value = (_values(options, name) or ("1",))[-1]
        cards *= int(value) if value.isdecimal() else 1  # the engine says what is wrong with another value
    return max(1, cards)
