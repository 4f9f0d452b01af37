"""Which of the engine's options pin which setting, and to what value.

Pure. What is pinned is never changed; what else was asked for is `wish`'s.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from autolaunch.arguments import Given, engine_options
from autolaunch.errors import WishError
from autolaunch.facts import Model
from autolaunch.quantization import STORED
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
    "kv-cache-dtype": "kv_cache_dtype",
    "tensor-parallel-size": "tensor_parallel_size",
    "pipeline-parallel-size": "tensor_parallel_size",
    "data-parallel-size": "tensor_parallel_size",
    "quantization": "quantization",
    "quantization-config": "quantization",
    "load-format": "quantization",
    "no-enable-chunked-prefill": "max_num_batched_tokens",
    "revision": "model",
    "tokenizer": "model",
    "hf-config-path": "model",
}
"""Engine options and the field of Settings that each of them pins.

Without chunked prefill a batch must hold a whole context, so that fewer batched tokens would be refused; a
`--load-format` that is a quantization of its own leaves no choice of another.
"""

_OWN_WEIGHTS = ("bitsandbytes", "gguf", "bitblas", "sharded_state", "tensorizer")
"""Load formats whose files fix how the weights are stored."""

_UNNAMED = ("quantization-config", "load-format", "pipeline-parallel-size", "data-parallel-size")
"""Options that pin a field without naming its value."""

LEAST_PER_CENT = 2.0
"""From here on a share above 1 is taken for one in per cent; 1.5 is more likely a wish for more than there is."""

_COUNTS = ("max_model_len", "max_num_batched_tokens")


def pins_of(options: Sequence[Given]) -> tuple[Settings, frozenset[str]]:
    """Return the values that the options pin and the fields that are pinned, with a value or without one.

    Raises `WishError` for a value that cannot be read.
    """
    values: dict[str, Any] = {}
    pins: set[str] = set()
    for option in map(_meant, options):
        name = PINNING.get(option.name)
        if name is None or (option.name == "load-format" and option.value not in _OWN_WEIGHTS):
            continue
        pins.add(name)
        values.update(_pinned_value(name, option))
    if values.get("quantization") == "bitsandbytes":
        pins.add("model")
    return Settings(**values), frozenset(pins)


def pool_of(options: Sequence[Given]) -> int | None:
    """Return the bytes of KV cache that the user gives each GPU, None where none are given or they cannot be read."""
    found: int | None = None
    for option in map(_meant, options):
        if option.name.startswith("kv-cache-memory") and option.values:
            try:
                found = parse_count(option.value) or None
            except ValueError:
                found = None
    return found


def doubts(pinned: Settings, model: Model, *, moved: bool) -> Iterator[str]:
    """Name the user's own values that the engine will refuse, by what the model's configuration says.

    `moved` is an option that changes what that configuration says.
    """
    shape, ranks, length = model.shape, pinned.tensor_parallel_size, pinned.max_model_len
    if ranks and shape is not None and not shape.divides(ranks):
        heads = f"{shape.num_attention_heads} attention and {shape.num_key_value_heads} KV heads"
        yield f"{heads} cannot be shared out to --tensor-parallel-size {ranks}: vLLM will refuse it"
    if isinstance(length, int) and model.max_model_len and length > model.max_model_len and not moved:
        above = f"--max-model-len {length} is above the {model.max_model_len} of the model's configuration"
        yield f"{above}: vLLM refuses it unless VLLM_ALLOW_LONG_MAX_MODEL_LEN=1 is set"
    method = pinned.quantization
    if method in STORED and shape is not None and model.quantization is None and model.weights is not None:
        kept = f"these weights are stored as {model.dtype}" if model.dtype else "these weights are not quantized"
        what = f"{method} is how weights are stored, and {kept}"
        yield f"--quantization {method}: {what}: vLLM will refuse it; name a model whose files are {method}"


def _meant(option: Given) -> Given:
    """Resolve an abbreviation that is ambiguous among all releases' options but can pin one field only."""
    if option.name in engine_options().arity or not option.tokens[:1] or not option.tokens[0].startswith("--"):
        return option
    names = [name for name in PINNING if name.startswith(option.name)]
    fields = {PINNING[name] for name in names}
    return Given(names[0], option.values, option.tokens) if len(fields) == 1 else option


def _pinned_value(name: str, option: Given) -> dict[str, Any]:
    """Return the value a pin carries; {} where the option pins a field without naming its value."""
    if name == "enforce_eager":
        return {name: option.name == "enforce-eager"}
    if name == "model" or option.name in _UNNAMED or not option.values:
        return {}
    try:
        if name == "gpu_memory_utilization":
            return {} if option.name.startswith("kv-") else {name: _share(option)}
        if name == "max_model_len" and option.value in ("auto", "-1"):
            return {name: AUTO}
        if name in _COUNTS:
            return {name: _at_least_1(parse_count(option.value))}
        if option.name == "tensor-parallel-size":
            return {name: int(option.value)} if option.value.isdecimal() else {}  # the engine says what is wrong
        if name == "max_num_seqs":
            return {name: _at_least_1(_whole(option.value))}
        if option.name == "cudagraph-capture-sizes":
            return {name: tuple(_whole(value) for value in option.values)}
    except ValueError as error:
        raise WishError(
            f"--{option.name} {option.value}: {error}", hint="correct the value; the engine would refuse it too"
        ) from error
    return {name: option.value} if name in ("quantization", "kv_cache_dtype") else {}


def _share(option: Given) -> float:
    try:
        share = float(option.value.removesuffix("%"))
    except ValueError:
        raise ValueError("it must be a share of the card's memory, such as 0.9") from None
    if option.value.endswith("%") or LEAST_PER_CENT <= share <= 100:
        raise ValueError(f"it is a share of the card's memory, not per cent: write {share / 100:g}")
    if not 0 < share <= 1:
        raise ValueError("it is a share of the card's memory, above 0 and at most 1")
    return share


def _whole(text: str) -> int:
    if not re.fullmatch(r"[+-]?\d+", text.strip()):
        raise ValueError("it must be a whole number")
    return int(text)


def _at_least_1(count: int) -> int:
    if count < 1:
        raise ValueError("it must be at least 1")
    return count
