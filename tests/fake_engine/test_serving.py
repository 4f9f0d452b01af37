"""What a fake engine does once it serves, and how it prints, hangs and dies: over real sockets and signals."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from . import behaviours as b
from . import leftovers
from .driver import Bench, ended, until
from .ledger import stat_fields
from .memory import MemoryModel
from .scenario import Outcome, Scenario

pytestmark = pytest.mark.process

SECRET = "sk-not-for-logs"
PROMPT = {"model": "m", "prompt": "Hello", "max_tokens": 1}
CHAT = {"model": "m", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 3}


def cpu_ticks(pid: int) -> int:
    return sum(int(field) for field in stat_fields(pid)[11:13])


def test_it_answers_the_routes_that_probes_and_clients_use(engine: Bench) -> None:
    engine.ready("--served-model-name", "a", "b", "--max-model-len", "8k")
    models = json.loads(engine.ask("GET", "/v1/models")[1])["data"]
    assert [(card["id"], card["root"], card["max_model_len"]) for card in models] == [
        ("a", "m", 8000),
        ("b", "m", 8000),
    ]
    completion = json.loads(engine.ask("POST", "/v1/completions", {**PROMPT, "model": "b"})[1])
    assert (completion["object"], completion["usage"]["completion_tokens"]) == ("text_completion", 1)
    status, text = engine.ask("POST", "/v1/completions", PROMPT)
    assert (status, json.loads(text)["error"]["message"]) == (404, "The model `m` does not exist.")
    assert engine.ask("POST", "/v1/embeddings", {})[0] == 404
    assert engine.ask("GET", "/metrics")[1].startswith("# TYPE vllm:")
    assert json.loads(engine.ask("GET", "/version")[1]) == {"version": "0.24.0"}
    until(lambda: '"POST /v1/completions HTTP/1.1" 404 Not Found' in engine.log, "the access log")


def test_it_streams_in_the_form_of_the_openai_client(engine: Bench) -> None:
    engine.ready()
    status, text = engine.ask("POST", "/v1/chat/completions", {**CHAT, "stream": True})
    lines = [line.removeprefix("data: ") for line in text.splitlines() if line]
    parts = [json.loads(line)["choices"][0] for line in lines[:-1]]
    assert (status, lines[-1]) == (200, "[DONE]")
    assert parts[0]["delta"]["role"] == "assistant"
    assert [part["finish_reason"] for part in parts] == [None, None, "length"]
    whole = json.loads(engine.ask("POST", "/v1/chat/completions", CHAT)[1])
    assert whole["choices"][0]["message"]["content"] == "".join(part["delta"]["content"] for part in parts)


def test_an_api_key_guards_v1_and_leaves_health_open(engine: Bench) -> None:
    engine.ready("--api-key", SECRET)
    assert engine.ask("GET", "/health")[0] == engine.ask("GET", "/metrics")[0] == 200
    assert engine.ask("GET", "/v1/models") == (401, '{"error": "Unauthorized"}')
    assert engine.ask("POST", "/v1/completions", PROMPT, key="wrong")[0] == 401
    assert engine.ask("POST", "/v1/completions", PROMPT, key=SECRET)[0] == 200
    assert SECRET not in engine.log


def test_secrets_are_printed_where_told(engine: Bench) -> None:
    engine.end("--api-key", SECRET, kind="unknown", behaviours=(b.PrintSecret(),))
    assert f"'api_key': ['{SECRET}']" in engine.log
    assert "'HF_TOKEN': 'hf_not_for_logs'" in engine.log


def test_a_pooling_model_embeds_and_does_not_complete(engine: Bench) -> None:
    engine.ready(behaviours=(b.Pooling(),))
    assert engine.ask("POST", "/v1/completions", PROMPT) == (404, '{"detail": "Not Found"}')
    assert len(json.loads(engine.ask("POST", "/v1/embeddings", {"input": ["a", "b"]})[1])["data"]) == 2
    assert "Supported tasks: ['embed']" in engine.log


def test_health_can_be_slow_and_unready(engine: Bench) -> None:
    engine.ready(behaviours=(b.Health503(seconds=0.3), b.SlowHealth(seconds=0.01)))
    assert engine.ask("GET", "/health")[0] == 503
    until(lambda: engine.ask("GET", "/health")[0] == 200, "200 after 503")


def test_a_port_can_accept_and_never_answer(engine: Bench) -> None:
    engine.ready(behaviours=(b.NoHealth(),))
    with socket.create_connection(("127.0.0.1", engine.port), timeout=5) as asked:
        asked.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        asked.settimeout(0.2)
        with pytest.raises(TimeoutError):
            asked.recv(1)


def test_completions_can_fail_or_hang_while_health_is_good(engine: Bench) -> None:
    engine.ready(behaviours=(b.CompletionError(),))
    status, text = engine.ask("POST", "/v1/completions", PROMPT)
    assert (status, json.loads(text)["error"]["type"]) == (500, "InternalServerError")


def test_a_hung_completion_does_not_hold_up_health_or_a_stop(engine: Bench) -> None:
    started = engine.ready(behaviours=(b.CompletionHangs(),))
    with socket.create_connection(("127.0.0.1", engine.port), timeout=5) as asked:
        asked.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}")
        asked.settimeout(0.2)
        with pytest.raises(TimeoutError):
            asked.recv(1)
        assert engine.ask("GET", "/health")[0] == 200
        started.terminate()
        assert ended(started) == 0


@pytest.mark.parametrize("kind", ["runtime_oom", "other_crash", ""])
def test_it_can_die_after_it_was_ready(engine: Bench, kind: str) -> None:
    death = b.DieAfterReady(seconds=0.05, kind=kind, code=9)
    assert engine.end(kind="ok", behaviours=(b.Worker(), death)) == 9
    (ready,) = leftovers.events(engine.folder, "ready")
    (end,) = leftovers.events(engine.folder, "exit")
    assert end["time"] - ready["time"] >= 0.05
    assert ("torch.OutOfMemoryError: CUDA out of memory" in engine.log) == (kind == "runtime_oom")
    assert ("EngineCore encountered a fatal error." in engine.log) == bool(kind)
    assert leftovers.alive(engine.folder) == []


def test_it_can_wait_with_its_death_for_the_line_of_its_own_readiness(engine: Bench) -> None:
    record, ready = engine.folder / "record.jsonl", '{"event": "ready"}\n'
    record.write_text(ready)
    started = engine.ready(behaviours=(b.DieAfterReady(seconds=0.01, kind="", code=9, recorded=True),))
    with pytest.raises(subprocess.TimeoutExpired):
        started.wait(0.3)
    record.write_text(ready + ready)
    assert ended(started) == 9


def test_it_can_exit_with_zero_before_it_is_ready(engine: Bench) -> None:
    assert engine.end(behaviours=(b.ExitBeforeReady(),)) == 0
    assert "Application startup complete." not in engine.log


@pytest.mark.parametrize("busy", [False, True])
def test_it_can_hang_without_output_and_with_or_without_using_cpu(engine: Bench, busy: bool) -> None:
    started = engine.one(behaviours=(b.BusySilent(phase="import") if busy else b.NoOutputHang(),))
    until(lambda: leftovers.starts(engine.folder), "start")
    if busy:
        used = cpu_ticks(started.pid)
        until(lambda: cpu_ticks(started.pid) > used + 5, "CPU time")
    else:
        until(lambda: stat_fields(started.pid)[0] == "S", "sleep")
        assert cpu_ticks(started.pid) < 100
    assert engine.log == ""
    started.send_signal(signal.SIGTERM)
    assert ended(started) == -signal.SIGINT


def test_it_can_flood_its_output_before_and_after_it_is_ready(engine: Bench) -> None:
    floods = tuple(b.Spam(bytes=300_001, line_length=100, phase=phase) for phase in ("load", "serving"))
    started = engine.ready(behaviours=floods)
    until(lambda: (engine.folder / "log").stat().st_size > 600_002, "both floods")
    flood = [line for line in engine.log.splitlines() if "Avg prompt throughput" in line]
    assert sum(len(line) + 1 for line in flood) == pytest.approx(600_002, abs=200)
    assert {len(line) for line in flood if len(line) > 50} == {99}
    started.terminate()
    assert ended(started) == 0


def test_it_can_print_what_is_no_text(engine: Bench) -> None:
    engine.end(kind="kv_none", behaviours=(b.Garbage(), b.LongLine(bytes=200_000)))
    printed = (engine.folder / "log").read_bytes()
    assert b"x" * 200_000 + b"\n" in printed
    assert all(part in printed for part in (b"\x00", b"\xff\xfe", b"\x1b[31m", b"\rLoading"))
    with pytest.raises(UnicodeDecodeError):
        printed.decode()


def test_it_can_take_memory(engine: Bench) -> None:
    started = engine.ready(behaviours=(b.AllocateMib(mib=80),))
    pages = int(Path(f"/proc/{started.pid}/statm").read_text().split()[1])
    assert pages * os.sysconf("SC_PAGE_SIZE") > 80 * 1024**2


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--no-such-option", "3"], "error: unrecognized arguments: --no-such-option 3"),
        (["--port", "x"], "error: argument --port: invalid int value: 'x'"),
        (["--max-model-len", "many"], "error: argument --max-model-len: invalid human_readable_int value: 'many'"),
    ],
)
def test_wrong_options_end_like_argparse(engine: Bench, args: list[str], message: str) -> None:
    assert ended(engine.start(Scenario(unknown_options="refuse"), *args)) == 2
    assert message in engine.log


def test_a_wrong_scenario_is_told_apart_from_the_engine(engine: Bench) -> None:
    assert ended(engine.start(Scenario(version="0.32.0", starts=(Outcome(kind="graph_oom"),)))) == 97
    assert engine.log.startswith("fake engine: ScenarioError: vLLM 0.32.0 has no text for graph_oom")


def test_the_memory_model_decides_what_happens_to_the_arguments(engine: Bench) -> None:
    card = Scenario(memory=MemoryModel(total_gib=24, free_gib=22.6))

    def run(*args: str) -> Any:
        return ended(engine.start(card, *args))

    assert run() == 1
    assert "(22.09/24.0 GiB) on startup is less than" not in engine.log
    assert "the estimated maximum model length is 85" in engine.log
    assert run("--gpu-memory-utilization", "0.95") == 1
    assert "Free memory on device cuda:0 (22.09/24.0 GiB) on startup is less than desired" in engine.log
    started = engine.start(card, "--max-model-len", "auto", "--enforce-eager")
    until(lambda: leftovers.events(engine.folder, "ready"), "ready")
    reduced = int(json.loads(engine.ask("GET", "/v1/models")[1])["data"][0]["max_model_len"])
    assert f"Auto-fit max_model_len: reduced from 131072 to {reduced} to fit" in engine.log
    started.terminate()
    assert ended(started) == 0
