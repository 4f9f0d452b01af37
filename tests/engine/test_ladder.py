"""Real failures of a real vLLM, each cured by the ladder."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from pathlib import Path

from autolaunch.facts import Device
from autolaunch.installation import MODULE

from .conftest import START_S, Launch, share_of

MENDED = ("utilization", "plan")
"""What answers a share that is wrong: the rung, or another plan where the host's free memory moved during the start."""


def checked(launch: Launch) -> None:
    """Wait for a --check run: it must end with 0, leave nothing and print a command line that can be run."""
    assert launch.wait_exit(within_s=3 * START_S) == 0, launch.talk()
    launch.assert_nothing_left()
    printed = shlex.split((launch.folder / "stdout.txt").read_text(encoding="utf-8"))
    assert printed[1:3] == ["-m", "vllm.entrypoints.openai.api_server"]


def test_a_share_above_what_is_free_is_lowered_to_what_is_free(
    launch: Callable[..., Launch], strategy_from: Callable[[float], str]
) -> None:
    run = launch("--strategy", strategy_from(0.999), "--check")
    checked(run)
    assert [*run.story()[:1], *run.story()[2:]] == ["free_memory_low", "ready"]
    failed, step = run.events("failed")[0], run.events("step")[0]
    assert step["rung"] in MENDED
    numbers = failed["failure"]["numbers"]
    to = step["to"]["gpu_memory_utilization"]
    assert to < 0.999
    assert step["rung"] == "plan" or numbers["free_gib"] / numbers["total_gib"] - 0.1 < to


def test_a_pinned_context_that_does_not_fit_gets_the_memory_it_needs(
    launch: Callable[..., Launch], strategy_from: Callable[[float], str], host: Device
) -> None:
    run = launch("--strategy", strategy_from(share_of(host, 1.9)), "--max-model-len", "131072", "--check")
    checked(run)
    assert [*run.story()[:1], *run.story()[2:]] == ["kv_too_small", "ready"]
    assert run.story()[1] in MENDED
    assert run.events("failed")[0]["failure"]["numbers"]["needed_kv_gib"] == 2.0
    assert run.events("ready")[0]["effective"]["max_model_len"] == 131072


def test_a_context_of_which_two_do_not_fit_is_shortened_to_the_engines_own_number(
    launch: Callable[..., Launch], host: Device, tmp_path: Path
) -> None:
    """Nothing is planned for an engine behind a command of one's own, as in a container: nothing is known of it."""
    engine = tmp_path / "engine"
    engine.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m {MODULE} "$@"\n', encoding="utf-8")
    engine.chmod(0o755)
    share = f"{share_of(host, 2.0):.3f}"
    run = launch("--engine", str(engine), "--gpu-memory-utilization", share, "--concurrency", "2", "--check")
    assert run.wait_exit(within_s=3 * START_S) == 0, run.talk()
    assert run.story() == ["kv_too_small", "context", "ready"]
    fits = run.events("failed")[0]["failure"]["numbers"]["estimated_max_len"]
    effective = run.events("ready")[0]["effective"]
    assert effective["max_model_len"] == fits // 2 - fits // 2 % 16
    assert effective["max_concurrency"] >= 2


def test_no_room_for_any_cache_raises_the_share(
    launch: Callable[..., Launch], strategy_from: Callable[[float], str], host: Device
) -> None:
    run = launch("--strategy", strategy_from(share_of(host, 0.4)), "--check")
    checked(run)
    told = run.story()
    assert told[0] == "kv_none"
    assert told[1] in MENDED
    assert told[-1] == "ready"


def test_a_pinned_share_that_cannot_work_ends_with_3_and_says_which(
    launch: Callable[..., Launch], host: Device
) -> None:
    run = launch("--gpu-memory-utilization", f"{share_of(host, 0.4):.3f}", "--strategy", "keep-quality")
    assert run.wait_exit(within_s=6 * START_S) == 3, run.talk()
    run.assert_nothing_left()
    assert "allow --gpu-memory-utilization" in run.talk()
    assert [event["event"] for event in run.events()][-2:] == ["exhausted", "stopped"]
