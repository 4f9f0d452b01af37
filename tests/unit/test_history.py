"""What a person and a program read of remembered starts."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta, timezone

from autolaunch.facts import GIB
from autolaunch.failure import Failure, Kind, Phase
from autolaunch.figures import Effective
from autolaunch.history import as_json, detail, table
from autolaunch.past import Entry, Key, Outcome
from autolaunch.settings import Settings

UTC = timezone.utc
KEY = Key("glm-4-9b", "abc", "NVIDIA L4", 22 * GIB)
READY = Entry(
    12,
    replace(KEY, cards=2),
    Outcome(
        Settings(0.913, 70624, enforce_eager=True),
        None,
        Effective(max_model_len=70624, kv_cache_tokens=2345678, available_kv_gib=2.694),
        "0.24.0",
        total_bytes=int(22.03 * GIB),
        free_bytes=int(21.5 * GIB),
        seconds=102.55,
        phases={"load": 12.5, "graphs": 30.0},
        at=1_800_000_000.0,
        wish="0123abc",
    ),
)
FAILED = Entry(
    9,
    KEY,
    Outcome(
        Settings(),
        Failure(
            Kind.KV_TOO_SMALL,
            "To serve at least one request ...",
            numbers={
                "max_seq_len": 131072, "needed_kv_gib": 5.0, "available_kv_gib": 2.69, "estimated_max_len": 70624
            },
        ),
        Effective(),
        at=1_799_999_000.0,
    ),
)  # fmt: skip
DIED = replace(
    FAILED, outcome=replace(FAILED.outcome, in_service=True, failure=Failure(Kind.RUNTIME_OOM, phase=Phase.SERVING))
)


def test_the_table_is_aligned_and_reads_without_colour() -> None:
    assert table([READY, FAILED], zone=UTC) == (
        "no  when              model     card           free GiB  vLLM    ended         context   took  settings",
        "12  2027-01-15 08:00  glm-4-9b  2 x NVIDIA L4     21.50  0.24.0  ready           70624  103 s"
        "  gpu_memory_utilization 0.913, max_model_len 70624, enforce_eager on",
        " 9  2027-01-15 07:43  glm-4-9b  NVIDIA L4                        kv_too_small             0 s"
        "  the engine's defaults",
    )


def test_a_model_is_shown_by_the_name_that_was_typed_and_in_full_by_what_it_stood_for() -> None:
    typed = replace(READY, key=replace(READY.key, model="/srv/models/m", name="./m"))
    assert table([typed], zone=UTC)[1].split()[3] == "./m"
    assert detail(typed, zone=UTC)[1] == "  model     ./m, which is /srv/models/m, revision abc"
    assert as_json(typed)["key"]["name"] == "./m"


def test_an_empty_table_is_its_head() -> None:
    assert table([], zone=UTC) == ("no  when  model  card  free GiB  vLLM  ended  context  took  settings",)


def test_times_are_told_in_the_readers_zone() -> None:
    assert "2027-01-15 10:00" in table([READY], zone=timezone(timedelta(hours=2)))[1]


def test_a_failure_in_service_is_told_apart_from_one_at_the_start() -> None:
    assert "runtime_oom in service" in table([DIED], zone=UTC)[1]


def test_one_start_is_shown_in_full() -> None:
    assert detail(READY, zone=UTC) == (
        "start 12, 2027-01-15 08:00:00 +0000",
        "  model     glm-4-9b, revision abc",
        "  card      2 x NVIDIA L4: 21.50 GiB free of 22.03 GiB before the start",
        "  engine    vLLM 0.24.0",
        "  settings  gpu_memory_utilization 0.913, max_model_len 70624, enforce_eager on",
        "  ended     ready after 102.5 s",
        "  measured  max model len 70624, kv cache tokens 2345678, available kv 2.69 GiB",
        "  phases    load 12.5 s, graphs 30.0 s",
        "  wish      0123abc",
    )
    assert detail(FAILED, zone=UTC) == (
        "start 9, 2027-01-15 07:43:20 +0000",
        "  model     glm-4-9b, revision abc",
        "  card      NVIDIA L4: unknown free of unknown before the start",
        "  engine    of unknown version",
        "  settings  the engine's defaults",
        "  ended     kv_too_small after 0.0 s",
        "  why       131072 tokens need 5.00 GiB of KV cache, 2.69 GiB are there; 70624 tokens fit",
        "  line      To serve at least one request ...",
    )


def test_a_line_that_says_it_all_is_not_told_twice() -> None:
    crash = replace(FAILED, outcome=replace(FAILED.outcome, failure=Failure(Kind.OTHER_CRASH, "KeyError: 'x'")))
    assert [line for line in detail(crash, zone=UTC) if "KeyError" in line] == ["  why       KeyError: 'x'"]


def test_a_program_reads_the_contracts_names() -> None:
    shown = as_json(READY)
    assert json.loads(json.dumps(shown)) == shown == {
        "v": 1,
        "number": 12,
        "time": "2027-01-15T08:00:00Z",
        "key": {
            "model": "glm-4-9b", "revision": "abc", "card": "NVIDIA L4", "total_bytes": 22 * GIB, "cards": 2, "name": ""
        },
        "settings": {"gpu_memory_utilization": 0.913, "max_model_len": 70624, "enforce_eager": True},
        "failure": None,
        "effective": {"max_model_len": 70624, "kv_cache_tokens": 2345678, "available_kv_gib": 2.694},
        "engine_version": "0.24.0",
        "total_bytes": int(22.03 * GIB),
        "free_bytes": int(21.5 * GIB),
        "seconds": 102.55,
        "phases": {"load": 12.5, "graphs": 30.0},
        "at": 1_800_000_000.0,
        "wish": "0123abc",
        "in_service": False,
    }  # fmt: skip


def test_no_tricks_of_a_models_name_reach_the_terminal_and_no_time_is_too_odd() -> None:
    odd = replace(READY, key=Key("a\x1b[2J\nb\u202e"), outcome=replace(READY.outcome, at=1e300))
    for line in (*table([odd]), *detail(odd)):
        assert line.isprintable()
    assert table([odd])[1].split()[:3] == ["12", "unknown", "a?[2J?b?"]
    assert as_json(odd)["time"] is None
