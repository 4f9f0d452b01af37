"""What the user asked for: the model, the pinned engine arguments, the limits, where the server will listen.

The boundary between the command line and the core. Validates once, refuses what contradicts itself, and
never corrects silently.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from autolaunch.arguments import Given, given
from autolaunch.catalog import Entry
from autolaunch.errors import WishError
from autolaunch.rungs import Limits
from autolaunch.settings import AUTO, Settings
from autolaunch.sizes import parse_count

PINNING: Mapping[str, str] = {
    "gpu-memory-utilization": "gpu_memory_utilization",
    "device-memory-utilization": "gpu_memory_utilization",
    "kv-cache-memory-bytes": "gpu_memory_utilization",
    "kv-cache-memory": "gpu_memory_utilization",
    "max-model-len": "max_model_len",
    "max-num-seqs": "max_num_seqs",
    "max-num-batched-tokens": "max_num_batched_tokens",
    "cudagraph-capture-sizes": "cudagraph_capture_sizes",
    "max-cudagraph-capture-size": "cudagraph_capture_sizes",
    "cuda-graph-sizes": "cudagraph_capture_sizes",
    "compilation-config": "cudagraph_capture_sizes",
    "O": "cudagraph_capture_sizes",
    "optimization-level": "cudagraph_capture_sizes",
    "enforce-eager": "enforce_eager",
    "no-enforce-eager": "enforce_eager",
    "quantization": "quantization",
    "quantization-config": "quantization",
    "revision": "model",
    "tokenizer": "model",
    "hf-config-path": "model",
}
"""Engine options and the field of Settings that each of them pins."""

_COUNTS = ("max_model_len", "max_num_batched_tokens")


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
    """One run as asked: `engine_args` are the user's tokens, untouched and in their order."""

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
    secrets: tuple[str, ...] = field(default=(), repr=False)


def make_wish(entry: Entry, engine_args: Sequence[str], limits: Limits, *, environment: Mapping[str, str]) -> Wish:
    """Build the wish from a catalogue entry, the user's engine tokens, limits and environment.

    Raises `WishError` for values that cannot be read and for options that contradict each other.
    """
    options = given(engine_args)
    _refuse_second_model(entry, options)
    configured = _config_file(options)
    options = (*configured, *options)
    pinned, pins = _pins(options)
    _refuse_contradictions(pinned, pins, limits, options)
    keys = _values(options, "api-key") or tuple(filter(None, [environment.get("VLLM_API_KEY", "")]))
    return Wish(
        model=entry.name,
        model_path=entry.model,
        engine_args=tuple(engine_args),
        entry_args=_entry_args(entry, options),
        pinned=pinned,
        pins=pins,
        limits=limits,
        address=_address(options),
        api_key=keys[0] if keys else "",
        served_names=_values(options, "served-model-name"),
        cards=_cards(options),
        secrets=secrets(options, environment),
    )


def _entry_args(entry: Entry, options: Sequence[Given]) -> tuple[str, ...]:
    named = {option.name for option in options}
    kept = [option for option in given(entry.engine_args) if option.name not in named]
    return tuple(token for option in kept for token in option.tokens)


def model_from(engine_args: Sequence[str]) -> tuple[str | None, tuple[str, ...]]:
    """Take `--model X` out of engine tokens, for the old command line that names the model so."""
    model: str | None = None
    rest: list[str] = []
    for option in given(engine_args):
        if option.name == "model" and option.values:
            model = option.value
    index, tokens = 0, list(engine_args)
    while index < len(tokens):
        taken = next((o for o in given(tokens[index:])[:1] if o.name == "model" and o.tokens[0] == tokens[index]), None)
        if taken:
            index += len(taken.tokens)
        else:
            rest.append(tokens[index])
            index += 1
    return model, tuple(rest)


def _refuse_second_model(entry: Entry, options: Sequence[Given]) -> None:
    for option in options:
        if option.name == "model":
            raise WishError(
                f"two models are named: {entry.name} and --model {option.value}", hint="name the model once"
            )


def _config_file(options: Sequence[Given]) -> tuple[Given, ...]:
    """Read vLLM's own `--config FILE`: what it sets is pinned like the command line."""
    file = next((option.value for option in options if option.name == "config"), None)
    if file is None:
        return ()
    import yaml  # noqa: PLC0415 - only for the few who use a config file

    try:
        table = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise WishError(
            f"--config {file} cannot be read: {error}", hint="check the file; vLLM would fail on it"
        ) from error
    if not isinstance(table, dict):
        raise WishError(f"--config {file} is not a table of options", hint="write one 'option: value' per line")
    return tuple(_configured(str(key), value) for key, value in table.items())


