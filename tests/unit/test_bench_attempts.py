"""The pure parts of `scripts/bench attempts`: situations to be replayed, an oracle that is right, honest figures."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from scripts.attempts import checkpoints
from scripts.attempts.oracle import Answer, best, given, settled
from scripts.attempts.report import Case, as_json, pain, quantile, score, table
from scripts.attempts.runs import Run, cards
from scripts.attempts.situations import CARDS, VERSIONS, Card, Situation, sample, situation
from tests.fake_engine.course import judge
from tests.fake_engine.memory import MemoryModel, Move
from tests.fake_engine.models import GLM_4_9B, LLAMA_8B, MODELS, PHI_4, QWEN_7B, ModelDims
from tests.fake_engine.scenario import Scenario, load

L4 = next(card for card in CARDS if card.name == "NVIDIA L4")
RTX_4090 = next(card for card in CARDS if card.name.endswith("4090"))
RTX_3090 = next(card for card in CARDS if card.name.endswith("3090"))


def on(card: Card, dims: ModelDims, version: str = "0.24.0", **more: Any) -> Situation:
    kind = "static" if "neighbours" in more else "none"
    memory = MemoryModel(
        total_gib=card.total_bytes / 2**30,
        capability=card.capability,
        dims=dims,
        neighbours=more.pop("neighbours", 0.0),
        moves=more.pop("moves", ()),
        cache="folder",
        nvml=True,
    )
    return Situation(1, card, dims, version, kind, memory, **more)


def comes_up(asked: Situation, answer: Answer) -> bool:
    arguments = {**given(asked).with_defaults(), **answer.options}
    verdict = judge(settled(asked), arguments, asked.version, cold=True)
    return (verdict.kind, int(verdict.numbers["kv_cache_tokens"])) == ("ok", answer.kv_tokens)


# --- situations


def test_a_situation_is_the_same_in_every_sample_that_holds_it() -> None:
    assert list(sample(5, 3)) == list(sample(30, 3))[:5]
    assert situation(17, 3) == list(sample(17, 3))[16]
    assert situation(17, 3) != situation(17, 4)


def test_500_situations_hold_every_card_model_release_neighbour_and_pin() -> None:
    every = list(sample(500, 1))
    assert {one.card for one in every} == set(CARDS)
    assert {one.dims for one in every} == set(MODELS)
    assert {one.version for one in every} == set(VERSIONS)
    assert {one.neighbour for one in every} == {"none", "static", "leaving", "arriving", "growing"}
    pins = {"none", "max_model_len", "utilization", "max_num_seqs", "min_context", "tensor_parallel"}
    assert {one.pin for one in every} == pins
    assert all(one.memory.moves for one in every if one.neighbour in ("leaving", "arriving", "growing"))


def test_a_situation_reaches_the_fake_engine_whole() -> None:
    for one in sample(40, 2):
        scenario = Scenario(version=one.version, memory=one.memory)
        assert load(scenario.env()["FAKE_ENGINE"]) == scenario


def test_what_a_situation_says_of_itself_is_everything_a_reader_needs() -> None:
    asked = on(L4, GLM_4_9B, neighbours=2.0, moves=(Move(start=0, phase="load", gib=3.5),), min_context=8192)
    assert asked.text == (
        "glm-4-9b on NVIDIA L4 (22.03 GiB), vLLM 0.24.0, neighbour static: 2.0 GiB, then 3.5 GiB from start 1's load, "
        "--min-context 8192"
    )


def test_the_cards_file_gives_the_total_that_cuda_counts() -> None:
    (card,) = cards(on(L4, GLM_4_9B), 2.0)
    assert card["total"] - card["reserved"] == L4.total_bytes
    assert [held["bytes"] for held in card["processes"]] == [2 * 2**30]
    assert len({one["uuid"] for one in cards(on(L4, GLM_4_9B, ranks=2), 0.0)}) == 2


# --- model folders


@pytest.mark.parametrize("dims", MODELS, ids=lambda dims: dims.name)
def test_headers_hold_exactly_the_bytes_that_are_loaded(dims: ModelDims, tmp_path: Path) -> None:
    folder = checkpoints.write(dims, tmp_path / dims.name)
    found: dict[str, int] = {}
    for file in folder.glob("*.safetensors"):
        length = int.from_bytes(file.read_bytes()[:8] if file.stat().st_size < 1000 else _first(file, 8), "little")
        header = json.loads(_first(file, 8 + length)[8:])
        header.pop("__metadata__")
        assert file.stat().st_size == 8 + length + max(tensor["data_offsets"][1] for tensor in header.values())
        found |= {name: tensor["data_offsets"][1] - tensor["data_offsets"][0] for name, tensor in header.items()}
    assert sum(found.values()) == pytest.approx(dims.weight_bytes(), abs=2)
    assert sum(file.stat().st_blocks * 512 for file in folder.iterdir()) < 8_000_000
    index = folder / "model.safetensors.index.json"
    if index.exists():
        assert set(json.loads(index.read_text())["weight_map"]) == set(found)


def _first(file: Path, count: int) -> bytes:
    with file.open("rb") as opened:
        return opened.read(count)


def test_a_config_says_what_a_models_own_does() -> None:
    assert checkpoints.config(GLM_4_9B) == {
        "architectures": ["GlmForCausalLM"],
        "model_type": "glm",
        "attention_bias": True,
        "head_dim": 128,
        "hidden_act": "silu",
        "hidden_size": 4096,
        "intermediate_size": 13696,
        "max_position_embeddings": 131072,
        "num_attention_heads": 32,
        "num_hidden_layers": 40,
        "num_key_value_heads": 2,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "vocab_size": 151552,
    }
    quantized = next(dims for dims in MODELS if dims.stored == "awq")
    assert checkpoints.config(quantized)["quantization_config"]["quant_method"] == "awq"


# --- the oracle


@pytest.mark.parametrize(
    ("asked", "context", "conceded"),
    [
        (on(RTX_4090, QWEN_7B), 32768, ()),
        (on(RTX_4090, GLM_4_9B), 79472, ()),
        (on(RTX_4090, GLM_4_9B, options=("--max-model-len", "131072")), 131072, ("fp8_kv",)),
        (on(RTX_3090, GLM_4_9B, options=("--max-model-len", "131072")), 131072, ("quantized_weights",)),
        (on(RTX_4090, GLM_4_9B, neighbours=8.0), 87568, ("quantized_weights",)),
        (on(L4, PHI_4), 16384, ("quantized_weights",)),
        (on(L4, PHI_4, "0.13.0"), None, None),
        (on(L4, LLAMA_8B, "0.6.6", min_context=65536), 91200, ("quantized_weights",)),
    ],
)
def test_the_oracle_gives_up_the_context_first_and_the_weights_bits_last(
    asked: Situation, context: int | None, conceded: tuple[str, ...] | None
) -> None:
    answer = best(asked)
    assert (answer and answer.context, answer and answer.conceded) == (context, conceded)


def test_the_oracle_waits_for_the_neighbours_to_settle() -> None:
    moves = (Move(start=0, phase="profile", gib=0.0),)
    leaves = on(RTX_4090, GLM_4_9B, neighbours=8.0, moves=moves)
    assert best(leaves) == best(on(RTX_4090, GLM_4_9B))
    assert best(leaves, at_first=True) == best(on(RTX_4090, GLM_4_9B, neighbours=8.0))


def test_what_the_oracle_answers_comes_up() -> None:
    for asked in sample(80, 5):
        answer = best(asked)
        assert answer is None or comes_up(asked, answer)


def test_no_setting_of_a_grid_is_better_than_the_oracles() -> None:
    """Every share by hundredths, every batch and graphs or not, at full precision: the oracle's own preference."""
    for asked in [one for one in sample(200, 9) if one.pin in ("none", "min_context")][:12]:
        answer = best(asked)
        spared = answer is not None and not answer.conceded
        longest = max((_fitted(asked, share / 100, {}) for share in range(30, 96)), default=0)
        if spared:
            assert answer is not None
            assert longest <= answer.context
        else:
            assert longest < (asked.min_context or 4096)
        if answer is None:
            for batch, eager in itertools.product((None, (128, 2048), (8, 512)), (False, True)):
                options: dict[str, object] = {"enforce_eager": eager}
                options |= {"max_num_seqs": batch[0]} if batch else {}
                fits = (_fitted(asked, share / 100, options) for share in range(30, 96, 5))
                assert max(fits) < (asked.min_context or 512)


