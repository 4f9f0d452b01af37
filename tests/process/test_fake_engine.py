"""The fake engine does what its scenarios say, seen from outside: real processes, signals, pipes and ports.

Its serving is tested in tests/fake_engine/test_serving.py, its vocabulary in test_vocabulary.py beside it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fake_engine import behaviours as b
from tests.fake_engine import command, leftovers
from tests.fake_engine.card import NEIGHBOUR_PID
from tests.fake_engine.driver import ROOT, Bench, bench, ended, until
from tests.fake_engine.ledger import stat_fields
from tests.fake_engine.memory import MemoryModel, Move
from tests.fake_engine.release import TEXTS as VERSIONS
from tests.fake_engine.scenario import Outcome, Rule, Scenario
from tests.fake_engine.texts import Texts

pytestmark = pytest.mark.process

READY = "Application startup complete."


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Bench]:
    with bench(tmp_path) as made:
        yield made


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_comes_up_serves_and_stops_with_zero_leaving_nothing(
    engine: Bench, version: str, number: signal.Signals
) -> None:
    started = engine.start(Scenario(version=version, behaviours=(b.Worker(count=2),)))
    until(lambda: leftovers.events(engine.folder, "ready"), "ready")
    assert engine.ask("GET", "/health") == (200, "")
    assert len(leftovers.alive(engine.folder)) == 4
    started.send_signal(number)
    assert ended(started) == 0
    assert until(lambda: not leftovers.alive(engine.folder), "everything gone")
    assert f"version {version}" in engine.log
    assert READY in engine.log
    assert "Application shutdown complete." in engine.log


@pytest.mark.parametrize("words", [[sys.executable, "-m", "tests.fake_engine"], [sys.executable, "tests/fake_engine"]])
def test_it_runs_as_a_module_and_by_its_path(engine: Bench, words: list[str]) -> None:
    assert ended(engine.start(Scenario(starts=(Outcome(kind="kv_none"),)), words=words)) == 1


def test_the_nth_start_takes_the_nth_outcome_and_the_last_repeats(engine: Bench) -> None:
    scenario = Scenario(starts=(Outcome(kind="kv_none"), Outcome(kind="other_crash", code=7)))
    assert [ended(engine.start(scenario)) for _ in range(3)] == [1, 7, 7]
    lines = leftovers.starts(engine.folder)
    assert [line["n"] for line in lines] == [0, 1, 2]
    assert lines[0]["argv"][:2] == ["--model", "m"]
    assert all(0 <= line["time"] - line["exec_time"] < 30 for line in lines)


def test_starts_at_the_same_time_never_share_a_number(engine: Bench) -> None:
    several = [engine.one(kind="unknown") for _ in range(8)]
    assert {ended(started) for started in several} == {1}
    assert sorted(line["n"] for line in leftovers.starts(engine.folder)) == list(range(8))


def test_a_rule_over_the_arguments_decides_before_the_order_of_starts(engine: Bench) -> None:
    rule = Rule(when={"gpu_memory_utilization": {"gt": 0.8}}, do=Outcome(kind="kv_alloc_oom", code=3))
    scenario = Scenario(rules=(rule,), starts=(Outcome(kind="kv_none", code=4),))
    given: tuple[list[str], ...] = ([], ["--gpu-memory-utilization", "0.8"], ["--gpu_memory_utilization=0.81"])
    assert [ended(engine.start(scenario, *args)) for args in given] == [3, 4, 3]


@pytest.mark.parametrize("version", VERSIONS)
def test_every_kind_of_every_version_prints_its_cause_and_ends(engine: Bench, version: str) -> None:
    kinds = Texts(version).kinds()
    rules = tuple(Rule(when={"served_model_name": [kind]}, do=Outcome(kind=kind)) for kind in kinds)
    running = {
        kind: engine.start(Scenario(version=version, rules=rules), "--served-model-name", kind, "--port", "0")
        for kind in kinds
    }
    statuses = {kind: ended(started) for kind, started in running.items()}
    assert statuses == {kind: -signal.SIGKILL if kind == "host_oom" else 1 for kind in kinds}
    assert len(leftovers.events(engine.folder, "cause")) == len(kinds)
    assert "fake engine:" not in engine.log
    assert leftovers.alive(engine.folder) == []


def test_a_failure_with_several_ranks_is_the_workers_and_the_core_blames_them(engine: Bench) -> None:
    engine.end("-tp", "2", kind="profile_oom")
    assert "(Worker_TP1 pid=" in engine.log
    assert "RuntimeError: Worker failed with error 'CUDA out of memory. Tried to allocate" in engine.log


@pytest.mark.parametrize(("fields", "status"), [({"code": 0}, 0), ({"code": 137}, 137), ({"signal": 6}, -6)])
def test_a_failure_ends_as_it_is_told(engine: Bench, fields: dict[str, int], status: int) -> None:
    assert engine.end(kind="graph_oom", delay_s={"load": 0.05, "exit": 0.1}, **fields) == status
    (cause,), (end,) = (leftovers.events(engine.folder, event) for event in ("cause", "exit"))
    assert end["time"] - cause["time"] >= 0.1


def test_a_hung_failure_prints_its_cause_and_lives_on(engine: Bench) -> None:
    started = engine.one(kind="kv_too_small", then="hang", numbers={"estimated_max_len": 4711})
    until(lambda: "the estimated maximum model length is 4711." in engine.log, "the cause")
    assert started.poll() is None
    assert "See root cause above" not in engine.log


def test_an_engine_core_can_outlive_its_api_server_in_the_same_session(engine: Bench) -> None:
    started = engine.one(kind="kv_none", then="hang_core")
    assert ended(started) == 1
    core = engine.pid_of("core")
    assert leftovers.alive(engine.folder) == [core]
    assert os.getsid(core) == started.pid
    assert Path(f"/proc/{core}/cmdline").read_bytes().startswith(b"VLLM::EngineCore\0")


def test_lines_and_logs_of_the_tests_own_replace_the_texts(engine: Bench, tmp_path: Path) -> None:
    assert engine.end(kind="unknown", lines=("a cause of our own",)) == 1
    (tmp_path / "real.log").write_bytes(b"a replayed line\n\xff\n")
    assert engine.end(kind="kv_none", log=str(tmp_path / "real.log")) == 1
    assert engine.log.endswith("a cause of our own\na replayed line\n�\n")


def test_sigterm_is_ignored_by_the_leader_and_its_children_if_told(engine: Bench) -> None:
    started = engine.ready(behaviours=(b.IgnoreSigterm(), b.Worker()))
    os.killpg(started.pid, signal.SIGTERM)
    assert engine.ask("GET", "/health")[0] == 200  # an answer after the signal: it was delivered and ignored
    assert sorted(leftovers.roles(engine.folder).values()) == ["core", "leader", "worker0"]
    assert len(leftovers.alive(engine.folder)) == 3


def test_a_stop_during_the_start_ends_it_by_a_signal(engine: Bench) -> None:
    started = engine.one(kind="ok", delay_s={"load": 60}, behaviours=(b.Child(),))
    until(lambda: "Using max model len" in engine.log and "core" in leftovers.roles(engine.folder).values(), "init")
    started.terminate()
    assert ended(started) == -signal.SIGINT
    assert leftovers.alive(engine.folder) == []


@pytest.mark.parametrize("clear_env", [False, True])
def test_a_double_forked_process_leaves_session_parent_and_environment(engine: Bench, clear_env: bool) -> None:
    started = engine.ready(behaviours=(b.DoubleFork(clear_env=clear_env),))
    gone = engine.pid_of("double_fork")
    assert os.getsid(gone) not in (started.pid, os.getsid(0))
    assert stat_fields(gone)[1] != str(started.pid)
    environment = Path(f"/proc/{gone}/environ")
    until(lambda: (b"FAKE_ENGINE" in environment.read_bytes()) != clear_env, "its environment")
    os.killpg(started.pid, signal.SIGKILL)
    ended(started)
    os.kill(gone, signal.SIGTERM)
    assert leftovers.alive(engine.folder) == [gone]


def test_a_grandchild_holds_the_pipe_after_the_leader_is_gone(engine: Bench) -> None:
    environment = {**os.environ, **Scenario(behaviours=(b.HoldPipe(),)).write(engine.folder / "scenario.json")}
    argv = [*command(), "--model", "m", "--port", str(engine.port), "--max-model-len", "999999999"]
    with subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as started:
        until(lambda: leftovers.events(engine.folder, "ready"), "ready")
        started.kill()
        ended(started)
        assert started.stdout is not None
        os.set_blocking(started.stdout.fileno(), False)
        os.read(started.stdout.fileno(), 1024**2)
        with pytest.raises(BlockingIOError):  # no end of file: somebody still holds the other end
            os.read(started.stdout.fileno(), 1)
        leftovers.reap(engine.folder)


def test_a_grandchild_holds_the_port_after_the_leader_is_gone(engine: Bench) -> None:
    engine.end(kind="kv_none", behaviours=(b.HoldPort(),))
    assert leftovers.alive(engine.folder) == [engine.pid_of("hold_port")]
    assert engine.end(kind="ok") == 1
    assert "OSError: [Errno 98] Address already in use" in engine.log


# --- the memory model: a card that the engine shares with others, a compile cache, simulated seconds

GIB = 2**30


class Card:
    """The file of FAKE_NVML with one card of 24 GiB, and what is on it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "cards.json"
        self.path.write_text(json.dumps({"cards": [{"total": 24 * GIB, "capability": [8, 9], "name": "a card"}]}))

    @property
    def held(self) -> dict[int, float]:
        """GiB by pid, of processes that live."""
        program = (
            "import pynvml, json; pynvml.nvmlInit(); card = pynvml.nvmlDeviceGetHandleByIndex(0); "
            "print(json.dumps([(p.pid, p.usedGpuMemory) for p in pynvml.nvmlDeviceGetComputeRunningProcesses(card)]))"
        )
        environment = {**os.environ, "FAKE_NVML": str(self.path), "PYTHONPATH": str(ROOT / "tests/fake_nvml")}
        said = subprocess.run([sys.executable, "-c", program], env=environment, stdout=subprocess.PIPE, check=True)
        return {pid: round(held / GIB, 2) for pid, held in json.loads(said.stdout)}


