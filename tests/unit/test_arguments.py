"""vLLM's command line as typed: options, values, the model, ours among theirs."""

from __future__ import annotations

import pytest

from autolaunch.arguments import Arity, Given, Split, engine_options, given, is_option, split

OWN = {"--strategy": True, "--check": False, "--max-attempts": True}


@pytest.mark.parametrize(
    ("token", "name"),
    [
        ("--gpu-memory-utilization", "gpu-memory-utilization"),
        ("--gpu_memory_utilization=0.5", "gpu-memory-utilization"),
        ("--gpu-mem", "gpu-memory-utilization"),
        ("--device-memory-utilization", "device-memory-utilization"),
        ("--no-enforce-eager", "no-enforce-eager"),
        ("--no-enforce", "no-enforce-eager"),
        ("--compilation-config.mode", "compilation-config"),
        ("--max-num", "max-num"),
        ("--of-the-future", "of-the-future"),
        ("-tp", "tensor-parallel-size"),
        ("-tp=2", "tensor-parallel-size"),
        ("-q", "quantization"),
        ("-qfp8", "quantization"),
        ("-cc.mode=3", "compilation-config"),
        ("-O", "O"),
        ("-O3", "O"),
        ("-x", "x"),
    ],
)
def test_an_option_token_stands_for_its_long_name(token: str, name: str) -> None:
    assert engine_options().canonical(token) == name


@pytest.mark.parametrize(
    ("token", "arity"),
    [
        ("--enforce-eager", Arity.NONE),
        ("--no-enable-prefix-caching", Arity.NONE),
        ("--max-model-len", Arity.ONE),
        ("--max-model-len=8192", Arity.NONE),
        ("--api-key", Arity.SEVERAL),
        ("--hf-token", Arity.OPTIONAL),
        ("--of-the-future", Arity.UNKNOWN),
        ("--compilation-config.mode", Arity.ONE),
        ("-qfp8", Arity.NONE),
        ("-q", Arity.ONE),
        ("-O3", Arity.NONE),
        ("-tp", Arity.ONE),
    ],
)
def test_an_option_takes_as_many_values_as_vllm_says(token: str, arity: Arity) -> None:
    assert engine_options().arity_of(token) is arity


@pytest.mark.parametrize(
    ("token", "is_one"),
    [
        ("--x", True),
        ("-x", True),
        ("-1", False),
        ("-0.5", False),
        ("-.5", False),
        ("-", False),
        ("word", False),
        ("-a text", False),
        ('--json={"a": 1}', True),
        ("", False),
    ],
)
def test_negative_numbers_and_texts_are_values(token: str, is_one: bool) -> None:
    assert is_option(token) is is_one


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("--max-model-len 8192", [("max-model-len", ("8192",))]),
        ("--max-model-len=8192", [("max-model-len", ("8192",))]),
        ("--max-model-len -1", [("max-model-len", ("-1",))]),
        ("--served-model-name a b --port 1", [("served-model-name", ("a", "b")), ("port", ("1",))]),
        ("-tp 2 -pp=4", [("tensor-parallel-size", ("2",)), ("pipeline-parallel-size", ("4",))]),
        ("-q fp8 -qawq -q=gptq", [("quantization", (q,)) for q in ("fp8", "awq", "gptq")]),
        ("-O3 -O=2 -O 1", [("O", (level,)) for level in "321"]),
        ("--enforce-eager word --port 1", [("enforce-eager", ()), ("port", ("1",))]),
        ('--override-generation-config {"a=b":-1}', [("override-generation-config", ('{"a=b":-1}',))]),
        ("--hf-token --port 1", [("hf-token", ()), ("port", ("1",))]),
        ("-- --port 1", [("port", ("1",))]),
    ],
)
def test_options_are_read_with_their_values(line: str, found: list[tuple[str, tuple[str, ...]]]) -> None:
    assert [(option.name, option.values) for option in given(line.split())] == found


def test_a_given_option_keeps_the_tokens_it_was() -> None:
    assert given(["--gpu_mem", "0.5"]) == (Given("gpu-memory-utilization", ("0.5",), ("--gpu_mem", "0.5")),)
    assert given(["--seed=1"])[0].value == "1"
    assert given(["--enforce-eager"])[0].value == ""


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        ("glm-4-9b", Split((), "glm-4-9b", (), ())),
        ("--port 1 glm-4-9b", Split((), "glm-4-9b", ("--port", "1"), ())),
        ("glm-4-9b --check --port 1", Split(("--check",), "glm-4-9b", ("--port", "1"), ())),
        ("--max_attempts=3 m -tp 2", Split(("--max-attempts=3",), "m", ("-tp", "2"), ())),
        ("m --strategy keep-context", Split(("--strategy", "keep-context"), "m", (), ())),
        ("m -- --strategy x word", Split((), "m", ("--strategy", "x", "word"), ())),
        ("--enforce-eager m", Split((), "m", ("--enforce-eager",), ())),
        ("m --unknown a b", Split((), "m", ("--unknown", "a", "b"), ())),
        ("m word --port 1", Split((), "m", ("--port", "1"), ("word",))),
        ("--model m", Split((), None, ("--model", "m"), ())),
        ("-qfp8 m", Split((), "m", ("-qfp8",), ())),
        ("--api-key a b --check m", Split(("--check",), "m", ("--api-key", "a", "b"), ())),
        ("--strategy", Split(("--strategy",), None, (), ())),
    ],
)
def test_our_options_and_the_model_are_found_wherever_they_stand(line: str, parts: Split) -> None:
    assert split(line.split(), OWN) == parts
