"""What the engine fills in for settings that nobody gave, by its release and its card.

Pure. Owns vLLM's defaults (EngineArgs.get_batch_defaults, the compilation config's capture sizes) and the eras of
its memory behaviour. Must not compute memory: that is `terms`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from autolaunch.facts import GIB, Device, DeviceKind, Engine, Situation
from autolaunch.settings import AUTO, Settings

LARGE_CARD_BYTES = 70 * GIB
"""From here on a card that is no A100 gets 1024 sequences and 8192 batched tokens at once, else 256 and 2048."""

HUGE_CARD_BYTES = 160 * GIB
"""From here on releases since 0.28 batch 16384 tokens."""

LARGEST_GRAPH = 512
"""The largest batch with a CUDA graph by default; twice that on compute capability 10 and for gpt-oss."""


class Era(IntEnum):
    """Releases that treat memory alike, by the minor number of the first (0.x)."""

    V0 = 0
    SORTED = 8  # the V1 engine; sampling sorts the whole vocabulary
    UNSORTED = 17  # sampling no longer sorts
    WORKSPACES = 18  # more is held outside PyTorch's allocator
    TRIED = 19  # the profile run tries the CUDA graphs and prints an estimate of them
    GRAPHS_CHARGED = 21  # an estimate of the CUDA graphs is subtracted from the cache
    V2_RUNNER = 29  # the second model runner: sampling in place, states of all sequences up front

    @classmethod
    def of(cls, engine: Engine) -> Era:
        """Return the era of a release; an unknown one counts as the newest."""
        release = engine.release
        if release is None or release >= (1, 0):
            return cls.V2_RUNNER
        return max(era for era in cls if era.value <= release[1])


@dataclass(frozen=True, slots=True)
class Resolved:
    """The settings that one rank of the engine runs with, nothing left open but an unknown context.

    `capture_sizes` are the batch sizes of the CUDA graphs, `full_graphs` how many of them are captured a second
    time as a whole; both empty where the engine is eager. `cache_bytes` per value of the KV cache.
    """

    era: Era
    certain: bool
    utilization: float
    max_model_len: int | None
    max_num_seqs: int
    max_num_batched_tokens: int
    capture_sizes: tuple[int, ...]
    full_graphs: int
    ranks: int
    cache_bytes: int
    eager: bool
    on_host: bool

    @property
    def checks_free(self) -> bool:
        """Whether the engine refuses to start where less than its share is free; V0 takes it without asking."""
        return self.era is not Era.V0

    @property
    def tokens_in_flight(self) -> int:
        """Tokens that are under way at once: with asynchronous scheduling (0.29 on) those of two batches."""
        return self.max_num_batched_tokens * (2 if self.era >= Era.V2_RUNNER else 1)

    @property
    def estimates_graphs(self) -> bool:
        """Whether the profile run tries the CUDA graphs (0.19 on, charged from 0.21 on)."""
        return self.era >= Era.TRIED


def resolve(settings: Settings, situation: Situation) -> Resolved:
    """Fill in what the settings leave to the engine."""
    engine, device, model = situation.engine, situation.device, situation.model
    length = settings.max_model_len
    if length is None or length == AUTO:
        length = model.max_model_len
    ranks = settings.tensor_parallel_size or 1
    tokens = settings.max_num_batched_tokens or usual_batched_tokens(device, engine, length=length)
    seqs = settings.max_num_seqs or min(usual_seqs(device, engine), tokens)
    eager, on_host = bool(settings.enforce_eager), device.kind is DeviceKind.CPU
    sizes = () if eager or on_host else _captured(settings, situation, seqs=seqs, tokens=tokens)
    return Resolved(
        era=Era.of(engine),
        certain=engine.release is not None,
        utilization=settings.gpu_memory_utilization or engine.default_utilization,
        max_model_len=length,
        max_num_seqs=seqs,
        max_num_batched_tokens=tokens,
        capture_sizes=sizes,
        full_graphs=sum(size <= seqs for size in sizes) if _captures_whole(engine) else 0,
        ranks=ranks,
        cache_bytes=cache_value_bytes(settings.kv_cache_dtype, model.shape.dtype_bytes if model.shape else 2),
        eager=eager,
        on_host=on_host,
    )


def _is_large(device: Device) -> bool:
    return (device.total_bytes or 0) >= LARGE_CARD_BYTES and "a100" not in device.name.lower()


def usual_seqs(device: Device, engine: Engine) -> int:
    """Return how many sequences the API server runs at once unless told otherwise; an unknown card counts as small."""
    if device.kind is DeviceKind.CPU:
        return 128
    return 1024 if _is_large(device) and Era.of(engine) >= Era.SORTED else 256


def usual_batched_tokens(device: Device, engine: Engine, *, length: int | None) -> int:
    """Return how many tokens the API server batches unless told otherwise.

    V0 prefills whole prompts up to 32768 tokens of context, so it must hold the longest.
    """
    if Era.of(engine) is Era.V0:
        return max(length, 2048) if length is not None and length <= 32768 else 2048
    if device.kind is DeviceKind.CPU or not _is_large(device):
        return 2048
    huge = (device.total_bytes or 0) >= HUGE_CARD_BYTES and (engine.release or (0, 28)) >= (0, 28)
    return 16384 if huge else 8192


def cache_value_bytes(dtype: str | None, own: int) -> int:
    """Return the bytes of one number in the KV cache; `own` are those of the model's activations."""
    if dtype is None or dtype == "auto":
        return own
    return {"float32": 4, "float": 4, "bfloat16": 2, "float16": 2, "half": 2}.get(dtype, 1)


def _captures_whole(engine: Engine) -> bool:
    """Whether decode batches get a graph of the whole model beside the piecewise ones (default since 0.11)."""
    return engine.release is None or engine.release >= (0, 11)


def _captured(settings: Settings, situation: Situation, *, seqs: int, tokens: int) -> tuple[int, ...]:
    if settings.cudagraph_capture_sizes is not None:
        return settings.cudagraph_capture_sizes
    release = situation.engine.release or (0, 99)
    if release < (0, 8):
        return tuple(size for size in (1, 2, 4, *range(8, 257, 8)) if size <= -(-seqs // 8) * 8)
    if release < (0, 12):
        return tuple(size for size in (1, 2, 4, *range(8, 513, 8)) if size <= tokens)
    most = min(2 * seqs, _largest(situation), tokens)
    return tuple(size for size in (1, 2, 4, *range(8, 256, 8), *range(256, most + 1, 16)) if size <= most)


def _largest(situation: Situation) -> int:
    shape, capability = situation.model.shape, situation.device.compute_capability
    wider = (capability or (0, 0))[0] == 10 or (shape is not None and "GptOss" in shape.architecture)
    return LARGEST_GRAPH * (2 if wider else 1)
