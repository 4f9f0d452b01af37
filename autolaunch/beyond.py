"""Engine options that move memory in ways that the memory model does not know.

Pure. With one of them nothing is predicted, so that no start is refused on a figure that does not hold for it, and
what it measures is no measure of starts without it. Owns the list of them; that a plan says so is `planner`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from autolaunch.arguments import Given

MARK = "*"
"""Ends the digest of a wish with such an option: its starts say nothing of other wishes' memory."""


def _always(_: str) -> bool:
    return True


def _given(value: str) -> bool:
    return value.strip() not in ("", "0", "0.0")


def _several(value: str) -> bool:
    return value.strip() not in ("", "1")


OPTIONS: Mapping[str, Callable[[str], bool]] = {
    "cpu-offload-gb": _given,  # weights in the host's memory
    "cpu-offload-params": _always,
    "offload-backend": _always,
    "offload-group-size": _given,
    "decode-context-parallel-size": _several,  # the cache is shared out
    "prefill-context-parallel-size": _several,
    "disable-hybrid-kv-cache-manager": _always,  # every layer keeps the whole context
    "disable-sliding-window": _always,
    "dtype": lambda value: value in ("float", "float32"),  # twice the weights that are stored
    "enable-expert-parallel": _always,
    "enable-lora": _always,
    "hf-config-path": _always,  # another model than the one that was read
    "hf-overrides": _always,
    "limit-mm-per-prompt": _always,
    "num-gpu-blocks-override": _given,
    "pipeline-parallel-size": _several,  # each card holds some of the layers
    "quantization-config": _always,
    "rope-scaling": _always,  # another length
    "speculative-config": _always,  # a second model
    "speculative-model": _always,
    "VLLM_CPU_KVCACHE_SPACE": _given,  # the cache in GiB
}
"""By name, when its value counts. `--load-format` is judged with `--quantization`."""

VARIABLES = (
    "PYTORCH_ALLOC_CONF",
    "PYTORCH_CUDA_ALLOC_CONF",
    "VLLM_ALLOW_LONG_MAX_MODEL_LEN",
    "VLLM_ATTENTION_BACKEND",
    "VLLM_CPU_KVCACHE_SPACE",
    "VLLM_ENABLE_STARTUP_PLAN",
    "VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS",
    "VLLM_USE_V1",
)
"""Variables that change what a start needs: a wish with another value is another wish (vllm/envs.py)."""


def variables(environment: Mapping[str, str]) -> tuple[Given, ...]:
    """Return those of an environment that change what a start needs, as options by their own names."""
    return tuple(Given(name, (environment[name],), (name,)) for name in VARIABLES if environment.get(name))


OWN_WEIGHTS = frozenset({"bitsandbytes", "bitblas", "gguf", "sharded_state", "tensorizer"})
"""Load formats that say how the weights are stored, where no `--quantization` does."""


def beyond(options: Iterable[Given]) -> str:
    """Return the first option that the memory model knows nothing of, as typed without its value; "" for none.

    The last of a name wins, as it does in vLLM.
    """
    last = {option.name: option for option in options}
    for name, option in last.items():
        counts = OPTIONS.get(name)
        if name == "load-format" and "quantization" not in last:
            counts = OWN_WEIGHTS.__contains__
        if counts is not None and counts(option.values[-1] if option.values else ""):
            return name if name in VARIABLES else f"--{name}"
    return ""
