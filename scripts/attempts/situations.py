"""The situations of `scripts/bench attempts`: card, model, release, neighbours, pins. Pure.

A situation follows from the sample's seed and its number alone, so that any one of them can be replayed. Cards are real
ones with the totals that CUDA reports for them (vLLM's, PyTorch's and llama.cpp's public logs); models are real ones
by their dimensions. Left out: cards below compute capability 8.0, since old releases refuse bfloat16 on them.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from tests.fake_engine.behaviours import PHASES
from tests.fake_engine.memory import MemoryModel, Move
from tests.fake_engine.models import MODELS, ModelDims

GIB = 1 << 30
MIB = 1 << 20
RESERVED_BYTES = 503_316_480
"""What NVML counts beyond CUDA's total, as on an H100."""

VERSIONS = ("0.6.6", "0.10.2", "0.13.0", "0.17.1", "0.19.0", "0.24.0", "0.30.0")
NEIGHBOURS = ("none",) * 5 + ("static",) * 2 + ("leaving", "arriving", "growing")
PINS = ("none",) * 4 + ("max_model_len", "utilization", "max_num_seqs", "min_context", "min_context", "tensor_parallel")
LEAST_VERSION = {"Qwen3ForCausalLM": 8, "Qwen3MoeForCausalLM": 8}
"""The first release (0.X) of the sample that knows an architecture; others are in all of them."""

BLACKWELL, BEFORE_BLACKWELL = (10, 0), ("0.6.6",)
MOST_OF_A_CARD = 1.05
"""Weights in as few bits as can be, up to this share of the cards: above, nothing can fit."""

TIGHT = (0.3, 1.1)
"""Weights as stored by this share of the cards make the situations worth asking about: half of the sample."""


@dataclass(frozen=True)
class Card:
    """A card by its name, with the bytes that CUDA counts and its compute capability."""

    name: str
    total_bytes: int
    capability: tuple[int, int]


CARDS = (
    Card("NVIDIA GeForce RTX 3070", 7819 * MIB, (8, 6)),
    Card("NVIDIA GeForce RTX 4060", 7807 * MIB, (8, 9)),
    Card("NVIDIA GeForce RTX 3060", 11906 * MIB, (8, 6)),
    Card("NVIDIA GeForce RTX 4070", 11770 * MIB, (8, 9)),
    Card("NVIDIA GeForce RTX 4080 SUPER", 15937 * MIB, (8, 9)),
    Card("NVIDIA GeForce RTX 5080", 15840 * MIB, (12, 0)),
    Card("NVIDIA GeForce RTX 3090", 24123 * MIB, (8, 6)),
    Card("NVIDIA GeForce RTX 4090", 25_250_627_584, (8, 9)),
    Card("NVIDIA L4", 23_659_151_360, (8, 9)),
    Card("NVIDIA A10", int(22.07 * GIB), (8, 6)),
    Card("NVIDIA GeForce RTX 5090", int(31.4 * GIB), (12, 0)),
    Card("NVIDIA A100-SXM4-40GB", int(39.39 * GIB), (8, 0)),
    Card("NVIDIA L40S", int(44.39 * GIB), (8, 9)),
    Card("NVIDIA RTX A6000", 50_899_648_512, (8, 6)),
    Card("NVIDIA A100 80GB PCIe", 85_093_777_408, (8, 0)),
    Card("NVIDIA H100 80GB HBM3", 85_017_493_504, (9, 0)),
    Card("NVIDIA RTX PRO 6000 Blackwell Workstation Edition", int(94.97 * GIB), (12, 0)),
    Card("NVIDIA H200", int(139.8 * GIB), (9, 0)),
)


