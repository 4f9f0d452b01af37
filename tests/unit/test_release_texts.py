"""The texts of six releases, as the fake engine prints them: every failure is told, the phases come in their order."""

from __future__ import annotations

import pytest

from autolaunch.diagnosis import Effective, Scanner, diagnose
from autolaunch.failure import Kind, Phase
from tests.fake_engine.texts import Texts
from tests.fake_engine.transcript import transcript

RELEASES = ("0.4.3", "0.6.3", "0.8.5", "0.11.0", "0.24.0", "0.32.0")
RANKS = ("1", "2")
CASES = [(version, kind) for version in RELEASES for kind in Texts(version).kinds()]
EXIT = {"host_oom": -9}

TEXTLESS = {
    "0.4.3": {"free_memory_low", "seqs_too_many", "sampler_oom", "compile_error"},
    "0.6.3": {"free_memory_low", "seqs_too_many", "sampler_oom", "compile_error"},
    "0.8.5": {"free_memory_low", "seqs_too_many"},
    "0.11.0": {"seqs_too_many"},
    "0.24.0": set(),
    "0.32.0": {"graph_oom", "profile_oom", "oom", "seqs_too_many", "sampler_oom", "profiling_race", "compile_error"},
}
"""The failures that a release cannot have, or has no text for; 0.32.0 is on a CPU."""

OOM = {"tried_to_allocate_mib": 108.0, "total_gib": 23.52, "free_gib": 0.014766}
TRUNCATED = {"tried_to_allocate_mib": 108.0}
CONTEXT = {"max_seq_len": 131072}
LOADED = {**CONTEXT, "weights_gib": 17.56}
POOL = {**LOADED, "available_kv_gib": 2.69}

NUMBERS: dict[tuple[str, str], dict[str, float]] = {
    ("0.4.3", "weights_oom"): {**CONTEXT, **TRUNCATED},
    ("0.4.3", "profile_oom"): {**LOADED, **TRUNCATED},
    ("0.4.3", "kv_none"): LOADED,
    ("0.4.3", "kv_too_small"): {**LOADED, "estimated_max_len": 70624},
    ("0.4.3", "kv_alloc_oom"): {**LOADED, **TRUNCATED},
    ("0.4.3", "graph_oom"): {**LOADED, **TRUNCATED},
    ("0.4.3", "runtime_oom"): {**LOADED, **TRUNCATED},
    ("0.8.5", "weights_oom"): {**CONTEXT, **OOM},
    ("0.8.5", "kv_none"): LOADED,
    ("0.8.5", "kv_too_small"): {**POOL, "needed_kv_gib": 5.0},
    ("0.8.5", "graph_oom"): {**LOADED, **OOM},
    ("0.8.5", "sampler_oom"): {**LOADED, **OOM, "num_seqs": 256},
    ("0.11.0", "free_memory_low"): {
        **CONTEXT, "free_gib": 20.11, "total_gib": 23.52, "utilization": 0.9, "requested_gib": 21.17,
    },
    ("0.11.0", "kv_none"): {**POOL, "available_kv_gib": -1.79},
    ("0.11.0", "kv_too_small"): {**POOL, "needed_kv_gib": 5.0, "estimated_max_len": 70624},
    ("0.11.0", "kv_alloc_oom"): {**POOL, **OOM},
    ("0.11.0", "sampler_oom"): {**POOL, **OOM, "num_seqs": 256},
}  # fmt: skip
"""The numbers of a failure, from its own text and from what the release said before it."""

PHASES = {
    "0.4.3": ("config", "init", "load", "profile", "kv_cache", "graphs", "warmup", "serving"),
    "0.6.3": ("config", "init", "load", "profile", "kv_cache", "graphs", "warmup", "serving"),
    "0.8.5": ("config", "init", "load", "profile", "kv_cache", "warmup", "serving"),
    "0.11.0": ("config", "init", "load", "profile", "kv_cache", "graphs", "warmup", "serving"),
    "0.24.0": ("config", "init", "load", "profile", "kv_cache", "graphs", "warmup", "serving"),
    "0.32.0": ("config", "init", "load", "kv_cache", "warmup", "serving"),
}
"""What is seen of a start that comes up; 0.8.5 says nothing when it begins to capture graphs, 0.32.0 is on a CPU."""


def meant(version: str, kind: str) -> str:
    """Give the kind that the text stands for: on a CPU an allocation fails for want of the host's memory."""
    return "host_oom" if version == "0.32.0" and kind in ("weights_oom", "kv_alloc_oom", "runtime_oom") else kind


