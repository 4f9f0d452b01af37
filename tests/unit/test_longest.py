"""The longest context that each release of vLLM sees in a configuration, and what is said of those that lie."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autolaunch.longest import Longest, longest
from autolaunch.shape import LONGEST

OLD, NEW = (0, 29), (0, 30)


def scaled(length: int = 32768, **scaling: Any) -> dict[str, Any]:
    """Return a configuration whose rotary positions are scaled."""
    return {"max_position_embeddings": length, "rope_scaling": scaling}


YARN = scaled(type="yarn", factor=4.0, original_max_position_embeddings=32768)
DEEPSEEK = scaled(163840, type="yarn", factor=40, original_max_position_embeddings=4096)


@pytest.mark.parametrize(
    ("config", "old", "new"),
    [
        (scaled(8192, rope_type="linear", factor=4.0), 32768, 32768),
        (scaled(4096, type="dynamic", factor=2.0), 8192, 8192),
        (scaled(131072, rope_type="llama3", factor=8.0), 131072, 131072),
        (scaled(131072, type="su", short_factor=[1.0]), 131072, 131072),
        (scaled(131072, type="longrope", factor=32.0), 131072, 131072),
        (scaled(type="mrope", mrope_section=[16, 24, 24]), 32768, 32768),
        (scaled(rope_type="default", rope_theta=1e6), 32768, 32768),
        (YARN, 131072, 32768),
        (DEEPSEEK, 163840, 163840),
        (scaled(131072, type="yarn", original_max_position_embeddings=4096), 4096, 131072),
        (scaled(8192, rope_type="linear", factor=None), 8192, 8192),
        (scaled(8192, factor=1.0), 8192, 8192),
        ({"max_position_embeddings": 8192, "rope_parameters": {"rope_type": "linear", "factor": 4}}, 32768, 32768),
        ({**scaled(131072, rope_type="linear", factor=8.0), "model_type": "gemma3_text"}, 131072, 131072),
    ],
)
def test_a_scaling_counts_as_each_release_counts_it(config: dict[str, Any], old: int, new: int) -> None:
    assert longest(config, release=OLD) == Longest(old)
    assert longest(config, release=NEW) == Longest(new)
    assert longest(config) == Longest(min(old, new)), "an engine of unknown release refuses neither"


def test_kinds_of_layers_may_be_scaled_each_in_its_way() -> None:
    kinds = {"full_attention": {"rope_type": "linear", "factor": 8.0}, "sliding_attention": {"rope_type": "default"}}
    assert longest({"max_position_embeddings": 16384, "rope_parameters": kinds}) == Longest(131072)


def test_yarn_without_its_original_length_is_no_more_than_the_stated_one_where_releases_demand_it() -> None:
    config = scaled(rope_type="yarn", factor=4.0)
    said = "YaRN without original_max_position_embeddings: no more than the stated 32768 tokens of context are taken"
    assert longest(config, release=OLD) == Longest(32768, said)
    assert longest(config, release=NEW) == Longest(32768)


@pytest.mark.parametrize(
    ("scaling", "why"),
    [
        ({"factor": 4.0}, "the scaling of its positions has no kind"),
        ({"type": ["linear"], "factor": 4.0}, "the scaling of its positions has no kind"),
        ({"type": "linear", "factor": "4"}, "the scaling of its positions has the factor '4'"),
        ({"type": "linear", "factor": -4}, "the scaling of its positions has the factor -4"),
        ({"type": "linear", "factor": float("nan")}, "the scaling of its positions has the factor nan"),
        ({"type": "linear", "factor": True}, "the scaling of its positions has the factor True"),
        ({"type": "linear", "factor": 1e6}, "32768 tokens scaled by 1e+06 are the longest context of no model"),
        ({"type": "linear", "factor": 1e-9}, "32768 tokens scaled by 1e-09 are the longest context of no model"),
        ("linear", "the scaling of its positions is 'linear', not a table"),
    ],
)
def test_a_scaling_that_cannot_be_made_out_is_said_and_the_stated_length_counts(scaling: Any, why: str) -> None:
    found = longest({"max_position_embeddings": 32768, "rope_scaling": scaling}, release=NEW)
    assert found == Longest(32768, f"{why}: no more than the stated 32768 tokens of context are taken")


@pytest.mark.parametrize(
    ("config", "length"),
    [
        ({}, None),
        ({"max_position_embeddings": 32768.0}, 32768),
        ({"max_position_embeddings": 131072, "seq_length": 8192}, 8192),
        ({"max_position_embeddings": None, "n_positions": 1024}, 1024),
        ({"max_position_embeddings": LONGEST}, LONGEST),
    ],
)
def test_the_least_of_what_is_stated_counts(config: dict[str, Any], length: int | None) -> None:
    assert longest(config) == Longest(length)


def test_model_max_length_goes_before_all_others_in_newer_releases() -> None:
    command_r = {"max_position_embeddings": 8192, "model_max_length": 131072}
    assert longest(command_r, release=(0, 8)) == Longest(8192)
    assert longest(command_r, release=(0, 9)) == Longest(131072)
    assert longest(command_r) == Longest(8192)


@pytest.mark.parametrize("value", [0, -1, True, "4096", 10**15, LONGEST + 1, 0.5, float("inf"), float("nan"), [4096]])
def test_a_length_of_no_model_is_not_known_and_said(value: Any) -> None:
    said = f"max_position_embeddings is {value!r}, which is the longest context of no model"
    assert longest({"max_position_embeddings": value}) == Longest(None, said)
    assert longest({"max_position_embeddings": value, "seq_length": 8192}) == Longest(8192, said)


ODD = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.lists(st.integers()))
KINDS = st.sampled_from(["linear", "yarn", "dynamic", "llama3", "su", "default", "deepseek_yarn", "?", 7, None])
SCALING = st.fixed_dictionaries(
    {}, optional={"rope_type": KINDS, "type": KINDS, "factor": ODD, "original_max_position_embeddings": ODD}
)


@given(
    config=st.fixed_dictionaries(
        {},
        optional={
            "max_position_embeddings": ODD,
            "model_max_length": ODD,
            "seq_length": ODD,
            "model_type": ODD,
            "rope_scaling": st.one_of(ODD, SCALING, st.dictionaries(st.text(max_size=4), SCALING)),
            "rope_parameters": st.one_of(ODD, SCALING),
        },
    ),
    release=st.sampled_from([None, (0, 6), OLD, NEW, (0, 33)]),
)
def test_whatever_is_said_a_length_is_one_that_a_model_can_have(
    config: dict[str, Any], release: tuple[int, int] | None
) -> None:
    found = longest(config, release=release)
    assert found.tokens is None or 0 < found.tokens <= LONGEST
    any_release = longest(config).tokens
    if found.tokens is not None and not longest(config).note and not found.note:
        assert any_release is not None
        assert any_release <= found.tokens
