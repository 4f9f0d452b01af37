"""Every mistake costs one clear message with a hint and the right exit code: nothing is started, nothing is left."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from tests.fake_engine import leftovers
from tests.process.stage import ENGINE, Result, Stage, ok

pytestmark = pytest.mark.process


WITHOUT_VLLM = """
from importlib import metadata
real = metadata.version
def version(name):
    if name.startswith("vllm"):
        raise metadata.PackageNotFoundError(name)
    return real(name)
metadata.version = version
"""
"""A sitecustomize.py that hides the vLLM that may be installed beside these tests."""


def complain(stage: Stage, *words: str, code: int, environment: Mapping[str, str] | None = None) -> str:
    """Run autolaunch with these words; return its message, which must be one with a hint."""
    stage.environment |= environment or {}
    ended = stage.end(stage.start([sys.executable, "-m", "autolaunch", *words]))
    assert ended.code == code, ended.err
    error, hint = ended.err.splitlines()
    assert error.startswith("error: ")
    assert hint.startswith("hint: ")
    assert ended.out == ""
    assert leftovers.starts(stage.folder) == []
    assert not stage.state.exists()
    return ended.err


def serve(stage: Stage, *words: str, engine: str = ENGINE) -> list[str]:
    return ["glm-4-9b", "--engine", engine, "--state-dir", str(stage.state), "--port", str(stage.port), *words]


USAGE = {
    "an unknown strategy": (["--strategy", "keep-contxt"], "keep-context"),
    "a strategy file that is not there": (["--strategy", "./nowhere.toml"], "nowhere.toml"),
    "contradicting bounds": (["--min-context", "9k", "--max-context", "8k"], "--min-context"),
    "a pinned length above the cap": (["--max-model-len", "9000", "--max-context", "8000"], "--max-model-len"),
    "two settings of memory": (["--memory", "20GiB", "--gpu-memory-utilization", "0.5"], "--memory"),
    "a port that is none": (["--port", "http"], "--port"),
    "a port beyond the last": (["--port", "70000"], "70000"),
    "memory without a unit that is known": (["--memory", "20 parsecs"], "--memory"),
    "no attempts": (["--max-attempts", "0"], "--max-attempts"),
    "a time without a bound": (["--start-timeout", "nan"], "--start-timeout"),
    "an endless time": (["--stall-timeout", "inf"], "--stall-timeout"),
    "a share above one": (["--gpu-memory-utilization", "1.5"], "gpu-memory-utilization"),
    "an option without its value": (["--strategy"], "--strategy"),
    "an empty record": (["--record", ""], "--record is given an empty value"),
    "an empty strategy": (["--strategy="], "--strategy is given an empty value"),
    "two models": (["--model", "other"], "--model"),
    "a second word": (["surplus"], "surplus"),
    "an engine log of another kind": (["--engine-log", "both"], "--engine-log"),
}


@pytest.mark.parametrize("name", USAGE)
def test_a_mistake_on_the_command_line_is_said(stage: Stage, name: str) -> None:
    words, said = USAGE[name]
    assert said in complain(stage, *serve(stage, *words), code=2)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["glm-4-9c"], "glm-4-9b"),
        (["./no/such/folder"], "./no/such/folder"),
        (["--max-attempts", "3"], "MODEL"),
        (["plan", "glm-4-9b", "--gpu", "RTX 4O90"], "4090"),
        (["plan", "glm-4-9b", "--gpu-memory-total", "0.5"], "0.5GiB"),
        (["diagnose", "/no/such/file.log"], "/no/such/file.log"),
        (["diagnose", "--jsonn"], "--jsonn"),
        (["doctor", "--surplus"], "--surplus"),
    ],
)
def test_a_mistake_in_the_words_is_said(stage: Stage, words: Sequence[str], said: str) -> None:
    more = ["--engine", ENGINE, "--port", str(stage.port)] if words[0] not in ("plan", "diagnose", "doctor") else []
    assert said in complain(stage, *words, *more, code=2)


def test_a_folder_without_a_model_is_said(stage: Stage) -> None:
    assert "holds no model" in complain(stage, str(stage.temporary), "--engine", ENGINE, code=2)


def test_a_strategy_file_with_an_unknown_key_names_the_key_and_the_nearest(stage: Stage) -> None:
    file = stage.folder / "mine.toml"
    shipped = next((Path(__file__).parents[2] / "strategies").glob("classic.toml"))
    file.write_text("max_atempts = 3\n" + shipped.read_text(encoding="utf-8"), encoding="utf-8")
    said = complain(stage, *serve(stage, "--strategy", str(file)), code=2)
    assert "max_atempts" in said
    assert "max_attempts" in said
    assert str(file) in said


@pytest.mark.parametrize("name", ["hunyuanvideo-1.5", "tencent/HunyuanVideo-1.5", "iflytek/Spark-Formalizer-X1-7B"])
def test_a_model_that_vllm_cannot_serve_is_said(stage: Stage, name: str) -> None:
    assert "vLLM has no class" in complain(stage, name, "--engine", ENGINE, "--port", str(stage.port), code=2)


@pytest.mark.parametrize("command", [(), ("plan", "--gpu", "H100")])
@pytest.mark.parametrize("name", ["glm-4-9b-0414", "zai-org/GLM-4-9B-0414"])
def test_a_release_that_does_not_serve_the_model_is_said(stage: Stage, command: Sequence[str], name: str) -> None:
    words = [*command, name, "--engine", ENGINE, "--engine-version", "0.6.3"]
    said = complain(stage, *words, code=2)
    assert f"{name} needs vLLM 0.8.5 or newer, this is 0.6.3" in said
    assert "--try-anyway" in said


def test_a_models_file_with_an_unknown_key_names_the_key_and_the_nearest(stage: Stage) -> None:
    file = stage.folder / "models.toml"
    file.write_text('[mine]\nmodle = "org/m"\n', encoding="utf-8")
    for words, variables in (
        ((*serve(stage), "--models", str(file)), {}),
        (serve(stage), {"AUTOLAUNCH_MODELS": str(file)}),
    ):
        (stage.folder / "err").unlink(missing_ok=True)
        said = complain(stage, *words, code=2, environment=variables)
        assert f"models file {file}: unknown key 'modle' in [mine]" in said
        assert "did you mean 'model'?" in said


def test_an_unreadable_config_file_is_said(stage: Stage) -> None:
    assert "nowhere.yaml" in complain(stage, *serve(stage, "--config", "/nowhere.yaml"), code=2)


# --- the host


def test_a_host_without_vllm_is_said(stage: Stage, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(WITHOUT_VLLM, encoding="utf-8")
    words = ["glm-4-9b", "--port", str(stage.port), "--state-dir", str(stage.state)]
    said = complain(stage, *words, code=5, environment={"PATH": "", "PYTHONPATH": str(tmp_path)})
    assert "no vLLM was found" in said
    assert "--engine" in said


@pytest.mark.parametrize(
    ("engine", "said"),
    [
        ("/no/such/engine --fast", "/no/such/engine does not exist"),
        ("no-such-command-at-all", "does not exist"),
        ("/tmp", "/tmp is a folder"),
        ("", "--engine is empty"),
        ("python 'unclosed", "No closing quotation"),
    ],
)
def test_an_engine_command_that_cannot_be_run_is_said(stage: Stage, engine: str, said: str) -> None:
    assert said in complain(stage, *serve(stage, engine=engine), code=5)


def test_an_engine_command_that_is_not_executable_is_said(stage: Stage) -> None:
    file = stage.folder / "engine"
    file.write_text("#!/bin/sh\n")
    assert "chmod +x" in complain(stage, *serve(stage, engine=str(file)), code=5)


def test_an_engine_that_the_kernel_refuses_is_said_and_leaves_no_process(stage: Stage) -> None:
    file = stage.folder / "engine"
    file.write_bytes(b"\x7fELF no program")
    file.chmod(0o755)
    ended = stage.run("--engine", str(file))
    assert ended.code == 5
    assert "the engine command cannot be run: Exec format error" in ended.err
    assert [line["event"] for line in stage.lines()] == ["plan", "attempt", "stopped"]
    assert stage.lines()[-1]["exit_code"] == 5
    assert stage.left() == []


def test_a_state_folder_that_cannot_be_used_is_said(stage: Stage) -> None:
    words = ["glm-4-9b", "--engine", ENGINE, "--port", str(stage.port), "--state-dir", "/proc/nowhere"]
    assert "/proc/nowhere" in complain(stage, *words, code=5)


def test_a_record_that_cannot_be_opened_is_said_and_leaves_no_run_folder(stage: Stage) -> None:
    ended = stage.end(
        stage.start([sys.executable, "-m", "autolaunch", *serve(stage, "--record", "/no/such/folder/record")])
    )
    assert ended.code == 5
    assert "/no/such/folder/record" in ended.err
    assert "hint: " in ended.err
    assert list((stage.state / "runs").glob("*")) == []


def test_a_record_that_is_a_pipe_without_a_reader_is_said_at_once(stage: Stage) -> None:
    """Opening it once waited for a reader before a word was said."""
    pipe = stage.folder / "pipe"
    os.mkfifo(pipe)
    ended = stage.end(stage.start([sys.executable, "-m", "autolaunch", *serve(stage, "--record", str(pipe))]), 10)
    assert ended.code == 5
    assert "a pipe that nobody reads" in ended.err


def test_a_record_whose_reader_stops_reading_does_not_stop_the_run(stage: Stage) -> None:
    pipe = stage.folder / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDWR | os.O_NONBLOCK)
    os.write(reader, b"x" * 65536)
    stage.play(ok())
    ended = stage.run("--check", "--record", str(pipe))
    os.close(reader)
    assert ended.code == 0, ended.err
    assert ended.err.count("cannot be written") == 1


def test_memory_needs_a_card_whose_size_is_known(stage: Stage) -> None:
    if shutil.which("nvidia-smi"):
        pytest.skip("there may be a card")
    assert "--memory" in complain(stage, *serve(stage, "--memory", "22GiB"), code=5)


# --- the environment


def test_every_option_of_serve_can_be_set_by_its_variable(stage: Stage) -> None:
    stage.play(ok())
    stage.environment |= {
        "AUTOLAUNCH_ENGINE": ENGINE,
        "AUTOLAUNCH_ENGINE_VERSION": "0.24.0",
        "AUTOLAUNCH_STRATEGY": "classic",
        "AUTOLAUNCH_RECORD": str(stage.record),
        "AUTOLAUNCH_CHECK": "1",
        "AUTOLAUNCH_MAX_ATTEMPTS": "3",
        "AUTOLAUNCH_START_TIMEOUT": "30",
        "AUTOLAUNCH_STALL_TIMEOUT": "20",
        "AUTOLAUNCH_MIN_CONTEXT": "2k",
        "AUTOLAUNCH_MAX_CONTEXT": "16k",
        "AUTOLAUNCH_CONCURRENCY": "2",
        "AUTOLAUNCH_STATE_DIR": str(stage.state),
        "AUTOLAUNCH_NO_MEMORY": "1",
        "AUTOLAUNCH_NO_PROVE": "1",
        "AUTOLAUNCH_ENGINE_LOG": "inherit",
        "AUTOLAUNCH_LOG_FORMAT": "console",
    }
    ended = stage.end(stage.start([sys.executable, "-m", "autolaunch", "glm-4-9b", "--port", str(stage.port)]))
    assert ended.code == 0, ended.err
    assert "vLLM 0.24.0, strategy classic" in ended.err
    assert "at most 3" in ended.err
    assert "Application startup complete." in ended.err
    assert b"GET /v1/models" not in stage.log()
    assert [line["event"] for line in stage.lines()] == ["plan", "attempt", "ready", "stopped"]


def test_a_variable_that_cannot_be_read_is_said(stage: Stage) -> None:
    assert "--check" in complain(stage, *serve(stage), code=2, environment={"AUTOLAUNCH_CHECK": "perhaps"})


def test_an_empty_variable_is_no_value(stage: Stage) -> None:
    stage.play(ok())
    stage.environment |= {"AUTOLAUNCH_STRATEGY": "", "AUTOLAUNCH_MAX_ATTEMPTS": ""}
    assert stage.run("--check").code == 0


# --- diagnose


def diagnose(stage: Stage, *words: str, stdin: bytes = b"") -> Result:
    done = subprocess.run(
        [sys.executable, "-m", "autolaunch", "diagnose", *words],
        input=stdin, capture_output=True, env=stage.environment, check=False, timeout=60,
    )  # fmt: skip
    return Result(done.returncode, done.stdout.decode(), done.stderr.decode())


LOG = b"INFO: API server version 0.24.0\nValueError: No available memory for the cache blocks.\n"


@pytest.mark.parametrize("words", [["-"], [], ["--json"], ["-", "--json"]])
def test_diagnose_reads_standard_input(stage: Stage, words: list[str]) -> None:
    ended = diagnose(stage, *words, stdin=LOG)
    assert ended.code == 0
    assert "kv_none" in ended.out
    assert ended.err == ""


@pytest.mark.parametrize(("content", "kind"), [(LOG, "kv_none"), (b"", "unknown"), (os.urandom(100_000), "unknown")])
def test_diagnose_reads_any_file(stage: Stage, content: bytes, kind: str) -> None:
    file = stage.folder / "server.log"
    file.write_bytes(content)
    ended = diagnose(stage, str(file), "--json")
    assert ended.code == 0
    assert f'"kind": "{kind}"' in ended.out
    assert ended.err == ""


def test_diagnose_says_what_a_killed_engine_core_left_and_no_empty_line(stage: Stage) -> None:
    """Of a log with figures and no sentence for its kind it once printed the line twice, or a blank one."""
    up = b"Available KV cache memory: 5.50 GiB\nINFO:     Application startup complete.\n"
    died = b"ERROR 01-01 00:00:00 [core_client.py:610] Engine core proc EngineCore_DP0 died unexpectedly.\n"
    assert diagnose(stage, stdin=up + died).out.splitlines() == [
        "other_crash",
        "  line 3: Engine core proc EngineCore_DP0 died unexpectedly.",
        "  hint: The engine crashed for a reason that is not memory: the line and the log above it say where.",
    ]
    assert diagnose(stage, stdin=up).out.splitlines() == ["ok", "  5.50 GiB of KV cache"]


def test_diagnose_into_a_pipe_that_is_closed_ends_quietly(stage: Stage) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "autolaunch", "diagnose"],
        input=LOG, stdout=writing, stderr=subprocess.PIPE, env=stage.environment, check=False, timeout=60,
    )  # fmt: skip
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_service_whose_secrets_others_may_read_says_so_and_serves(stage: Stage) -> None:
    secrets = stage.folder / "unit.env"
    secrets.write_text("HF_TOKEN=x\n")
    secrets.chmod(0o644)
    stage.environment["AUTOLAUNCH_SECRETS_FILE"] = str(secrets)
    stage.play(ok())
    ended = stage.run("--check")
    assert ended.code == 0
    assert f"warning: others may read the secrets of this service: {secrets} has mode 0644" in ended.err
