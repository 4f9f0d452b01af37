"""How starts fail, hang, come up and die in service, and what the run makes of it."""

from __future__ import annotations

import http.server
import json
import os
import re
import shlex
import signal
import socket
import sys
import threading
import time
from dataclasses import replace

import pytest

from autolaunch.comeback import QUIET_S
from autolaunch.memory import Memory
from tests.fake_engine import behaviours as b
from tests.fake_engine import leftovers
from tests.fake_engine.behaviours import PHASES
from tests.fake_engine.scenario import Outcome, Scenario
from tests.process.stage import DEADLINE_S, ENGINE, HANG_S, Stage, crowd, drive, ok, until, wait

pytestmark = pytest.mark.process


def test_a_climb_reacts_to_the_cause_and_not_to_the_exit(stage: Stage) -> None:
    stage.play(Outcome(kind="kv_too_small", then="hang", behaviours=crowd()), ok())
    assert stage.run("--check").code == 0
    (failed,) = stage.lines("failed")
    (cause,) = leftovers.events(stage.folder, "cause")
    second = leftovers.starts(stage.folder)[1]
    assert failed["reaction_seconds"] < 10  # it would hang for ever; `scripts/bench` measures it: 1.5 s
    assert second["time"] - cause["time"] < 15


def test_an_engine_core_that_outlives_its_server_is_ended_before_the_next_start(stage: Stage) -> None:
    stage.play(Outcome(kind="kv_too_small", then="hang_core"), ok())
    assert stage.run("--check").code == 0
    assert len(leftovers.starts(stage.folder)) == 2


def test_the_next_engine_starts_only_when_the_last_ones_tree_is_gone(stage: Stage) -> None:
    stage.play(Outcome(kind="kv_too_small", behaviours=crowd()), ok())
    process = stage.launch("--check")
    until(lambda: len(leftovers.starts(stage.folder)) == 2, "the second start")
    first = leftovers.starts(stage.folder)[0]["pid"]
    roles = leftovers.roles(stage.folder)
    assert first in roles
    assert not {"hold_pipe", "hold_port", "double_fork"} & {roles[pid] for pid in leftovers.alive(stage.folder)}
    assert stage.end(process).code == 0


@pytest.mark.parametrize("phase", PHASES[:-1])
def test_an_exit_with_zero_before_readiness_is_a_failure(stage: Stage, phase: str) -> None:
    stage.play(ok(b.ExitBeforeReady(code=0, phase=phase)))
    ended = stage.run("--check")
    assert ended.code == 4
    assert stage.lines()[-1]["reason"] == "unknown"
    assert "exited with 0 before it was ready" in ended.err


@pytest.mark.parametrize(("code", "exit_code"), [(1, 4), (137, 3)])
def test_an_exit_without_a_word_is_judged_by_its_code(stage: Stage, code: int, exit_code: int) -> None:
    stage.play(ok(b.ExitBeforeReady(code=code, phase="load")))
    assert stage.run("--check").code == exit_code
    assert stage.lines("failed")[0]["failure"]["kind"] == ("host_oom" if code == 137 else "unknown")


def test_a_start_that_is_silent_and_idle_is_stalled(stage: Stage) -> None:
    stage.play(ok(b.NoOutputHang(phase="load")))
    ended = stage.run("--stall-timeout", "2")
    assert ended.code == 4
    assert "no output, no processor time and no data moved for 2 s (stall timeout 2 s)" in ended.err


def test_a_start_that_reads_slowly_and_silently_is_not_stalled(stage: Stage) -> None:
    """A network disk or a slow download uses next to no processor time."""
    script = stage.folder / "slow.py"
    script.write_text(
        "import time\nfile = open('/dev/zero', 'rb', buffering=0)\n"
        "for _ in range(16): file.read(1 << 16); time.sleep(0.25)\nprint('ValueError: enough')\nraise SystemExit(1)\n"
    )
    words = stage.command("--stall-timeout", "2", engine=f"{sys.executable} -S {script}")
    ended = stage.end(stage.start(words))
    assert ended.code == 4
    assert "stall timeout" not in ended.err


