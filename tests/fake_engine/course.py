"""The course of one start: how it ends with these arguments on this card, event by event, as vLLM meets them. Pure.

The CUDA context (and NCCL) is there before free memory is measured; requested = ceil(total * utilization) must be free
(V0 does not ask); the weights are loaded; a profile run leaves non-torch memory and shows an activation peak, the
higher on a cold compile cache; graphs are estimated; pool = requested - what free memory fell by - peak - estimate; one
request must fit into it; it is allocated; graphs are captured; the sampler is warmed up. Other processes come and go
between these events, and whatever then does not fit is the failure.

Source: vllm/v1/worker/gpu_worker.py (0.24 to 0.32), vllm/worker/worker.py (V0). Written apart from the package's own
memory model, which must not be read here: neither may repeat the other's mistakes.
"""

from __future__ import annotations

from . import terms
from .behaviours import PHASES
from .memory import MemoryModel, Verdict
from .record import Record
from .release import profiled_tokens, release
from .spread import jitter_gib, spread
from .terms import Load
from .timing import seconds

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

GIB = 1024**3
BLOCK = 16
FP8_CARD, QUANTIZING_CARD, BF16_CARD = (8, 9), (8, 0), (8, 0)

PHASE_OF = {
    "config_error": "config",
    "hardware_unsupported": "init",
    "free_memory_low": "init",
    "weights_oom": "load",
    "profile_oom": "profile",
    "profiling_race": "profile",
    "kv_none": "kv_cache",
    "kv_too_small": "kv_cache",
    "kv_alloc_oom": "kv_cache",
    "graph_oom": "graphs",
    "sampler_oom": "warmup",
    "ok": "serving",
}
"""At which phase a start ends that way."""


class Demand(Record):
    """The terms of one start on one rank in bytes; `block` is one block of the KV cache, `max_len` is asked for."""

    requested: int
    outside: int
    loading: int
    weights: int
    non_torch: int
    activation: int
    sampler: int
    estimate: int
    capture: int
    block: int
    max_len: int


def judge(
    model: MemoryModel, arguments: Mapping[str, object], version: str = "0.24.0", *, start: int = 0, cold: bool = False
) -> Verdict:
    """Say how start number `start` with these arguments (defaults filled in) ends."""
    return Course(model, arguments, version, start=start, cold=cold).verdict()


