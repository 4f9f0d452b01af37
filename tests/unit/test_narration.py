"""What a person reads: short, both numbers, a hint, readable without colour."""

from __future__ import annotations

from pathlib import Path

import pytest

from autolaunch import record
from autolaunch.diagnosis import diagnose
from autolaunch.failure import Failure, Kind, Phase
from autolaunch.narration import LONGEST, Scene, describe, narrate
from autolaunch.settings import AUTO, Change, Settings
from autolaunch.verdict import OWN_HINTS, REFUSED, died_in_service, hung, refused

LOGS = sorted((Path(__file__).parents[1] / "data" / "engine_logs").glob("*.log"))
SCENE = Scene("/state/run", 10, frozenset({"max_num_seqs", "enforce_eager"}), "glm-4-9b")


def told(event: record.Event, command: str = "") -> list[str]:
    """Return the lines without their styles."""
    return [text for _, text in narrate(event, SCENE, command)]


def test_an_attempt_names_its_settings_and_whose_they_are() -> None:
    settings = Settings(0.893, AUTO, 32, cudagraph_capture_sizes=(1, 2), enforce_eager=False)
    assert told(record.Attempted(2, "batch", (), settings)) == [
        "attempt 2 of at most 10: gpu_memory_utilization 0.893, max_model_len auto, max_num_seqs 32 (yours), "
        "cudagraph_capture_sizes 1,2, enforce_eager off (yours)",
        "  engine log: /state/run/attempt-2.log",
    ]
    assert told(record.Attempted(1, "start", (), Settings()))[0] == "attempt 1 of at most 10: the engine's defaults"


def test_a_failed_start_says_when_and_with_both_numbers() -> None:
    numbers = {"needed_kv_gib": 5.0, "available_kv_gib": 2.69, "max_seq_len": 131072, "estimated_max_len": 70624}
    failure = Failure(Kind.KV_TOO_SMALL, line="ValueError: ...", numbers=numbers)
    assert told(record.Failed(1, 101.6, 0.8, failure)) == [
        "  failed after 101.6 s: kv_too_small",
        "     131072 tokens need 5.00 GiB of KV cache, 2.69 GiB are there; 70624 tokens fit",
    ]


def test_a_failure_that_no_step_follows_says_what_to_do() -> None:
    failure = Failure(Kind.PORT_IN_USE, line="[Errno 98] address already in use")
    lines = told(record.Failed(1, 185.0, 0.8, failure))
    assert lines[:2] == ["  failed after 3 min 5 s: port_in_use", "     [Errno 98] address already in use"]
    assert lines[2].startswith("     hint: ")


def test_a_step_says_what_changes_and_why() -> None:
    made = (Change("max_model_len", 131072, 70624),)
    assert told(record.Stepped("context", "the KV cache holds 70624 tokens", made)) == [
        "  -> context: max_model_len 131072 -> 70624",
        "     why: the KV cache holds 70624 tokens",
    ]
    assert told(record.Stepped("retry", "the same again", ())) == ["  -> the same again"]


def test_an_engine_that_is_up_says_where_and_how_to_start_it_without_us() -> None:
    effective = {"max_model_len": 70624, "kv_cache_tokens": 70624, "available_kv_gib": 2.69, "weights_gib": 17.56}
    event = record.CameUp(2, 81.04, Settings(max_model_len=70624), effective, "http://127.0.0.1:8000")
    assert told(event, "CUDA_VISIBLE_DEVICES=1 vllm serve 'a b'") == [
        "ready at attempt 2, 81.0 s after its start: glm-4-9b answered a real request",
        "  url      http://127.0.0.1:8000/v1",
        "  engine   context 70624 tokens, KV cache 70624 tokens, 2.69 GiB of KV cache, weights 17.56 GiB",
        "  settings max_model_len 70624",
        "  command  CUDA_VISIBLE_DEVICES=1 vllm serve 'a b'",
    ]
    first = told(record.CameUp(1, 5.0, Settings(), {}, "unix:/run/x.sock"))
    assert first[0].startswith("ready at the first attempt, 5.0 s after its start")
    assert first[1] == "  url      unix:/run/x.sock"


