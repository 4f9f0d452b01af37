"""The memory model against starts that were measured, and what neighbours, caches and releases change in it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from .arguments import UsageError, parse
from .course import judge
from .memory import MemoryModel, Move, Verdict
from .models import GLM_4_9B, LLAMA_8B, LLAMA_70B, MISTRAL_7B, MODELS, QWEN3_30B_A3B, QWEN_05B, QWEN_7B, QWEN_32B
from .record import ScenarioError
from .release import RELEASES, batch_defaults, release
from .spread import Spread, spread

H100 = MemoryModel(total_gib=79.18)
CARD_24 = MemoryModel(total_gib=24, free_gib=23.2)


def start(
    model: MemoryModel, args: str = "", *, version: str = "0.24.0", number: int = 0, cold: bool = False
) -> Verdict:
    seqs, tokens = batch_defaults(release(version), model.total_gib, model.name)
    given = parse(["m", *args.split()], version).on(seqs, tokens).with_defaults()
    return judge(model, given, version, start=number, cold=cold)


def pool(verdict: Verdict) -> float:
    return round(verdict.numbers["available_kv_gib"], 2)


@pytest.mark.parametrize(
    ("model", "parameters"),
    [
        ("Qwen2.5-0.5B-Instruct", 494_032_768),
        ("Qwen2.5-7B-Instruct", 7_615_616_512),
        ("Qwen2.5-14B-Instruct", 14_770_033_664),
        ("Qwen2.5-32B-Instruct", 32_763_876_352),
        ("Qwen3-8B", 8_190_735_360),
        ("Qwen3-30B-A3B", 30_532_122_624),
        ("glm-4-9b", 9_399_951_360),
        ("Llama-3.1-8B-Instruct", 8_030_261_248),
        ("Llama-3.1-70B-Instruct", 70_553_706_496),
        ("Mistral-7B-Instruct-v0.3", 7_248_023_552),
        ("phi-4", 14_659_507_200),
    ],
)
def test_the_dimensions_give_the_published_number_of_parameters(model: str, parameters: int) -> None:
    dims = next(dims for dims in MODELS if dims.name == model)
    assert dims.linear_per_layer * dims.layers + dims.other_parameters == parameters


def test_the_cache_of_a_token_is_shared_out_by_heads_and_halved_by_fp8() -> None:
    assert [GLM_4_9B.token_bytes(ranks, "auto") for ranks in (1, 2, 4)] == [40960, 20480, 20480]
    assert LLAMA_8B.token_bytes(1, "fp8_e4m3") == 65536


@pytest.mark.parametrize(
    ("model", "version", "args", "cold", "measured_gib"),
    [
        (H100, "0.24.0", "", True, 52.29),
        (CARD_24, "0.24.0", "--gpu-memory-utilization 0.9", False, 2.77),
        (CARD_24, "0.24.0", "--gpu-memory-utilization 0.92", True, 2.69),
        (CARD_24, "0.24.0", "--gpu-memory-utilization 0.9 --enforce-eager", False, 3.18),
        (
            CARD_24,
            "0.24.0",
            "--gpu-memory-utilization 0.94 --enforce-eager --max-num-seqs 64 --max-num-batched-tokens 1024",
            False,
            4.56,
        ),
        (
            MemoryModel(total_gib=79.18, dims=LLAMA_8B),
            "0.19.0",
            "--gpu-memory-utilization 0.95 --max-model-len 8192",
            False,
            58.11,
        ),
        (
            MemoryModel(total_gib=79.18, dims=LLAMA_8B),
            "0.19.0",
            "--gpu-memory-utilization 0.95 --max-model-len 8192 -tp 4",
            False,
            67.44,
        ),
        (MemoryModel(total_gib=79.18, dims=QWEN_7B), "0.19.0", "--gpu-memory-utilization 0.95", False, 58.53),
        (
            MemoryModel(total_gib=23.52, capability=(8, 9), dims=MISTRAL_7B),
            "0.30.0",
            "--gpu-memory-utilization 0.9",
            True,
            6.81,
        ),
        (
            MemoryModel(total_gib=14.56, capability=(7, 5), dims=QWEN_05B),
            "0.6.6",
            "--gpu-memory-utilization 0.9 --dtype half",
            False,
            10.63,
        ),
    ],
)
def test_the_pool_is_that_of_real_starts(
    model: MemoryModel, version: str, args: str, cold: bool, measured_gib: float
) -> None:
    assert start(model, args, version=version, cold=cold).numbers["available_kv_gib"] == pytest.approx(
        measured_gib, abs=0.15
    )


def test_graphs_take_what_they_took() -> None:
    found = [start(model, "--max-model-len auto").numbers for model in (CARD_24, H100)]
    assert [round(each["graphs_gib"], 2) for each in found] == pytest.approx([0.40, 0.54], abs=0.06)
    assert [round(each["graphs_actual_gib"], 2) for each in found] == pytest.approx([0.55, 0.70], abs=0.06)


def test_a_cold_compile_cache_costs_what_the_logits_weigh() -> None:
    warm, cold = (start(CARD_24, "--max-model-len auto", cold=cold) for cold in (False, True))
    assert round(pool(warm) - pool(cold), 2) == pytest.approx(0.56, abs=0.05)
    assert warm.seconds == cold.seconds - 24
    eager = [start(CARD_24, "--max-model-len auto --enforce-eager", cold=cold) for cold in (False, True)]
    assert eager[0] == eager[1]


def test_a_profile_that_the_cold_compile_does_not_fit_into_fits_once_it_is_warm() -> None:
    card = MemoryModel(total_gib=20, free_gib=19.2)
    args = "--max-model-len auto --gpu-memory-utilization 0.93 --max-num-seqs 64"
    assert [start(card, args, cold=cold).kind for cold in (True, False)] == ["profile_oom", "ok"]


@pytest.mark.parametrize("version", ["0.6.6", "0.10.2", "0.13.0"])
def test_a_release_before_auto_refuses_it_as_argparse_does(version: str) -> None:
    with pytest.raises(UsageError, match="argument --max-model-len: invalid int value: 'auto'"):
        parse(["m", "--max-model-len", "auto"], version)


def test_releases_differ_in_what_they_take_from_the_pool() -> None:
    card = MemoryModel(total_gib=23.52, capability=(8, 9), dims=LLAMA_8B)
    args = "--gpu-memory-utilization 0.9 --max-model-len 4096"
    found = {version: start(card, args, version=version) for version in sorted(RELEASES) if version != "0.32.0"}
    assert {version: pool(verdict) for version, verdict in found.items()} == {
        "0.10.2": 4.9,
        "0.11.0": 4.9,
        "0.13.0": 4.9,
        "0.17.1": 5.58,
        "0.19.0": 5.53,
        "0.24.0": 5.15,
        "0.30.0": 5.32,
        "0.4.3": 4.91,
        "0.6.3": 4.91,
        "0.6.6": 4.91,
        "0.8.5": 4.9,
    }
    assert {verdict.kind for verdict in found.values()} == {"ok"}


def test_v0_asks_nobody_what_is_free_and_profiles_a_whole_context() -> None:
    card = MemoryModel(total_gib=23.52, free_gib=19, capability=(8, 9), dims=QWEN_7B)
    args = "--max-model-len 4096"
    found = [start(card, args, version=version).kind for version in ("0.10.2", "0.6.6")]
    assert found == ["free_memory_low", "kv_alloc_oom"]
    lengths = [start(card, f"--max-model-len {length}", version="0.6.6") for length in (2048, 32768)]
    assert [round(each.numbers["activation_gib"], 2) for each in lengths] == [1.41, 4.17]
    long = MemoryModel(total_gib=79.18, dims=LLAMA_8B)
    assert round(start(long, version="0.6.6").numbers["activation_gib"], 2) == 1.19  # above 32768: chunked prefill


def test_fp8_on_the_fly_needed_all_16_bit_weights_first_until_it_was_streamed() -> None:
    card = MemoryModel(total_gib=15.92, capability=(8, 9))
    args = "--quantization fp8 --max-model-len 4096 --enforce-eager"
    assert [start(card, args, version=version).kind for version in ("0.13.0", "0.17.1")] == ["weights_oom", "ok"]


@pytest.mark.parametrize(
    ("capability", "args", "version", "kind"),
    [
        ((8, 6), "--kv-cache-dtype fp8", "0.24.0", "hardware_unsupported"),
        ((8, 9), "--kv-cache-dtype fp8", "0.24.0", "ok"),
        ((7, 5), "--quantization fp8", "0.24.0", "hardware_unsupported"),
        ((8, 0), "--quantization fp8", "0.24.0", "ok"),
        ((7, 5), "", "0.6.6", "hardware_unsupported"),
        ((7, 5), "--dtype half --max-model-len 4096", "0.6.6", "ok"),
    ],
)
def test_what_a_card_cannot_compute_is_refused(capability: tuple[int, int], args: str, version: str, kind: str) -> None:
    card = MemoryModel(total_gib=47.4, capability=capability, dims=QWEN_7B)
    assert start(card, args, version=version).kind == kind


MOVED = [
    ("before the snapshot", "import", 4.0, "free_memory_low"),
    ("while the weights are read", "load", 6.0, "weights_oom"),
    ("before the profile run", "profile", 5.2, "profile_oom"),
    ("before the profile run, a little", "profile", 2.0, "kv_too_small"),
    ("after the pool was sized", "kv_cache", 3.0, "kv_alloc_oom"),
    ("after it was taken", "graphs", 2.0, "graph_oom"),
    ("after the graphs", "warmup", 1.5, "sampler_oom"),
    ("once it serves", "serving", 6.0, "ok"),
]


@pytest.mark.parametrize(("phase", "gib", "kind"), [case[1:] for case in MOVED], ids=[case[0] for case in MOVED])
def test_a_neighbour_that_grows_is_met_where_vllm_meets_it(phase: str, gib: float, kind: str) -> None:
    grows = MemoryModel(total_gib=24, moves=(Move(start=0, phase=phase, gib=gib),))
    assert start(MemoryModel(total_gib=24), "--max-model-len 70000").kind == "ok"
    assert start(grows, "--max-model-len 70000").kind == kind


def test_growth_that_the_profile_sees_is_taken_from_the_pool() -> None:
    grows = MemoryModel(total_gib=24, moves=(Move(start=0, phase="profile", gib=0.5),))
    still = start(MemoryModel(total_gib=24), "--max-model-len auto")
    assert pool(still) - pool(start(grows, "--max-model-len auto")) == pytest.approx(0.5, abs=0.011)


def test_a_neighbour_that_leaves_more_than_the_engine_took_is_a_race() -> None:
    leaves = MemoryModel(total_gib=79.18, neighbours=30, moves=(Move(start=0, phase="profile", gib=0),))
    verdict = start(leaves, "--gpu-memory-utilization 0.5")
    assert verdict.kind == "profiling_race"
    assert verdict.numbers["free_gib"] < verdict.numbers["grown_gib"]


def test_moves_last_into_the_next_start() -> None:
    moves = (Move(start=0, phase="load", gib=8), Move(start=2, phase="import", gib=1))
    card = MemoryModel(total_gib=24, neighbours=2, moves=moves)
    assert [card.neighbours_before(number) for number in range(4)] == [2, 8, 8, 1]
    assert [card.neighbours_at(0, phase) for phase in ("init", "load", "serving")] == [2, 8, 8]
    assert card.free_bytes(1, "init") == 16 * 2**30
    assert card.settled() == MemoryModel(total_gib=24, neighbours=1)
    assert card.settled().free_bytes(0, "init") == 23 * 2**30


def test_a_phase_that_is_none_is_refused() -> None:
    with pytest.raises(ScenarioError, match=r"Move.phase: 'loading' is not one of import, config"):
        Move(start=0, phase="loading", gib=1)
    with pytest.raises(ScenarioError, match=r"MemoryModel.cache: 'hot' is not one of warm, cold, folder"):
        MemoryModel(cache="hot")


def test_seed_0_deviates_from_nothing_and_a_seed_always_in_the_same_way() -> None:
    assert spread(0, experts=True, tied=True) == Spread()
    assert spread(7, experts=False, tied=False) == spread(7, experts=False, tied=False)
    assert all(spread(seed, experts=True, tied=False).holds_segment for seed in range(1, 50))
    held = sum(spread(seed, experts=False, tied=False).holds_segment for seed in range(1, 1001))
    missed = sum(spread(seed, experts=False, tied=False).activation_gib > 0 for seed in range(1, 1001))
    assert (60 < held < 140, 60 < missed < 140) == (True, True)


def test_a_held_segment_is_as_large_as_the_embedding() -> None:
    card = MemoryModel(total_gib=79.18, dims=QWEN3_30B_A3B, seed=5)
    cold, warm = (start(card, version="0.30.0", cold=cold).numbers["non_torch_gib"] for cold in (True, False))
    assert cold - warm == pytest.approx(151936 * 2048 * 2 / 2**30, abs=0.001)


def test_a_start_takes_the_longer_the_further_it_comes_and_the_more_it_reads() -> None:
    card, big = MemoryModel(total_gib=24), MemoryModel(total_gib=139.8, dims=LLAMA_70B)
    ends = [start(card, args).seconds for args in ("--gpu-memory-utilization 0.99", "", "--max-model-len auto")]
    assert ends == [25.0, 54.5, 67.5]
    failed, ready = (
        start(big, f"--gpu-memory-utilization {share} --max-model-len 4096", cold=True) for share in (0.9, 0.98)
    )
    assert [(failed.kind, failed.seconds), (ready.kind, ready.seconds)] == [("kv_none", 222.4), ("ok", 235.4)]


ANY_START = {
    "model": st.builds(
        MemoryModel,
        total_gib=st.floats(8, 141),
        neighbours=st.floats(0, 20),
        dims=st.sampled_from((GLM_4_9B, QWEN_05B, LLAMA_8B, QWEN_32B)),
        seed=st.integers(0, 99),
    ),
    "version": st.sampled_from(RELEASES),
    "length": st.integers(16, 32768),
    "cold": st.booleans(),
}


@given(**ANY_START, shares=st.tuples(st.floats(0.05, 1.0), st.floats(0.05, 1.0)))
def test_a_larger_share_is_never_too_little_where_a_smaller_one_was_enough(
    model: MemoryModel, version: str, length: int, cold: bool, shares: tuple[float, float]
) -> None:
    low, high = (
        start(model, f"--gpu-memory-utilization {share} --max-model-len {length}", version=version, cold=cold)
        for share in sorted(shares)
    )
    assert not (low.kind == "ok" and high.kind in ("kv_none", "kv_too_small"))
    assert not (high.kind == "ok" and low.kind not in ("ok", "kv_none", "kv_too_small"))


@given(**ANY_START)
def test_what_is_held_only_grows_and_fits_where_the_start_came_up(
    model: MemoryModel, version: str, length: int, cold: bool
) -> None:
    verdict = start(model, f"--max-model-len {length}", version=version, cold=cold)
    held = list(verdict.held.values())
    assert held == sorted(held)
    if verdict.kind == "ok":
        assert held[-1] <= model.free_bytes(0, "serving")
        assert length <= verdict.numbers["kv_cache_tokens"]
