"""The record's lines, field by field as the Contract has them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from autolaunch import record
from autolaunch.failure import Failure, Kind
from autolaunch.settings import AUTO, Change, Settings

FAILURE = Failure(Kind.KV_NONE, line="No available memory", numbers={"available_kv_gib": -0.27})
SHOWN = {"kind": "kv_none", "line": "No available memory", "numbers": {"available_kv_gib": -0.27}}


@pytest.mark.parametrize(
    ("event", "name", "fields"),
    [
        (
            record.Planned(Settings(max_model_len=AUTO), {"total_bytes": 1}, {"weights_bytes": "exact"}, ("it fits",)),
            "plan",
            {
                "settings": {"max_model_len": "auto"},
                "budget": {"total_bytes": 1},
                "basis": {"weights_bytes": "exact"},
                "why": ["it fits"],
            },
        ),
        (
            record.Attempted(2, "context", ("vllm", "serve"), Settings(enforce_eager=True)),
            "attempt",
            {"n": 2, "rung": "context", "argv": ["vllm", "serve"], "settings": {"enforce_eager": True}},
        ),
        (
            record.Failed(2, 61.23456, 0.75049, FAILURE),
            "failed",
            {"n": 2, "seconds": 61.235, "reaction_seconds": 0.75, "failure": SHOWN},
        ),
        (
            record.Failed(1, 1.0, 0.0, Failure(Kind.PORT_IN_USE, line="in use")),
            "failed",
            {
                "n": 1,
                "seconds": 1.0,
                "reaction_seconds": 0.0,
                "failure": {"kind": "port_in_use", "line": "in use", "numbers": {}},
                "hints": ["A port is taken: stop the process that listens there, or choose another --port."],
            },
        ),
        (
            record.Stepped("context", "fits", (Change("max_model_len", AUTO, 8192), Change("max_num_seqs", None, 8))),
            "step",
            {
                "rung": "context",
                "why": "fits",
                "from": {"max_model_len": "auto", "max_num_seqs": None},
                "to": {"max_model_len": 8192, "max_num_seqs": 8},
            },
        ),
        (
            record.CameUp(3, 48.0, Settings(), {"max_model_len": 8192}, "http://127.0.0.1:8000"),
            "ready",
            {
                "n": 3,
                "seconds": 48.0,
                "settings": {},
                "effective": {"max_model_len": 8192},
                "url": "http://127.0.0.1:8000",
            },
        ),
        (record.Crashed(FAILURE, 2.0), "crashed", {"failure": SHOWN, "wait_seconds": 2.0}),
        (record.Restarting(FAILURE, 2.0), "restarting", {"failure": SHOWN, "wait_seconds": 2.0}),
        (record.Gave("why", ("this", "that")), "exhausted", {"why": "why", "closest": ["this", "that"]}),
        (record.Ended("SIGTERM", 0), "stopped", {"reason": "SIGTERM", "exit_code": 0}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_event_is_one_line_of_the_contract(event: record.Event, name: str, fields: dict[str, Any]) -> None:
    line = record.as_json(event, time="2025-01-01T00:00:00.000Z", run="r")
    assert line == {"v": 1, "time": "2025-01-01T00:00:00.000Z", "run": "r", "event": name, **fields}
    assert json.loads(json.dumps(line, allow_nan=False)) == line
