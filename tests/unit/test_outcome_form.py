"""The written form of an outcome: it comes back as it was, or not at all."""

from __future__ import annotations

import json
from typing import Any

import pytest

from autolaunch.failure import Failure, Kind, Phase
from autolaunch.figures import Effective
from autolaunch.outcome_form import as_json, from_text, to_text
from autolaunch.past import Outcome
from autolaunch.settings import AUTO, Settings

FAILED = Outcome(
    Settings(0.9, AUTO, cudagraph_capture_sizes=(1, 2), enforce_eager=False, model="org/awq"),
    Failure(
        Kind.KV_TOO_SMALL,
        line="To serve at least one request … 需要 \ud800",
        line_number=88,
        phase=Phase.PROFILE,
        numbers={"needed_kv_gib": 5.0, "estimated_max_len": 70624},
        engine_version="0.24.0",
    ),
    Effective(weights_gib=17.56, max_model_len=131072),
    engine_version="0.24.0",
    total_bytes=85_017_493_504,
    free_bytes=24_000_000_000,
    seconds=107.5,
    phases={"load": 12.5, "profile": 30.0},
    at=1_800_000_000.25,
    wish="abc",
)
CAME_UP = Outcome(Settings(), None, Effective())
WRITTEN: dict[str, Any] = {
    "settings": {
        "gpu_memory_utilization": 0.9,
        "max_model_len": "auto",
        "cudagraph_capture_sizes": [1, 2],
        "enforce_eager": False,
        "model": "org/awq",
    },
    "failure": {
        "kind": "kv_too_small",
        "line": "To serve at least one request … 需要 \ud800",
        "line_number": 88,
        "phase": "profile",
        "numbers": {"needed_kv_gib": 5.0, "estimated_max_len": 70624},
        "engine_version": "0.24.0",
    },
    "effective": {"max_model_len": 131072, "weights_gib": 17.56},
    "engine_version": "0.24.0",
    "total_bytes": 85_017_493_504,
    "free_bytes": 24_000_000_000,
    "seconds": 107.5,
    "phases": {"load": 12.5, "profile": 30.0},
    "at": 1_800_000_000.25,
    "wish": "abc",
    "in_service": False,
}


def changed(**entries: Any) -> str:
    """Return the written form with other entries."""
    return json.dumps({**WRITTEN, **entries})


def test_an_outcome_is_written_with_the_contracts_names() -> None:
    assert as_json(FAILED) == WRITTEN


@pytest.mark.parametrize("outcome", [FAILED, CAME_UP])
def test_an_outcome_comes_back_as_it_was(outcome: Outcome) -> None:
    text = to_text(outcome)
    assert text.isascii()
    assert from_text(text) == outcome


def test_what_only_informs_may_be_missing_or_of_a_later_release() -> None:
    later = {"weights_gib": 17.56, "max_model_len": 131072, "temperature_c": 60}
    assert from_text(changed(effective=later, room="42")) == FAILED
    assert from_text('{"settings": {}, "failure": null}') == CAME_UP
    numbers = {"kind": "oom", "phase": "load", "numbers": {"free_gib": 1, "of_the_future": 2, "total_gib": "x"}}
    assert from_text(changed(failure=numbers)).failure == Failure(Kind.OOM, phase=Phase.LOAD, numbers={"free_gib": 1})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        "not JSON",
        "[" * 100_000,
        changed(settings=None),
        changed(settings={"of_the_future": 1}),
        changed(settings={"max_model_len": "8k"}),
        changed(settings={"max_model_len": 8192.5}),
        changed(settings={"max_num_seqs": True}),
        changed(settings={"max_num_seqs": 10**30}),
        changed(settings={"max_num_seqs": [1]}),
        changed(settings={"enforce_eager": 1}),
        changed(settings={"cudagraph_capture_sizes": ["1"]}),
        changed(settings={"cudagraph_capture_sizes": 1}),
        changed(settings={"gpu_memory_utilization": float("nan")}),
        changed(settings={"gpu_memory_utilization": "0.9"}),
        changed(failure={"kind": "of_the_future", "phase": "load"}),
        changed(failure={"kind": "oom", "phase": "of_the_future"}),
        changed(failure={"kind": ["oom"], "phase": "load"}),
        changed(failure={"kind": "oom", "phase": "load", "line": 1}),
        changed(failure="oom"),
        changed(effective={"weights_gib": "17"}),
        changed(engine_version=24),
        changed(total_bytes=1.5),
        changed(free_bytes=10**400),
        changed(seconds="long"),
        changed(at=None),
        changed(wish=None),
        changed(in_service=0),
    ],
)
def test_what_cannot_be_understood_is_refused_and_not_guessed(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        from_text(text)
