"""The diagnosis on whole logs of real starts, and its rules of choosing one cause among many lines."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest

from autolaunch.diagnosis import Effective, Scanner, diagnose, diagnose_lines, to_json
from autolaunch.failure import NUMBER_NAMES, Failure, Kind, Phase
from autolaunch.progress import TRIGGERS
from autolaunch.verdict import died_in_service

DATA = Path(__file__).resolve().parent.parent / "data"
LOGS = DATA / "engine_logs"
EXPECTED = json.loads((DATA / "diagnosis" / "engine_logs.json").read_text(encoding="utf-8"))
INDEX = {entry["file"]: entry for entry in json.loads((LOGS / "index.json").read_text(encoding="utf-8"))}
PACKAGE = Path(__file__).resolve().parent.parent.parent / "autolaunch"
PURE = ("advice", "causes", "crashes", "diagnosis", "figures", "frames", "logline", "progress", "refusals", "start")
FORBIDDEN = {"os", "subprocess", "signal", "socket", "threading", "time", "random", "logging", "vllm"}

BANNER = "(APIServer pid={0}) INFO 01-01 00:00:00 [utils.py:1]  ▄▄ ▄█ █     █     █ ▀▄▀ █  version {1}"
ENGINE = "({0} pid={1}) INFO 01-01 00:00:00 [core.py:1] Initializing a V1 LLM engine (v0.24.0) with config: x"
LOADING = "(EngineCore pid=2) INFO 01-01 00:00:00 [gpu_model_runner.py:1] Starting to load model x..."
KV_NONE = "(EngineCore pid=2) ERROR 01-01 00:00:00 [core.py:1] ValueError: No available memory for the cache blocks."
OOM = "(EngineCore pid=2) ERROR 01-01 00:00:00 [core.py:1] torch.OutOfMemoryError: CUDA out of memory."
CRASH = "(EngineCore pid=2) ERROR 01-01 00:00:00 [core.py:1] KeyError: 'layers.0'"
UP = "(APIServer pid=1) INFO:     Application startup complete."
DEAD = (
    "(APIServer pid=1) ERROR 01-01 00:00:00 [async_llm.py:1] vllm.v1.engine.exceptions.EngineDeadError: "
    "EngineCore encountered an issue. See stack trace (above) for the root cause."
)
WRAPPER = (
    "(APIServer pid=1) RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}"
)


def fed(*lines: str, installed: str | None = None) -> Scanner:
    scanner = Scanner(installed=installed)
    for line in lines:
        scanner.feed(line)
    return scanner


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_a_recorded_start_gets_its_whole_verdict(name: str) -> None:
    found = diagnose((LOGS / name).read_bytes())
    want = EXPECTED[name]
    assert found == Failure(
        Kind(want["kind"]),
        line=want["line"],
        line_number=want["line_number"],
        phase=Phase(want["phase"]),
        numbers=want["numbers"],
        engine_version=want["engine_version"],
    )


def test_an_engine_that_prints_no_banner_is_of_the_version_of_its_package() -> None:
    refused = "api_server.py: error: unrecognized arguments: --engine-use-ray"
    banner = "(APIServer pid=1) INFO 01-01 00:00:00 [utils.py:1] vLLM API server version 0.24.0"
    assert fed(refused, installed="0.32.0").conclude().engine_version == "0.32.0"
    assert fed(refused).conclude().engine_version is None
    assert fed(banner, refused, installed="0.32.0").conclude().engine_version == "0.24.0"
    assert fed(refused, banner, installed="0.32.0").engine_version == "0.24.0"


@pytest.mark.parametrize("name", sorted(INDEX))
def test_a_recorded_start_gets_the_kind_that_was_seen_when_it_was_recorded(name: str) -> None:
    entry = INDEX[name]
    found = diagnose((LOGS / name).read_bytes())
    assert found.kind.value == (entry["kind"] or "ok")
    assert found.engine_version == entry["vllm"]


def test_the_engines_own_sizes_are_read_from_a_start_that_fitted_its_context() -> None:
    scanner = fed(*(LOGS / "gpu_n_24g_auto.log").read_text(encoding="utf-8").split("\n"))
    assert scanner.ready
    assert scanner.phase is Phase.SERVING
    assert scanner.effective == Effective(
        max_model_len=70624,
        auto_fit_from=131072,
        kv_cache_tokens=70624,
        available_kv_gib=2.69,
        weights_gib=17.56,
        max_concurrency=1.0,
        cudagraph_gib=0.4,
        captured_gib=0.55,
        max_num_batched_tokens=scanner.effective.max_num_batched_tokens,
    )


def test_the_sizes_of_a_v0_start_come_from_its_budget_line_and_its_blocks() -> None:
    scanner = fed(
        "INFO 04-20 17:00:56 [worker.py:267] the current vLLM instance can use total_gpu_memory (39.49GiB) "
        "x gpu_memory_utilization (0.90) = 35.55GiB",
        "INFO 04-20 17:00:56 [worker.py:267] model weights take 28.48GiB; non_torch_memory takes 2.15GiB; PyTorch "
        "activation peak memory takes 1.35GiB; the rest of the memory reserved for KV Cache is 3.58GiB.",
        "INFO 04-20 17:00:56 [executor_base.py:112] # cuda blocks: 5302, # CPU blocks: 7767",
        "INFO 04-20 17:00:56 [executor_base.py:117] Maximum concurrency for 8192 tokens per request: 10.36x",
    )
    assert scanner.effective == Effective(
        kv_cache_tokens=84832,
        available_kv_gib=3.58,
        weights_gib=28.48,
        max_concurrency=10.36,
        requested_gib=35.55,
        total_gib=39.49,
        utilization=0.9,
        activation_gib=1.35,
        non_torch_gib=2.15,
    )


def test_the_cause_is_known_at_its_line_and_not_before() -> None:
    lines = (LOGS / "gpu_g_kv_none.log").read_text(encoding="utf-8").split("\n")
    scanner = Scanner()
    seen = []
    for number, line in enumerate(lines, start=1):
        scanner.feed(line)
        if scanner.failure is not None:
            seen.append(number)
            break
    assert seen == [45]
    assert scanner.failure is not None
    assert scanner.failure.kind is Kind.KV_NONE


@pytest.mark.parametrize("code", [0, 1, None])
def test_a_core_that_is_killed_in_service_is_a_crash_in_the_api_servers_own_words(code: int | None) -> None:
    """Its last words but one once were passed over: "exited with 0 in service and named no cause"."""
    words = "Engine core proc EngineCore_DP0 died unexpectedly, shutting down client."
    log = [LOADING, UP, f"(APIServer pid=1) ERROR 01-01 00:00:00 [core_client.py:610] {words}"]
    log.append("(APIServer pid=1) INFO:     Finished server process [1]")
    found = diagnose("\n".join(log), exit_code=code)
    assert (found.kind, found.line, found.line_number, found.phase) == (Kind.OTHER_CRASH, words, 3, Phase.SERVING)
    assert died_in_service(found, code or 0) == found
    worker = log[2].replace(words, "Worker proc VllmWorker-0 died unexpectedly, shutting down executor.")
    assert diagnose("\n".join([*log[:2], worker, *log[2:]]), exit_code=code).line.startswith("Worker proc VllmWorker-0")
    assert diagnose("\n".join([log[0], log[2]]), exit_code=code).kind is Kind.UNKNOWN, "at a start it tells nothing"


@pytest.mark.parametrize("line", [WRAPPER, DEAD, CRASH, "Killed", "Worker proc VllmWorker-0 died unexpectedly"])
def test_provisional_lines_are_never_decisive(line: str) -> None:
    assert fed(LOADING, line).failure is None


def test_the_first_root_error_wins_over_wrappers_before_and_after_it() -> None:
    found = fed(LOADING, WRAPPER, KV_NONE, CRASH, WRAPPER, DEAD).conclude(1)
    assert (found.kind, found.line_number) == (Kind.KV_NONE, 3)


def test_with_several_ranks_the_first_that_names_a_cause_wins() -> None:
    other = OOM.replace("EngineCore pid=2", "Worker_TP1 pid=9").replace("core.py", "multiproc_executor.py")
    frame = '(Worker_TP1 pid=9) ERROR 01-01 00:00:00 [m.py:1]   File "/x/vllm/a.py", line 1, in profile_run'
    found = fed(LOADING, frame, other, KV_NONE).conclude(1)
    assert (found.kind, found.line_number) == (Kind.PROFILE_OOM, 3)


def test_frames_of_one_process_do_not_place_the_failure_of_another() -> None:
    frame = '(Worker_TP1 pid=9) ERROR 01-01 00:00:00 [m.py:1]   File "/x/vllm/a.py", line 1, in capture_model'
    assert fed(LOADING, frame, OOM).conclude(1).kind is Kind.WEIGHTS_OOM


def test_the_source_line_of_a_raise_is_not_the_message() -> None:
    found = diagnose(
        '  File "/x/vllm/v1/core/kv_cache_utils.py", line 7, in check\n'
        '    raise ValueError("No available memory for the cache blocks. "\n'
        "ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization`"
    )
    assert (found.kind, found.line_number) == (Kind.KV_NONE, 3)


def test_readiness_dismisses_what_was_caught_before_it() -> None:
    assert fed(LOADING, OOM, UP).conclude(0).kind is Kind.OK


def test_an_allocation_failure_after_readiness_is_a_runtime_failure() -> None:
    assert fed(LOADING, UP, OOM, DEAD).conclude(1).kind is Kind.RUNTIME_OOM


def test_the_error_of_one_request_is_no_failure() -> None:
    request = "(APIServer pid=1) ERROR 01-01 00:00:00 [serving_chat.py:1] ValueError: prompt is too long"
    assert fed(LOADING, UP, request).conclude(None).kind is Kind.OK


def test_an_engine_that_dies_after_readiness_takes_the_cause_above_its_death() -> None:
    found = fed(LOADING, UP, CRASH, DEAD).conclude(1)
    assert (found.kind, found.line) == (Kind.OTHER_CRASH, "KeyError: 'layers.0'")


def test_noise_after_a_requested_shutdown_is_no_failure() -> None:
    stop = "(EngineCore pid=2) INFO 01-01 00:00:00 [core.py:1] [shutdown] EngineCore: trigger received signal=SIGTERM"
    assert fed(LOADING, UP, stop, CRASH, OOM, DEAD).conclude(0).kind is Kind.OK


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (-9, Kind.HOST_OOM),
        (137, Kind.HOST_OOM),
        (-11, Kind.OTHER_CRASH),
        (139, Kind.OTHER_CRASH),
        (1, Kind.UNKNOWN),
        (0, Kind.UNKNOWN),
        (None, Kind.UNKNOWN),
    ],
)
def test_an_exit_without_a_text_is_judged_by_its_code(code: int | None, kind: Kind) -> None:
    assert fed(LOADING).conclude(code).kind is kind


def test_a_cause_in_the_text_outweighs_the_exit_code() -> None:
    assert fed(LOADING, KV_NONE).conclude(-9).kind is Kind.KV_NONE


def test_a_new_banner_begins_a_new_start() -> None:
    scanner = fed(BANNER.format(1, "0.23.0"), LOADING, KV_NONE, WRAPPER, BANNER.format(7, "0.24.0"))
    assert scanner.failure is None
    assert scanner.engine_version == "0.24.0"
    assert scanner.phase is Phase.IMPORT


def test_a_new_engine_core_after_a_failure_begins_a_new_start() -> None:
    scanner = fed(ENGINE.format("EngineCore", 2), LOADING, KV_NONE, ENGINE.format("EngineCore", 8))
    assert scanner.failure is None


def test_further_ranks_of_one_start_do_not_begin_a_new_one() -> None:
    scanner = fed(ENGINE.format("EngineCore_DP0", 2), LOADING, KV_NONE, ENGINE.format("EngineCore_DP1", 3))
    assert scanner.failure is not None


def test_a_log_that_ends_when_a_restart_has_barely_begun_is_judged_by_the_start_before() -> None:
    lines = (LOADING, KV_NONE, WRAPPER, BANNER.format(7, "0.24.0"))
    assert diagnose("\n".join(lines)).kind is Kind.KV_NONE
    assert diagnose("\n".join(lines), exit_code=1).kind is Kind.UNKNOWN


def test_a_start_that_hangs_far_along_is_no_success() -> None:
    capturing = "Capturing CUDA graphs (mixed prefill-decode, PIECEWISE):   0%|          | 0/51 [00:00<?, ?it/s]"
    assert fed(LOADING, capturing).conclude(None).kind is Kind.UNKNOWN
    assert diagnose("\n".join((LOADING, capturing))).kind is Kind.OK


def test_the_smallest_figure_of_several_workers_is_the_engines() -> None:
    stated = "(Worker_TP{0} pid=4{0}) INFO 01-01 00:00:00 [gpu_worker.py:1] Available KV cache memory: {1} GiB"
    assert fed(stated.format(0, 28.5), stated.format(1, 28.22), stated.format(2, 30.1)).effective == Effective(
        available_kv_gib=28.22
    )


def test_carriage_returns_colours_nuls_and_prefixes_do_not_hide_a_cause() -> None:
    line = "\x1b[31mvllm-1  | 2026-01-01T00:00:00.123Z stderr F \x1b[0;36m" + KV_NONE.replace("memory", "mem\0ory")
    found = diagnose("Loading:  50%\rLoading: 100%\r" + line + "\r\n")
    assert (found.kind, found.line) == (Kind.KV_NONE, "ValueError: No available memory for the cache blocks.")


def test_a_cause_at_the_end_of_a_huge_line_is_found() -> None:
    assert diagnose("x" * 1_000_000 + " torch.OutOfMemoryError: CUDA out of memory").kind is Kind.OOM


def test_a_log_in_utf16_is_read() -> None:
    assert diagnose(KV_NONE.encode("utf-16")).kind is Kind.KV_NONE


def test_lines_are_counted_when_dull_chunks_are_skipped() -> None:
    scanner = Scanner()
    scanner.skip(99)
    scanner.feed(KV_NONE)
    assert scanner.conclude().line_number == 100


def test_an_empty_log_has_no_cause() -> None:
    assert diagnose_lines([]) == Failure(Kind.UNKNOWN)


def test_json_has_exactly_the_contracts_shape() -> None:
    found = to_json(diagnose((LOGS / "gpu_b_24g_default.log").read_bytes()))
    assert list(found) == [
        "v", "kind", "line", "line_number", "phase", "numbers", "memory", "advice", "engine_version",
    ]  # fmt: skip
    assert (found["v"], found["kind"], found["memory"], found["phase"]) == (1, "kv_too_small", True, "kv_cache")
    assert set(found["numbers"]) <= set(NUMBER_NAMES)
    assert json.loads(json.dumps(found)) == found
    assert type(found["numbers"]["estimated_max_len"]) is int


@pytest.mark.parametrize("module", PURE)
def test_the_diagnosis_is_pure(module: str) -> None:
    tree = ast.parse((PACKAGE / f"{module}.py").read_text(encoding="utf-8"))
    imported = {
        alias.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names
    }
    imported |= {(node.module or "").split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not imported & FORBIDDEN


def test_a_worker_that_dies_while_serving_is_no_requested_shutdown() -> None:
    """vLLM then shuts down in good order and exits with 0 (its issue 48966)."""
    died = "(EngineCore pid=5) ERROR 07-17 18:24:44 [m:1] Worker proc W-0 died unexpectedly, shutting down executor."
    fatal = "(EngineCore pid=5) ERROR 07-17 18:24:44 [core.py:1] EngineCore encountered a fatal error."
    scanner = fed(LOADING, UP, died, fatal, "INFO:     Shutting down", "INFO:     Application shutdown complete.")
    assert scanner.conclude(0).kind is Kind.OTHER_CRASH


def test_the_sizes_that_follow_the_sentence_about_the_sampler_belong_to_it() -> None:
    found = diagnose(
        "RuntimeError: CUDA out of memory occurred when warming up sampler with 256 dummy requests.\n"
        "Please try lowering `max_num_seqs` or `gpu_memory_utilization` when initializing the engine.\n\n"
        "torch.OutOfMemoryError: CUDA out of memory.\n"
        "Tried to allocate 252.00 MiB. GPU 0 has a total capacity of 10.57 GiB of which 163.12 MiB is free."
    )
    assert found.kind is Kind.SAMPLER_OOM
    assert found.numbers == {
        "num_seqs": 256,
        "tried_to_allocate_mib": 252.0,
        "total_gib": 10.57,
        "free_gib": 0.159297,
    }


def test_an_exception_out_of_the_engines_loop_after_readiness_is_its_death() -> None:
    """An old V1 only says that the core hit an exception; the HTTP server then shuts down in good order."""
    loop = '(EngineCore pid=5)   File "/x/vllm/v1/engine/core.py", line 1, in run_busy_loop'
    scanner = fed(
        LOADING, UP, loop, "(EngineCore pid=5) IndexError: index 1 is out of bounds", "INFO:     Shutting down"
    )
    assert scanner.conclude(0).kind is Kind.OTHER_CRASH


def test_the_error_of_one_request_is_not_the_engines_death() -> None:
    handler = (
        'ERROR 01-01 00:00:00 [serving.py:1]   File "/x/vllm/entrypoints/serving.py", line 1, in create_completion'
    )
    scanner = fed(LOADING, UP, handler, "ERROR 01-01 00:00:00 [serving.py:1] ValueError: this is no image")
    assert scanner.conclude().kind is Kind.OK


def test_a_supervised_start_without_room_for_the_cache_waits_for_the_engines_own_words() -> None:
    nothing = "(EngineCore pid=2) INFO 01-01 00:00:00 [gpu_worker.py:1] Available KV cache memory: -1.44 GiB"
    assert fed(LOADING, nothing).failure is None
    assert fed(LOADING, nothing).conclude(1).kind is Kind.KV_NONE
    assert diagnose(nothing).kind is Kind.KV_NONE


def test_a_sentence_is_joined_over_neighbouring_lines_of_an_excerpt_only() -> None:
    first, second = (
        "ValueError: Free memory on device (3/24 GiB) on startup is less",
        "than desired GPU memory utilization",
    )
    assert diagnose(f"{first}\n{second}").kind is Kind.FREE_MEMORY_LOW
    assert diagnose(f"{first}\n\n{second}").kind is not Kind.FREE_MEMORY_LOW
    assert fed(first, second).conclude(1).kind is not Kind.FREE_MEMORY_LOW


def test_a_tools_opinion_that_a_process_was_killed_does_not_displace_what_the_engine_said() -> None:
    assert fed(CRASH, "Killed").conclude(1).kind is Kind.OTHER_CRASH
    assert fed(LOADING, "Killed").conclude(137).kind is Kind.HOST_OOM


def test_progress_as_far_as_the_cache_proves_that_a_stray_exception_was_caught() -> None:
    stray = "ImportError: cannot import name 'x' from 'y'"
    cache = "(EngineCore pid=2) INFO 01-01 00:00:00 [kv_cache_utils.py:1] GPU KV cache size: 10,944 tokens"
    assert fed(LOADING, stray).conclude(1).kind is Kind.OTHER_CRASH
    assert fed(LOADING, stray, cache, KV_NONE).conclude(1).kind is Kind.KV_NONE
    assert fed(LOADING, stray, cache).conclude(1).kind is Kind.UNKNOWN
    assert fed(LOADING, CRASH, cache).conclude(1).kind is Kind.OTHER_CRASH


def test_no_trigger_holds_a_digit() -> None:
    """`output` judges the shape of a line, in which every digit is a 0, once for all lines of that shape."""
    assert [trigger for trigger in TRIGGERS if any(letter.isdigit() for letter in trigger)] == []
