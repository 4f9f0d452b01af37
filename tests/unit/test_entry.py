"""What a model needs of the engine, said before it is started: its release, and whose code runs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from autolaunch.catalog import catalog, find_model
from autolaunch.entry import Entry, code_notice, misfit


@pytest.mark.parametrize(
    ("name", "release", "why"),
    [
        ("glm-4-9b-0414", "0.8.4", "glm-4-9b-0414 needs vLLM 0.8.5 or newer, this is 0.8.4"),
        ("glm-4-9b-0414", "0.8.5", ""),
        ("glm-4-9b-0414", "0.10.0", ""),
        ("glm-4-9b-0414", "v0.32.0+cpu", ""),
        ("glm-4-9b-0414", None, ""),
        ("glm-4-9b-0414", "unknown", ""),
        ("minicpm-v-4.5", "0.23.1", ""),
        ("minicpm-v-4.5", "0.24.0", "minicpm-v-4.5 needs vLLM 0.23 or older, this is 0.24.0"),
        ("openbmb/MiniCPM-V-4_5", "0.24.0", "openbmb/MiniCPM-V-4_5 needs vLLM 0.23 or older, this is 0.24.0"),
        ("chatglm3-6b", "0.10.0", "chatglm3-6b needs vLLM 0.9 or older, this is 0.10.0"),
        ("kimi-k2-thinking", "0.11.2", "kimi-k2-thinking needs vLLM 0.12.0 or newer, this is 0.11.2"),
        ("MiniMaxAI/MiniMax-M2", "0.11.0", "MiniMaxAI/MiniMax-M2 needs vLLM 0.11.1 or newer, this is 0.11.0"),
        ("phi-4", "0.4.0", ""),
    ],
)
def test_a_release_that_does_not_know_a_model_is_told(name: str, release: str | None, why: str) -> None:
    assert misfit(find_model(name), release) == why


RUNS = "{} is published with code of its own, which will run: --trust-remote-code is on for it"
NEEDS = "{} is published with code of its own, which vLLM runs only with --trust-remote-code: {}"


@pytest.mark.parametrize("name", ["glm-4v-9b", "kimi-k2-thinking", "minimax-m2", "minicpm-v-4.5"])
def test_the_code_that_a_short_name_brings_is_said_once(name: str) -> None:
    assert code_notice(find_model(name), allowed=False) == RUNS.format(name)
    assert code_notice(find_model(name), allowed=True) == ""


def test_a_hub_id_that_needs_code_says_how_it_is_allowed() -> None:
    entry = find_model("THUDM/glm-4-9b-chat")
    assert entry.engine_args[0] == "--served-model-name"
    assert "--trust-remote-code" not in entry.engine_args
    assert code_notice(entry, allowed=False) == NEEDS.format(
        "THUDM/glm-4-9b-chat", "give it, or the short name glm-4-9b-chat-original"
    )
    assert code_notice(entry, allowed=True) == ""


def test_of_a_model_that_is_not_known_nothing_is_said_and_its_code_never_runs() -> None:
    assert find_model("org/unknown") == Entry("org/unknown", "org/unknown")
    assert code_notice(Entry("org/unknown", "org/unknown"), allowed=False) == ""


def test_only_those_models_run_code_whose_publishers_need_it() -> None:
    assert {name for name, entry in catalog().items() if entry.remote_code} == {
        "glm-4-9b-chat-original", "glm-4-9b-base", "glm-4-9b-chat-1m", "glm-4v-9b", "chatglm3-6b",
        "ernie-4.5-vl-28b-a3b-thinking", "kimi-k2-thinking", "minimax-m2", "minicpm-v-4.5", "deepseek-v2-lite",
    }  # fmt: skip


def test_another_short_name_for_older_releases_is_one_that_they_serve() -> None:
    for entry in catalog().values():
        if entry.before:
            other = catalog()[entry.before]
            assert (other.since, other.weights) == ("", entry.weights)
            assert replace(other.shape, architecture="") == replace(entry.shape, architecture="")  # type: ignore[type-var]
