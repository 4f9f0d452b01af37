"""vLLM's command line as its server parses it: spelling, types, defaults, argparse's own errors. Pure.

Written by hand because argparse alone costs a third of the fake engine's start. Only the options that the
texts, the rules or the memory model need have a type; others are kept as strings.
"""

from __future__ import annotations

from .record import Record
from .release import release

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

TYPES: dict[str, str] = {
    "model": "str",
    "port": "int",
    "host": "str",
    "gpu_memory_utilization": "float",
    "max_model_len": "length",
    "max_num_seqs": "int",
    "max_num_batched_tokens": "length",
    "enforce_eager": "flag",
    "quantization": "str",
    "kv_cache_dtype": "str",
    "kv_cache_memory_bytes": "length",
    "tensor_parallel_size": "int",
    "pipeline_parallel_size": "int",
    "data_parallel_size": "int",
    "api_key": "list",
    "served_model_name": "list",
    "compilation_config": "json",
    "dtype": "str",
    "load_format": "str",
    "seed": "int",
    "swap_space": "float",
    "cpu_offload_gb": "float",
    "block_size": "int",
    "trust_remote_code": "flag",
    "enable_prefix_caching": "flag",
    "enable_chunked_prefill": "flag",
    "disable_log_requests": "flag",
    "enable_log_requests": "flag",
    "disable_log_stats": "flag",
    "async_scheduling": "flag",
    "tokenizer": "str",
    "download_dir": "str",
    "revision": "str",
    "limit_mm_per_prompt": "json",
    "hf_overrides": "json",
    "cudagraph_capture_sizes": "list",
    "max_cudagraph_capture_size": "int",
    "uvicorn_log_level": "str",
    "chat_template": "str",
    "tool_parser_plugin": "str",
    "tool_call_parser": "str",
    "enable_auto_tool_choice": "flag",
    "exclude_tools_when_tool_choice_none": "flag",
    "override_generation_config": "json",
    "allow_credentials": "flag",
}
"""The options it knows, by vLLM's spelling with underscores."""

SHORT = {
    "tp": "tensor_parallel_size",
    "pp": "pipeline_parallel_size",
    "dp": "data_parallel_size",
    "q": "quantization",
    "cc": "compilation_config",
    "O": "compilation_config",
}

DEFAULTS: Mapping[str, object] = {
    "port": 8000,
    "enforce_eager": False,
    "tensor_parallel_size": 1,
    "kv_cache_dtype": "auto",
}
"""What rules and the memory model see where nothing was given."""

