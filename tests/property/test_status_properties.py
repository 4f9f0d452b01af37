"""Whatever happens to a run, every route can show it, and shows nothing that is to be hidden."""

from __future__ import annotations

import json
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as some

from autolaunch import record
from autolaunch.errors import ExitCode
from autolaunch.failure import NUMBER_NAMES, Failure, Kind, Phase
from autolaunch.metrics import Spent
from autolaunch.plan_form import TERMS
from autolaunch.routes import ROUTES, View
from autolaunch.settings import AUTO, Change, Settings
from autolaunch.status import MOST_KEPT, Status, stepped, told
from autolaunch.status_form import hushed

SECRET = "sk-planted-secret-0123456789"
TEXT = some.text(max_size=20) | some.just(f"<b>{SECRET}</b> & {SECRET!r}")
BYTES = some.integers(-(2**40), 2**40)
SECONDS = some.floats(0, 1e6)
SETTINGS = some.builds(
    Settings,
    gpu_memory_utilization=some.none() | some.floats(0.01, 1),
    max_model_len=some.sampled_from((None, AUTO, 4096)),
    enforce_eager=some.none() | some.booleans(),
    cudagraph_capture_sizes=some.none() | some.just((1, 2)),
    model=some.none() | TEXT,
)
BUDGETS: some.SearchStrategy[dict[str, int | None]] = some.just({}) | some.fixed_dictionaries(
    {
        "total_bytes": some.integers(1, 2**40),
        "free_bytes": some.none() | BYTES,
        "requested_bytes": BYTES,
        **{f"{name}_bytes": BYTES for name in TERMS},
        "kv_bytes_per_token": BYTES,
        "kv_cache_tokens": some.none() | BYTES,
    }
)
EFFECTIVE = some.fixed_dictionaries(
    {},
    optional={
        "max_model_len": some.integers(1, 2**24),
        "kv_cache_tokens": some.integers(0, 2**40),
        "available_kv_gib": some.floats(-100, 1000),
        "weights_gib": some.floats(0, 1000),
        "max_concurrency": some.floats(0, 1000),
    },
)
FAILURES = some.builds(
    Failure,
    kind=some.sampled_from(Kind),
    line=TEXT,
    phase=some.sampled_from(Phase),
    numbers=some.dictionaries(some.sampled_from(NUMBER_NAMES), some.floats(-1e9, 1e9)),
)
N = some.integers(1, 100)
EVENTS: some.SearchStrategy[record.Event] = some.one_of(
    some.builds(record.Planned, SETTINGS, BUDGETS, some.just({"weights_bytes": "exact"}), some.tuples(TEXT)),
    some.builds(record.Attempted, N, TEXT, some.just(("vllm", "--api-key", SECRET)), SETTINGS, N),
    some.builds(record.Failed, N, SECONDS, SECONDS, FAILURES),
    some.builds(record.Stepped, TEXT, TEXT, some.tuples(some.builds(Change, some.just("model"), TEXT, TEXT))),
    some.builds(record.CameUp, N, SECONDS, SETTINGS, EFFECTIVE, TEXT),
    some.builds(record.Crashed, FAILURES, SECONDS),
    some.builds(record.Restarting, FAILURES, SECONDS),
    some.builds(record.Gave, TEXT, some.tuples(TEXT)),
    some.builds(record.Ended, TEXT, some.sampled_from(ExitCode)),
)
PHASES = some.sampled_from(("planning", "starting", "ready", "stopping", "backoff", "stopped", "exhausted"))


@settings(deadline=None)
@given(some.lists(some.tuples(EVENTS, PHASES, some.none() | some.sampled_from(Phase)), max_size=8), TEXT)
def test_whatever_happened_can_be_shown_on_every_route(
    story: list[tuple[record.Event, str, Phase | None]], model: str
) -> None:
    status, spent = Status(run="r", model=model), Spent(since=0.0)
    for second, (event, phase, step) in enumerate(story):
        status = replace(told(status, event, 1.7e9 + second), phase=phase)
        status = status if step is None else stepped(status, step)
        spent = spent.moved(status, float(second))
    view = View(hushed(status, (SECRET,)), 0.0, 1.7e9, lambda: ("a line",), spent)
    for path, route in ROUTES.items():
        answer = route(view)
        assert answer.code in (200, 503), path
        assert SECRET.encode() not in answer.body, path
    assert json.loads(ROUTES["/status"](view).body)["phase"] == status.phase


@given(some.lists(EVENTS, min_size=MOST_KEPT + 1, max_size=2 * MOST_KEPT))
@settings(max_examples=20, deadline=None)
def test_the_page_of_a_run_of_months_stays_small(story: list[record.Event]) -> None:
    status = Status(run="r", model="m")
    for event in story:
        status = told(status, event, 1.7e9)
    assert len(ROUTES["/"](View(status, 0.0, 1.7e9)).body) < 100_000


@given(some.lists(EVENTS, max_size=12), some.integers(1, 20))
@settings(deadline=None)
def test_the_line_of_a_start_names_a_step_only_where_nothing_failed_since(story: list[record.Event], most: int) -> None:
    """After a crash it once named a step of a climb that was long over."""
    status = Status(run="r", model="m", phase="starting", max_attempts=most)
    for event in story:
        status = replace(told(status, event, 1.7e9), waits="")
    newest, failure = status.past[-1] if status.past else None, status.last_failure
    counted, _, words = status.line.partition(": ")
    assert counted.startswith(f"attempt {status.attempt}")
    assert f"{status.climbing or status.attempt} of at most {most}" in counted
    if newest is None or failure is None:
        assert words == "first start"
    elif newest.what == "step":
        assert words == f"{failure.kind}, {newest.text}"
    else:
        assert words == ("starting again after " if newest.what == "crashed" else "") + failure.kind