def test_a_start_that_is_silent_and_busy_is_not_stalled(stage: Stage) -> None:
    stage.play(ok(b.BusySilent(seconds=4, phase="load")))
    assert stage.run("--check", "--stall-timeout", "2").code == 0
    assert len(leftovers.starts(stage.folder)) == 1


def test_a_start_that_never_gets_healthy_ends_at_the_start_timeout(stage: Stage) -> None:
    stage.play(ok(b.NoHealth(), b.Worker()))
    ended = stage.run("--start-timeout", "2")
    assert ended.code == 4
    assert "start timeout 2 s" in ended.err


@pytest.mark.parametrize("behaviour", [b.Health503(seconds=1), b.SlowHealth(seconds=0.5), b.Garbage()])
def test_what_only_takes_time_still_becomes_ready(stage: Stage, behaviour: b.Behaviour) -> None:
    stage.play(ok(behaviour))
    assert stage.run("--check").code == 0
    assert len(leftovers.starts(stage.folder)) == 1


def test_a_server_whose_first_completion_fails_is_not_ready(stage: Stage) -> None:
    module = drive(stage, attendant={"PROOF_TRIES": 2})
    stage.play(ok(b.CompletionError(), b.Worker()))
    ended = stage.run("--check", module=module)
    assert ended.code == 4
    assert stage.lines("ready") == []
    assert "/health is 200 and the first request fails: HTTP 500" in ended.err
    assert "--no-prove" in ended.err


def test_a_server_whose_first_completion_hangs_is_not_ready(stage: Stage) -> None:
    module = drive(stage, attendant={"PROOF_TIMEOUT_S": 1})
    stage.play(ok(b.CompletionHangs()))
    ended = stage.run("--check", module=module)
    assert ended.code == 4
    assert "no answer within 1 s" in ended.err


def test_no_prove_takes_health_for_readiness(stage: Stage) -> None:
    stage.play(ok(b.CompletionHangs()))
    assert stage.run("--check", "--no-prove").code == 0


def test_a_pooling_model_is_ready_when_it_embeds(stage: Stage) -> None:
    stage.play(ok(b.Pooling()))
    assert stage.run("--check").code == 0
    assert b"POST /v1/embeddings" in stage.log()


def test_the_proof_uses_the_api_key(stage: Stage) -> None:
    stage.play(ok())
    assert stage.run("--check", "--api-key", "sesame-opens").code == 0
    assert b"401" not in stage.log()


# --- the port


def test_a_taken_port_is_said_before_anything_is_started(stage: Stage) -> None:
    stage.play(ok())
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", stage.port))
        taken.listen()
        ended = stage.run("--check")
    assert ended.code == 5
    assert f"port {stage.port} cannot be listened on: Address already in use (held by " in ended.err
    assert f"pid {os.getpid()})" in ended.err
    assert "hint: " in ended.err
    assert leftovers.starts(stage.folder) == []
    assert not stage.state.exists()
    assert stage.lines() == []


def test_a_port_that_is_taken_between_two_starts_is_said(stage: Stage) -> None:
    stage.play(ok(b.ReusePort()))
    process = stage.launch()
    stage.line("ready")
    with stage.port_taken():
        stage.crash()
        assert stage.end(process).code == 5
    assert "cannot be listened on" in stage.lines()[-1]["reason"]
    assert len(leftovers.starts(stage.folder)) == 1


def test_a_port_that_the_engine_finds_taken_is_the_hosts_fault(stage: Stage) -> None:
    stage.play(Outcome(kind="port_in_use"))
    assert stage.run().code == 5


# --- in service


