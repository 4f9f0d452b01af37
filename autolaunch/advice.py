"""What a person should do about a diagnosed failure, in plain words, with its numbers and vLLM's own flags.

Owns the sentences and their direction (raise or lower). Must not read logs; the supervisor's own steps are
`ladder`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import floor

from autolaunch.crashes import hub_is_away
from autolaunch.failure import Failure, Kind
from autolaunch.figures import held_by_others
from autolaunch.translation import unrecognized
from autolaunch.verdict import own_hint

Numbers = Mapping[str, float]

QUANTIZED = "Use quantized weights (an FP8, AWQ or GPTQ variant, or --quantization fp8)"
RAY = (
    "The engine's environment lacks the package ray: pip install ray there, or leave out "
    "--distributed-executor-backend ray (--worker-use-ray)."
)
KV_BLOCK_TOKENS = 16


def advice(failure: Failure) -> tuple[str, ...]:
    """Return concrete sentences for `failure`, the likeliest cure first; empty for ok."""
    speak = _ADVICE.get(failure.kind)
    if speak is not None:
        held = sum(held_by_others(failure.line).values())
        return (*_neighbours(failure), *speak(_beside(held, failure.numbers)))
    _, unknown, tokens = failure.line.partition("unrecognized arguments:")
    if failure.kind is Kind.CONFIG_ERROR and unknown:
        return unrecognized(tokens.split(), version=failure.engine_version)
    if failure.kind is not Kind.OK and "Failed to import Ray" in failure.line:
        return (RAY,)
    if failure.kind is Kind.MODEL_NOT_FOUND and hub_is_away(failure.line):
        return HUB_IS_AWAY
    return _PLAIN.get(failure.kind, ())


HUB_IS_AWAY = (
    "The hub did not answer: check the network, the proxy and HF_ENDPOINT; another start may help once it is back.",
    "A model that is here already starts without the hub: set HF_HUB_OFFLINE=1.",
)


def hints(failure: Failure) -> tuple[str, ...]:
    """Return what the reader can do where no step will follow; a memory failure is the ladder's to answer."""
    if failure.memory:
        return ()
    ours = own_hint(failure)
    most = 1 if failure.kind is Kind.COMPILE_ERROR else 2  # the second is the step that the ladder takes itself
    return (ours,) if ours else advice(failure)[:most]


NEIGHBOUR_GIB = 1.0
"""What others hold before it is worth a word: a desktop's few hundred MiB are no cause."""


def _beside(held: float, n: Numbers) -> Numbers:
    """Return the numbers of a device of which others hold a part: what they hold was not there to fit into."""
    return {**n, "total_gib": round(n["total_gib"] - held, 2)} if held and "total_gib" in n else n


def _neighbours(failure: Failure) -> tuple[str, ...]:
    """Return who else was on the device, where the engine's own line says so."""
    holders = held_by_others(failure.line)
    held = sum(holders.values())
    if held < NEIGHBOUR_GIB:
        return ()
    total = failure.numbers.get("total_gib")
    of, pids = f" of {total:g} GiB" if total else "", ", ".join(map(str, holders))
    who = f"Process {pids} held" if len(holders) == 1 else f"Processes {pids} held"
    return (f"{who} {held:.2f} GiB{of}: stop what is not needed there, or choose another GPU (CUDA_VISIBLE_DEVICES).",)


def _free_memory_low(n: Numbers) -> tuple[str, ...]:
    free, total = n.get("free_gib"), n.get("total_gib")
    if free is None or total is None or total <= 0:
        return (
            "Other processes hold memory of this device: find them with nvidia-smi and stop them, or wait.",
            "Or lower --gpu-memory-utilization to just below free/total.",
        )
    share = floor(100 * (free / total - 0.01)) / 100
    who = "Look for the holder with nvidia-smi; another GPU may be free (CUDA_VISIBLE_DEVICES)."
    if share < 0.1:
        return (
            f"Only {free:g} of {total:g} GiB are free: no --gpu-memory-utilization helps, stop the "
            "process that holds the rest.",
            who,
        )
    return (
        f"{free:g} of {total:g} GiB are free: wait until the other process has let go, "
        f"or set --gpu-memory-utilization {share:.2f}, not much lower.",
        who,
    )


