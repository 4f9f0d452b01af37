"""What is planned, and what a real vLLM then does: its KV memory, its second start, and what is not started at all."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from autolaunch.facts import GIB, DeviceKind
from autolaunch.hardware import measure

from .conftest import START_S, Launch, quiet_environment, serve_words, share_of, wait_for

CLIMB_S = 3 * START_S
"""Within this a run of a few starts has ended, another run's start on this host waited for."""

IN_ONE_ATTEMPT = ["plan", "attempt", "ready", "stopped"]


def planned(folder: Path, *words: str) -> dict[str, Any]:
    """Return what `autolaunch plan --json` says of a launch with these words."""
    command = [*serve_words("plan"), "--json", *words]
    environment = quiet_environment(folder)
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, check=False)
    assert done.returncode in (0, 3), done.stderr
    return dict(json.loads(done.stdout))


def checked(run: Launch) -> Launch:
    """Wait for a --check run, which must come up and leave nothing."""
    assert run.wait_exit(within_s=CLIMB_S) == 0, run.talk()
    run.assert_nothing_left()
    return run


def names(run: Launch) -> list[str]:
    """Return the events of a run in their order."""
    return [line["event"] for line in run.events()]


def the_plan(run: Launch) -> dict[str, Any]:
    """Return the one plan of a run."""
    (line,) = run.events("plan")
    return line


