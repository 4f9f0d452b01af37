"""`engine_args` of a user's models file hold as if they were typed, and what is typed goes before them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given as whatever
from hypothesis import strategies as some

from autolaunch.cli import main
from autolaunch.errors import WishError
from autolaunch.facts import Engine
from autolaunch.installation import Installation
from autolaunch.options import Asked, Options, ask, for_engine
from autolaunch.redaction import secrets_in
from autolaunch.settings import Settings

SHAPE = """
config = { architectures = ["Qwen3ForCausalLM"], model_type = "qwen3", num_hidden_layers = 36, hidden_size = 4096,\
 intermediate_size = 12288, num_attention_heads = 32, num_key_value_heads = 8, head_dim = 128, vocab_size = 151936,\
 max_position_embeddings = 40960, tie_word_embeddings = false }
"""


def file_of(folder: Path, *engine_args: str, more: str = "") -> Path:
    """Write a models file with one model, `q`."""
    file = folder / "u.toml"
    file.write_text(f'[q]\nmodel = "own/qwen"\nengine_args = {json.dumps(engine_args)}\n{more}', encoding="utf-8")
    return file


def asked(file: Path, *typed: str, version: str | None = "0.32.0", try_anyway: bool = False) -> Asked:
    """Return what `autolaunch q` asks of an engine."""
    options = Options(models=file, try_anyway=try_anyway)
    return for_engine(ask("q", typed, options), options, Installation(("vllm", "serve"), Engine(version)))


def test_the_plan_keeps_what_the_file_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--max-model-len", "4096", "--gpu-memory-utilization", "0.5", "--quantization", "fp8")
    file = file_of(tmp_path, *words, more=SHAPE)
    with pytest.raises(SystemExit, match="0"):
        main(["plan", "q", "--models", str(file), "--gpu", "RTX 4090", "--engine-version", "0.32.0", "--json"])
    argv = json.loads(capsys.readouterr().out)["argv"]
    assert (argv.count("--max-model-len"), argv[argv.index("--max-model-len") + 1]) == (1, "4096")
    assert (argv.count("--gpu-memory-utilization"), argv[argv.index("--gpu-memory-utilization") + 1]) == (1, "0.5")


def test_the_file_pins_places_and_locks_as_typed_words_do(tmp_path: Path) -> None:
    words = ("--max-model-len", "4k", "-tp", "2", "--port=9000", "--api-key", "sk-0123456789", "--revision", "v2")
    made = asked(file_of(tmp_path, *words))
    wish = made.wish
    assert wish.pinned == Settings(max_model_len=4000, tensor_parallel_size=2)
    assert wish.pins == {"max_model_len", "tensor_parallel_size", "model"}
    assert (wish.address.url, wish.api_key, wish.cards) == ("http://127.0.0.1:9000", "sk-0123456789", 2)
    assert secrets_in(wish.options, {}).anywhere == ("sk-0123456789",)
    assert made.where.revision == "v2"
    assert (wish.entry_args, wish.engine_args) == (("--served-model-name", "q", *words), ())


def test_every_word_behind_an_option_of_a_plugin_reaches_the_engine(tmp_path: Path) -> None:
    words = ("--my-plugin", "a", "b", "--seed", "1")
    assert asked(file_of(tmp_path, *words), version=None).wish.entry_args == ("--served-model-name", "q", *words)


def test_the_older_form_of_a_model_is_served_as_the_script_did_too(tmp_path: Path) -> None:
    file = tmp_path / "u.toml"
    file.write_text("[own]\nmodel = 'x/y'\nsince = '0.20'\nbefore = 'old'\n[old]\nmodel = 'x/z'\n", encoding="utf-8")
    options = Options(models=file, as_published=True)
    made = for_engine(ask("own", (), options), options, Installation(("vllm", "serve"), Engine("0.11.0")))
    assert made.wish.served_names[:3] == ("glm-4", "glm-4-9b", "glm-4-9b-chat")


def test_what_is_typed_goes_before_the_file(tmp_path: Path) -> None:
    file = file_of(tmp_path, "--max-model-len", "4096", "--port", "9000", "--enforce-eager", "--seed", "1")
    wish = asked(file, "--max-model-len", "8192", "--port", "9001", "--no-enforce-eager").wish
    assert wish.pinned == Settings(max_model_len=8192, enforce_eager=False)
    assert (wish.address.port, wish.entry_args) == (9001, ("--served-model-name", "q", "--seed", "1"))


@pytest.mark.parametrize(
    ("words", "version", "said", "kept"),
    [
        ("--engine-use-ray", "0.32.0", "has no --engine-use-ray any more", ()),
        ("--disable-log-requests --seed 1", "0.32.0", "has no --disable-log-requests any more", ("--seed", "1")),
        (
            "--worker-use-ray",
            "0.32.0",
            "is given instead of --worker-use-ray",
            ("--distributed-executor-backend", "ray"),
        ),
    ],
)
def test_the_files_options_are_spelled_for_the_engine_and_the_file_is_named(
    tmp_path: Path, words: str, version: str, said: str, kept: tuple[str, ...]
) -> None:
    file = file_of(tmp_path, *words.split())
    made = asked(file, version=version)
    (line,) = made.said
    assert line.startswith(f"{file}: ")
    assert said in line
    assert made.wish.entry_args == ("--served-model-name", "q", *kept)


def test_a_typed_option_goes_before_the_files_old_word_for_it(tmp_path: Path) -> None:
    file = file_of(tmp_path, "--distributed-executor-backend", "mp")
    wish = asked(file, "--worker-use-ray").wish
    assert wish.engine_args == ("--distributed-executor-backend", "ray")
    assert wish.entry_args == ("--served-model-name", "q")


@pytest.mark.parametrize(
    ("words", "typed", "most", "what"),
    [
        (("--max-model-len", "abc"), (), None, "--max-model-len abc: "),
        (("--max-model-length", "1"), (), None, "no vLLM up to 0.33.0 has --max-model-length"),
        (("--port", "0"), (), None, "--port 0 is not a port"),
        (
            ("--gpu-memory-utilization", "90"),
            (),
            None,
            "--gpu-memory-utilization 90: it is a share of the card's memory",
        ),
        (("--max-model-len", "8192"), (), 4096, "--max-model-len 8192 is above --max-context 4096"),
        (("--config", "/nowhere.yaml"), (), None, "--config /nowhere.yaml cannot be read: "),
        (
            ("--cuda-graph-sizes", "8"),
            ("--cudagraph-capture-sizes", "4"),
            {},
            "vLLM 0.32.0 has no --cuda-graph-sizes any",
        ),
    ],
)
def test_a_mistake_in_the_file_names_it(
    tmp_path: Path, words: tuple[str, ...], typed: tuple[str, ...], most: int | None, what: str
) -> None:
    file = file_of(tmp_path, *words)
    options = Options(models=file, max_context=most)
    with pytest.raises(WishError) as caught:
        for_engine(ask("q", typed, options), options, Installation(("vllm", "serve"), Engine("0.32.0")))
    assert caught.value.what.startswith(f"engine_args of 'q' in {file}: {what}")


def test_a_slip_in_the_file_is_passed_on_where_that_is_wanted(tmp_path: Path) -> None:
    file = file_of(tmp_path, "--max-model-length", "1")
    (line,) = asked(file, try_anyway=True).said
    assert line.startswith(f"{file}: no vLLM up to ")


def test_what_ships_is_started_anyway_on_a_release_that_lacks_its_options() -> None:
    options = Options(try_anyway=True)
    made = for_engine(ask("glm-4v-9b", (), options), options, Installation(("vllm", "serve"), Engine("0.6.3")))
    assert made.wish.entry_args[2:4] == ("--trust-remote-code", "--hf-overrides")


def test_a_typed_mistake_is_not_the_files(tmp_path: Path) -> None:
    with pytest.raises(WishError, match=r"^--max-model-len abc: "):
        asked(file_of(tmp_path, "--port", "9000"), "--max-model-len", "abc")


def test_vllms_own_config_file_may_be_named_in_the_models_file(tmp_path: Path) -> None:
    (tmp_path / "vllm.yaml").write_text("max-model-len: 2048\nport: 9000\n")
    (tmp_path / "other.yaml").write_text("port: 9002\n")
    file = file_of(tmp_path, "--config", str(tmp_path / "vllm.yaml"), "--port", "9001")
    wish = asked(file).wish
    assert (wish.pinned, wish.address.port) == (Settings(max_model_len=2048), 9001)
    wish = asked(file, "--config", str(tmp_path / "other.yaml")).wish
    assert (wish.pinned, wish.address.port, wish.entry_args) == (Settings(), 9002, ("--served-model-name", "q"))


def test_the_files_own_tool_parser_goes_before_the_dialects(tmp_path: Path) -> None:
    file = file_of(tmp_path, "--tool-call-parser", "hermes", more='dialect = "glm-4"')
    wish = asked(file).wish
    assert wish.entry_args.count("--tool-call-parser") == 1
    assert "glm4_9b" not in wish.entry_args


def test_remote_code_of_the_file_is_said_however_it_is_spelled(tmp_path: Path) -> None:
    file = file_of(tmp_path, "--trust_remote_code")
    assert asked(file).said == (
        "q is published with code of its own, which will run: --trust-remote-code is on for it",
    )
    assert asked(file, "--trust-remote-code").said == ()


OPTIONS = {
    "max-model-len": ("2048", "8192"), "gpu-memory-utilization": ("0.5", "0.9"), "max-num-seqs": ("4", "8"),
    "port": ("9000", "9001"), "api-key": ("one", "two"), "tensor-parallel-size": ("1", "2"), "seed": ("1", "2"),
}  # fmt: skip


def _words(chosen: dict[str, str]) -> tuple[str, ...]:
    return tuple(word for name, value in chosen.items() for word in (f"--{name}", value))


choices = some.fixed_dictionaries({}, optional={name: some.sampled_from(values) for name, values in OPTIONS.items()})


@whatever(file=choices, typed=choices)
def test_an_option_means_the_same_in_the_file_and_typed_and_typed_it_wins(
    tmp_path_factory: pytest.TempPathFactory, file: dict[str, str], typed: dict[str, str]
) -> None:
    folder = tmp_path_factory.mktemp("models")
    ours = asked(file_of(folder, *_words(file)), *_words(typed))
    theirs = asked(file_of(folder), *_words({**file, **typed}))
    for name in ("pinned", "pins", "address", "api_key", "cards"):
        assert getattr(ours.wish, name) == getattr(theirs.wish, name)
    assert ours.digest == theirs.digest
