"""An engine that runs out of memory while it compiles is not cured by a smaller budget."""

from __future__ import annotations

from dataclasses import replace

from autolaunch.case import Bounds, Case, Limits
from autolaunch.facts import Situation
from autolaunch.failure import Failure, Kind
from autolaunch.figures import Effective
from autolaunch.rungs import RUNGS
from autolaunch.settings import Settings
from autolaunch.strategy import Rung


def test_compiling_that_ran_out_of_memory_goes_straight_to_eager() -> None:
    """GLM-4-9B on 20 GiB: Inductor's autotuning wanted 1.16 GiB beside the weights, before any cache was sized."""
    said = Effective(weights_gib=17.56, max_model_len=131072)
    failure = Failure(Kind.GRAPH_OOM, numbers={"tried_to_allocate_mib": 1187.84, "free_gib": 0.944, "total_gib": 79.18})
    before = Case(failure, Settings(), said, Situation(), Limits(), Bounds(), frozenset())
    after = replace(before, effective=replace(said, available_kv_gib=0.4, kv_cache_tokens=10000))
    answers = frozenset({Kind.GRAPH_OOM})
    for name in ("utilization", "batch"):
        assert list(RUNGS[name](Rung(name, answers), before)) == []
        assert list(RUNGS[name](Rung(name, answers), after)) != []
    assert [p.values for p in RUNGS["eager"](Rung("eager", answers), before)] == [{"enforce_eager": True}]