@pytest.fixture
def card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Card:
    made = Card(tmp_path)
    monkeypatch.setenv("FAKE_NVML", str(made.path))
    return made


def on_card(**fields: Any) -> Scenario:
    return Scenario(version="0.30.0", memory=MemoryModel(nvml=True, **fields))


@pytest.mark.parametrize("behaviours", [(), (b.Child(),)])
def test_what_an_engine_holds_is_on_the_card_until_it_is_killed(
    engine: Bench, card: Card, behaviours: tuple[b.Behaviour, ...]
) -> None:
    scenario = Scenario(version="0.30.0", memory=MemoryModel(nvml=True), behaviours=behaviours)
    started = engine.start(scenario, "--max-model-len", "4096")
    until(lambda: leftovers.events(engine.folder, "ready"), "ready")
    holder = engine.pid_of("core") if behaviours else started.pid
    assert card.held == {holder: 22.08}
    started.kill()
    ended(started)
    leftovers.reap(engine.folder)
    assert card.held == {}


def test_a_second_engine_on_the_card_finds_what_the_first_left(engine: Bench, card: Card) -> None:
    engine.start(on_card(), "--max-model-len", "4096")
    until(lambda: leftovers.events(engine.folder, "ready"), "ready")
    assert ended(engine.start(on_card(), "--port", "0")) == 1
    assert "Free memory on device cuda:0 (1.52/24.0 GiB) on startup is less than desired" in engine.log


