"""The vocabulary of the memory model: the card, the model on it, neighbours that come and go, the verdict. Pure.

How a start ends is `course`'s, its terms are `terms`', the model's bytes `models`', deviations `spread`'s.
"""

from __future__ import annotations

from .behaviours import PHASES
from .models import ModelDims
from .record import Record, ScenarioError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

GIB = 1024**3
CACHES = ("warm", "cold", "folder")


class Move(Record):
    """A neighbour moves: when start number `start` enters `phase`, the neighbours hold `gib` on the first card."""

    start: int
    phase: str
    gib: float

    def check(self) -> None:
        if self.phase not in PHASES:
            raise ScenarioError(f"Move.phase: {self.phase!r} is not one of {', '.join(PHASES)}")


class MemoryModel(Record):
    """The card, the model, and what may differ from start to start.

    free_gib    free before the first start (NVML's view), None is total_gib less the neighbours'.
    neighbours  GiB that neighbours hold before the first start; `moves` change it.
    seed        draws this host's deviations from the formulae, 0 is none.
    cache       the compile cache: "warm", "cold" at every start, or "folder": kept beside the scenario's ledger.
    nvml        total, free, capability and name come from the file of FAKE_NVML, the cards that CUDA_VISIBLE_DEVICES
                leaves; what the engine holds and how neighbours move is written there.
    """

    total_gib: float = 24.0
    free_gib: float | None = None
    capability: tuple[int, ...] = (9, 0)
    name: str = "NVIDIA GeForce RTX 4090"
    dims: ModelDims = ModelDims()
    neighbours: float = 0.0
    moves: tuple[Move, ...] = ()
    seed: int = 0
    cache: str = "warm"
    nvml: bool = False

    def check(self) -> None:
        if self.cache not in CACHES:
            raise ScenarioError(f"MemoryModel.cache: {self.cache!r} is not one of {', '.join(CACHES)}")

    def neighbours_before(self, start: int) -> float:
        """Give the GiB that neighbours hold when that start begins."""
        return next((move.gib for move in reversed(self.moves) if move.start < start), self.neighbours)

    def neighbours_at(self, start: int, phase: str) -> float:
        """Give the GiB that they hold at a phase of a start."""
        reached = PHASES[: PHASES.index(phase) + 1]
        now = [move.gib for move in self.moves if move.start == start and move.phase in reached]
        return now[-1] if now else self.neighbours_before(start)

    def settled(self) -> MemoryModel:
        """Give the model once neighbours have stopped to move."""
        last = self.neighbours_before(1 + max((move.start for move in self.moves), default=0))
        return MemoryModel(**{**vars(self), "neighbours": last, "moves": ()})

    def free_bytes(self, start: int, phase: str) -> int:
        """Give what all processes but the engine leave free at a phase of a start."""
        first = self.total_gib - self.neighbours if self.free_gib is None else self.free_gib
        return int((first + self.neighbours - self.neighbours_at(start, phase)) * GIB)


class Verdict(Record):
    """What the model says: the kind ("ok" when it fits), the texts' numbers, the simulated seconds to that end,
    what the engine holds on each card at each phase it reaches, whether it compiled."""

    kind: str
    numbers: Mapping[str, float]
    seconds: float = 0.0
    held: Mapping[str, int] = {}
    compiled: bool = False
