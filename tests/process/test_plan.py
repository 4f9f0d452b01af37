"""`autolaunch plan` as a user runs it: on a machine without a card, and on one with neighbours."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import fake_nvml
from tests.fake_engine.scenario import Outcome
from tests.process.stage import ENGINE, GIB, ROOT, Result, Stage, ok, until
from tests.unit.checkpoints import glm_4_9b, write
from tests.unit.test_model import GLM_CONFIG

CONTRACT = {
    "total_bytes", "free_bytes", "requested_bytes", "weights_bytes", "non_torch_bytes", "activation_bytes",
    "cudagraph_bytes", "kv_cache_bytes", "kv_bytes_per_token", "kv_cache_tokens",
}  # fmt: skip
CARD = "NVIDIA GeForce RTX 4090"


def plan(stage: Stage, *words: str) -> Result:
    """Run `autolaunch plan glm-4-9b`; the fake engine is there unless another is named."""
    engine = () if "--engine" in words else ("--engine", ENGINE, "--engine-version", "0.24.0")
    return stage.end(stage.start([sys.executable, "-m", "autolaunch", "plan", "glm-4-9b", *engine, *words]))


def planned(stage: Stage, *words: str) -> dict[str, Any]:
    """Return the plan's JSON."""
    ended = plan(stage, "--json", *words)
    assert ended.code == 0, ended.err
    found: dict[str, Any] = json.loads(ended.out)
    return found


def cards(stage: Stage, *cards: dict[str, Any]) -> None:
    """Give the machine these cards."""
    stage.environment |= fake_nvml.environment(stage.folder / "nvml.json", *cards)
    stage.environment["PYTHONPATH"] += f"{os.pathsep}{ROOT}"


def card(free: float, *, total: float = 24.0, **more: Any) -> dict[str, Any]:
    """Return a card of so many GiB."""
    return {"name": CARD, "total": int(total * GIB), "free": int(free * GIB), "capability": [8, 9], **more}


def test_the_json_is_the_contracts_and_its_figures_add_up(stage: Stage) -> None:
    found = planned(stage, "--gpu-memory-total", "24GiB", "--gpu-memory-free", "23.2GiB")
    assert {"v", "model", "fits", "settings", "argv", "budget", "basis", "why"} <= set(found)
    assert (found["v"], found["model"], found["fits"]) == (1, "glm-4-9b", True)
    budget = found["budget"]
    assert set(budget) == CONTRACT == set(found["basis"])
    assert set(found["basis"].values()) <= {"exact", "measured", "estimated"}
    used = sum(budget[f"{name}_bytes"] for name in ("weights", "non_torch", "activation", "cudagraph", "kv_cache"))
    assert used == budget["requested_bytes"]
    assert budget["total_bytes"] == 24 * GIB
    assert budget["kv_bytes_per_token"] == 40960
    assert abs(budget["kv_cache_tokens"] - found["max_model_len"]) <= 64
    assert found["argv"][-2:] == ["--max-model-len", "auto"]


def test_the_command_gives_the_engine_what_glm_4s_clients_expect_as_far_as_its_release_can(stage: Stage) -> None:
    words = ("--gpu-memory-total", "24GiB", "--json")
    new = plan(stage, *words, "--engine-version", "0.32.0", "--chat-template", "mine.jinja")
    argv = json.loads(new.out)["argv"]
    names = argv.index("--served-model-name")
    assert argv[names + 1 : names + 5] == ["glm-4", "glm-4-9b", "glm-4-9b-chat", "zai-org/glm-4-9b-chat-hf"]
    assert argv[argv.index("--tool-call-parser") + 1] == "glm4_9b"
    assert argv.count("--chat-template") == 1
    assert "note: --chat-template is yours: GLM-4 goes without --chat-template" in new.err
    old = plan(stage, *words, "--engine-version", "0.6.2")
    assert "--tool-parser-plugin" not in json.loads(old.out.splitlines()[-1])["argv"]
    assert "note: vLLM 0.6.2 has no --tool-parser-plugin yet (it came with 0.6.3)" in old.err


@pytest.mark.parametrize(
    ("version", "utilization", "measured_gib"),
    [("0.24.0", "0.92", 2.69), ("0.24.0", "0.9", 2.21)],
)
def test_the_plan_agrees_with_what_was_measured_on_such_a_card(
    stage: Stage, version: str, utilization: str, measured_gib: float
) -> None:
    """GLM-4-9B on a 24 GiB card with a cold compile cache: 2.69 GiB of KV cache at 0.92 were measured."""
    found = planned(
        stage, "--gpu-memory-total", "24GiB", "--gpu-memory-utilization", utilization, "--engine-version", version
    )
    assert abs(found["budget"]["kv_cache_bytes"] / GIB - measured_gib) < 0.15


