"""Settings on the command line, in records and in messages."""

from __future__ import annotations

import pytest

from autolaunch.settings import AUTO, FIELD_NAMES, Change, Settings, changes, flag, render

ALL = Settings(
    gpu_memory_utilization=0.893,
    max_model_len=AUTO,
    max_num_seqs=32,
    max_num_batched_tokens=1024,
    cudagraph_capture_sizes=(1, 2),
    enforce_eager=True,
    quantization="fp8",
    model="org/awq",
)


def test_settings_become_vllms_own_options() -> None:
    assert render(ALL, pins=frozenset()) == (
        "--gpu-memory-utilization", "0.893",
        "--max-model-len", "auto",
        "--max-num-seqs", "32",
        "--max-num-batched-tokens", "1024",
        "--compilation-config", '{"cudagraph_capture_sizes":[1,2]}',
        "--enforce-eager",
        "--quantization", "fp8",
    )  # fmt: skip


def test_defaults_become_nothing() -> None:
    assert render(Settings(), pins=frozenset()) == ()
    assert render(Settings(enforce_eager=False), pins=frozenset()) == ()


@pytest.mark.parametrize("name", FIELD_NAMES)
def test_a_pinned_field_is_left_to_the_users_own_words(name: str) -> None:
    assert flag(name) not in render(ALL, pins=frozenset({name}))


def test_settings_are_recorded_where_they_are_set() -> None:
    assert Settings(max_model_len=AUTO, cudagraph_capture_sizes=(1, 2), enforce_eager=False).as_json() == {
        "max_model_len": "auto",
        "cudagraph_capture_sizes": [1, 2],
        "enforce_eager": False,
    }


def test_changes_are_told_in_the_order_of_the_fields_with_both_values() -> None:
    after = Settings(max_model_len=8192, cudagraph_capture_sizes=(1, 2), model="org/awq")
    found = changes(Settings(max_model_len=AUTO), after)
    assert found == (
        Change("max_model_len", AUTO, 8192),
        Change("cudagraph_capture_sizes", None, (1, 2)),
        Change("model", None, "org/awq"),
    )
    assert [str(change) for change in found] == [
        "max_model_len auto -> 8192",
        "cudagraph_capture_sizes (engine default) -> 1,2",
        "model (the wished one) -> org/awq",
    ]


def test_a_changed_copy_leaves_the_original() -> None:
    assert ALL.changed(quantization=None) != ALL
    assert ALL.quantization == "fp8"
