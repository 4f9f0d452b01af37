"""Python keywords as words of the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click import Option
from hypothesis import given as for_all
from hypothesis import strategies as st

from autolaunch.arguments import engine_options, given
from autolaunch.cli import serve
from autolaunch.cli_options import own_options
from autolaunch.errors import WishError
from autolaunch.keywords import DRAIN_VARIABLE, FLAGS, SECRET, Words, drain_seconds, with_model, words_of
from autolaunch.server import DRAIN_S

OWN = own_options(serve)

HIDDEN = {name.replace("_", "-") for name in SECRET}

SNIPPET = {
    "model": "THUDM/glm-4-9b-chat",
    "tokenizer": "THUDM/glm-4-9b-chat",
    "tensor_parallel_size": 1,
    "dtype": "bfloat16",
    "trust_remote_code": True,
    "gpu_memory_utilization": 0.9,
    "enforce_eager": True,
    "worker_use_ray": False,
    "engine_use_ray": False,
    "disable_log_requests": True,
    "max_model_len": 8192,
    "enable_chunked_prefill": True,
}


def words(**keywords: Any) -> str:
    return " ".join(words_of(keywords, own=OWN).words)


def test_the_engine_args_that_everybody_copied_are_a_command_line() -> None:
    assert words(**SNIPPET) == (
        "--model THUDM/glm-4-9b-chat --tokenizer THUDM/glm-4-9b-chat --tensor-parallel-size 1 --dtype bfloat16 "
        "--trust-remote-code --gpu-memory-utilization 0.9 --enforce-eager --disable-log-requests --max-model-len 8192 "
        "--enable-chunked-prefill"
    )


@pytest.mark.parametrize(
    ("keywords", "made"),
    [
        ({"strategy": "keep-context", "no_memory": True, "try_anyway": False}, "--strategy keep-context --no-memory"),
        (
            {"record": Path("/a/b"), "memory": "22GiB", "max_attempts": 3},
            "--record /a/b --memory 22GiB --max-attempts 3",
        ),
        ({"max_model_len": None, "seed": 0}, "--seed 0"),
        ({"enable_prefix_caching": False}, "--no-enable-prefix-caching"),
        ({"enable_chunked_prefill": False}, "--no-enable-chunked-prefill"),
        ({"served_model_name": ["glm-4", "glm"]}, "--served-model-name glm-4 glm"),
        ({"served_model_name": "glm-4"}, "--served-model-name glm-4"),
        ({"lora_modules": []}, ""),
        ({"hf_overrides": {"a": 1}}, '--hf-overrides {"a": 1}'),
        ({"limit_mm_per_prompt": {"image": 2}}, '--limit-mm-per-prompt {"image": 2}'),
    ],
)
def test_a_value_is_written_as_its_option_reads_it(keywords: dict[str, Any], made: str) -> None:
    assert words(**keywords) == made


def test_a_secret_goes_through_the_environment() -> None:
    made = words_of({"api_key": ["sk-1"], "hf_token": "hf_2", "seed": 1}, own=OWN)
    assert made == Words(("--seed", "1"), {"VLLM_API_KEY": "sk-1", "HF_TOKEN": "hf_2"})


@pytest.mark.parametrize(
    ("keywords", "what", "hint"),
    [
        ({"max_modle_len": 1}, "max_modle_len is no option of autolaunch or of vLLM", "did you mean max_model_len?"),
        ({"stratgy": "x"}, "stratgy is no option of autolaunch or of vLLM", "did you mean strategy?"),
        (
            {"quux": 1},
            "quux is no option of autolaunch or of vLLM",
            "vLLM's options are spelled with underscores: max_model_len",
        ),
        (
            {"enforce_eager": "yes"},
            "enforce_eager is True or False, not 'yes'",
            "it takes no value on the command line either",
        ),
        ({"check": True}, "check is an option of the command line only", "stop the server after the start"),
        (
            {"api_key": ["sk-1", "sk-2"]},
            "api_key is one text here",
            "vLLM reads several keys from its own --config file",
        ),
        ({"seed": object()}, "seed cannot be a object", "give a text, a number, or what JSON can hold"),
    ],
)
def test_what_is_no_option_is_refused_with_the_nearest(keywords: dict[str, Any], what: str, hint: str) -> None:
    with pytest.raises(WishError) as caught:
        words(**keywords)
    assert (caught.value.what, caught.value.hint) == (what, hint)


@for_all(
    st.dictionaries(
        st.sampled_from(
            sorted(name for name in engine_options().arity if not name.startswith("no-") and name not in HIDDEN)
        ),
        st.one_of(st.booleans(), st.integers(1, 99), st.sampled_from(["auto", "a b", "-1"])),
        max_size=6,
    )
)
def test_every_word_is_read_back_as_the_option_it_came_from(keywords: dict[str, Any]) -> None:
    flags = {name for name, arity in engine_options().arity.items() if arity in FLAGS}
    fit = {name: value for name, value in keywords.items() if name not in flags or isinstance(value, bool)}
    made = words_of({name.replace("-", "_"): value for name, value in fit.items()}, own=OWN)
    assert {option.name.removeprefix("no-") for option in given(made.words)} <= set(fit)
    assert {name for name, value in fit.items() if value is not False} <= {o.name for o in given(made.words)}


@pytest.mark.parametrize(
    ("keywords", "environment", "seconds"),
    [
        ({}, {}, 30.0),
        ({}, {"AUTOLAUNCH_DRAIN_TIMEOUT": "600"}, 600.0),
        ({}, {"AUTOLAUNCH_DRAIN_TIMEOUT": ""}, 30.0),
        ({}, {"AUTOLAUNCH_DRAIN_TIMEOUT": "soon"}, 30.0),
        ({"drain_timeout": None}, {"AUTOLAUNCH_DRAIN_TIMEOUT": "600"}, 600.0),
        ({"drain_timeout": 5}, {"AUTOLAUNCH_DRAIN_TIMEOUT": "600"}, 5.0),
        ({"drain_timeout": "7.5"}, {}, 7.5),
        ({"drain_timeout": 0}, {}, 0.0),
    ],
)
def test_a_stop_takes_as_long_as_the_supervisor_was_told(
    keywords: dict[str, Any], environment: dict[str, str], seconds: float
) -> None:
    assert drain_seconds(keywords, environment, default_s=30.0) == seconds


def test_the_variable_of_the_drain_is_the_commands() -> None:
    """Another name would be read by nobody."""
    (parameter,) = (one for one in serve.params if one.name == "drain_timeout")
    assert isinstance(parameter, Option)
    assert parameter.envvar == DRAIN_VARIABLE
    assert parameter.default == DRAIN_S


def test_a_model_is_named_once() -> None:
    assert with_model(None, {"model": "b"}) == {"model": "b"}
    assert with_model("a", {"model": None, "seed": 1}) == {"model": "a", "seed": 1}
    with pytest.raises(WishError, match="two models are named: a and model='a'"):
        with_model("a", {"model": "a"})
