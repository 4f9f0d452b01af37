"""The advice points in the direction that cures: never the opposite, with the engine's own numbers."""

from __future__ import annotations

import pytest

from autolaunch.advice import RAY, advice, hints
from autolaunch.failure import Failure, Kind


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind is not Kind.OK])
def test_every_failure_has_advice(kind: Kind) -> None:
    assert advice(Failure(kind))
    assert all(sentence.endswith(".") for sentence in advice(Failure(kind)))


FULL = (
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 108.00 MiB. GPU 0 has a total capacity of 79.18 GiB "
    "of which 14.62 MiB is free. {others}Including non-PyTorch memory, this process has 15.48 GiB memory in use."
)


@pytest.mark.parametrize(
    ("others", "said"),
    [
        (
            "Process 483 has 63.67 GiB memory in use. ",
            "Process 483 held 63.67 GiB of 79.18 GiB: stop what is not needed there, or choose another GPU "
            "(CUDA_VISIBLE_DEVICES).",
        ),
        (
            "Process 483 has 62.00 GiB memory in use. Process 7 has 512.00 MiB memory in use. ",
            "Processes 483, 7 held 62.50 GiB of 79.18 GiB: stop what is not needed there, or choose another GPU "
            "(CUDA_VISIBLE_DEVICES).",
        ),
    ],
)
def test_who_else_held_the_device_comes_first(others: str, said: str) -> None:
    failure = Failure(Kind.WEIGHTS_OOM, line=FULL.format(others=others), numbers={"total_gib": 79.18})
    assert advice(failure)[0] == said
    assert advice(failure)[1].startswith("The weights do not fit into 1")  # what was left, not all of the device


@pytest.mark.parametrize("others", ["", "Process 9 has 300.00 MiB memory in use. "])
def test_alone_or_beside_a_desktop_nobody_is_blamed(others: str) -> None:
    failure = Failure(Kind.WEIGHTS_OOM, line=FULL.format(others=others), numbers={"total_gib": 79.18})
    assert advice(failure)[0].startswith("The weights do not fit")


def test_a_healthy_start_needs_no_advice() -> None:
    assert advice(Failure(Kind.OK)) == ()


@pytest.mark.parametrize("kind", [Kind.KV_NONE, Kind.KV_TOO_SMALL])
def test_too_little_cache_asks_for_more_utilization(kind: Kind) -> None:
    text = " ".join(advice(Failure(kind)))
    assert "raise --gpu-memory-utilization" in text
    assert "Lowering --gpu-memory-utilization makes it worse" in text


@pytest.mark.parametrize("kind", [Kind.KV_ALLOC_OOM, Kind.GRAPH_OOM, Kind.RUNTIME_OOM])
def test_a_refused_allocation_asks_for_less_utilization(kind: Kind) -> None:
    assert "ower --gpu-memory-utilization" in " ".join(advice(Failure(kind)))


def test_weights_that_do_not_fit_are_quantized_and_no_share_of_memory_is_proposed() -> None:
    first, *rest = advice(Failure(Kind.WEIGHTS_OOM, numbers={"total_gib": 16.0}))
    assert "16 GiB" in first
    assert "quantized" in first
    assert any("Neither --gpu-memory-utilization" in sentence for sentence in rest)


def test_the_context_that_fits_is_named() -> None:
    found = advice(Failure(Kind.KV_TOO_SMALL, numbers={"estimated_max_len": 70630}))
    assert found[0].startswith("Set --max-model-len 70624:")


def test_the_share_that_fits_the_free_memory_is_named() -> None:
    found = advice(Failure(Kind.FREE_MEMORY_LOW, numbers={"free_gib": 14.99, "total_gib": 16.0}))
    assert "--gpu-memory-utilization 0.92" in found[0]


def test_on_a_full_card_no_share_is_proposed() -> None:
    found = advice(Failure(Kind.FREE_MEMORY_LOW, numbers={"free_gib": 0.49, "total_gib": 79.32}))
    assert "no --gpu-memory-utilization helps" in found[0]


def test_a_host_without_memory_is_not_cured_on_the_gpu() -> None:
    assert "No GPU setting helps." in advice(Failure(Kind.HOST_OOM))


def test_unrecognized_arguments_are_named_each() -> None:
    line = "api_server.py: error: unrecognized arguments: --worker-use-ray --max-modell-len 4096"
    failure = Failure(Kind.CONFIG_ERROR, line=line, engine_version="0.32.0")
    assert advice(failure) == (
        "vLLM 0.32.0 has no --worker-use-ray any more (it went with 0.7.0): leave it out.",
        "no vLLM up to 0.33.0 has --max-modell-len: did you mean --max-model-len?",
    )


def test_an_engine_without_ray_is_told_which_option_wants_it() -> None:
    line = "ValueError: Failed to import Ray: No module named 'ray'.Please install Ray with `pip install ray`."
    assert advice(Failure(Kind.CONFIG_ERROR, line=line)) == (RAY,)


def test_the_hints_of_a_start_are_those_that_no_step_gives() -> None:
    assert hints(Failure(Kind.KV_NONE)) == ()
    assert hints(Failure(Kind.MODEL_NOT_FOUND)) == advice(Failure(Kind.MODEL_NOT_FOUND))
    assert len(hints(Failure(Kind.COMPILE_ERROR))) == 1
    assert hints(Failure(Kind.UNKNOWN, line="start timeout: 5 s")) == (
        "allow a slower start with --start-timeout SECONDS",
    )