def test_neighbours_move_on_the_card_as_the_engine_meets_them(engine: Bench, card: Card) -> None:
    moves = (Move(start=0, phase="init", gib=9), Move(start=1, phase="import", gib=0))
    scenario = on_card(moves=moves)
    assert ended(engine.start(scenario, "--max-model-len", "4096")) == 1
    assert card.held == {NEIGHBOUR_PID: 9.0}
    assert "(14.6/24.0 GiB) on startup is less than desired" in engine.log
    started = engine.start(scenario, "--max-model-len", "4096")
    until(lambda: leftovers.events(engine.folder, "ready"), "ready")
    assert list(card.held) == [started.pid]


def test_the_second_start_finds_the_compile_cache_of_the_first(engine: Bench, card: Card) -> None:
    scenario = on_card(cache="folder")
    assert [ended(engine.start(scenario)) for _ in range(2)] == [1, 1]
    first, second = leftovers.events(engine.folder, "judged")
    assert [line["kind"] for line in (first, second)] == ["kv_too_small", "kv_too_small"]
    assert [line["seconds"] for line in (first, second)] == [78.5, 54.5]
    assert round(second["numbers"]["available_kv_gib"] - first["numbers"]["available_kv_gib"], 2) == 0.98
    assert ended(engine.start(scenario, "--max-num-batched-tokens", "1024")) == 1  # another shape is compiled anew
    assert leftovers.events(engine.folder, "judged")[2]["seconds"] == 78.5


def test_the_budget_is_said_in_the_words_of_the_release(engine: Bench) -> None:
    said = {
        "0.6.6": "model weights take 17.55GiB; non_torch_memory takes 0.07GiB; PyTorch activation peak memory takes ",
        "0.10.2": "Actual usage is 17.55 GiB for weight, 1.41 GiB for peak activation, 0.08 GiB for non-torch memory, ",
        "0.30.0": "Actual usage is 18.00 GiB for consumed memory (weights + non-torch), 0.92 GiB for peak activation, ",
    }
    for version, line in said.items():
        scenario = Scenario(version=version, memory=MemoryModel())
        started = engine.start(scenario, "--max-model-len", "4096")
        until(lambda version=version: f"version {version}" in engine.log, version)  # type: ignore[misc]
        until(lambda line=line: line in engine.log, line)  # type: ignore[misc]
        started.kill()
        ended(started)


def test_a_card_that_is_not_there_is_the_scenarios_mistake(engine: Bench, card: Card) -> None:
    assert ended(engine.start(on_card(), "-tp", "2")) == 97
    assert f"{card.path}: 2 cards are asked for, 1 can be seen" in engine.log