def _fitted(asked: Situation, share: float, options: dict[str, object]) -> int:
    arguments = {**given(asked).with_defaults(), **options, "gpu_memory_utilization": share}
    if asked.minor >= 8:
        verdict = judge(settled(asked), {**arguments, "max_model_len": -1}, asked.version, cold=True)
        return int(verdict.numbers["max_model_len"]) if verdict.kind == "ok" else 0
    lengths = range(512, asked.dims.max_len + 1, max(512, asked.dims.max_len // 32))
    kinds = {
        length: judge(settled(asked), {**arguments, "max_model_len": length}, asked.version).kind for length in lengths
    }
    return max((length for length, kind in kinds.items() if kind == "ok"), default=0)


# --- the figures


def run(competitor: str = "autolaunch", kinds: tuple[str, ...] = ("ok",), **more: Any) -> Run:
    fields = {"number": 1, "code": 0, "seconds": 60.0, "wall_seconds": 0.5, "context": 8192, "kv_tokens": 9000, **more}
    return Run(competitor=competitor, came_up=kinds[-1:] == ("ok",), kinds=kinds, **fields)


def case(number: int, own: Run, *, context: int | None = 8192, **more: Any) -> Case:
    asked = on(L4, GLM_4_9B, **more)
    asked = Situation(**{**vars(asked), "number": number})
    answer = None if context is None else Answer({"gpu_memory_utilization": 0.9}, context, 10000, ())
    return Case(asked, answer, {own.competitor: own})


def test_a_score_counts_only_what_was_possible_and_keeps_the_rest_apart() -> None:
    found = score(
        "autolaunch",
        [
            case(1, run()),
            case(2, run(kinds=("kv_none", "ok"), seconds=140.0, context=4096, settings='{"enforce_eager": true}')),
            case(3, run(kinds=("kv_none",) * 3, code=3)),
            case(4, run(), min_context=16384),
            case(5, run(kinds=("weights_oom", "weights_oom"), code=3), context=None),
            case(6, run(), context=None),
        ],
    )
    assert (found.possible, found.came_up, found.share, found.given_up) == (4, 2, 0.5, (3, 4))
    assert (found.attempts, found.seconds) == ((1.5, 2, 2), 100.0)
    assert (found.context, found.kv, found.spared) == ((0.75, 0.5), (0.9, 0.9), 0.5)
    assert (found.hopeless, found.wasted, found.beyond) == (2, 2, 1)


def test_a_score_of_nothing_is_nothing() -> None:
    found = score("plain", [])
    assert (found.possible, found.share, found.attempts, found.given_up) == (0, 0.0, (0.0, 0.0, 0), ())


@pytest.mark.parametrize(
    ("settings", "conceded"),
    [
        ({"gpu_memory_utilization": 0.94, "max_model_len": 4096}, (False, False, False, False)),
        ({"max_num_seqs": 64}, (False, False, False, True)),
        ({"enforce_eager": True, "cudagraph_capture_sizes": [1, 2]}, (False, False, True, True)),
        ({"kv_cache_dtype": "fp8"}, (False, True, False, False)),
        ({"model": "someone/model-awq"}, (True, False, False, False)),
    ],
)
def test_concessions_are_read_from_the_settings(settings: dict[str, Any], conceded: tuple[bool, ...]) -> None:
    assert pain(case(1, run()), run(settings=json.dumps(settings))) == conceded


def test_a_batch_that_the_user_asked_for_is_no_concession() -> None:
    pinned = case(1, run(), pin="max_num_seqs", options=("--max-num-seqs", "16"))
    assert pain(pinned, run(settings='{"max_num_seqs": 16}')) == (False, False, False, False)


def test_quantiles_of_few_values() -> None:
    assert [quantile([], 0.95), quantile([3], 0.95), quantile([1, 2], 0.5)] == [0.0, 3, 1.5]
    assert quantile(list(range(100)), 0.95) == 95
    assert quantile(list(range(100)), 0.05) == 5


def test_the_table_lists_what_was_given_up_what_came_twice_and_what_was_left() -> None:
    given_up = case(7, run(kinds=("kv_none",), code=3))
    again = case(8, run())
    again = Case(again.situation, again.answer, {**again.runs, "second start": run("second start", ("kv_none", "ok"))})
    left = case(9, run(number=9, left="processes [1]"))
    unseen = case(10, run(number=10, kinds=(), code=3))
    unseen = Case(unseen.situation, unseen.answer, unseen.runs, foreseeable=False)
    lines = table([given_up, again, left, unseen]).splitlines()
    head = "given up wrongly by autolaunch: 2, 1 of them before a neighbour left that took all that would do"
    assert f"{head} (replay one with --only NUMBER -v)" in lines
    assert [line for line in lines if "exit 3 after no start; oracle: " in line and "while the neighbour is" in line]
    assert [line for line in lines if "exit 3 after kv_none; oracle: gpu_memory_utilization=0.9" in line]
    assert "second starts that were not one attempt: 1" in lines
    assert "     8  kv_none ok" in lines
    assert "     9  autolaunch: processes [1]" in lines
    assert lines[-1] == "first attempts of autolaunch: ok 2, kv_none 1"


def test_everything_goes_into_the_json_form() -> None:
    whole = as_json([case(7, run())], seed=3, wall_seconds=1.23)
    assert json.loads(json.dumps(whole)).keys() == whole.keys()
    assert (whole["seed"], whole["situations"], whole["wall_seconds"]) == (3, 1, 1.2)
    assert whole["cases"][0]["runs"]["autolaunch"]["kinds"] == ("ok",)
