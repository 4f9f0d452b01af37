"""What the user asked for: pins, the address, contradictions, vLLM's own config file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from autolaunch.case import Limits
from autolaunch.entry import Entry
from autolaunch.errors import WishError
from autolaunch.options import Options, limits_of
from autolaunch.pins import PINNING
from autolaunch.redaction import secrets_in
from autolaunch.settings import AUTO, Settings
from autolaunch.wish import Address, Wish, make_wish, model_from

ENTRY = Entry("m", "org/m", engine_args=("--served-model-name", "m", "--load-format", "dummy"))


def wish(line: str = "", limits: Limits | None = None, environment: Mapping[str, str] | None = None) -> Wish:
    """Return the wish of a command line without spaces in its words."""
    return make_wish(ENTRY, line.split(), limits or Limits(), environment=environment or {})


@pytest.mark.parametrize(
    ("line", "pinned", "pins"),
    [
        ("", {}, set()),
        ("--dtype half", {}, set()),
        ("--gpu-memory-utilization 0.5", {"gpu_memory_utilization": 0.5}, {"gpu_memory_utilization"}),
        ("--gpu-mem=0.5", {"gpu_memory_utilization": 0.5}, {"gpu_memory_utilization"}),
        ("--device-memory-utilization 0.5", {"gpu_memory_utilization": 0.5}, {"gpu_memory_utilization"}),
        ("--kv-cache-memory-bytes 8G", {}, {"gpu_memory_utilization"}),
        ("--max-model-len 32k", {"max_model_len": 32000}, {"max_model_len"}),
        ("--max_model_len 32K", {"max_model_len": 32768}, {"max_model_len"}),
        ("--max-model-len auto", {"max_model_len": AUTO}, {"max_model_len"}),
        ("--max-model-len -1", {"max_model_len": AUTO}, {"max_model_len"}),
        ("--max-num-seqs 16", {"max_num_seqs": 16}, {"max_num_seqs"}),
        ("--max-num-s 16", {"max_num_seqs": 16}, {"max_num_seqs"}),
        ("--max-num-batched-tokens 2k", {"max_num_batched_tokens": 2000}, {"max_num_batched_tokens"}),
        ("--no-enable-chunked-prefill", {}, {"max_num_batched_tokens"}),
        ("--enforce-eager", {"enforce_eager": True}, {"enforce_eager"}),
        ("--no-enforce-eager", {"enforce_eager": False}, {"enforce_eager"}),
        ("--enforce-eager --no-enforce-eager", {"enforce_eager": False}, {"enforce_eager"}),
        ("-q fp8", {"quantization": "fp8"}, {"quantization"}),
        ("-qfp8", {"quantization": "fp8"}, {"quantization"}),
        ("-q=awq", {"quantization": "awq"}, {"quantization"}),
        ("-q bitsandbytes", {"quantization": "bitsandbytes"}, {"quantization", "model"}),
        ("--load-format gguf", {}, {"quantization"}),
        ("--load-format dummy", {}, set()),
        ("-O3", {}, {"cudagraph_capture_sizes"}),
        ('--compilation-config {"mode":3}', {}, {"cudagraph_capture_sizes"}),
        ("-cc.mode=3", {}, {"cudagraph_capture_sizes"}),
        ("--cudagraph-capture-sizes 1 2 4", {"cudagraph_capture_sizes": (1, 2, 4)}, {"cudagraph_capture_sizes"}),
        ("--revision abc", {}, {"model"}),
        ("--gpu-memory-utilization 0.5 --gpu-memory-utilization 0.7", {"gpu_memory_utilization": 0.7},
         {"gpu_memory_utilization"}),
        ("--gpu-memory-utilization", {}, {"gpu_memory_utilization"}),
    ],
)  # fmt: skip
def test_what_the_user_gave_is_pinned(line: str, pinned: dict[str, object], pins: set[str]) -> None:
    made = wish(line)
    assert made.pinned == Settings().changed(**pinned)
    assert made.pins == pins
    assert made.engine_args == tuple(line.split())


def test_every_pinning_option_pins_a_field_of_the_settings() -> None:
    assert set(PINNING.values()) <= set(Settings.__slots__)


@pytest.mark.parametrize(
    ("line", "limits", "what", "hint"),
    [
        ("--gpu-memory-utilization 50%", Limits(),
         "--gpu-memory-utilization 50%: it is a share of the card's memory, not per cent: write 0.5", "correct"),
        ("--gpu-memory-utilization 90", Limits(),
         "--gpu-memory-utilization 90: it is a share of the card's memory, not per cent: write 0.9", "correct"),
        ("--gpu-memory-utilization 1.5", Limits(),
         "--gpu-memory-utilization 1.5: it is a share of the card's memory, above 0 and at most 1", "correct"),
        ("--gpu-memory-utilization 1.5%", Limits(),
         "--gpu-memory-utilization 1.5%: it is a share of the card's memory, not per cent: write 0.015", "correct"),
        ("--gpu-memory-utilization 0", Limits(),
         "--gpu-memory-utilization 0: it is a share of the card's memory, above 0 and at most 1", "correct"),
        ("--gpu-memory-utilization much", Limits(),
         "--gpu-memory-utilization much: it must be a share of the card's memory, such as 0.9", "correct"),
        ("--gpu-memory-utilization nan", Limits(),
         "--gpu-memory-utilization nan: it is a share of the card's memory, above 0 and at most 1", "correct"),
        ("--max-model-len 0", Limits(), "--max-model-len 0: it must be at least 1", "correct"),
        ("--max-model-len -2", Limits(),
         "--max-model-len -2: '-2' is not a number of tokens; write for example 8192 or 32k", "correct"),
        ("--max-num-seqs 16k", Limits(), "--max-num-seqs 16k: it must be a whole number", "correct"),
        ("--port http", Limits(), "--port http is not a port", "number from 1"),
        ("--port 70000", Limits(), "--port 70000 is not a port", "number from 1"),
        ("--model other", Limits(), "two models are named: m and --model other", "name the model once"),
        ("--gpu-memory-utilization 0.5", Limits(memory_bytes=1 << 34),
         "--memory and --gpu-memory-utilization both set the engine's memory", "one of the two"),
        ("--max-model-len 8192", Limits(max_context=4096),
         "--max-model-len 8192 is above --max-context 4096", "one of the two"),
        ("--max-model-len auto", Limits(max_context=4096),
         "--max-model-len auto has no cap and --max-context 4096 is one", "drop --max-model-len auto"),
        ("--max-model-len 2048", Limits(min_context=4096, floor_is_wish=True),
         "--max-model-len 2048 is below --min-context 4096", "one of the two"),
        ("", Limits(min_context=8192, max_context=4096, floor_is_wish=True),
         "--min-context 8192 is above --max-context 4096", "floor"),
        ("--max-num-seqs 2", Limits(concurrency=4), "--concurrency 4 is above --max-num-seqs 2", "never served"),
        ("--config nowhere.yaml", Limits(), "--config nowhere.yaml cannot be read", "check the file"),
    ],
)  # fmt: skip
def test_a_wish_that_cannot_be_is_refused_with_one_message(line: str, limits: Limits, what: str, hint: str) -> None:
    with pytest.raises(WishError) as caught:
        wish(line, limits)
    assert caught.value.what.startswith(what)
    assert hint in caught.value.hint
    assert caught.value.exit_code == 2


def test_a_context_below_the_usual_floor_is_the_users_to_choose() -> None:
    assert wish("--max-model-len 2048").pinned == Settings(max_model_len=2048)


@pytest.mark.parametrize(
    ("line", "address", "url"),
    [
        ("", Address(), "http://127.0.0.1:8000"),
        ("--port 9000", Address(port=9000), "http://127.0.0.1:9000"),
        ("--port 1 --port 9000", Address(port=9000), "http://127.0.0.1:9000"),
        ("--host 0.0.0.0", Address(host="0.0.0.0"), "http://127.0.0.1:8000"),
        ("--host ::", Address(host="::"), "http://[::1]:8000"),
        ("--host 10.0.0.5", Address(host="10.0.0.5"), "http://10.0.0.5:8000"),
        ("--host ::1 --port 1", Address(host="::1", port=1), "http://[::1]:1"),
        ("--ssl-certfile c --ssl-keyfile k", Address(tls=True), "https://127.0.0.1:8000"),
        ("--root-path /llm/", Address(root_path="/llm"), "http://127.0.0.1:8000/llm"),
        ("--uds /run/x.sock", Address(uds="/run/x.sock"), "unix:/run/x.sock"),
    ],
)
def test_the_address_is_where_the_engine_will_listen(line: str, address: Address, url: str) -> None:
    made = wish(line).address
    assert (made, made.url) == (address, url)


@pytest.mark.parametrize(
    ("line", "environment", "key"),
    [
        ("", {}, ""),
        ("--api-key one two", {}, "one"),
        ("--api-key=one", {"VLLM_API_KEY": "three"}, "one"),
        ("", {"VLLM_API_KEY": "three"}, "three"),
        ("", {"VLLM_API_KEY": ""}, ""),
    ],
)
def test_the_key_that_opens_the_server(line: str, environment: dict[str, str], key: str) -> None:
    assert wish(line, environment=environment).api_key == key


@pytest.mark.parametrize(
    ("line", "cards"),
    [
        ("", 1),
        ("-tp 2", 2),
        ("-tp=2 -pp 4", 8),
        ("-tp 2 -dp 2", 4),
        ("-tp 2 -dp 8 -dpl 1", 2),
        ("--tensor-parallel-size two", 1),
        ("-tp \u00b2", 1),
        ("-tp 0", 1),
    ],
)
def test_one_engine_spreads_over_tensor_times_pipeline_times_data_cards(line: str, cards: int) -> None:
    assert wish(line).cards == cards


def test_the_catalogues_options_give_way_to_the_users() -> None:
    assert wish("--served-model-name mine").entry_args == ("--load-format", "dummy")
    assert wish("--served-model-name mine").served_names == ("mine",)


def test_only_what_nobody_would_guess_is_a_secret_of_the_whole_run() -> None:
    assert secrets_in(wish("--hf-token hf_0123456789 --api-key EMPTY").options, {}).anywhere == ("hf_0123456789",)


def test_vllms_own_config_file_pins_like_the_command_line_which_wins(tmp_path: Path) -> None:
    file = tmp_path / "vllm.yaml"
    file.write_text(
        "gpu_memory_utilization: 0.5\nmax-model-len: -1\nenforce-eager: false\nserved-model-name: [a, b]\n"
        "compilation-config:\n  mode: 3\nport: 9000\napi-key: k1\n"
    )
    made = wish(f"--config {file} --gpu-memory-utilization 0.7")
    assert made.pinned == Settings(gpu_memory_utilization=0.7, max_model_len=AUTO, enforce_eager=False)
    assert made.pins == {"gpu_memory_utilization", "max_model_len", "enforce_eager", "cudagraph_capture_sizes"}
    assert (made.address.port, made.served_names, made.api_key) == (9000, ("a", "b"), "k1")


def test_a_config_file_in_one_word_is_not_read_as_vllm_does_not_read_it(tmp_path: Path) -> None:
    file = tmp_path / "vllm.yaml"
    file.write_text("gpu_memory_utilization: 0.5\n")
    assert wish(f"--config={file}").pins == frozenset()


def test_a_config_file_that_is_no_table_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "vllm.yaml"
    file.write_text("- a\n")
    with pytest.raises(WishError, match="is not a table of options"):
        wish(f"--config {file}")


@pytest.mark.parametrize(
    ("line", "model", "rest"),
    [
        ("--model m --port 1", "m", "--port 1"),
        ("--port 1 --model=m", "m", "--port 1"),
        ("--model a --port 1 --model b", "b", "--port 1"),
        ("--port 1", None, "--port 1"),
        ("--served-model-name --model m", "m", "--served-model-name"),
    ],
)
def test_the_old_command_line_names_the_model_with_an_option(line: str, model: str | None, rest: str) -> None:
    assert model_from(line.split()) == (model, tuple(rest.split()))


def test_a_model_in_the_config_file_is_found(tmp_path: Path) -> None:
    file = tmp_path / "vllm.yaml"
    file.write_text("model: org/m\nport: 1\n")
    assert model_from(["--config", str(file)]) == ("org/m", ("--config", str(file)))


def test_a_cap_below_the_usual_floor_is_no_contradiction() -> None:
    """--max-context 2048 was refused with "--min-context 4096 is above", which nobody had given."""
    limits = limits_of(Options(max_context=2048))
    assert (limits.min_context, limits.floor_is_wish, limits.least_context) == (2048, False, 512)
    assert wish(limits=limits).limits.max_context == 2048
    assert limits_of(Options(max_context=65536)).min_context == 4096
    assert limits_of(Options(min_context=9000)) == Limits(9000, floor_is_wish=True)