@dataclass(frozen=True)
class Situation:
    """One situation; `options` are the user's for the engine, `min_context` is autolaunch's own option."""

    number: int
    card: Card
    dims: ModelDims
    version: str
    neighbour: str
    memory: MemoryModel
    pin: str = "none"
    options: tuple[str, ...] = ()
    min_context: int | None = None
    ranks: int = 1

    @property
    def minor(self) -> int:
        """The release's second number."""
        return int(self.version.split(".")[1])

    @property
    def text(self) -> str:
        """One line that says what it is."""
        moves = ", ".join(
            f"{move.gib:.1f} GiB from start {move.start + 1}'s {move.phase}" for move in self.memory.moves
        )
        others = "" if self.neighbour == "none" else f", neighbour {self.neighbour}: {self.memory.neighbours:.1f} GiB"
        pins = " ".join((*self.options, *(["--min-context", str(self.min_context)] if self.min_context else [])))
        return (
            f"{self.dims.name} on {f'{self.ranks} x ' if self.ranks > 1 else ''}{self.card.name} "
            f"({self.card.total_bytes / GIB:.2f} GiB), vLLM {self.version}{others}{', then ' if moves else ''}{moves}"
            f"{', ' if pins else ''}{pins}"
        )


def sample(count: int, seed: int) -> Iterator[Situation]:
    """Give the first `count` situations of a seed."""
    for number in range(1, count + 1):
        yield situation(number, seed)


def situation(number: int, seed: int) -> Situation:
    """Give one situation: the cards and the releases in turn, the rest drawn."""
    draw = random.Random(f"{seed}/{number}")  # noqa: S311 - a sample, no secret
    card = CARDS[(number * 7 + seed) % len(CARDS)]
    pin, neighbour = draw.choice(PINS), draw.choice(NEIGHBOURS)
    ranks = 2 if pin == "tensor_parallel" else 1
    version = draw.choice([v for v in VERSIONS if card.capability < BLACKWELL or v not in BEFORE_BLACKWELL])
    every = _models(card, version, ranks)
    tight = [dims for dims in every if TIGHT[0] <= dims.weight_bytes() / card.total_bytes / ranks <= TIGHT[1]]
    dims = draw.choice(tight if tight and draw.random() < 0.5 else every)
    options, min_context = _pinned(pin, dims, draw)
    first, moves = _neighbours(neighbour, card.total_bytes / GIB, draw)
    memory = MemoryModel(
        total_gib=card.total_bytes / GIB,
        capability=card.capability,
        name=card.name,
        dims=dims,
        neighbours=first,
        moves=moves,
        seed=draw.randrange(1, 1 << 20),
        cache="folder",
        nvml=True,
    )
    return Situation(number, card, dims, version, neighbour, memory, pin, options, min_context, ranks)


def _models(card: Card, version: str, ranks: int) -> list[ModelDims]:
    minor = int(version.split(".")[1])
    known = [dims for dims in MODELS if LEAST_VERSION.get(dims.architecture, 0) <= minor and dims.heads % ranks == 0]
    room = card.total_bytes * ranks
    return [dims for dims in known if dims.weight_bytes("fp8") <= MOST_OF_A_CARD * room] or known[:1]


def _pinned(pin: str, dims: ModelDims, draw: random.Random) -> tuple[tuple[str, ...], int | None]:
    lengths = [length for length in (4096, 8192, 16384, 32768) if length <= dims.max_len]
    if pin == "max_model_len":
        return ("--max-model-len", str(draw.choice(lengths))), None
    if pin == "utilization":
        return ("--gpu-memory-utilization", f"{draw.uniform(0.5, 0.95):.2f}"), None
    if pin == "max_num_seqs":
        return ("--max-num-seqs", str(draw.choice((1, 16, 64, 256)))), None
    if pin == "min_context":
        return (), draw.choice(lengths[1:])
    return (("-tp", "2") if pin == "tensor_parallel" else ()), None


def _neighbours(kind: str, total_gib: float, draw: random.Random) -> tuple[float, tuple[Move, ...]]:
    """Give what neighbours hold at first, and how that changes; they come and go during the first start."""
    little, much = (round(total_gib * draw.uniform(*share), 2) for share in ((0.02, 0.1), (0.08, 0.35)))
    early = PHASES[: PHASES.index("kv_cache") + 1]
    if kind == "static":
        return much, ()
    if kind == "leaving":
        return much, (Move(start=0, phase=draw.choice(early), gib=0.0),)
    if kind == "arriving":
        return 0.0, (Move(start=draw.choice((0, 0, 1)), phase="import", gib=much),)
    if kind == "growing":
        phase = draw.choice(("load", "profile", "kv_cache", "graphs", "warmup"))
        return little, (Move(start=0, phase=phase, gib=round(little + much / 3, 2)),)
    return 0.0, ()
