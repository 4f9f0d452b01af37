"""What the engine's lines mean when memory is the cause: the table of texts, and the frames that place them.

Owns `Rule` and the memory half of the table; the other half is `crashes`. Must not hold the algorithm: which
of several causes wins is decided in `diagnose`. Texts are compared in lower case against a line without its
log prefix; in the tables they are separated by " | ". The comment at a rule says which versions print it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import IntEnum

from autolaunch.failure import Kind, Phase


class Weight(IntEnum):
    """How sure a text is; a heavier one displaces a lighter one, among equals the first stands."""

    WRAPPER = 0  # says that something failed, not what
    STRAY = 1  # an exception that may have been caught: hub retries, optional imports
    ROOT = 2  # names a cause; conclusive once the engine is gone
    DECISIVE = 3  # names a cause that no start survives: worth reacting to at once


@dataclass(frozen=True, slots=True)
class Rule:
    """One family of texts: any of `texts` in the line, and any of `also`, and none of `never`, and `pattern`."""

    kind: Kind
    texts: tuple[str, ...]
    weight: Weight
    also: tuple[str, ...]
    never: tuple[str, ...]
    pattern: re.Pattern[str] | None

    def matches(self, low: str) -> bool:
        """Whether the line, in lower case and without its prefix, is of this family."""
        if not any(text in low for text in self.texts):
            return False
        if self.also and not any(text in low for text in self.also):
            return False
        if self.never and any(text in low for text in self.never):
            return False
        return self.pattern is None or self.pattern.search(low) is not None


def any_of(texts: str) -> tuple[str, ...]:
    """Split a table's cell, " | " between the texts; spaces inside quotes of a text are kept."""
    return tuple(text.strip("\n") for text in texts.split(" | ")) if texts else ()


def rule(
    kind: Kind, texts: str, *, weight: Weight = Weight.ROOT, also: str = "", never: str = "", pattern: str = ""
) -> Rule:
    """Write one row of the table."""
    compiled = re.compile(pattern) if pattern else None
    return Rule(kind, any_of(texts), weight, any_of(also), any_of(never), compiled)


def sure(kind: Kind, texts: str, *, also: str = "", never: str = "", pattern: str = "") -> Rule:
    """Write one decisive row of the table."""
    return rule(kind, texts, weight=Weight.DECISIVE, also=also, never=never, pattern=pattern)


KILLED = rule(  # shells: bash, sh, zsh with its job number
    Kind.HOST_OOM,
    "killed",
    pattern=r"^(?:\S{1,200}: line \d+: +|\[\d+\] *[+-]? *)?(?:\d+ +)?killed(?: |:|$)",
)
"""After the engine said why it dies this says nothing: V1 kills its own process group (0.7 to 0.8)."""

HOST_RULES: tuple[Rule, ...] = (
    # the machine's own memory: before the GPU's texts, several of which these contain
    sure(  # ray's memory monitor, vLLM 0.2 to now; gunicorn
        Kind.HOST_OOM,
        "node running low on memory | killed due to memory pressure | ray.exceptions.outofmemoryerror"
        " | perhaps out of memory",
    ),
    sure(
        Kind.HOST_OOM,
        "oom-kill | out of memory: killed | oomkilled | oom killer | cgroup out of memory",  # kernel, kubelet, docker
        never="potential root causes | killed by sigkill by",  # ray suggests it at every death of an actor
    ),
    sure(Kind.HOST_OOM, "defaultcpuallocator:", also="allocate | enough memory"),  # torch on a CPU, all
    sure(Kind.HOST_OOM, "cannot allocate memory | std::bad_alloc | out_of_host_memory"),  # ENOMEM, C++, XPU
    sure(Kind.HOST_OOM, "unable to allocate", also="array with shape | arraymemoryerror"),  # numpy
    sure(Kind.HOST_OOM, "too large swap space"),  # V0: the swap space is host memory
    rule(Kind.HOST_OOM, "memoryerror", never="data buffer", pattern=r"^memoryerror\b"),  # not vLLM's own, of its ring
    rule(Kind.HOST_OOM, "failed core proc(s)", pattern=r"': -9\b"),  # V1: the kernel's doing
    rule(Kind.HOST_OOM, "code", pattern=r"\bexit ?code:? {0,20}-9\b|code:? {0,20}137\b"),  # docker, kubectl, torchrun
    KILLED,
)

