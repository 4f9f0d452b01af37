"""A short soak: engine after engine under one supervisor, and nothing grows. `scripts/bench soak` is the long one."""

from __future__ import annotations

import itertools

import pytest

from scripts.bench_soak import BETWEEN, HELD, HELD_EVERY, ladder, outcomes, soak
from tests.fake_engine.behaviours import DieAfterReady
from tests.fake_engine.scenario import Outcome

pytestmark = pytest.mark.process

LIVES = 20
SETTLING_MIB = 3.0
"""What the first lives of a process may add: modules, caches and arenas come with their first use."""


def test_nothing_grows_with_the_lives_of_an_engine() -> None:
    found = {one.name: one for one in soak(LIVES)}
    readings = LIVES // HELD_EVERY + 1
    assert {len(one.values) for one in found.values()} == {readings}
    steady = {"descriptors", "threads", "children", "zombies"}
    for name in (f"supervisor: {what}" for what in steady):
        assert len(set(found[name].values)) == 1, found[name]
    assert found["supervisor: children"].values[0] == 1, "the warden"
    assert found["supervisor: zombies"].values[0] == 0
    assert len(set(found["warden: descriptors"].values)) == 1
    assert len(set(found["files in TMPDIR"].values)) == 1
    resident = found["supervisor: resident"].values
    assert resident[-1] - resident[1] < SETTLING_MIB, resident
    assert found["state folder: files"].values[-1] <= LIVES + 4


def test_every_way_to_die_has_its_turn_and_the_last_life_is_stopped_in_order() -> None:
    lives = outcomes(1000)
    assert (len(lives), lives[-1]) == (1001, HELD)
    held, between = lives[::HELD_EVERY], [one for number, one in enumerate(lives[:-1]) if number % HELD_EVERY]
    assert set(map(id, held)) == {id(HELD)}
    assert between == list(itertools.islice(itertools.cycle(BETWEEN), 750))


def test_the_ladder_has_a_step_for_every_life_that_takes_one() -> None:
    from autolaunch.strategy import parse_strategy

    steps = sum(one.kind != "ok" or takes_step(one) for one in outcomes(1000))
    (rung,) = parse_strategy("soak", ladder(1000)).rungs
    assert steps == 188
    assert len(rung.values) > steps


def takes_step(outcome: Outcome) -> bool:
    death = outcome.find(DieAfterReady)
    return death is not None and death.kind == "runtime_oom"
