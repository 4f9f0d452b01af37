"""A grandchild keeps memory, the host's and the card's, after its parent died: it is ended before the next start."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import pytest

from tests import fake_nvml
from tests.fake_engine import behaviours as b
from tests.fake_engine import leftovers
from tests.fake_engine.card import alive
from tests.fake_engine.memory import MemoryModel
from tests.fake_engine.models import GLM_4_9B
from tests.fake_engine.scenario import Outcome, Scenario
from tests.process.stage import GIB, ROOT, Stage, state_of, until

pytestmark = pytest.mark.process

KEPT_GIB, KEPT_MIB = 16.0, 64
KEEPER = b.HoldMemory(gib=KEPT_GIB, mib=KEPT_MIB)


@pytest.fixture
def card(stage: Stage) -> Path:
    """A card of 24 GiB that counts what every process holds; its name is no other test's."""
    file = stage.folder / "nvml.json"
    uuid = f"GPU-{zlib.crc32(bytes(stage.folder)):08x}-0000-0000-0001-000000000000"
    fake_nvml.write(file, {"name": "NVIDIA GeForce RTX 4090", "total": 24 * GIB, "uuid": uuid})
    stage.environment |= {"FAKE_NVML": str(file), "PYTHONPATH": f"{fake_nvml.FOLDER}:{ROOT}"}
    return file


def held_gib(card: Path) -> float:
    """Return what processes that live hold of the card."""
    (only,) = json.loads(card.read_text())["cards"]
    return float(sum(entry["bytes"] for entry in only.get("processes", []) if alive(entry)) / GIB)


def keeper(stage: Stage) -> int:
    """Return the grandchild, once it has its memory."""
    known = stage.grown({"hold_memory"})
    (pid,) = (pid for pid, role in known.items() if role == "hold_memory")
    until(lambda: state_of(pid, "VmRSS") > KEPT_MIB << 10, "its memory")
    return pid


def play(stage: Stage, first: Outcome) -> None:
    """That engine, and then one that comes up only if the card is as empty as before the first."""
    memory = MemoryModel(dims=GLM_4_9B, nvml=True)
    stage.play(Scenario(starts=(first, Outcome(kind="auto")), memory=memory))


def judged(stage: Stage) -> list[dict[str, Any]]:
    """Return what each start found on the card."""
    return leftovers.events(stage.folder, "judged")


@pytest.mark.parametrize("then", ["exit", "hang"])
def test_after_a_failed_start_the_next_has_the_whole_card(stage: Stage, card: Path, then: str) -> None:
    play(stage, Outcome(kind="kv_too_small", then=then, behaviours=(b.Worker(), KEEPER)))
    ended = stage.run("--check")
    assert ended.code == 0, ended.err
    first, second = judged(stage)
    assert first["numbers"]["free_gib"] == second["numbers"]["free_gib"]
    assert len(stage.lines("attempt")) == 2
    assert stage.left() == []
    assert held_gib(card) == 0.0


def test_after_a_crash_in_service_the_next_has_the_whole_card(stage: Stage, card: Path) -> None:
    play(stage, Outcome(kind="ok", behaviours=(b.Worker(), KEEPER)))
    process = stage.launch()
    stage.line("ready")
    pid = keeper(stage)
    assert held_gib(card) >= KEPT_GIB
    stage.crash()
    stage.line("ready", 1)
    assert pid not in leftovers.alive(stage.folder)
    first, second = judged(stage)
    assert first["numbers"]["free_gib"] == second["numbers"]["free_gib"]
    before, after = stage.lines("attempt")
    assert before["argv"] == after["argv"]
    stage.stop(process)
    assert held_gib(card) == 0.0


def test_a_supervisor_that_is_killed_leaves_the_card_empty(stage: Stage, card: Path) -> None:
    play(stage, Outcome(kind="ok", behaviours=(b.Worker(), KEEPER)))
    process = stage.launch()
    stage.line("ready")
    keeper(stage)
    process.kill()
    stage.nothing_left()
    assert held_gib(card) == 0.0
    assert stage.run("--check").code == 0