PHASE_RULES: tuple[Rule, ...] = (
    # texts that name their phase themselves
    sure(Kind.FREE_MEMORY_LOW, "less than desired gpu memory | less than desired cpu memory"),  # V1, after 0.9.0
    sure(Kind.FREE_MEMORY_LOW, "less than the engine's budget"),  # weights held outside, 0.3x
    sure(Kind.KV_NONE, "externally held weights", also="exceed"),  # 0.3x: nothing of the budget is left
    sure(Kind.KV_TOO_SMALL, "to serve at least one request with the model"),  # V1, all
    sure(Kind.KV_TOO_SMALL, "kv cache is needed, which is larger than"),  # V1, its second half when wrapped
    sure(Kind.KV_TOO_SMALL, "maximum number of tokens that can be stored in"),  # V0, 0.2 to 0.10
    sure(Kind.KV_NONE, "no available memory for the cache blocks"),  # V0 0.2.6+, V1, all
    sure(Kind.KV_NONE, "cannot auto-fit max_model_len"),  # 0.12+
    sure(  # CPU, 0.2x+: the cache has a size, but somebody else has the memory
        Kind.KV_ALLOC_OOM,
        "on kv cache allocation is less than",
        pattern=r"memory for kv \((?!0\.0[/ ])\d",
    ),
    sure(Kind.KV_NONE, "on kv cache allocation is less than"),  # CPU, 0.2x+: nothing or less is left
    sure(Kind.SEQS_TOO_MANY, "mamba cache blocks", also="exceeds"),  # hybrid models, 0.14+
    sure(Kind.PROFILING_RACE, "error in memory profiling"),  # V0 0.3+, V1, all
    sure(Kind.SAMPLER_OOM, "occurred when warming up sampler | occurred when warming up pooler"),  # V1, 0.8.5+
    sure(Kind.WEIGHTS_OOM, "failed to load model - not enough gpu memory"),  # V1, 0.13+
)

ALLOCATION_RULES: tuple[Rule, ...] = (
    # an allocation failed somewhere: frames and phase say where
    sure(
        Kind.OOM,
        "cuda out of memory | hip out of memory | xpu out of memory | npu out of memory"
        " | cuda error: out of memory | hip error: out of memory | driver error: out of memory"
        " | cudaerrormemoryallocation | cuda_error_out_of_memory | hiperroroutofmemory"
        " | cublas_status_alloc_failed | hipblas_status_alloc_failed | cudnn_status_alloc_failed"
        " | out_of_device_memory | ur_result_error_out_of_resources | pi_error_out_of_resources"
        " | hsa_status_error_out_of_resources | nv_err_no_memory | 'out of memory'"
        " | pt_devmem allocation failed | nvmapmemalloc | ran out of memory in memory space"  # Gaudi, TPU
        " | nrt_tensor_allocate | backend out of memory | out of memory. tried to allocate",  # Neuron, Metal, others
    ),
    sure(Kind.OOM, "outofmemoryerror", pattern=r"outofmemoryerror\b(?! as|\)|,)"),
    sure(
        Kind.OOM,  # bitsandbytes, triton, custom kernels
        "out of memory",
        never="running out of memory | if out of memory | to avoid | might |  may ",
        pattern=r"\b(?:error|cuda|hip|xpu|gpu|failed|failure)\b.{0,160}\bout of memory\b",
    ),
    sure(Kind.OOM, "resource_exhausted", also="memory | hbm | allocat"),  # XLA
)