def _weights_oom(n: Numbers) -> tuple[str, ...]:
    total = n.get("total_gib")
    where = f" into {total:g} GiB" if total else ""
    return (
        f"The weights do not fit{where}. {QUANTIZED}.",
        "Or spread them over more GPUs (--tensor-parallel-size), check --dtype (float32 doubles the size), "
        "or keep a part in host memory (--cpu-offload-gb).",
        "Neither --gpu-memory-utilization nor --max-model-len nor --enforce-eager changes the size of the weights.",
    )


def _profile_oom(n: Numbers) -> tuple[str, ...]:
    return (
        f"The weights fit, the trial forward pass does not{_tried(n)}: lower "
        "--max-num-batched-tokens, then --max-num-seqs.",
        "For a multimodal model also set --limit-mm-per-prompt; then --enforce-eager.",
        "Lowering --gpu-memory-utilization does not help: the trial pass is not bound by it.",
    )


def _kv_none(n: Numbers) -> tuple[str, ...]:
    left = n.get("available_kv_gib")
    have = f" ({left:g} GiB remain for it)" if left is not None else ""
    return (
        f"Weights and activations use up the whole budget{have}: raise --gpu-memory-utilization if "
        "the device has free memory.",
        "Else lower --max-num-batched-tokens and --max-num-seqs, add --enforce-eager, or use quantized weights.",
        "Lowering --gpu-memory-utilization makes it worse.",
    )


def _kv_too_small(n: Numbers) -> tuple[str, ...]:
    most = n.get("estimated_max_len")
    need, have = n.get("needed_kv_gib"), n.get("available_kv_gib")
    first = "Lower --max-model-len to what fits (newer versions: --max-model-len auto)."
    if most is not None:
        fits = int(most) // KV_BLOCK_TOKENS * KV_BLOCK_TOKENS or int(most)
        first = f"Set --max-model-len {fits}: that is what the KV cache holds."
    rest = (
        "Or keep the context: raise --gpu-memory-utilization if the device has free memory, "
        "--kv-cache-dtype fp8, quantized weights."
    )
    if need is not None and have is not None:
        rest = f"{need - have:.2f} GiB are missing ({need:g} needed, {have:g} there). " + rest
    return (first, rest, "Lowering --gpu-memory-utilization makes it worse.")


def _seqs_too_many(n: Numbers) -> tuple[str, ...]:
    seqs = n.get("num_seqs")
    return (f"Set --max-num-seqs {int(seqs)}." if seqs else "Lower --max-num-seqs to the number of cache blocks.",)


def _kv_alloc_oom(n: Numbers) -> tuple[str, ...]:
    return (
        f"The KV cache was sized, then the device refused it{_tried(n)}: another process grew "
        "meanwhile, or memory was counted "
        "twice. Lower --gpu-memory-utilization (or --kv-cache-memory-bytes) by that much.",
        "Raising --gpu-memory-utilization makes it worse.",
    )


def _graph_oom(n: Numbers) -> tuple[str, ...]:
    return (
        f"Capturing CUDA graphs ran out of memory{_tried(n)}: lower --gpu-memory-utilization a little (0.02 to 0.05).",
        "Or fewer capture sizes (--max-num-seqs, --cudagraph-capture-sizes, before 0.11.1 --cuda-graph-sizes), "
        "at last --enforce-eager.",
        "A shorter context alone does not help.",
    )


