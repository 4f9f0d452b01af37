"""Engine options that the memory model does not know: nothing is predicted with them, nothing is learnt from them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from autolaunch.arguments import engine_options, given
from autolaunch.beyond import MARK, OPTIONS, VARIABLES, beyond, variables
from autolaunch.candidates import predicted
from autolaunch.facts import GIB
from autolaunch.figures import Effective
from autolaunch.options import Options, ask
from autolaunch.past import Outcome, Past
from autolaunch.planner import plan
from autolaunch.settings import Settings
from tests.unit.test_planner import WISH, situation
from tests.unit.test_planner import ask as question


def test_every_name_is_an_option_of_the_engine() -> None:
    assert set(OPTIONS) - set(VARIABLES) <= set(engine_options().arity)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("--cpu-offload-gb 10", "--cpu-offload-gb"),
        ("--cpu_offload_gb=10", "--cpu-offload-gb"),
        ("-pp 2", "--pipeline-parallel-size"),
        ("--dtype float32", "--dtype"),
        ("--hf-overrides.num_hidden_layers 4", "--hf-overrides"),
        ("--load-format bitsandbytes", "--load-format"),
        ("--port 8000 --enable-lora", "--enable-lora"),
        ("--cpu-offload-gb 0", ""),
        ("--cpu-offload-gb 10 --cpu-offload-gb 0", ""),
        ("-pp 1 -tp 2", ""),
        ("--dtype half", ""),
        ("--load-format dummy", ""),
        ("--load-format bitsandbytes --quantization bitsandbytes", ""),
        ("--max-model-len 8192 --kv-cache-dtype fp8 --enforce-eager", ""),
    ],
)
def test_an_option_counts_where_its_value_does(words: str, named: str) -> None:
    assert beyond(given(words.split())) == named


def test_with_such_an_option_no_start_is_refused() -> None:
    """Two thirds of a model in the host's memory come up on a card that the whole of it does not fit."""
    asked = question(situation(8.0), strategy="keep-quality")
    assert plan(asked).fits is False
    found = plan(replace(asked, beyond="--cpu-offload-gb"))
    assert (found.fits, found.budget, found.settings) == (None, None, asked.climb.settings)
    assert found.why == (
        "your --cpu-offload-gb moves memory in a way that is not known here: the engine's own figures decide",
    )


def test_what_such_a_start_measured_is_no_measure_of_others() -> None:
    measured = Outcome(
        Settings(), None, Effective(weights_gib=7.5), "0.24.0", 24 * GIB, 24 * GIB, wish="offloaded" + MARK
    )
    asked = question(situation())
    without, after, own = (
        predicted(replace(asked, past=Past(outcomes)), Settings())
        for outcomes in ((), (measured,), (replace(measured, wish=WISH),))
    )
    assert after == without
    assert own is not None
    assert own.weights.bytes == int(7.5 * GIB)


def test_a_wish_with_such_an_option_is_marked_wherever_it_stands(tmp_path: Path) -> None:
    file = tmp_path / "vllm.yaml"
    file.write_text("cpu-offload-gb: 10\n", encoding="utf-8")
    for words in (("--cpu-offload-gb", "10"), ("--config", str(file))):
        asked = ask("glm-4-9b", words, Options())
        assert (asked.beyond, asked.digest[-1:]) == ("--cpu-offload-gb", MARK)
    assert ask("glm-4-9b", (), Options()).digest.isalnum()


def test_another_content_of_the_engines_own_config_file_is_another_wish(tmp_path: Path) -> None:
    file = tmp_path / "vllm.yaml"
    digests = set()
    for block in (16, 32):
        file.write_text(f"block-size: {block}\n", encoding="utf-8")
        digests.add(ask("glm-4-9b", ("--config", str(file)), Options()).digest)
    assert len(digests) == 2


def test_what_stands_in_the_environment_counts_like_an_option() -> None:
    asked = {"VLLM_CPU_KVCACHE_SPACE": "4", "VLLM_USE_V1": "0", "HF_TOKEN": "hf_secret", "VLLM_ATTENTION_BACKEND": ""}
    found = variables(asked)
    assert [(option.name, option.value) for option in found] == [("VLLM_CPU_KVCACHE_SPACE", "4"), ("VLLM_USE_V1", "0")]
    assert beyond(found) == "VLLM_CPU_KVCACHE_SPACE"
    assert beyond(variables({"VLLM_USE_V1": "0"})) == ""


def test_what_stands_in_the_engines_command_or_environment_is_part_of_the_wish(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    plain = ask("glm-4-9b", (), Options(engine="vllm serve"))
    offloading = ask("glm-4-9b", (), Options(engine="vllm serve --cpu-offload-gb 10"))
    assert (plain.beyond, offloading.beyond) == ("", "--cpu-offload-gb")
    assert (
        ask("glm-4-9b", (), Options(engine="python3 -S -m vllm.entrypoints.openai.api_server")).digest == plain.digest
    )
    monkeypatch.setenv("VLLM_USE_V1", "0")
    assert ask("glm-4-9b", (), Options(engine="vllm serve")).digest != plain.digest
    assert ask("glm-4-9b", (), Options(engine="vllm 'serve")).beyond == ""