def test_an_engine_that_was_asked_nothing_is_not_said_to_have_answered() -> None:
    line = told(record.CameUp(1, 5.0, Settings(), {}, "unix:/s", proven=False))[0]
    assert line.endswith("glm-4-9b is healthy; it is asked nothing, nor if it hangs (--no-prove)")


def test_attempts_are_counted_since_the_engine_last_served() -> None:
    """ "attempt 6 of at most 2" stood there after a crash in service."""
    assert told(record.Attempted(2, "batch", (), Settings(), 2))[0].startswith("attempt 2 of at most 10: ")
    line = told(record.Attempted(6, "start", (), Settings(), 1))[0]
    assert line.startswith("attempt 6 (1 of at most 10 since it last served): ")


def test_a_refused_first_request_is_not_told_as_a_crash() -> None:
    lines = told(record.Failed(1, 5.0, 0.1, refused("HTTP 404: no such model")))
    assert lines == [
        "  came up, gave no answer after 5.0 s: other_crash",
        "     the first request was refused: HTTP 404: no such model",
        f"     hint: {OWN_HINTS[REFUSED]}",
    ]


@pytest.mark.parametrize("option", ["--start-timeout", "--stall-timeout"])
def test_a_timeout_names_the_option_that_allows_more(option: str) -> None:
    line = f"nothing for 9 s ({option.removeprefix('--').replace('-', ' ')} 9 s)"
    assert option in told(record.Failed(1, 9.0, 0.1, Failure(Kind.UNKNOWN, line=line)))[-1]


def test_no_hint_stands_above_the_step_that_does_it() -> None:
    assert not any("eager" in line for line in told(record.Failed(1, 9.0, 0.1, Failure(Kind.COMPILE_ERROR, line="x"))))


def test_a_crash_and_the_restart_that_follows() -> None:
    failure = Failure(Kind.OTHER_CRASH, line="illegal memory access")
    assert told(record.Crashed(failure, 2.0)) == [
        "the engine died in service: other_crash",
        "     illegal memory access",
    ]
    assert told(record.Restarting(failure, 2.0)) == ["starting again after 2 s, with the settings that served"]


def test_a_hang_is_called_one_and_says_how_to_allow_a_longer_standstill() -> None:
    """The hint for a hang once could not be shown: only failed starts had hints."""
    assert told(record.Crashed(hung("no work and no answer for 180 s: HTTP 500"), 1.0)) == [
        "the engine hung in service: other_crash",
        "     the engine hangs: no work and no answer for 180 s: HTTP 500",
        "     hint: allow a longer standstill with --hang-timeout SECONDS",
    ]


def test_an_engine_that_was_killed_says_where_the_reason_stands() -> None:
    assert told(record.Crashed(died_in_service(Failure(Kind.HOST_OOM), -9), 1.0)) == [
        "the engine died in service: other_crash",
        "     the engine was killed or the host's memory ran out: it was killed by SIGKILL",
        "     hint: look for the kernel's own words with dmesg or journalctl -k: out of memory, or who sent the signal",
    ]


def test_a_step_that_changes_nothing_says_what_would_help() -> None:
    step = record.Stepped("again", "all of it is pinned: the same settings again", (), ("allow less",))
    assert told(step) == ["  -> all of it is pinned: the same settings again", "     hint: allow less"]


