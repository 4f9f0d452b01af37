"""The vocabulary, the command line, the texts and the memory model: pure, no process is started."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest

from . import leftovers
from .arguments import UsageError, parse, refuse_unknown_options
from .behaviours import BEHAVIOURS, Behaviour, DieAfterReady, Spam
from .course import judge
from .failures import aftermath, cause
from .ledger import Ledger
from .memory import MemoryModel
from .record import ScenarioError
from .release import RELEASES, texts_of
from .release import TEXTS as VERSIONS
from .scenario import KINDS, Outcome, Rule, Scenario, choose, load, matches
from .texts import Speech, Texts
from .values import fill_values, numbers

GLM_24_GIB = MemoryModel(total_gib=24, free_gib=23.2)


def speech(version: str, ranks: int = 1, *args: str) -> Speech:
    arguments = parse(["--model", "m", "-tp", str(ranks), *args], version)
    found = numbers("kv_too_small", {}, arguments.with_defaults())
    values = {**fill_values(arguments, found, reveal=False), "api_pid": 1, "core_pid": 2, "core_prefix": "(E) "}
    values |= {"task": "generate", "hf_token": "", "request": "GET /", "status": "200 OK"}
    return Speech(Texts(version), values, frozenset(), ranks)


def test_a_scenario_survives_the_way_through_json() -> None:
    behaviours = tuple(kind() for kind in BEHAVIOURS.values() if kind is not Behaviour)
    outcome = Outcome(
        kind="kv_none", delay_s={"load": 1.5}, then="hang", numbers={"free_gib": 2}, behaviours=behaviours
    )
    rule = Rule(when={"start": {"lt": 2}, "quantization": None}, do=outcome)
    scenario = Scenario(folder="/f", rules=(rule,), starts=(outcome, Outcome()), memory=GLM_24_GIB)
    assert load(scenario.env()["FAKE_ENGINE"]) == scenario


def test_a_file_without_a_folder_records_beside_itself(tmp_path: Path) -> None:
    environment = Scenario(version="0.6.3").write(tmp_path / "s.json")
    assert load(environment["FAKE_ENGINE"]) == Scenario(version="0.6.3", folder=str(tmp_path))


def test_shorthands_read_as_what_they_stand_for() -> None:
    text = (
        '{"starts": ["ok", {"behaviours": ["spam", {"spam": 5}, {"die_after_ready_s": {"seconds": 1, "signal": 9}}]}]}'
    )
    death = DieAfterReady(seconds=1, signal=9)
    wanted = (Outcome(kind="ok"), Outcome(behaviours=(Spam(), Spam(bytes=5), death)))
    assert load(text).starts == wanted


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"verson": "0.24.0"}', "scenario: unknown key 'verson'; the nearest known key is 'version'"),
        ('{"version": "0.5.0"}', "Scenario.version: '0.5.0' is not one of"),
        ('{"starts": [{"kind": "kv_smal"}]}', "Outcome.kind: 'kv_smal' is not one of"),
        ('{"starts": [{"delay_s": {"loading": 1}}]}', "Outcome.delay_s: 'loading' is not one of"),
        ('{"starts": [{"code": "1"}]}', "scenario.starts[0].code: expected int, found '1'"),
        ('{"behaviours": ["spamm"]}', "the nearest known key is 'spam'"),
        ('{"behaviours": [{"spam": {"byte": 1}}]}', "the nearest known key is 'bytes'"),
        ('{"behaviours": [{"garbage": {"phase": "lod"}}]}', "garbage: phase is not one of import, config"),
        ('{"rules": [{"when": {"seed": {"above": 1}}, "do": "ok"}]}', "Rule.when.seed: 'above' is not one of"),
        ('{"rules": [{"do": "ok"}]}', "Rule: when is missing"),
    ],
)
def test_a_wrong_scenario_is_refused_with_the_place_and_the_nearest_word(text: str, message: str) -> None:
    with pytest.raises(ScenarioError, match=re.escape(message)):
        load(text)


def test_the_kinds_are_those_of_the_package() -> None:
    failure = pytest.importorskip("autolaunch.failure")
    assert set(KINDS) == {kind.value for kind in failure.Kind} | {"auto"}


@pytest.mark.parametrize(
    ("when", "holds"),
    [
        ({"seed": 3}, True),
        ({"seed": {"ge": 3, "lt": 4}}, True),
        ({"seed": {"in": [1, 2]}}, False),
        ({"seed": {"ne": 3}}, False),
        ({"dtype": {"given": False}}, True),
        ({"dtype": {"gt": 1}}, False),
        ({"seed": 3, "dtype": "half"}, False),
        ({"enforce_eager": False, "start": 0}, True),
    ],
)
def test_a_rule_holds_when_all_its_arguments_do(when: dict[str, object], holds: bool) -> None:
    arguments = {**parse(["m", "--seed", "3"]).with_defaults(), "start": 0}
    assert matches(when, arguments) == holds


def test_the_first_rule_that_matches_wins_and_starts_come_after_rules() -> None:
    rules = tuple(Rule(when={"start": {"lt": bound}}, do=Outcome(code=bound)) for bound in (1, 3))
    scenario = Scenario(rules=rules, starts=(Outcome(code=10), Outcome(code=11)))
    assert [choose(scenario, start, {}).code for start in range(4)] == [1, 3, 3, 11]


def test_the_command_line_is_read_in_every_spelling_of_vllm() -> None:
    words = (
        "serve m --gpu_memory_utilization=0.8 --max-model-len 1k --max-num-batched-tokens 2K -tp 2 --enforce-eager "
        "--no-enable-prefix-caching --served-model-name a b --api-key k -O3 --future-option=7"
    )
    arguments = parse([*words.replace("-O3", "-O 3").split(), "--compilation-config", '{"level": 1}'])
    assert arguments.given == {
        "model": "m",
        "gpu_memory_utilization": 0.8,
        "max_model_len": 1000,
        "max_num_batched_tokens": 2048,
        "tensor_parallel_size": 2,
        "enforce_eager": True,
        "enable_prefix_caching": False,
        "served_model_name": ["a", "b"],
        "api_key": ["k"],
        "future_option": "7",
        "compilation_config": {"level": 1},
    }
    assert parse(["--max-model-len", "-1"]).given == parse(["--max-model-len=auto"]).given == {"max_model_len": -1}
    with pytest.raises(UsageError, match="unrecognized arguments: --future-option=7"):
        refuse_unknown_options(arguments)
    with pytest.raises(UsageError, match="argument --port: expected one argument"):
        parse(["m", "--port"])


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("ranks", [1, 2])
def test_every_text_of_every_version_can_be_filled_in(version: str, ranks: int) -> None:
    said = speech(version, ranks)
    for name in [section.removeprefix("phase ") for section in said.texts.sections if section.startswith("phase ")]:
        said.flags = frozenset({"eager"}) if name == "graphs" else frozenset({"auto", "reduced"})
        said.phase(name)
    for kind in said.texts.kinds():
        lines = [line for _, line in cause(said, kind) + aftermath(said, kind)]
        assert bool(lines) == (said.texts.failure(kind, said.flags)["in"] != ["nobody"])


@pytest.mark.parametrize("version", RELEASES)
def test_every_release_prints_texts_with_its_own_number(version: str) -> None:
    said = "\n".join(line for lines in Texts(version).sections.values() for line in lines)
    assert version in said
    assert texts_of(version) == version or texts_of(version) not in said


def test_numbers_that_were_not_given_agree_with_the_arguments() -> None:
    given = parse(["m", "--max-num-seqs", "64", "--gpu-memory-utilization", "0.5"]).with_defaults()
    assert numbers("seqs_too_many", {}, given)["num_seqs"] == 26
    assert numbers("sampler_oom", {}, given)["num_seqs"] == 64
    found = numbers("free_memory_low", {"total_gib": 10}, given)
    assert (found["utilization"], found["requested_gib"]) == (0.5, 5)


def test_the_decisive_lines_are_those_of_the_real_logs() -> None:
    lines = [line for _, line in cause(speech("0.24.0", 1, "--max-model-len", "131072"), "kv_too_small")]
    assert lines[-1].endswith(
        "[core.py:1231] ValueError: To serve at least one request with the model's max seq len (131072), (5.0 GiB "
        "KV cache is needed, which is larger than the available KV cache memory (2.69 GiB). Based on the available "
        "memory, the estimated maximum model length is 70624. Try increasing `gpu_memory_utilization` (which also "
        "controls CPU memory on the CPU backend) or decreasing `max_model_len` when initializing the engine. See "
        "https://docs.vllm.ai/en/latest/configuration/conserving_memory/ for more details."
    )
    assert "EngineCore failed to start." in lines[0]
    assert re.fullmatch(r"\(EngineCore pid=2\) ERROR \d\d-\d\d \d\d:\d\d:\d\d \[core.py:1231\] Traceback .*", lines[1])


@pytest.mark.parametrize(
    ("args", "kind"),
    [
        ("", "kv_too_small"),
        ("--gpu-memory-utilization 0.96", "free_memory_low"),
        ("--gpu-memory-utilization 0.75", "kv_none"),
        ("--max-model-len auto", "ok"),
        ("--max-model-len 32768", "ok"),
        ("--max-model-len 200000", "config_error"),
        ("--quantization fp8", "ok"),
        ("--kv-cache-dtype fp8 --gpu-memory-utilization 0.93", "ok"),
        ("--kv-cache-memory-bytes 6G", "kv_alloc_oom"),
        ("--max-num-seqs 4096 --max-model-len 1000", "config_error"),
        ("--max-num-seqs 4096 --max-num-batched-tokens 4096 --max-model-len 1000", "profile_oom"),
        ("-tp 2", "free_memory_low"),
        ("-tp 2 --gpu-memory-utilization 0.88", "ok"),
    ],
)
def test_the_memory_model_fails_and_fits_as_vllm_does(args: str, kind: str) -> None:
    assert judge(GLM_24_GIB, parse(["m", *args.split()]).with_defaults()).kind == kind


@pytest.mark.parametrize(
    ("args", "measured"),
    [
        ("--gpu-memory-utilization 0.90", 72592),
        ("--gpu-memory-utilization 0.90 --enforce-eager", 83344),
        ("--gpu-memory-utilization 0.94 --enforce-eager --max-num-seqs 64 --max-num-batched-tokens 1024", 119664),
    ],
)
def test_the_memory_model_is_within_two_percent_of_the_measured_starts(args: str, measured: int) -> None:
    verdict = judge(GLM_24_GIB, parse(["m", *args.split()]).with_defaults())
    assert verdict.numbers["estimated_max_len"] == pytest.approx(measured, rel=0.02)


def test_a_card_too_small_for_the_weights_says_so_and_v0_does_not_look_at_free_memory() -> None:
    small = MemoryModel(total_gib=16, free_gib=15.5)
    given = parse(["m", "--gpu-memory-utilization", "0.92"]).with_defaults()
    assert judge(small, given).kind == "weights_oom"
    given = parse(["m", "--gpu-memory-utilization", "0.99"]).with_defaults()
    assert [judge(small, given, version).kind for version in ("0.24.0", "0.6.3")] == ["free_memory_low", "weights_oom"]


def test_a_pid_that_another_process_got_does_not_count_as_alive(tmp_path: Path) -> None:
    Ledger(str(tmp_path)).register("leader")
    (entry,) = (tmp_path / "pids").iterdir()
    assert leftovers.alive(tmp_path) == [int(entry.name)]
    noted = json.loads(entry.read_text())
    entry.write_text(json.dumps({**noted, "ticks": noted["ticks"] - 1}))
    assert leftovers.alive(tmp_path) == []


def test_the_time_of_making_is_before_the_first_statement(tmp_path: Path) -> None:
    ledger = Ledger(str(tmp_path))
    ledger.start(["x"], time.time(), time.monotonic())
    (line,) = leftovers.starts(tmp_path)
    assert line["exec_time"] <= line["time"]