def test_a_card_by_its_name_needs_no_card_and_no_engine(stage: Stage) -> None:
    found = planned(stage, "--gpu", "rtx 4090")
    assert found["budget"]["total_bytes"] == 25_250_627_584
    assert found["fits"] is True


def test_without_a_card_the_user_is_told_how_to_name_one(stage: Stage) -> None:
    cards(stage)
    del stage.environment["FAKE_NVML"]  # the fake then has no driver
    ended = plan(stage)
    assert ended.code == 5
    assert '--gpu "RTX 4090"' in ended.err


def test_the_picture_says_where_the_memory_goes_without_colour(stage: Stage) -> None:
    ended = plan(stage, "--gpu", "RTX 4090")
    assert ended.code == 0
    assert "\x1b" not in ended.out
    for words in ("weights           17.5", "KV cache", "left free", "settings", "command"):
        assert words in ended.out
    assert ended.out.splitlines()[0].startswith("glm-4-9b: fits, ")


def test_what_does_not_fit_ends_with_3_and_what_would(stage: Stage) -> None:
    ended = plan(stage, "--gpu", "RTX 3060", "--strategy", "keep-quality")
    assert ended.code == 3
    assert "glm-4-9b: does not fit" in ended.out
    assert "allow quantized weights" in ended.out
    assert "serve ModelCloud/glm-4-9b-chat-gptq-4bit instead: 6.27 GiB of gptq weights" in ended.out
    assert "use a card with 19 GiB" in ended.out