def _sampler_oom(n: Numbers) -> tuple[str, ...]:
    seqs = n.get("num_seqs")
    now = f" from {int(seqs)} to {max(1, int(seqs) // 4)}" if seqs else ""
    return (
        f"The warm-up of the sampler ran out of memory: lower --max-num-seqs{now}.",
        "Then lower --gpu-memory-utilization a little; raising it makes it worse.",
    )


def _runtime_oom(n: Numbers) -> tuple[str, ...]:
    return (
        f"The server was up and ran out of memory while serving{_tried(n)}: lower --gpu-memory-utilization, "
        "or --max-num-batched-tokens and --max-num-seqs.",
        "A KV cache that is not full does not mean that memory is free: do not raise --gpu-memory-utilization.",
    )


def _oom(n: Numbers) -> tuple[str, ...]:
    return (
        f"The device ran out of memory{_tried(n)}; the log does not show in which phase.",
        "Lower --gpu-memory-utilization by the shortfall, then --max-num-batched-tokens and "
        "--max-num-seqs; then --enforce-eager.",
        "If it happens while weights are loading, only quantized weights or more GPUs help.",
    )


def _tried(n: Numbers) -> str:
    tried, free = n.get("tried_to_allocate_mib"), n.get("free_gib")
    if tried is None:
        return ""
    have = f", {free * 1024:.0f} MiB were free" if free is not None else ""
    return f" ({tried:g} MiB more were asked for{have})"


_ADVICE: dict[Kind, Callable[[Numbers], tuple[str, ...]]] = {
    Kind.FREE_MEMORY_LOW: _free_memory_low,
    Kind.WEIGHTS_OOM: _weights_oom,
    Kind.PROFILE_OOM: _profile_oom,
    Kind.KV_NONE: _kv_none,
    Kind.KV_TOO_SMALL: _kv_too_small,
    Kind.SEQS_TOO_MANY: _seqs_too_many,
    Kind.KV_ALLOC_OOM: _kv_alloc_oom,
    Kind.GRAPH_OOM: _graph_oom,
    Kind.SAMPLER_OOM: _sampler_oom,
    Kind.RUNTIME_OOM: _runtime_oom,
    Kind.OOM: _oom,
}
_PLAIN: dict[Kind, tuple[str, ...]] = {
    Kind.HOST_OOM: (
        "The machine's own memory ran out, not the GPU's: give the host or the container more "
        "memory, stop other processes.",
        "Less of it: a smaller --swap-space, a smaller --cpu-offload-gb, fewer loader workers "
        "(--max-parallel-loading-workers).",
        "No GPU setting helps.",
    ),
    Kind.PROFILING_RACE: (
        "Another process released GPU memory while the engine measured its own use: start again with "
        "the same settings "
        "once memory is stable.",
        "Smaller settings do not help.",
    ),
    Kind.CONFIG_ERROR: ("An argument is refused: change what the line names. This is not a memory problem.",),
    Kind.MODEL_NOT_FOUND: (
        "The model's files cannot be had: check the name or the folder, and HF_TOKEN for a gated model.",
    ),
    Kind.PORT_IN_USE: ("A port is taken: stop the process that listens there, or choose another --port.",),
    Kind.HARDWARE_UNSUPPORTED: (
        "This device, its driver or this build cannot run what was asked: read the line for what is missing.",
        "A GPU below compute capability 8.0 has no bfloat16: use --dtype half.",
    ),
    Kind.DISTRIBUTED_ERROR: (
        "The processes could not work together: check --tensor-parallel-size against the number of GPUs, the network "
        "interface, and /dev/shm (docker: --ipc=host); NCCL_DEBUG=INFO says more.",
    ),
    Kind.COMPILE_ERROR: (
        "Compiling kernels failed: check the compiler and the CUDA toolkit that the line names.",
        "--enforce-eager may avoid the compiler.",
    ),
    Kind.OTHER_CRASH: (
        ("The engine crashed for a reason that is not memory: the line and the log above it say where."),
    ),
    Kind.UNKNOWN: ("The log names no cause: look at the whole log, and at the exit code.",),
}