def test_a_crash_in_service_is_started_again_with_the_same_settings(stage: Stage) -> None:
    stage.play(ok(b.Worker()))
    process = stage.launch()
    stage.line("ready")
    stage.crash()
    stage.line("ready", 1)
    process.send_signal(signal.SIGTERM)
    assert stage.end(process).code == 0
    events = [line["event"] for line in stage.lines()]
    assert events == ["plan", "attempt", "ready", "crashed", "restarting", "attempt", "ready", "stopped"]
    first, second = stage.lines("attempt")
    assert first["argv"] == second["argv"]
    (crashed,), (restarting,) = stage.lines("crashed"), stage.lines("restarting")
    assert set(crashed) == {"v", "time", "run", "event", "failure", "wait_seconds"} == set(restarting)
    assert 1.0 <= crashed["wait_seconds"] <= 2.0


def test_an_exit_with_zero_in_service_is_a_crash(stage: Stage) -> None:
    stage.play(ok(b.DieAfterReady(recorded=True, kind="", code=0)), ok())
    process = stage.launch()
    stage.line("ready", 1)
    process.send_signal(signal.SIGTERM)
    assert stage.end(process).code == 0
    assert stage.lines("crashed")


def test_too_many_crashes_spend_the_restart_budget(stage: Stage) -> None:
    module = drive(stage, restart_wait_s=0.05)
    stage.play(ok(b.Worker()))
    process = stage.launch("--max-restarts", "2", module=module)
    for nth in range(3):
        stage.line("ready", nth)
        until(lambda: len(leftovers.alive(stage.folder)) == 3, "the restarted engine alone")
        stage.crash()
        stage.line("crashed", nth)
    assert stage.end(process).code == 6
    assert [line["wait_seconds"] for line in stage.lines("restarting")] == [0.05, 0.1]
    assert stage.lines()[-1]["reason"] == "3 crashes within 600 s"


def test_crashes_count_across_a_restart_of_the_supervisor(stage: Stage) -> None:
    """A service manager that starts us again must not reset the count of an engine that keeps dying."""
    module = drive(stage, restart_wait_s=0.05)
    stage.play(ok())
    first = stage.launch("--max-restarts", "1", module=module)
    stage.line("ready")
    stage.crash()
    stage.line("ready", 1)
    first.send_signal(signal.SIGKILL)
    first.wait(DEADLINE_S)
    until(lambda: not leftovers.alive(stage.folder), "the engine of the killed supervisor to be gone")
    second = stage.launch("--max-restarts", "1", module=module)
    stage.line("ready", 2)
    stage.crash()
    assert stage.end(second).code == 6
    assert stage.lines()[-1]["reason"] == "2 crashes within 600 s"


def test_memory_that_runs_out_in_service_climbs(stage: Stage) -> None:
    stage.play(ok(b.DieAfterReady(recorded=True, kind="runtime_oom")), ok())
    process = stage.launch("--max-model-len", "8192")
    stage.line("ready", 1)
    process.send_signal(signal.SIGTERM)
    assert stage.end(process).code == 0
    assert stage.lines("crashed")[0]["failure"]["kind"] == "runtime_oom"
    first, second = stage.lines("attempt")
    assert first["settings"] != second["settings"]


def test_after_a_quiet_day_the_next_planned_start_steps_back_up(stage: Stage) -> None:
    stage.play(ok(b.DieAfterReady(recorded=True, kind="runtime_oom")), ok())
    process = stage.launch("--max-model-len", "8192")
    stage.line("ready", 1)
    process.send_signal(signal.SIGTERM)
    assert stage.end(process).code == 0
    assert stage.run("--max-model-len", "8192", "--check").code == 0
    memory = Memory(stage.state, pytest.fail)
    remembered = [(entry.key, entry.outcome) for entry in reversed(memory.entries())]
    memory.forget()
    for key, outcome in remembered:
        memory.add(key, replace(outcome, at=outcome.at - QUIET_S))
    assert stage.run("--max-model-len", "8192", "--check").code == 0
    wide, narrow, the_same_day, a_day_later = (attempt["settings"] for attempt in stage.lines("attempt"))
    assert wide != narrow
    assert (the_same_day, a_day_later) == (narrow, wide)
    assert "one step back up" in stage.lines("plan")[-1]["why"][0]


