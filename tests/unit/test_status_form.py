"""`/status` is the whole status in one JSON object, and holds nothing that must not be shown."""

from __future__ import annotations

import json
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as some

from autolaunch.failure import Phase
from autolaunch.settings import AUTO, Settings
from autolaunch.status import Past, Status
from autolaunch.status_form import as_json, hushed, measured, rfc3339

GIB = 1 << 30
SECRET = "sk-planted-secret-0123456789"
FULL = Status(
    run="20260102-030405-7-ab",
    model="glm-4-9b",
    engine_version="0.24.0",
    strategy="default",
    phase="starting",
    since=1767323045.25,
    step=Phase.LOAD,
    attempt=2,
    climbing=2,
    max_attempts=6,
    rung="context",
    why=("it fits",),
    settings=Settings(gpu_memory_utilization=0.95, max_model_len=AUTO),
    pins=("gpu_memory_utilization",),
    effective={"max_model_len": 70624, "weights_gib": 17.5, "kv_cache_tokens": 80000},
    budget={"total_bytes": 25, "weights_bytes": 18},
    basis={"weights_bytes": "exact"},
    outside_bytes=3,
    url="http://127.0.0.1:8000",
    log="/state/runs/r",
    restarts=1,
    ready_at=1767323000.0,
    ready_seconds=48.12345,
    past=(
        Past(1767323001.0, "failed", 1, "kv_too_small", "5 GiB are needed, 2 are there", "the engine's line", 61.00049),
        Past(1767323002.0, "step", 2, "", "context: 131072 -> 70624", "70624 fit"),
    ),
    failures={"kv_too_small": 1},
    deaths={"hang": 1},
)


def test_the_whole_status_is_in_it() -> None:
    assert as_json(FULL) == {
        "v": 1,
        "run": "20260102-030405-7-ab",
        "model": "glm-4-9b",
        "engine_version": "0.24.0",
        "strategy": "default",
        "phase": "starting",
        "since": "2026-01-02T03:04:05.250Z",
        "step": "load",
        "line": "attempt 2 of at most 6: kv_too_small, context: 131072 -> 70624",
        "attempt": 2,
        "climbing": 2,
        "max_attempts": 6,
        "rung": "context",
        "why": ["it fits"],
        "settings": {"gpu_memory_utilization": 0.95, "max_model_len": "auto"},
        "pins": ["gpu_memory_utilization"],
        "effective": {"max_model_len": 70624, "weights_gib": 17.5, "kv_cache_tokens": 80000},
        "budget": {
            "predicted": {"total_bytes": 25, "weights_bytes": 18},
            "outside_bytes": 3,
            "measured": {"weights_bytes": 18790481920, "kv_cache_tokens": 80000},
        },
        "basis": {"weights_bytes": "exact"},
        "url": "http://127.0.0.1:8000",
        "log": "/state/runs/r",
        "restarts": 1,
        "failures": {"kv_too_small": 1},
        "deaths": {"hang": 1},
        "ready_at": "2026-01-02T03:03:20.000Z",
        "ready_seconds": 48.123,
        "exit_code": None,
        "reason": "",
        "history": [
            {
                "time": "2026-01-02T03:03:21.000Z",
                "event": "failed",
                "n": 1,
                "kind": "kv_too_small",
                "death": None,
                "text": "5 GiB are needed, 2 are there",
                "why": "the engine's line",
                "seconds": 61.0,
            },
            {
                "time": "2026-01-02T03:03:22.000Z",
                "event": "step",
                "n": 2,
                "kind": None,
                "death": None,
                "text": "context: 131072 -> 70624",
                "why": "70624 fit",
                "seconds": 0.0,
            },
        ],
    }


def test_a_run_that_has_just_begun_has_the_same_keys_with_nulls() -> None:
    first = as_json(Status())
    assert list(first) == list(as_json(FULL))
    assert {name for name, value in first.items() if value is None} == {
        "engine_version",
        "step",
        "ready_at",
        "ready_seconds",
        "exit_code",
    }


def test_it_is_json_and_times_are_utc() -> None:
    assert json.loads(json.dumps(as_json(FULL)))["since"] == rfc3339(1767323045.25) == "2026-01-02T03:04:05.250Z"
    assert rfc3339(0.0) == "1970-01-01T00:00:00.000Z"


def test_what_the_engine_measured_has_the_names_of_the_budget() -> None:
    said = {"weights_gib": 1.0, "available_kv_gib": -0.5, "activation_gib": 3.0, "max_concurrency": 2.0}
    assert measured(said) == {"weights_bytes": GIB, "kv_cache_bytes": -GIB // 2, "activation_bytes": 3 * GIB}
    assert measured({"requested_gib": 4.0, "non_torch_gib": 0.25, "cudagraph_gib": 0.5, "kv_cache_tokens": 7}) == {
        "requested_bytes": 4 * GIB,
        "non_torch_bytes": GIB // 4,
        "cudagraph_bytes": GIB // 2,
        "kv_cache_tokens": 7,
    }


def test_what_recent_releases_print_in_one_is_taken_apart() -> None:
    """Weights and non-torch memory as consumed, the graphs' estimate within the activations."""
    said = {"weights_gib": 17.5, "consumed_gib": 17.75, "activation_gib": 1.5, "cudagraph_gib": 0.5}
    assert measured(said) == {
        "weights_bytes": int(17.5 * GIB),
        "non_torch_bytes": GIB // 4,
        "activation_bytes": GIB,
        "cudagraph_bytes": GIB // 2,
    }
    assert measured({"consumed_gib": 2.0}) == {}, "a CPU engine's whole process"


def test_a_status_without_secrets_stays_as_it_is() -> None:
    assert hushed(FULL, ()) == FULL


PLACES = {
    "run": SECRET,
    "model": f"https://user:{SECRET}@host/model",
    "why": (f"because {SECRET}",),
    "settings": Settings(model=f"/models/{SECRET}", quantization="fp8"),
    "effective": {"max_model_len": 1, "said": SECRET},
    "url": f"http://me:{SECRET}@127.0.0.1:8000",
    "log": f"/state/{SECRET}",
    "reason": f"refused: {SECRET}",
    "past": (Past(1.0, "failed", 1, "unknown", f"text {SECRET}", f"line {SECRET}"),),
}


@given(some.sets(some.sampled_from(sorted(PLACES)), min_size=1))
def test_a_secret_is_hidden_wherever_it_stands(names: set[str]) -> None:
    status = hushed(replace(FULL, **{name: PLACES[name] for name in names}), (SECRET,))  # type: ignore[arg-type]
    assert SECRET not in json.dumps(as_json(status))
    assert "***" in json.dumps(as_json(status))
    assert status.step is Phase.LOAD


def test_a_path_with_odd_bytes_can_be_shown() -> None:
    status = hushed(replace(FULL, settings=Settings(model="/m/\udcff")), ())
    assert json.dumps(as_json(status), ensure_ascii=False).encode()
    assert status.settings == Settings(model="/m/?")


def test_what_is_shaped_like_a_token_is_hidden_though_nobody_named_it() -> None:
    status = hushed(replace(FULL, reason="401 for hf_AbCdEfGhIjKlMnOp"), ())
    assert as_json(status)["reason"] == "401 for ***"
