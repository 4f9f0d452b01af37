"""Whatever is fed: a verdict comes, noise does not change it, and memory stays bounded."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from autolaunch.advice import advice
from autolaunch.diagnosis import Scanner, diagnose, diagnose_lines, interesting, to_json
from autolaunch.failure import NUMBER_NAMES, Kind

DATA = Path(__file__).resolve().parent.parent / "data"
SHAPES = [json.loads(line) for line in (DATA / "diagnosis" / "shapes.jsonl").read_text(encoding="utf-8").splitlines()]
LOGS = [path.read_text(encoding="utf-8") for path in sorted((DATA / "engine_logs").glob("*.log"))]
LINES = sorted({line for shape in SHAPES for line in shape["log"].split("\n")})
CAUSES = [shape for shape in SHAPES if shape["kind"] not in {"ok", "unknown"} and "cause absent" not in shape["vllm"]]
NOISE = [
    "(APIServer pid=1) RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}",
    "(EngineCore pid=2) ERROR 01-01 00:00:00 [core.py:1] EngineCore failed to start.",
    "Exception: WorkerProc initialization failed due to an exception in a background process.",
    "vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered an issue. See stack trace",
    "[rank0]:[W1122 07:16:17.0 ProcessGroupNCCL.cpp:1575] Warning: WARNING: destroy_process_group() was not called",
    "resource_tracker.py:254: UserWarning: resource_tracker: There appear to be 1 leaked semaphore objects",
    "ERROR 01-01 00:00:00 [multiproc_executor.py:1] Worker proc VllmWorker-0 died unexpectedly.",
]  # fmt: skip
HARMLESS = [
    "",
    "INFO 01-01 00:00:00 [__init__.py:1] Automatically detected platform cuda.",
    "WARNING 08-27 13:59:59 _custom_ops.py:15] Failed to import from vllm._C with ImportError('libcudart.so.12: x')",
    "(APIServer pid=1) INFO 01-01 00:00:00 [model.py:1] Resolved architecture: GlmForCausalLM",
    "DEBUG 01-01 00:00:00 [x.py:1] CUDA out of memory would be bad",
]
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)
noisy = st.lists(st.one_of(text, st.sampled_from(LINES), st.sampled_from(NOISE)), max_size=25)


@given(st.binary(max_size=2000), st.one_of(st.none(), st.integers(-64, 255)))
@settings(max_examples=150, deadline=None)
def test_any_bytes_end_with_a_verdict(data: bytes, code: int | None) -> None:
    found = diagnose(data, exit_code=code)
    assert isinstance(found.kind, Kind)
    assert set(found.numbers) <= set(NUMBER_NAMES)
    json.dumps(to_json(found), allow_nan=False)


@given(noisy, st.one_of(st.none(), st.integers(-64, 255)))
@settings(max_examples=150, deadline=None)
def test_any_mixture_of_lines_ends_with_a_verdict_and_advice(lines: list[str], code: int | None) -> None:
    found = diagnose_lines(lines, exit_code=code)
    assert isinstance(advice(found), tuple)
    assert 0 <= found.line_number <= len(lines)


@given(noisy)
@settings(max_examples=100, deadline=None)
def test_a_whole_text_and_its_lines_give_the_same_verdict(lines: list[str]) -> None:
    whole = "\n".join(lines)
    assert diagnose(whole) == diagnose_lines(whole.split("\n")) == diagnose(whole.encode())


@given(st.sampled_from(CAUSES), st.lists(st.sampled_from(HARMLESS), max_size=6))
@settings(max_examples=150, deadline=None)
def test_harmless_lines_before_a_cause_do_not_change_its_kind(shape: dict[str, str], before: list[str]) -> None:
    assert diagnose("\n".join([*before, shape["log"]])).kind is Kind(shape["kind"])


@given(st.sampled_from(CAUSES), st.lists(st.sampled_from(NOISE), max_size=6))
@settings(max_examples=150, deadline=None)
def test_what_is_never_the_cause_does_not_change_the_kind(shape: dict[str, str], after: list[str]) -> None:
    assert diagnose("\n".join([shape["log"], *after])).kind is Kind(shape["kind"])


@given(st.sampled_from(LOGS), st.sampled_from(LOGS))
@settings(max_examples=20, deadline=None)
def test_a_log_with_two_starts_is_judged_by_the_last(first: str, second: str) -> None:
    both, last = diagnose(first.rstrip("\n") + "\n" + second), diagnose(second)
    assert (both.kind, both.line, both.phase, both.numbers) == (last.kind, last.line, last.phase, last.numbers)
    if last.line_number:
        assert both.line_number == last.line_number + len(first.rstrip("\n").split("\n"))


@given(noisy)
@settings(max_examples=150, deadline=None)
def test_the_prefilter_never_hides_a_line_that_matters(lines: list[str]) -> None:
    every, some = Scanner(), Scanner()
    for line in lines:
        for piece in line.split("\n"):
            every.feed(piece)
            if interesting(piece.encode()):
                some.feed(piece)
            else:
                some.skip(1)
    assert some.conclude() == every.conclude()
    assert (some.effective, some.phase, some.ready) == (every.effective, every.phase, every.ready)


def test_memory_stays_bounded_whatever_is_fed() -> None:
    scanner = Scanner()
    tracemalloc.start()
    for number in range(4000):
        scanner.feed(f"(Worker_{number} pid={number}) ERROR 01-01 00:00:00 [core.py:1] KeyError: '{number}'" + "x" * 99)
        scanner.feed(f'(EngineCore_DP{number} pid={number})   File "/x/vllm/a{number}.py", line 1, in load_model')
        scanner.feed(
            f"(EngineCore_DP{number} pid={number}) INFO [core.py:1] Initializing a V1 LLM engine (v0.{number})"
        )
    scanner.feed("y" * 5_000_000 + " torch.OutOfMemoryError: CUDA out of memory")
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 500_000
    assert scanner.conclude().kind is Kind.WEIGHTS_OOM or scanner.conclude().memory