def test_the_emptiest_card_is_planned_for(stage: Stage) -> None:
    cards(stage, card(6.0), card(23.0))
    found = planned(stage)
    assert found["budget"]["free_bytes"] == 23 * GIB
    assert found["environment"] == {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": "1"}


def test_the_command_that_is_printed_starts_the_engine_on_the_card_that_was_chosen(stage: Stage) -> None:
    """It stood there without the variables: pasted, it went to card 0 and failed."""
    cards(stage, card(6.0), card(23.0))
    stage.play(ok())
    ended = stage.run("--check")
    variables = "CUDA_DEVICE_ORDER=PCI_BUS_ID CUDA_VISIBLE_DEVICES=1 "
    assert ended.out.startswith(f"{variables}{sys.executable} -S ")
    assert f"\n  command  {variables}{sys.executable}" in ended.err
    assert f"\n  card 1: {CARD}: 23.00 GiB free of 24.00 GiB\n" in ended.err
    drawn = plan(stage).out
    assert f"\n  command  {variables}" in drawn
    assert f"\n  card 1: {CARD}, 23.00 GiB free of 24.00 GiB; " in drawn


def test_several_cards_are_counted_in_the_headline(stage: Stage) -> None:
    drawn = plan(stage, "--gpu-memory-total", "12GiB", "--gpus", "2").out
    assert "\n  2 x a card of 12.00 GiB, 12.00 GiB free of 12.00 GiB each; " in drawn
    assert "1 of 2 x a card of 40.00 GiB" in plan(stage, "--gpu-memory-total", "40GiB", "--gpus", "2").out


def test_a_start_that_cannot_fit_is_refused_before_anything_runs(stage: Stage) -> None:
    cards(stage, card(7.0, total=8.0))
    ended = stage.run("--strategy", "keep-quality")
    assert ended.code == 3
    assert [line["event"] for line in stage.lines()] == ["plan", "exhausted", "stopped"]
    assert any("--try-anyway" in way for way in stage.lines()[1]["closest"])
    assert stage.left() == []


def test_where_card_and_host_share_memory_one_start_is_announced_and_made(stage: Stage) -> None:
    """`attempt 1 of at most 10` stood there, and `nothing fits` where the ladder had an answer."""
    cards(stage, card(100.0, total=120.0, name="NVIDIA GB10", capability=[12, 1]))
    stage.play(Outcome(kind="graph_oom"), ok())
    ended = stage.run("--strategy", "classic")
    assert ended.code == 3
    assert "\nattempt 1 of at most 1: " in ended.err
    assert "\nno further start: this card shares the host's memory, " in ended.err
    assert "nothing fits" not in ended.err
    assert len(stage.lines("attempt")) == 1
    assert stage.left() == []


def test_it_can_be_tried_anyway(stage: Stage) -> None:
    cards(stage, card(7.0, total=8.0))
    stage.play(ok())
    ended = stage.run("--strategy", "keep-quality", "--try-anyway", "--check")
    assert ended.code == 0, ended.err


def test_the_second_start_uses_what_came_up_and_history_is_kept_apart_by_wish(stage: Stage) -> None:
    cards(stage, card(23.2))
    stage.play(Outcome(kind="graph_oom"), ok())
    assert stage.run("--check").code == 0
    first = next(line for line in stage.lines() if line["event"] == "ready")
    assert first["n"] == 2
    stage.record.unlink()
    stage.play(ok())
    assert stage.run("--check").code == 0
    lines = stage.lines()
    assert [line["event"] for line in lines] == ["plan", "attempt", "ready", "stopped"]
    assert lines[2]["settings"] == first["settings"]
    assert lines[0]["why"] == ["these settings came up before"]


def folder(place: Path, *, layers: int) -> Path:
    """Make a folder m with GLM-4-9B's configuration and weights, of so many layers; return where it lies."""
    (place / "m").mkdir(parents=True)
    (place / "m" / "config.json").write_text(json.dumps({**GLM_CONFIG, "num_hidden_layers": layers}))
    dropped = tuple(f"model.layers.{layer}." for layer in range(layers, 40))
    kept = {name: tensor for name, tensor in glm_4_9b().items() if not name.startswith(dropped)}
    write(place / "m" / "model.safetensors", kept)
    return place


def started(stage: Stage, model: str, where: Path) -> dict[str, Any]:
    """Bring a model up from a folder; return the plan that was made."""
    words = [model if word == "glm-4-9b" else word for word in stage.command("--check")]
    ended = stage.end(stage.start(words, cwd=where))
    assert ended.code == 0, ended.err
    return stage.lines("plan")[-1]


def test_what_is_remembered_of_one_folder_is_not_used_for_another_of_the_same_name(stage: Stage) -> None:
    """The second ./m was refused for 17.73 GiB that the first had needed."""
    one, other = folder(stage.folder / "a", layers=40), folder(stage.folder / "b", layers=2)
    cards(stage, card(23.2))
    stage.play(ok())
    again = ["these settings came up before"]
    assert started(stage, "./m", one)["why"] != again
    assert [started(stage, name, one)["why"] for name in ("m/", str(one / "m"))] == [again, again]
    found = started(stage, "./m", other)
    assert found["why"] != again
    assert found["basis"]["weights_bytes"] == "exact"
    shutil.rmtree(one)
    folder(one, layers=2)
    assert started(stage, "./m", one)["why"] != again, "a folder that was overwritten is another model"


def test_a_short_name_and_the_hub_id_behind_it_share_what_is_remembered(stage: Stage) -> None:
    cards(stage, card(23.2))
    stage.play(ok())
    why = [started(stage, name, ROOT)["why"][0] for name in ("glm-4-9b", "zai-org/glm-4-9b-chat-hf")]
    assert why[0] != why[1] == "these settings came up before"
    words = ("history", "glm-4-9b", "--json", "--state-dir", str(stage.state))
    ended = stage.end(stage.start([sys.executable, "-m", "autolaunch", *words]))
    names = [json.loads(line)["key"]["name"] for line in ended.out.splitlines() if line.startswith('{"v"')]
    assert names == ["zai-org/glm-4-9b-chat-hf", "glm-4-9b"]


def test_no_memory_neither_reads_nor_writes(stage: Stage) -> None:
    cards(stage, card(23.2))
    stage.play(ok())
    assert stage.run("--check", "--no-memory").code == 0
    assert not list(Path(stage.state).glob("memory*"))


def test_memory_that_others_are_about_to_give_back_is_waited_for(stage: Stage) -> None:
    """A service that is restarted gave up over the memory of the engine that it replaced."""
    cards(stage, card(3.0, processes=[{"pid": 1, "bytes": 21 * GIB}]))
    stage.play(ok())
    process = stage.launch("--check")
    until(lambda: "waiting up to 20 s" in stage.err, "the wait")
    cards(stage, card(23.2))
    assert stage.end(process).code == 0
    assert [line["event"] for line in stage.lines()] == ["plan", "attempt", "ready", "stopped"]


def test_a_full_card_does_not_spoil_the_empty_one_beside_it(stage: Stage) -> None:
    """More cards are allowed, not asked for: of two of which one is full the other is taken alone."""
    cards(stage, card(2.0), card(23.5))
    found = planned(stage, "--gpus", "2", "--engine-version", "0.24.0")
    assert (found["fits"], "tensor_parallel_size" in found["settings"]) == (True, False)
    assert found["budget"]["free_bytes"] == int(23.5 * GIB)


def test_fewer_cards_than_are_asked_for_are_told(stage: Stage) -> None:
    cards(stage, card(23.5))
    for words in (("--gpus", "2"), ("-tp", "2")):
        ended = plan(stage, *words, "--engine-version", "0.24.0")
        assert (ended.code, "note: 2 cards are asked for, 1 can be used here" in ended.err) == (0, True), ended.err


def test_a_floor_above_the_models_own_length_is_refused(stage: Stage) -> None:
    ended = plan(stage, "--gpu", "RTX 4090", "--min-context", "500000")
    assert ended.code == 2
    assert "--min-context 500000 is above the model's own 131072 tokens" in ended.err
    assert plan(stage, "--gpu", "H100", "--min-context", "131072").code == 0
