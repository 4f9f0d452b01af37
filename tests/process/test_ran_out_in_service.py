"""A service that runs out of memory and has nothing safer goes on serving, until its restarts are spent."""

from __future__ import annotations

import pytest

from tests.fake_engine import behaviours as b
from tests.process.stage import Stage, drive, ok

pytestmark = pytest.mark.process

PINNED = (
    *("--gpu-memory-utilization", "0.8", "--max-model-len", "8192", "--max-num-batched-tokens", "2048"),
    *("--max-num-seqs", "8", "--enforce-eager"),
)
RAN_OUT = b.DieAfterReady(seconds=0.5, kind="runtime_oom", recorded=True)


def test_a_service_whose_settings_are_all_pinned_serves_again_after_it_ran_out_of_memory(stage: Stage) -> None:
    """It once ended with exit code 3, nothing fits, which no service manager starts again."""
    stage.play(ok(RAN_OUT), ok())
    process = stage.launch(*PINNED, module=drive(stage, free_gib=20, restart_wait_s=0.05))
    stage.line("ready", 1)
    stage.stop(process)
    story = ["plan", "attempt", "ready", "crashed", "step", "restarting", "attempt", "ready", "stopped"]
    assert stage.events == story
    assert stage.line("step")["rung"] == "again"
    assert "allow --gpu-memory-utilization 0.75 instead of your 0.8" in stage.line("step")["closest"]
    first, second = stage.lines("attempt")
    assert first["settings"] == second["settings"]
    assert stage.err.count("hint: allow --gpu-memory-utilization 0.75 instead of your 0.8") == 1


def test_the_restarts_are_bounded_and_the_next_planned_start_serves_again(stage: Stage) -> None:
    stage.play(ok(RAN_OUT), ok(RAN_OUT), ok())
    module = drive(stage, free_gib=20, restart_wait_s=0.05)
    spent = stage.run("--max-restarts", "1", *PINNED, module=module)
    assert (spent.code, spent.err.count("died in service: runtime_oom")) == (6, 2)
    again = stage.launch("--max-restarts", "1", *PINNED, module=module)
    stage.line("ready", 2)
    stage.stop(again)
    assert stage.lines("plan")[-1]["why"] == [
        "nothing else fits: these settings ran out of memory in service, and serve until then"
    ]
