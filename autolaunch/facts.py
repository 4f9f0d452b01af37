"""What the host and the engine are, as values that the pure core decides on.

Owns the types only; `hardware` and `installation` measure them. Every field that could not be measured is
None, and nothing here turns an unknown into a guess.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import Enum

from autolaunch.shape import Shape

GIB = 1 << 30


class DeviceKind(str, Enum):
    """Which memory the engine's budget is a share of."""

    CUDA = "cuda"
    CPU = "cpu"
    UNKNOWN = "unknown"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that holds memory of a card; `user` is "" where that cannot be learnt (another container's)."""

    pid: int
    name: str
    used_bytes: int | None
    user: str = ""


class Basis(str, Enum):
    """How a figure is known: read from the model or the card, printed by an engine here, or worked out."""

    EXACT = "exact"
    MEASURED = "measured"
    ESTIMATED = "estimated"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True, slots=True)
class Device:
    """The memory one engine rank gets: a card as CUDA counts it, or the host for a CPU engine.

    With several cards the figures are those of the fullest one, since every rank gets the same share. `index` is
    the card's place on the PCI bus as NVML counts (a slice's: its card's). `unified` says that host and card share
    an address space: the card has no memory of its own (DGX Spark, Jetson), or is coherent with the host's (GH200,
    GB200); an overcommit can hang the host there. `basis` says how the total is known: a card that is not here is
    as others of its kind reported it, or worked out.
    """

    kind: DeviceKind = DeviceKind.UNKNOWN
    name: str = ""
    total_bytes: int | None = None
    free_bytes: int | None = None
    compute_capability: tuple[int, int] | None = None
    holders: tuple[Holder, ...] = ()
    index: int | None = None
    uuid: str = ""
    unified: bool = False
    basis: Basis = Basis.EXACT

    @property
    def free_share(self) -> float | None:
        """Free memory as a share of the total."""
        if not self.total_bytes or self.free_bytes is None:
            return None
        return self.free_bytes / self.total_bytes


@dataclass(frozen=True, slots=True)
class Engine:
    """What is known of the vLLM that will be started, without importing it.

    `version` as the package's metadata or the log's banner says ("0.24.0"), None if it could not be learnt.
    `has_modelscope` says whether it can download from there, `has_ray` whether it can spread its workers so; nothing
    that is measured depends on them, and None is for what could not be learnt.
    """

    version: str | None = None
    device: DeviceKind = DeviceKind.UNKNOWN
    has_bitsandbytes: bool = False
    has_modelscope: bool | None = field(default=None, compare=False)
    has_ray: bool | None = field(default=None, compare=False)

    @property
    def release(self) -> tuple[int, int] | None:
        """Major and minor number of the version."""
        found = re.match(r"v?(\d+)\.(\d+)", self.version or "")
        return (int(found[1]), int(found[2])) if found else None

    @property
    def is_v0(self) -> bool:
        """Whether this release runs the V0 engine unless told otherwise (V1 became the default in 0.8)."""
        return self.release is not None and self.release < (0, 8)

    @property
    def fits_context_itself(self) -> bool:
        """Whether `--max-model-len auto` is known (vllm-project/vllm#29431, in every release since 0.14)."""
        return self.release is not None and self.release >= (0, 14)

    @property
    def default_utilization(self) -> float:
        """The engine's own default share: 0.92 in recent releases, 0.9 before (and where unknown)."""
        return 0.92 if self.release is not None and self.release >= (0, 19) else 0.9


@dataclass(frozen=True, slots=True)
class Weights:
    """The bytes of one copy of a model's weights, over all ranks.

    `loaded_bytes` is what the engine keeps (a tied head once, no MTP layers); of it `linear_bytes` are 16-bit
    weights of linear layers, which `--quantization` can store in fewer bits, `expert_bytes` those among them that
    belong to experts. `source` says where the figures are from ("safetensors headers", "catalogue", ...).
    """

    loaded_bytes: int
    linear_bytes: int = 0
    expert_bytes: int = 0
    basis: Basis = Basis.EXACT
    source: str = ""


@dataclass(frozen=True, slots=True)
class Variant:
    """A pre-quantized sibling: another hub id with the same answers in fewer bits.

    `capability` is the least compute capability that runs it, `weights` None where nobody published its size. Only an
    `official` one, by the model's own publisher, is ever started unasked; others are named to the user.
    """

    model: str
    quantization: str
    weights: Weights | None = None
    capability: tuple[int, int] = (7, 5)
    official: bool = True


@dataclass(frozen=True, slots=True)
class Model:
    """What is known of the wished model before it is loaded.

    `max_model_len` in tokens as its configuration says, `quantization` the method its weights already have,
    `variants` pre-quantized siblings that the catalogue names. `name` is the alias or hub id, `revision` its commit in
    the local cache where it is there, of a folder a digest of its files; `shape` and `weights` are None where nothing
    says them, and `notes` says what could not be read and why. `model_type` is the configuration's ("glm4"), `dtype`
    how its checkpoint is stored ("bfloat16"); "" where nothing says it.
    """

    max_model_len: int | None = None
    quantization: str | None = None
    variants: tuple[Variant, ...] = ()
    name: str = ""
    revision: str = ""
    shape: Shape | None = None
    weights: Weights | None = None
    notes: tuple[str, ...] = ()
    model_type: str = ""
    dtype: str = ""


@dataclass(frozen=True, slots=True)
class Situation:
    """Everything outside the settings that a decision may rest on, as measured just now."""

    device: Device = Device()
    engine: Engine = Engine()
    model: Model = Model()