class Course:
    """One start's events; `numbers` are those that the texts need, filled in as far as it comes."""

    def __init__(
        self, model: MemoryModel, arguments: Mapping[str, object], version: str, *, start: int, cold: bool
    ) -> None:
        self.model = model
        self.arguments = arguments
        self.start = start
        self.max_len = int(_number(arguments, "max_model_len", 0))
        self.auto = self.max_len == -1
        self.max_len = self.max_len if self.max_len > 0 else model.dims.max_len
        self.load = self._load(version, cold=cold)
        self.need = self._demand()
        self.numbers = self._numbers()

    def verdict(self) -> Verdict:
        """Live through the events."""
        kind = self._refusal() or self._until_profiled()
        phase, dims = PHASE_OF[kind], self.model.dims
        size = dims.weight_bytes() // self.load.ranks  # read from the disk as they are stored
        spent = seconds(phase, weight_bytes=size, layers=dims.layers, eager=self.load.eager, cold=self.load.cold)
        compiled = PHASES.index(phase) > PHASES.index("profile") and not self.load.eager
        return Verdict(kind=kind, numbers=self.numbers, seconds=spent, held=self._held(phase), compiled=compiled)

    def _load(self, version: str, *, cold: bool) -> Load:
        known, arguments = release(version), self.arguments
        config = arguments.get("compilation_config")
        sizes = config.get("cudagraph_capture_sizes") if isinstance(config, dict) else None
        quantization = arguments.get("quantization")
        return Load(
            release=known,
            tokens=profiled_tokens(known, arguments, self.max_len),
            seqs=int(_number(arguments, "max_num_seqs", 256)),
            ranks=int(_number(arguments, "tensor_parallel_size", 1)),
            eager=bool(arguments.get("enforce_eager")),
            captured=len(sizes) if isinstance(sizes, list) else 0,
            cold=cold,
            quantization=str(quantization) if quantization in ("fp8", "bitsandbytes") else "",
        )

    def _demand(self) -> Demand:
        dims, load, capability = self.model.dims, self.load, self.model.capability[0]
        off = spread(self.model.seed, experts=dims.experts > 0, tied=dims.tied)
        estimate, capture = terms.graphs(dims, load, capability, off)
        cache = str(self.arguments.get("kv_cache_dtype", "auto"))
        share = _number(self.arguments, "gpu_memory_utilization", load.release.utilization)
        old_v1 = not load.release.is_v0 and not load.release.is_runner_v2
        return Demand(
            requested=int(-(-self.model.total_gib * GIB * share // 1)),
            outside=terms.context(capability, load.ranks, off),
            loading=terms.loading_peak(dims, load, off),
            weights=terms.weights(dims, load, off),
            non_torch=terms.non_torch(dims, load, capability, off) + int(jitter_gib(self.model.seed, self.start) * GIB),
            activation=terms.activation(dims, load, off),
            sampler=terms.sampler(dims, load) if old_v1 else 0,
            estimate=estimate,
            capture=capture,
            block=BLOCK * dims.token_bytes(load.ranks, cache),
            max_len=self.max_len,
        )

    def _numbers(self) -> dict[str, float]:
        need, load = self.need, self.load
        charged = need.estimate if load.release.is_runner_v2 else 0
        return {
            "total_gib": self.model.total_gib,
            "free_gib": max(0.0, (self._free("init") - need.outside) / GIB),
            "requested_gib": need.requested / GIB,
            "utilization": _number(self.arguments, "gpu_memory_utilization", load.release.utilization),
            "weights_gib": need.weights / GIB,
            "non_torch_gib": need.non_torch / GIB,
            "activation_gib": (need.activation + charged) / GIB,
            "graphs_gib": need.estimate / GIB,
            "graphs_actual_gib": need.capture / GIB,
            "available_kv_gib": 0.0,
            "needed_kv_gib": -(-need.max_len // BLOCK) * need.block / GIB,
            "estimated_max_len": 0,
            "kv_cache_tokens": 0,
            "max_seq_len": need.max_len,
            "max_model_len": need.max_len,
            "model_max_len": self.model.dims.max_len,
            "num_seqs": load.seqs,
        }

    def _free(self, phase: str) -> int:
        return self.model.free_bytes(self.start, phase)

    def _refusal(self) -> str:
        """Give the failure that no memory decides, "" if there is none."""
        card, given, load = tuple(self.model.capability), self.arguments, self.load
        if self.max_len > self.model.dims.max_len:
            return "config_error"
        batch = _number(given, "max_num_batched_tokens", 2048)
        if load.release.is_v0 and batch != 2048 and batch < load.tokens:
            return "config_error"  # without chunked prefill a batch must hold a whole context
        if not load.release.is_v0 and load.tokens < load.seqs:
            return "config_error"
        if load.release.is_v0 and card < BF16_CARD and given.get("dtype") not in ("half", "float16"):
            return "hardware_unsupported"
        if load.quantization == "fp8" and card < QUANTIZING_CARD:
            return "hardware_unsupported"
        small = str(given.get("kv_cache_dtype", "auto")).startswith("fp8")
        return "hardware_unsupported" if small and card < FP8_CARD else ""

    def _until_profiled(self) -> str:
        need, release = self.need, self.load.release
        at_first = self._free("init") - need.outside
        if release.refuses_low_memory and at_first < need.requested:
            return "free_memory_low"
        if need.loading > (left := self._free("load") - need.outside):
            return self._short(left % (108 * 2**20), 108, "weights_oom")
        after = self._free("profile") - need.outside - need.weights - need.non_torch
        if need.activation > after:
            return self._short(after / 2, need.activation / 2**21, "profile_oom")
        if after > at_first:
            self.numbers["grown_gib"] = after / GIB
            return "profiling_race"
        subtracted = need.estimate if release.subtracts_graphs else 0
        pool = need.requested - (at_first - after) - need.activation - subtracted
        return self._with_pool(int(_number(self.arguments, "kv_cache_memory_bytes", 0)) or pool)

    def _with_pool(self, pool: int) -> str:
        need, numbers = self.need, self.numbers
        tokens = max(0, pool // need.block) * BLOCK
        fitting = min(tokens, need.max_len)
        numbers |= {"available_kv_gib": pool / GIB, "kv_cache_tokens": tokens, "estimated_max_len": fitting}
        if pool <= 0 or (self.auto and tokens < BLOCK):
            return "kv_none"
        if self.auto:
            numbers["max_model_len"] = fitting
        elif -(-need.max_len // BLOCK) * BLOCK > tokens:
            return "kv_too_small"
        each = pool / 2**20 / self.model.dims.layers
        left = self._free("kv_cache") - need.outside - need.weights - need.non_torch - pool
        if left < 0:
            return self._short((left + pool) % (each * 2**20), each, "kv_alloc_oom")
        left += self._free("graphs") - self._free("kv_cache") - need.capture
        if left < 0:
            return self._short((left + need.capture) % (32 * 2**20), 32, "graph_oom")
        left += self._free("warmup") - self._free("graphs") - need.sampler
        return "sampler_oom" if left < 0 else "ok"

    def _short(self, left_bytes: float, tried_mib: float, kind: str) -> str:
        """Note an allocation that found less free than it asked for."""
        left_mib = max(0.0, left_bytes / 2**20)
        in_use = max(0.0, self.numbers["total_gib"] - left_mib / 1024)
        self.numbers |= {"tried_to_allocate_mib": tried_mib, "left_mib": left_mib, "in_use_gib": in_use}
        return kind

    def _held(self, phase: str) -> dict[str, int]:
        """Give what the engine holds from the beginning of each phase that it reaches."""
        need = self.need
        pool = int(self.numbers["available_kv_gib"] * GIB)
        taken = {"init": need.outside, "load": need.weights, "profile": need.non_torch, "kv_cache": pool}
        taken |= {"graphs": need.capture}
        held: dict[str, int] = {}
        now = 0
        for name in PHASES[2 : PHASES.index(phase) + 1]:
            now += taken.get(name, 0) if name != phase else 0
            held[name] = now
        return held


def _number(arguments: Mapping[str, object], name: str, default: float) -> float:
    value = arguments.get(name, default)
    return float(value) if isinstance(value, (int, float)) else float(default)