@pytest.mark.parametrize(
    ("event", "lines"),
    [
        (record.Planned(Settings(), {}, {}), []),
        (
            record.Gave("every rung has been used", ("allow --max-num-seqs 8 instead of your 64",)),
            [
                "nothing fits: every rung has been used",
                "  hint: allow --max-num-seqs 8 instead of your 64",
                "  engine logs: /state/run",
            ],
        ),
        (
            record.Gave("10 of at most 10 attempts are used", ("allow more with --max-attempts",), stops_short=True),
            [
                "no further start: 10 of at most 10 attempts are used",
                "  hint: allow more with --max-attempts",
                "  engine logs: /state/run",
            ],
        ),
        (record.Ended("SIGTERM", 0), ["stopped (SIGTERM); nothing is left running"]),
        (record.Ended("exhausted", 3), ["stopped with exit code 3"]),
        (record.Ended("port_in_use", 5), ["stopped with exit code 5: port_in_use"]),
        (
            record.Ended("6 crashes within 600 s", 6),
            [
                "  hint: what the engine died of stands in its newest logs: autolaunch logs | autolaunch diagnose",
                "  hint: allow more crashes with --max-restarts N, or count them within a shorter --restart-window",
                "  engine logs: /state/run",
                "stopped with exit code 6: 6 crashes within 600 s",
            ],
        ),
    ],
)
def test_the_ends_are_told_in_their_lines(event: record.Event, lines: list[str]) -> None:
    assert told(event) == lines


@pytest.mark.parametrize(
    ("kind", "numbers", "said"),
    [
        (Kind.FREE_MEMORY_LOW, {"free_gib": 14.99, "total_gib": 16.0, "requested_gib": 15.2, "utilization": 0.95},
         "15.20 GiB were asked for (utilization 0.95), 14.99 of 16.00 GiB are free"),
        (Kind.FREE_MEMORY_LOW, {"free_gib": 14.99, "total_gib": 16.0, "requested_gib": 15.2},
         "15.20 GiB were asked for, 14.99 of 16.00 GiB are free"),
        (Kind.FREE_MEMORY_LOW, {}, "the line"),
        (Kind.KV_NONE, {"available_kv_gib": -1.79}, "nothing is left for the KV cache (-1.79 GiB)"),
        (Kind.KV_TOO_SMALL, {"max_seq_len": 8192, "estimated_max_len": 4000},
         "8192 tokens were asked for, the KV cache holds 4000"),
        (Kind.KV_TOO_SMALL, {"max_seq_len": 8192}, "the line"),
        (Kind.WEIGHTS_OOM, {"tried_to_allocate_mib": 108.0, "free_gib": 0.0146, "total_gib": 79.18},
         "108 MiB were asked for, 15 MiB of 79.18 GiB were free (load phase)"),
        (Kind.GRAPH_OOM, {"tried_to_allocate_mib": 32.0, "free_gib": 0.01},
         "32 MiB were asked for, 10 MiB were free (load phase)"),
        (Kind.SAMPLER_OOM, {"num_seqs": 256}, "the sampler's warm-up with 256 sequences at once ran out of memory"),
        (Kind.SEQS_TOO_MANY, {"num_seqs": 40}, "the cache holds the state of 40 sequences, more were asked for"),
        (Kind.OK, {"max_seq_len": 131072, "available_kv_gib": 52.29, "weights_gib": 17.56},
         "context 131072 tokens, 52.29 GiB of KV cache, weights 17.56 GiB"),
        (Kind.CONFIG_ERROR, {"tried_to_allocate_mib": 1.0, "free_gib": 1.0}, "the line"),
    ],
)  # fmt: skip
def test_a_failure_is_described_from_its_numbers(kind: Kind, numbers: dict[str, float], said: str) -> None:
    assert describe(Failure(kind, line="the line", phase=Phase.LOAD, numbers=numbers)) == said


def test_a_long_line_is_cut_and_says_so() -> None:
    said = describe(Failure(Kind.UNKNOWN, line="x" * 1000))
    assert (len(said), said[-4:]) == (LONGEST, "x...")


@pytest.mark.parametrize("path", LOGS, ids=lambda path: path.stem)
def test_every_real_log_is_described_in_one_short_sentence(path: Path) -> None:
    said = describe(diagnose(path.read_bytes()))
    assert 0 < len(said) <= LONGEST
    assert "\n" not in said