MEMORY_RULES: tuple[Rule, ...] = HOST_RULES + PHASE_RULES + ALLOCATION_RULES

COMPILING = any_of("failed to run autotuning code block | inductorerror")
"""An allocation failure of the compiler itself (vLLM 0.24: trial copies of weights), whatever called it."""

KIND_PHASE = {
    Kind.FREE_MEMORY_LOW: Phase.INIT,
    Kind.WEIGHTS_OOM: Phase.LOAD,
    Kind.PROFILE_OOM: Phase.PROFILE,
    Kind.PROFILING_RACE: Phase.PROFILE,
    Kind.KV_NONE: Phase.KV_CACHE,
    Kind.KV_TOO_SMALL: Phase.KV_CACHE,
    Kind.SEQS_TOO_MANY: Phase.KV_CACHE,
    Kind.KV_ALLOC_OOM: Phase.KV_CACHE,
    Kind.GRAPH_OOM: Phase.GRAPHS,
    Kind.SAMPLER_OOM: Phase.WARMUP,
    Kind.RUNTIME_OOM: Phase.SERVING,
}
"""The least phase a start has come to when it fails with this kind."""

OOM_OF_PHASE = {
    Phase.LOAD: Kind.WEIGHTS_OOM,
    Phase.PROFILE: Kind.PROFILE_OOM,
    Phase.KV_CACHE: Kind.KV_ALLOC_OOM,
    Phase.GRAPHS: Kind.GRAPH_OOM,
    Phase.WARMUP: Kind.GRAPH_OOM,
    Phase.SERVING: Kind.RUNTIME_OOM,
}
"""What an allocation failure without frames is, by the phase reached; earlier phases tell nothing."""

FRAMES: dict[str, Kind] = {
    name: kind
    for kind, names in (
        (
            Kind.WEIGHTS_OOM,
            "load_model | _load_model | create_weights | process_weights_after_loading | load_weights | get_model"
            " | initialize_model | _initialize_model | init_model | weight_loader | create_lora_manager | make_layers"
            " | maybe_offload_to_cpu | init_vllm_registered_model",
        ),
        (
            Kind.PROFILE_OOM,
            "profile_run | _profile_run | determine_available_memory | determine_num_available_blocks"
            " | profile_num_available_blocks | profile_cudagraph_memory | profile_memory | _profile_multimodal",
        ),
        (
            Kind.KV_ALLOC_OOM,
            "_allocate_kv_cache | _allocate_kv_caches | _allocate_kv_cache_tensors | allocate_kv_cache"
            " | initialize_kv_cache | initialize_kv_cache_tensors | _initialize_kv_cache_tensors"
            " | initialize_from_config | _init_cache_engine | init_cache_engine | initialize_cache | init_kv_cache"
            " | allocate_gpu_cache | allocate_cpu_cache | allocate_uniform_kv_caches | _reshape_kv_cache_tensors",
        ),
        (
            Kind.GRAPH_OOM,
            "capture_model | capture_graph | capture_graphs | capture_cudagraphs | _capture_cudagraphs"
            " | _warmup_and_capture | compile_or_warm_up_model | warm_up_model | _warm_up_model | kernel_warmup"
            " | graph_capture | capture_begin | capture_end | _capture_aclgraphs",
        ),
        (Kind.SAMPLER_OOM, "_dummy_sampler_run | _dummy_pooler_run"),
        (
            Kind.RUNTIME_OOM,
            "run_busy_loop | _process_engine_step | run_engine_loop | engine_step | execute_dummy_batch"
            " | _run_engine | step_with_batch_queue | wake_up | start_worker_execution_loop",
        ),
    )
    for name in any_of(names)
}
"""The function names in a traceback that say where an allocation failed (V0 and V1)."""

CONTAINERS = frozenset({"initialize_cache", "initialize_from_config"})
"""Frames of the KV cache's allocation that in some versions also contain the graph capture."""