def test_a_hub_that_is_away_ends_with_4_which_a_service_manager_starts_again(stage: Stage) -> None:
    lost = "OSError: We couldn't connect to 'https://huggingface.co' to load the files, and couldn't find them"
    stage.play(Outcome(kind="model_not_found", lines=(lost,)))
    assert stage.run().code == 4
    assert stage.lines()[-1]["reason"] == "model_not_found"
    assert "hint: The hub did not answer: " in stage.err


def test_an_old_command_line_starts_a_newer_engine(stage: Stage) -> None:
    stage.play(ok())
    old = ("--worker-use-ray", "--engine-use-ray", "--disable-log-requests", "--enable-chunked-prefill", "False")
    assert stage.run("--check", *old).code == 0
    (attempt,) = stage.lines("attempt")
    words = attempt["argv"]
    assert "--distributed-executor-backend" in words
    assert "--no-enable-chunked-prefill" in words
    assert not {"--worker-use-ray", "--engine-use-ray", "--disable-log-requests"} & set(words)
    assert stage.err.count("(it went with") == 3


def test_an_option_that_the_engine_has_no_words_for_starts_nothing(stage: Stage) -> None:
    stage.play(ok())
    end = stage.run("--check", "--rope-scaling", "{}")
    assert (end.code, leftovers.starts(stage.folder)) == (2, [])
    assert "vLLM 0.24.0 has no --rope-scaling any more (it went with 0.11.1)" in end.err
    assert "write instead: --hf-overrides" in end.err


# --- the record


def test_the_record_of_a_climb_has_the_contracts_fields(stage: Stage) -> None:
    stage.play(Scenario(starts=(Outcome(kind="kv_too_small"), ok())))
    assert stage.run("--check").code == 0
    common = {"v", "time", "run", "event"}
    own = {
        "plan": {"settings", "budget", "basis", "why"},
        "attempt": {"n", "rung", "argv", "settings"},
        "failed": {"n", "seconds", "reaction_seconds", "failure"},
        "step": {"rung", "why", "from", "to"},
        "ready": {"n", "seconds", "settings", "effective", "url"},
        "stopped": {"reason", "exit_code"},
    }
    lines = stage.lines()
    assert [line["event"] for line in lines] == ["plan", "attempt", "failed", "step", "attempt", "ready", "stopped"]
    for line in lines:
        assert set(line) == common | own[line["event"]]
        assert line["v"] == 1
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"])
    assert set(lines[2]["failure"]) == {"kind", "line", "numbers"}
    assert lines[2]["failure"]["numbers"]["estimated_max_len"] > 0
    assert {"max_model_len", "kv_cache_tokens"} <= set(lines[5]["effective"])
    assert lines[5]["url"] == f"http://127.0.0.1:{stage.port}"
    assert lines[6] == {**lines[6], "reason": "check", "exit_code": 0}
    assert len({line["run"] for line in lines}) == 1


def test_the_record_of_an_exhausted_ladder_ends_with_exhausted_and_stopped(stage: Stage) -> None:
    stage.play(Outcome(kind="kv_too_small"))
    assert stage.run("--max-model-len", "131072", "--gpu-memory-utilization", "0.9", "--max-attempts", "2").code == 3
    lines = stage.lines()
    assert [line["event"] for line in lines][-2:] == ["exhausted", "stopped"]
    assert set(lines[-2]) == {"v", "time", "run", "event", "why", "closest"}
    assert lines[-1]["reason"] == "exhausted"
    assert lines[-1]["exit_code"] == 3
    assert len(stage.lines("stopped")) == 1


def test_the_printed_command_starts_the_engine_that_was_proven(stage: Stage) -> None:
    stage.play(Outcome(kind="kv_too_small"), ok())
    ended = stage.run("--check")
    (words,) = ended.out.splitlines()
    assert stage.lines("attempt")[1]["argv"] == shlex.split(words)