def asked(settings: Mapping[str, Any], plan: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings with their share as the GiB that it is of the total at their plan.

    Some hosts' memory grows as it is used: the same bytes are another share then.
    """
    total = plan["budget"]["total_bytes"]
    return {**settings, "gpu_memory_utilization": settings["gpu_memory_utilization"] * total / GIB}


def alike(demand: Mapping[str, Any]) -> dict[str, Any]:
    """Return what equals a demand whose GiB are nearly these; a share has three decimals."""
    return {**demand, "gpu_memory_utilization": pytest.approx(demand["gpu_memory_utilization"], rel=0.02)}


def started(run: Launch, event: str) -> dict[str, Any]:
    """Return what a run's last such event asked of the engine."""
    return asked(run.events(event)[-1]["settings"], the_plan(run))


def without(argv: Sequence[str], *options: str) -> list[str]:
    """Return a command line without some options and their values."""
    dropped = {index + step for index, word in enumerate(argv) if word in options for step in (0, 1)}
    return [word for index, word in enumerate(argv) if index not in dropped]


# What was predicted


@dataclass(frozen=True, slots=True)
class Twice:
    """The same command twice on one state folder, and what `autolaunch plan` said before each."""

    said: tuple[dict[str, Any], dict[str, Any]]
    runs: tuple[Launch, Launch]


@pytest.fixture(scope="module")
def small(launch_once: Callable[..., Launch], tmp_path_factory: pytest.TempPathFactory) -> Twice:
    """2.5 GiB, in which three quarters of the context fit: a GiB of error would show."""
    folder = tmp_path_factory.mktemp("small")
    words = ("--memory", "2.5GiB", "--state-dir", str(folder))
    said, runs = [], []
    for _ in range(2):
        said.append(planned(folder, *words))
        runs.append(checked(launch_once(*words, "--check")))
    return Twice((said[0], said[1]), (runs[0], runs[1]))


@pytest.mark.parametrize(("start", "basis", "within"), [(0, "estimated", 0.10), (1, "measured", 0.05)])
def test_the_engine_has_the_kv_memory_that_was_predicted(small: Twice, start: int, basis: str, within: float) -> None:
    run = small.runs[start]
    assert names(run) == IN_ONE_ATTEMPT
    budget, effective = the_plan(run)["budget"], run.events("ready")[0]["effective"]
    assert the_plan(run)["basis"]["kv_cache_bytes"] == basis
    assert budget["kv_cache_bytes"] / GIB == pytest.approx(effective["available_kv_gib"], rel=within)
    assert budget["kv_cache_tokens"] == pytest.approx(effective["kv_cache_tokens"], rel=within)


def test_the_engine_reaches_the_context_that_was_predicted(small: Twice) -> None:
    reached = [run.events("ready")[0]["effective"]["max_model_len"] for run in small.runs]
    assert all(length < 131072 for length in reached), "the memory must be the limit, else nothing is proven"
    assert [said["max_model_len"] for said in small.said] == pytest.approx(reached, rel=0.10)


@pytest.mark.parametrize("start", [0, 1])
def test_plan_says_what_serve_then_does(small: Twice, start: int) -> None:
    said, run = small.said[start], small.runs[start]
    assert said["fits"] is True
    assert said["basis"] == the_plan(run)["basis"]
    for event in ("attempt", "ready"):
        assert asked(said["settings"], said) == alike(started(run, event))
    moving = ("--port", "--gpu-memory-utilization")
    (attempt,) = run.events("attempt")
    assert without(said["argv"], *moving) == without(attempt["argv"], *moving)


# What failed at first


@dataclass(frozen=True, slots=True)
class Again:
    """The same command three times: as it failed at first, with what was learnt, and without its memory."""

    first: Launch
    second: Launch
    forgetful: Launch


@pytest.fixture(scope="module")
def again(
    launch_once: Callable[..., Launch],
    strategy_from: Callable[[float], str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Again:
    """A strategy that starts with too little for the pinned context, so that a rung has to raise the share."""
    low = strategy_from(share_of(measure(DeviceKind.CPU), 1.9))
    state = str(tmp_path_factory.mktemp("again"))
    words = ("--strategy", low, "--max-model-len", "131072", "--state-dir", state)
    first, second = (checked(launch_once(*words, "--check")) for _ in range(2))
    forgetful = launch_once(*words, "--no-memory")
    wait_for("an attempt", lambda: forgetful.events("attempt"), within_s=CLIMB_S)
    forgetful.process.send_signal(signal.SIGTERM)
    assert forgetful.wait_exit(within_s=30) == 0, forgetful.talk()
    forgetful.assert_nothing_left()
    return Again(first, second, forgetful)


def test_what_failed_at_first_comes_up_at_the_first_attempt_from_then_on(again: Again) -> None:
    assert again.first.story() == ["kv_too_small", "utilization", "ready"]
    assert names(again.second) == IN_ONE_ATTEMPT
    (ready,) = again.second.events("ready")
    assert ready["n"] == 1
    assert started(again.second, "ready") == alike(started(again.first, "ready"))
    assert the_plan(again.second)["settings"] == ready["settings"]
    (why,) = the_plan(again.second)["why"]
    assert "these settings came up" in why


def test_a_start_without_memory_begins_where_the_first_one_began(again: Again) -> None:
    assert names(again.forgetful) == ["plan", "attempt", "stopped"]
    (attempt,), first = again.forgetful.events("attempt"), again.first.events("attempt")[0]
    assert (attempt["rung"], attempt["settings"]) == (first["rung"], first["settings"])
    assert the_plan(again.forgetful)["why"] == the_plan(again.first)["why"]
    assert "measured" not in the_plan(again.forgetful)["basis"].values()


# What cannot fit

TOO_MUCH = (
    "--memory", "2GiB", "--max-model-len", "131072", "--max-num-seqs", "8", "--max-num-batched-tokens", "512",
    "--strategy", "keep-quality",
)  # fmt: skip
"""The context alone needs 2 GiB; nothing is left that a rung may change."""


def test_what_cannot_fit_is_refused_before_anything_is_started(launch: Callable[..., Launch], tmp_path: Path) -> None:
    run = launch(*TOO_MUCH)
    assert run.wait_exit(within_s=CLIMB_S) == 3, run.talk()
    assert names(run) == ["plan", "exhausted", "stopped"]
    assert run.engine_processes() == []
    assert list(run.folder.rglob("attempt-*.log")) == []
    (end,) = run.events("exhausted")
    assert "2.00 GiB for 131072 tokens of context" in end["why"]
    assert "--memory allows 2.00 GiB" in end["why"]
    nearest, last = end["closest"][0].split(), end["closest"][-1]
    assert (nearest[:2], last) == (["give", "--max-model-len"], "start it nevertheless with --try-anyway")
    assert planned(tmp_path, *TOO_MUCH, "--no-memory")["fits"] is False
    assert planned(tmp_path, *TOO_MUCH, "--max-model-len", nearest[2], "--no-memory")["fits"] is True


def test_what_is_tried_anyway_ends_with_the_engines_own_word(launch: Callable[..., Launch]) -> None:
    run = launch(*TOO_MUCH, "--try-anyway")
    assert run.wait_exit(within_s=CLIMB_S) == 3, run.talk()
    run.assert_nothing_left()
    assert names(run) == ["plan", "attempt", "failed", "exhausted", "stopped"]
    failure, budget = run.events("failed")[0]["failure"], the_plan(run)["budget"]
    assert failure["kind"] == "kv_too_small"
    assert "To serve at least one request with the model's max seq len (131072)" in failure["line"]
    assert budget["kv_cache_bytes"] / GIB == pytest.approx(failure["numbers"]["available_kv_gib"], rel=0.10)
    fits = failure["numbers"]["estimated_max_len"]
    assert f"allow --max-model-len {fits} instead of your 131072" in run.events("exhausted")[0]["closest"]