def _configured(key: str, value: Any) -> Given:
    name = key.replace("_", "-")
    if isinstance(value, bool):
        return Given(name if value else f"no-{name}", (), ())
    values = (
        tuple(map(str, value))
        if isinstance(value, list)
        else (json.dumps(value) if isinstance(value, dict) else str(value),)
    )
    return Given(name, values, ())


def _pins(options: Sequence[Given]) -> tuple[Settings, frozenset[str]]:
    values: dict[str, Any] = {}
    pins: set[str] = set()
    for option in options:
        name = PINNING.get(option.name)
        if name is None:
            continue
        pins.add(name)
        values.update(_pinned_value(name, option))
    if values.get("quantization") == "bitsandbytes":
        pins.add("model")
    return Settings(**values), frozenset(pins)


def _pinned_value(name: str, option: Given) -> dict[str, Any]:
    """Return the value a pin carries; {} where the option pins a field without naming its value."""
    if name == "enforce_eager":
        return {name: option.name == "enforce-eager"}
    if name == "model" or option.name == "quantization-config" or not option.values:
        return {}
    try:
        if name == "gpu_memory_utilization":
            return {} if option.name.startswith("kv-") else {name: _share(option)}
        if name in _COUNTS:
            return {name: AUTO if option.value in ("auto", "-1") else parse_count(option.value)}
        if name == "max_num_seqs":
            return {name: int(option.value)}
        if option.name == "cudagraph-capture-sizes":
            return {name: tuple(int(value) for value in option.values)}
    except ValueError as error:
        raise WishError(
            f"--{option.name} {option.value}: {error}", hint="see the engine's --help for its values"
        ) from error
    return {name: option.value} if name == "quantization" else {}


def _share(option: Given) -> float:
    share = float(option.value)
    if not 0 < share <= 1:
        raise ValueError("it is a share of the card's memory, above 0 and at most 1")
    return share


def _refuse_contradictions(pinned: Settings, pins: frozenset[str], limits: Limits, options: Sequence[Given]) -> None:
    if limits.max_context is not None and limits.min_context > limits.max_context:
        raise WishError(
            f"--min-context {limits.min_context} is above --max-context {limits.max_context}",
            hint="the floor must not be above the cap",
        )
    if limits.memory_bytes is not None and "gpu_memory_utilization" in pins:
        name = next(o.name for o in options if PINNING.get(o.name) == "gpu_memory_utilization")
        raise WishError(f"--memory and --{name} both set the engine's memory", hint="give one of the two")
    length = pinned.max_model_len
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
    """Return how many cards one engine spreads over: tensor times pipeline parallel ranks."""
    cards = 1
    for name in ("tensor-parallel-size", "pipeline-parallel-size"):
        value = (_values(options, name) or ("1",))[-1]
        cards *= int(value) if value.isdigit() else 1  # the engine says what is wrong with another value
    return max(1, cards)


_SECRET_OPTION = re.compile(r"(^|-)(api-key|key|token|secret|password|passwd|credentials?)s?$")
_SECRET_VARIABLE = re.compile(
    r"(^|_)(API_?KEY|ACCESS_KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?)(_|$)", re.IGNORECASE
)
_SECRET_SHAPE = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{8,}|sk-[A-Za-z0-9_-]{8,}|gh[pousr]_[A-Za-z0-9]{16,}|AKIA[A-Z0-9]{12,})"
)
_USERINFO = re.compile(r"(?<=://)[^/\s:@]*:([^/\s@]+)(?=@)")
_JSON_SECRET = re.compile(r'"[^"]*(?:key|token|secret|password)"\s*:\s*"([^"]+)"', re.IGNORECASE)
_NOT_SECRET = re.compile(r"\d{1,6}|true|false|none|auto|null", re.IGNORECASE)


def secrets(options: Sequence[Given], environment: Mapping[str, str]) -> tuple[str, ...]:
    """Return every value that must never be shown, longest first.

    Values of options and variables whose names say key, token, secret or password, values shaped like known
    tokens wherever they stand, passwords in URLs, and secrets inside JSON values.
    """
    found: set[str] = set()
    for option in options:
        if _SECRET_OPTION.search(option.name) and not option.name.startswith("max-"):
            found.update(option.values)
        for value in option.values:
            found.update(_SECRET_SHAPE.findall(value), _USERINFO.findall(value), _JSON_SECRET.findall(value))
    for name, value in environment.items():
        if _SECRET_VARIABLE.search(name):
            found.add(value)
    usable = {value for value in found if len(value) >= 3 and not _NOT_SECRET.fullmatch(value)}
    return tuple(sorted(usable, key=lambda value: (-len(value), value)))


def redact(text: str, hidden: Sequence[str]) -> str:
    """Return the text with every secret replaced by `***`."""
    for secret in hidden:
        text = text.replace(secret, "***")
    return _SECRET_SHAPE.sub("***", text)
