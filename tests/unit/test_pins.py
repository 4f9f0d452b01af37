"""What the user's own options fix, and which of their values the engine will refuse."""

from __future__ import annotations

from dataclasses import replace

import pytest

from autolaunch.arguments import given
from autolaunch.facts import Model
from autolaunch.pins import doubts, pool_of
from autolaunch.settings import AUTO, Settings
from tests.unit.test_planner import MODEL

PLAIN = replace(MODEL, dtype="bfloat16")


@pytest.mark.parametrize(
    ("pinned", "model", "said"),
    [
        (Settings(tensor_parallel_size=2), PLAIN, ()),
        (
            Settings(tensor_parallel_size=3),
            PLAIN,
            ("32 attention and 2 KV heads cannot be shared out to --tensor-parallel-size 3: vLLM will refuse it",),
        ),
        (Settings(max_model_len=131072), PLAIN, ()),
        (Settings(max_model_len=AUTO), PLAIN, ()),
        (
            Settings(max_model_len=200_000),
            PLAIN,
            (
                "--max-model-len 200000 is above the 131072 of the model's configuration: vLLM refuses it unless "
                "VLLM_ALLOW_LONG_MAX_MODEL_LEN=1 is set",
            ),
        ),
        (
            Settings(quantization="awq"),
            PLAIN,
            (
                "--quantization awq: awq is how weights are stored, and these weights are stored as bfloat16: vLLM "
                "will refuse it; name a model whose files are awq",
            ),
        ),
        (Settings(quantization="fp8"), PLAIN, ()),
        (Settings(quantization="bitsandbytes"), PLAIN, ()),
        (Settings(quantization="awq"), replace(PLAIN, quantization="awq"), ()),
        (Settings(quantization="awq", tensor_parallel_size=3, max_model_len=10**7), Model(), ()),
    ],
)
def test_a_value_that_the_engine_refuses_is_told_and_no_other(
    pinned: Settings, model: Model, said: tuple[str, ...]
) -> None:
    """`-q awq` for 16-bit weights planned as "fits", without a word."""
    assert tuple(doubts(pinned, model, moved=False)) == said


def test_where_an_option_changes_the_configuration_its_context_is_not_held_against_the_user() -> None:
    assert tuple(doubts(Settings(max_model_len=200_000), PLAIN, moved=True)) == ()


@pytest.mark.parametrize(
    ("line", "pool"),
    [
        ("", None),
        ("--kv-cache-memory-bytes 4G", 4 * 2**30),
        ("--kv-cache-memory-bytes=4g", 4 * 10**9),
        ("--kv-cache-memory 1024", 1024),
        ("--kv-cache-memory-bytes 4G --kv-cache-memory-bytes 5G", 5 * 2**30),
        ("--kv-cache-memory-bytes much", None),
        ("--kv-cache-memory-bytes 0", None),
        ("--kv-cache-dtype fp8", None),
    ],
)
def test_a_cache_of_the_users_own_is_read_as_vllm_reads_it(line: str, pool: int | None) -> None:
    assert pool_of(given(line.split())) == pool
