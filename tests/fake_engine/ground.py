"""What one start stands on: its card, the memory model's verdict on it, the compile cache, what it holds and when.

Reads and writes through `card` and `ledger`; decides nothing, that is `memory`'s. Without a memory model in the
scenario there is no verdict and nothing is written.
"""

from __future__ import annotations

import os

from .behaviours import PHASES
from .card import VARIABLE, Cards
from .course import judge
from .record import ScenarioError
from .release import batch_defaults, release

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .arguments import Arguments
    from .ledger import Ledger
    from .memory import MemoryModel, Verdict
    from .scenario import Scenario

GIB = 1024**3


class Ground:
    """The ground of one start; `arguments` have the defaults of its card."""

    def __init__(self, scenario: Scenario, arguments: Arguments, ledger: Ledger) -> None:
        self.arguments = arguments
        self.ledger = ledger
        self.model = scenario.memory
        self.cards: Cards | None = None
        self.verdict: Verdict | None = None
        if self.model is None:
            return
        if self.model.nvml:
            self.cards = _cards(arguments.number("tensor_parallel_size", 1))
            self.model = self.cards.facts(self.model)
        known = release(scenario.version)
        self.arguments = arguments.on(*batch_defaults(known, self.model.total_gib, self.model.name))
        given = self.arguments.with_defaults()
        self.shape = _shape(self.model, given, scenario.version)
        cold = {"warm": False, "cold": True}.get(self.model.cache, not ledger.has_compiled(self.shape))
        self.verdict = judge(self.model, given, scenario.version, start=ledger.n, cold=cold)
        ledger.event("judged", **self.told())

    def neighbours(self, phase: str) -> None:
        """Let the neighbours move as the scenario says for this phase."""
        if self.cards is None or self.model is None:
            return
        if any(move.start == self.ledger.n and move.phase == phase for move in self.model.moves):
            self.cards.neighbours(int(self.model.neighbours_at(self.ledger.n, phase) * GIB))

    def hold(self, pid: int, phase: str) -> None:
        """Note what the engine has taken by a phase; a compile that this phase presupposes is in the cache."""
        if self.verdict is None:
            return
        if self.cards is not None and phase in self.verdict.held:
            self.cards.hold(pid, self.verdict.held[phase])
        if self.verdict.compiled and phase in PHASES[PHASES.index("kv_cache") :]:
            self.ledger.compiled(self.shape)

    def keep(self, pid: int, gib: float) -> None:
        """Note what a process keeps of the card for as long as it lives."""
        if self.cards is not None and gib:
            self.cards.hold(pid, int(gib * GIB))

    def told(self) -> dict[str, object]:
        """Give what the ledger's lines say of the verdict."""
        if self.verdict is None:
            return {}
        return {"kind": self.verdict.kind, "seconds": self.verdict.seconds, "numbers": dict(self.verdict.numbers)}


def _cards(ranks: int) -> Cards:
    path = os.environ.get(VARIABLE)
    if path is None:
        raise ScenarioError(f"MemoryModel.nvml: there is no {VARIABLE}")
    cards = Cards(path, os.environ.get("CUDA_VISIBLE_DEVICES"), ranks)
    if len(cards.chosen) < ranks:
        raise ScenarioError(f"{path}: {ranks} cards are asked for, {len(cards.chosen)} can be seen")
    return cards


def _shape(model: MemoryModel, given: dict[str, object], version: str) -> str:
    """Give what torch.compile's cache tells apart."""
    names = ("max_num_batched_tokens", "tensor_parallel_size", "quantization", "kv_cache_dtype", "dtype")
    return f"{version} {model.dims.name} " + " ".join(f"{name}={given.get(name)}" for name in names)