SUFFIXES = {"k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
USAGE = "usage: api_server.py [-h] [--headless] [--api-server-count API_SERVER_COUNT]\n"
USAGE_BEFORE_0_10 = (
    "usage: api_server.py [-h] [--host HOST] [--port PORT]\n"
    "                     [--uvicorn-log-level {debug,info,warning,error,critical,trace}]\n"
)
"""How argparse begins what it prints; 200 more lines follow."""


class UsageError(Exception):
    """argparse would print this and exit with status 2."""


class Arguments(Record):
    """`given` is the command line, typed; `unknown` its options without a type.

    `utilization`, `seqs` and `tokens` are the defaults of the release on this card.
    """

    given: Mapping[str, object]
    unknown: tuple[str, ...] = ()
    utilization: float = 0.92
    seqs: int = 256
    tokens: int = 2048

    def on(self, seqs: int, tokens: int) -> Arguments:
        """Give the arguments with a card's own defaults."""
        return Arguments(**{**vars(self), "seqs": seqs, "tokens": tokens})

    def with_defaults(self) -> dict[str, object]:
        """Give all arguments, with vLLM's defaults where nothing was given."""
        batch = {"max_num_seqs": self.seqs, "max_num_batched_tokens": self.tokens}
        return {**DEFAULTS, **batch, "gpu_memory_utilization": self.utilization, **self.given}

    def text(self, name: str, default: str) -> str:
        """Give an argument as text."""
        value = self.given.get(name, default)
        return default if value is None else str(value)

    def number(self, name: str, default: int) -> int:
        """Give a whole-number argument."""
        value = self.given.get(name, default)
        return int(value) if isinstance(value, (int, float)) else default

    def names(self) -> tuple[str, ...]:
        """Give the model names that the server answers to."""
        served = self.given.get("served_model_name")
        return tuple(served) if isinstance(served, list) and served else (self.text("model", "facebook/opt-125m"),)

    def keys(self) -> tuple[str, ...]:
        """Give the API keys, if any."""
        given = self.given.get("api_key")
        return tuple(given) if isinstance(given, list) else ()


def parse(argv: Sequence[str], version: str = "0.24.0") -> Arguments:
    """Read a command line; raise UsageError as argparse would."""
    given: dict[str, object] = {}
    unknown: list[str] = []
    rest = list(argv)
    if rest[:1] == ["serve"]:
        del rest[0]
    while rest:
        word = rest.pop(0)
        if not word.startswith("-") or word == "-":
            if "model" in given:
                unknown.append(word)
            given.setdefault("model", word)
            continue
        name, equals, value = word.lstrip("-").partition("=")
        written, name = name, name.replace("-", "_")
        name = SHORT.get(written, name)
        if name not in TYPES and not (name.startswith("no_") and TYPES.get(name[3:]) == "flag"):
            unknown.append(word)
            if not equals and rest and not _is_option(rest[0]):
                unknown.append(value := rest.pop(0))
            given[name] = value or True
            continue
        values = [value] if equals else _take(name, rest)
        given.update(_typed(word.partition("=")[0], name, values))
    known = release(version)
    if given.get("max_model_len") == -1 and not known.knows_auto:
        raise UsageError("argument --max-model-len: invalid int value: 'auto'")
    return Arguments(given=given, unknown=tuple(unknown), utilization=known.utilization)


def refuse_unknown_options(arguments: Arguments) -> None:
    """Raise argparse's error if an option was not known."""
    if arguments.unknown:
        raise UsageError(f"unrecognized arguments: {' '.join(arguments.unknown)}")


def refuse_what_a_release_does_not_take(argv: Sequence[str], taken: frozenset[str]) -> None:
    """Raise argparse's error for options that are not in `taken`, with the words that follow them."""
    unknown: list[str] = []
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        if not _is_option(word):
            continue
        name = word.lstrip("-").partition("=")[0].partition(".")[0].replace("_", "-")
        if word.startswith("--") and name not in taken:
            unknown.append(word)
            while rest and not _is_option(rest[0]):
                unknown.append(rest.pop(0))
    if unknown:
        raise UsageError(f"unrecognized arguments: {' '.join(unknown)}")


def _is_option(word: str) -> bool:
    return word.startswith("-") and not word[1:].replace(".", "").isdigit()


def _take(name: str, rest: list[str]) -> list[str]:
    taken: list[str] = []
    if TYPES.get(name) in (None, "flag"):
        return taken
    while rest and not _is_option(rest[0]):
        taken.append(rest.pop(0))
        if TYPES[name] != "list":
            break
    return taken


def _typed(option: str, name: str, values: list[str]) -> dict[str, object]:
    if name not in TYPES:
        return {name[3:]: False}
    kind = TYPES[name]
    if kind == "flag":
        return {name: values not in (["false"], ["False"])}
    if not values:
        least = "at least " if kind == "list" else ""
        raise UsageError(f"argument --{name.replace('_', '-')}: expected {least}one argument")
    if kind == "list":
        return {name: values}
    try:
        return {name: _value(kind, values[0])}
    except ValueError:
        label = {"length": "human_readable_int", "json": "loads"}.get(kind, kind)
        raise UsageError(f"argument {option}: invalid {label} value: {values[0]!r}") from None


def _value(kind: str, text: str) -> object:
    if kind == "int":
        return int(text)
    if kind == "float":
        return float(text)
    if kind == "length":
        if text == "auto":
            return -1
        if text[-1:] in SUFFIXES and text[:-1].replace(".", "", 1).isdigit():
            return int(float(text[:-1]) * SUFFIXES[text[-1]])
        return int(text)
    if kind == "json":
        import json

        return int(text) if text.isdigit() else json.loads(text)
    return text
