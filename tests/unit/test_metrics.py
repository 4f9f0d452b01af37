"""`/metrics` is what Prometheus reads, and says what the status says."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from autolaunch import __version__
from autolaunch.failure import Kind, Phase
from autolaunch.metrics import PHASES, Spent, metrics
from autolaunch.settings import Settings
from autolaunch.status import _PHASES, Status
from autolaunch.verdict import Death
from tests.unit.test_status_form import FULL

parser = pytest.importorskip("prometheus_client.parser")

BUDGET = {"total_bytes": 24, "requested_bytes": 22, "weights_bytes": 18, "kv_cache_bytes": -1, "kv_cache_tokens": 5}
SERVING = replace(FULL, phase="ready", step=None, budget=BUDGET)


def samples(status: Status, spent: Spent | None = None, **how: Any) -> dict[str, float]:
    """Return what Prometheus reads: each sample by its name and labels."""
    content_type, body = metrics(status, spent or Spent(), **how)
    assert content_type.startswith("text/plain; version=")
    return {
        sample.name + "".join(f" {value}" for value in sample.labels.values()): sample.value
        for family in parser.text_string_to_metric_families(body.decode())
        for sample in family.samples
    }


def test_a_server_that_serves() -> None:
    read = samples(SERVING, Spent(("ready", ""), 5.0, {("starting", "load"): 12.5, ("ready", ""): 60.0}))
    zeros = {name: value for name, value in read.items() if value == 0}
    assert {name: value for name, value in read.items() if name not in zeros} == {
        f"autolaunch_run_info 0.24.0 glm-4-9b 20260102-030405-7-ab default {__version__}": 1,
        "autolaunch_settings_info 0.95 auto": 1,
        "autolaunch_up": 1,
        "autolaunch_ready": 1,
        "autolaunch_phase ready": 1,
        "autolaunch_ready_seconds": 48.12345,
        "autolaunch_ready_timestamp_seconds": 1767323000.0,
        "autolaunch_max_model_len": 70624,
        "autolaunch_kv_cache_tokens": 80000,
        "autolaunch_attempts_total": 2,
        "autolaunch_restarts_total": 1,
        "autolaunch_failures_total kv_too_small": 1,
        "autolaunch_deaths_total hang": 1,
        "autolaunch_phase_seconds_total starting load": 12.5,
        "autolaunch_phase_seconds_total ready ": 60,
        "autolaunch_memory_predicted_bytes total": 24,
        "autolaunch_memory_predicted_bytes requested": 22,
        "autolaunch_memory_predicted_bytes weights": 18,
        "autolaunch_memory_predicted_bytes kv_cache": -1,
        "autolaunch_memory_predicted_bytes outside": 3,
        "autolaunch_memory_measured_bytes weights": 18790481920,
    }
    phases = {f"autolaunch_phase {phase}" for phase in PHASES if phase != "ready"}
    kinds = {f"autolaunch_failures_total {kind}" for kind in Kind if kind not in (Kind.OK, Kind.KV_TOO_SMALL)}
    deaths = {f"autolaunch_deaths_total {death}" for death in Death if death is not Death.HANG}
    assert set(zeros) == phases | kinds | deaths


def test_a_run_that_has_just_begun_is_up_and_not_ready() -> None:
    read = samples(Status())
    assert (read["autolaunch_up"], read["autolaunch_ready"], read["autolaunch_phase planning"]) == (1, 0, 1)
    assert read["autolaunch_attempts_total"] == 0
    assert not [name for name in read if name.startswith(("autolaunch_memory", "autolaunch_ready_"))]


def test_a_loop_that_is_stuck_is_not_up() -> None:
    assert samples(SERVING, alive=False)["autolaunch_up"] == 0


def test_every_phase_of_the_machine_has_its_sample() -> None:
    assert set(PHASES) == set(_PHASES.values())


def test_settings_are_labels_as_people_write_them() -> None:
    settings = Settings(enforce_eager=True, cudagraph_capture_sizes=(1, 2, 4), model='a"b\nc')
    _, body = metrics(replace(FULL, settings=settings))
    line = next(line for line in body.decode().splitlines() if line.startswith("autolaunch_settings_info"))
    assert line == (
        'autolaunch_settings_info{cudagraph_capture_sizes="1,2,4",enforce_eager="true",model="a\\"b\\nc"} 1.0'
    )


def test_seconds_are_counted_where_the_run_was() -> None:
    spent = Spent(since=10.0).moved(replace(FULL, phase="starting", step=None), 11.0)
    spent = spent.moved(replace(FULL, phase="starting", step=Phase.LOAD), 13.0).moved(SERVING, 20.0)
    assert spent.until(25.0).seconds == {
        ("planning", ""): 1.0,
        ("starting", ""): 2.0,
        ("starting", "load"): 7.0,
        ("ready", ""): 5.0,
    }
    assert spent.until(25.0).until(26.0).seconds[("ready", "")] == 6.0