def scanned(lines: list[str]) -> Scanner:
    scanner = Scanner()
    for line in lines:
        scanner.feed(line)
    return scanner


@pytest.mark.parametrize("ranks", RANKS)
@pytest.mark.parametrize(("version", "kind"), CASES)
def test_every_failure_of_every_release_is_told_from_its_own_log(version: str, kind: str, ranks: str) -> None:
    lines = transcript(version, kind, "-tp", ranks)
    code = EXIT.get(kind, 1)
    found = diagnose("\n".join(lines), exit_code=code)
    assert (found.kind.value, found.engine_version) == (meant(version, kind), version)
    live = scanned(lines).conclude(code)
    assert (live.kind, live.phase, live.numbers) == (found.kind, found.phase, found.numbers)


@pytest.mark.parametrize(("version", "kind"), sorted(NUMBERS))
def test_the_numbers_are_those_that_the_release_states(version: str, kind: str) -> None:
    found = diagnose("\n".join(transcript(version, kind)), exit_code=1)
    assert dict(found.numbers) == NUMBERS[version, kind]


def test_a_release_has_texts_for_all_that_can_happen_to_it() -> None:
    every = {kind.value for kind in Kind} - {"ok"}
    assert {version: every - set(Texts(version).kinds()) for version in RELEASES} == TEXTLESS


@pytest.mark.parametrize("ranks", RANKS)
@pytest.mark.parametrize("version", RELEASES)
def test_the_phases_of_a_start_that_comes_up_are_seen_in_order(version: str, ranks: str) -> None:
    scanner, seen = Scanner(), []
    for line in transcript(version, "ok", "-tp", ranks):
        scanner.feed(line)
        if scanner.phase is not Phase.IMPORT and scanner.phase.value not in seen:
            seen.append(scanner.phase.value)
    assert tuple(seen) == PHASES[version]
    assert scanner.ready
    assert scanner.conclude(None).kind is Kind.OK


@pytest.mark.parametrize(
    ("version", "said"),
    [
        ("0.4.3", Effective(max_model_len=131072, kv_cache_tokens=144176, weights_gib=17.56)),
        (
            "0.8.5",
            Effective(
                max_model_len=131072,
                kv_cache_tokens=144176,
                weights_gib=17.56,
                max_concurrency=1.1,
                max_num_batched_tokens=2048,
                captured_gib=0.55,
            ),
        ),
        (
            "0.11.0",
            Effective(
                max_model_len=131072,
                kv_cache_tokens=144176,
                available_kv_gib=5.5,
                weights_gib=17.56,
                max_concurrency=1.1,
                max_num_batched_tokens=2048,
                captured_gib=0.55,
            ),
        ),
    ],
)
def test_what_an_engine_that_came_up_said_of_itself_is_read(version: str, said: Effective) -> None:
    assert scanned(transcript(version, "ok")).effective == said


@pytest.mark.parametrize("version", RELEASES)
def test_the_cause_is_known_at_its_line_before_the_wrappers_come(version: str) -> None:
    lines = transcript(version, "kv_too_small")
    told = next(number for number in range(len(lines)) if scanned(lines[: number + 1]).failure is not None)
    assert told == next(number for number, line in enumerate(lines) if "max seq len (131072)" in line)


def test_the_oldest_release_has_one_process_and_no_word_after_its_traceback() -> None:
    lines = transcript("0.4.3", "kv_too_small")
    assert lines[-1].startswith("ValueError: The model's max seq len (131072) is larger than the maximum number of")
    assert not any("Engine process" in line or "MQLLMEngine" in line or "EngineCore" in line for line in lines)


def test_only_the_port_of_the_oldest_release_is_found_taken_after_its_start() -> None:
    found = {version: diagnose("\n".join(transcript(version, "port_in_use"))).phase for version in RELEASES}
    assert found == dict.fromkeys(RELEASES, Phase.CONFIG) | {"0.4.3": Phase.SERVING}


def test_a_heading_of_pydantic_does_not_hide_the_line_below_it() -> None:
    found = diagnose("\n".join(transcript("0.11.0", "model_not_found")), exit_code=1)
    assert found.kind is Kind.MODEL_NOT_FOUND
    assert found.line.startswith("Value error, Invalid repository ID or local directory specified: 'm'.")
    heading = "pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig"
    assert diagnose(heading, exit_code=1).kind is Kind.CONFIG_ERROR