class _Healthy(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()


def test_somebody_elses_server_on_the_port_is_not_taken_for_the_engine(stage: Stage) -> None:
    """It took the port while the engine loaded, answered /health, and the run said READY."""
    stage.play(ok(delay_s={"import": 600}))
    process = stage.launch("--no-prove")
    stage.line("attempt")
    with http.server.HTTPServer(("127.0.0.1", stage.port), _Healthy) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        ended = stage.end(process)
        other.shutdown()
    assert ended.code == 5, ended.err
    assert stage.lines("ready") == []
    (failed,) = stage.lines("failed")
    assert failed["failure"]["kind"] == "port_in_use"
    assert f"pid {os.getpid()}" in failed["failure"]["line"]
    assert stage.left() == []


def test_memory_that_a_neighbour_took_meanwhile_is_not_waited_for(stage: Stage) -> None:
    """Every attempt once waited 15 s for memory that another process had."""
    stage.play(Outcome(kind="kv_too_small"), ok())
    process = stage.launch(module=drive(stage, free_gib=12))
    stage.line("failed")
    since = time.monotonic()
    stage.line("attempt", 1)
    assert time.monotonic() - since < 12
    process.send_signal(signal.SIGTERM)
    assert stage.end(process).code == 0


# --- in service


def test_an_engine_that_hangs_behind_a_healthy_port_is_started_again(stage: Stage) -> None:
    stage.play(ok(b.StandsStill(requests=1)), ok())
    process = stage.launch("--hang-timeout", str(HANG_S))
    stage.line("restarting")
    until(lambda: [line["event"] for line in stage.lines()].count("ready") == 2, "the second ready")
    crashed = stage.line("crashed")
    assert crashed["failure"]["kind"] == "other_crash"
    assert "no work and no answer for" in crashed["failure"]["line"]
    assert "hint: allow a longer standstill with --hang-timeout SECONDS" in stage.err
    process.send_signal(signal.SIGTERM)
    assert stage.end(process).code == 0
    assert stage.left() == []


def test_an_engine_that_was_put_to_sleep_is_let_sleep(stage: Stage) -> None:
    """A GPU that is lent to a training for an hour was taken for a hang, and the engine was started again."""
    stage.play(ok(b.StandsStill(requests=1), b.Asleep()))
    process = stage.launch("--hang-timeout", "1")
    stage.line("ready")
    until(lambda: stage.log().count(b"GET /is_sleeping") >= 6, "six questions, where the first unanswered one ended it")
    assert stage.log().count(b"POST /v1/completions") == 1, "the proof, and nothing after it"
    process.send_signal(signal.SIGTERM)
    assert stage.end(process).code == 0
    assert stage.lines("crashed") == []


def test_an_engine_that_is_busy_and_works_is_never_asked(stage: Stage) -> None:
    stage.play(ok(b.StandsStill(requests=1, works=True)))
    process = stage.launch("--hang-timeout", str(HANG_S))
    stage.line("ready")
    wait(process, HANG_S + 1)
    assert stage.log().count(b"POST /v1/completions") == 1, "the proof, and nothing after it"
    process.send_signal(signal.SIGTERM)
    assert stage.end(process).code == 0


def test_a_models_file_says_where_its_model_serves_and_with_which_key(stage: Stage) -> None:
    stage.play(ok())
    words = ["--port", str(stage.port), "--api-key", "sk-0123456789abcdef", "--disable-log-requests"]
    file = stage.folder / "models.toml"
    file.write_text(f'[q]\nmodel = "org/q"\nengine_args = {json.dumps(words)}\n', encoding="utf-8")
    command = [sys.executable, "-m", "autolaunch", "q", "--models", str(file), "--check", "--record", str(stage.record)]
    engine = ["--engine", ENGINE, "--engine-version", "0.32.0", "--state-dir", str(stage.state)]
    end = stage.end(stage.start([*command, *engine]))
    assert end.code == 0, end.err
    assert stage.line("ready")["url"] == f"http://127.0.0.1:{stage.port}"
    assert f"{file}: vLLM 0.32.0 has no --disable-log-requests any more" in end.err
    assert "sk-0123456789abcdef" not in end.out + end.err + stage.record.read_text(encoding="utf-8")
