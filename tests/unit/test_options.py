"""What is asked, as the engine at hand takes it: what its environment lacks, what it is too old for, what was typed."""

from __future__ import annotations

import shlex
from dataclasses import replace

import pytest

from autolaunch.errors import WishError
from autolaunch.facts import Device, DeviceKind, Engine, Model, Situation
from autolaunch.installation import Installation
from autolaunch.options import Asked, Options, ask, for_engine
from autolaunch.serving import _in_its_type

NO_TOOLS = "--exclude-tools-when-tool-choice-none"
T4 = Device(DeviceKind.CUDA, "Tesla T4", compute_capability=(7, 5))


def asked(
    words: str, *, model: str = "qwen3-8b", version: str = "0.32.0", ray: bool | None = None, **options: object
) -> Asked:
    chosen = replace(Options(), **options)  # type: ignore[arg-type]  # each test names the options
    engine = Engine(version, DeviceKind.CUDA, has_ray=ray)
    return for_engine(ask(model, shlex.split(words), chosen), chosen, Installation(("vllm", "serve"), engine))


def refusal(words: str, **how: object) -> tuple[str, str]:
    with pytest.raises(WishError) as caught:
        asked(words, **how)  # type: ignore[arg-type]  # each test names the options
    return caught.value.what, caught.value.hint


# --- Ray


@pytest.mark.parametrize(
    ("ray", "version", "made"),
    [
        (False, "0.32.0", ()),
        (False, "0.6.3", ()),
        (True, "0.32.0", ("--distributed-executor-backend", "ray")),
        (None, "0.32.0", ("--distributed-executor-backend", "ray")),
        (True, "0.6.3", ("--worker-use-ray",)),
    ],
)
def test_the_copied_flag_asks_for_ray_only_where_there_is_ray(
    ray: bool | None, version: str, made: tuple[str, ...]
) -> None:
    assert asked("--worker-use-ray", model="qwen2.5-7b", version=version, ray=ray).wish.engine_args == made


@pytest.mark.parametrize("more", ["--tensor-parallel-size 2", "-dp 2"])
def test_several_cards_without_the_ray_that_was_asked_for_are_refused(more: str) -> None:
    what, hint = refusal(f"--worker-use-ray {more}", ray=False)
    assert what == "--worker-use-ray: the engine's environment lacks the package ray"
    assert hint == "pip install ray there, or leave out --worker-use-ray"
    assert refusal("--worker-use-ray", ray=False, gpus=2) == (what, hint)


# --- what was typed


def test_tools_that_are_to_be_shown_with_none_are_shown_by_glm_4() -> None:
    """The option went with 0.10; what it says still holds."""
    typed = asked("--expand-tools-even-if-tool-choice-none", model="glm-4-9b")
    assert typed.wish.engine_args == ()
    assert NO_TOOLS not in typed.wish.entry_args
    assert any("tools are shown with tool_choice none" in line for line in typed.said)
    assert NO_TOOLS in asked("", model="glm-4-9b").wish.entry_args
    hidden = asked("--no-expand-tools-even-if-tool-choice-none", model="glm-4-9b").wish
    assert [*hidden.entry_args, *hidden.engine_args].count(NO_TOOLS) == 1


def test_a_slip_is_refused_unless_it_is_to_be_tried_anyway() -> None:
    assert refusal("--max-model-length 8192")[0] == "no vLLM up to 0.33.0 has --max-model-length"
    made = asked("--max-model-length 8192", try_anyway=True)
    assert made.wish.engine_args == ("--max-model-length", "8192")
    assert made.said == (
        "no vLLM up to 0.33.0 has --max-model-length: did you mean --max-model-len? It is passed on as it is",
    )


# --- old engines


def test_a_vllm_from_before_0_4_is_refused() -> None:
    what, hint = refusal("", version="0.3.1")
    assert what == "vLLM 0.3.1 is older than 0.4, the oldest that autolaunch knows"
    assert hint == "name another vLLM with --engine, or start it nevertheless with --try-anyway"
    assert asked("", version="0.3.1", try_anyway=True).said == ()


# --- the type of the card


def test_auto_gives_way_to_the_type_that_the_card_needs() -> None:
    notes: list[str] = []
    typed = asked("--dtype auto --seed 1")
    made = _in_its_type(typed, Situation(T4, Engine("0.32.0"), Model(model_type="qwen3")), notes.append)
    assert made.wish.engine_args == ("--seed", "1")
    assert made.wish.entry_args == (*typed.wish.entry_args, "--dtype", "half")
    assert [option.tokens for option in made.wish.options] == [
        ("--dtype", "half"), typed.wish.entry_args, ("--seed", "1")
    ]  # fmt: skip
    assert notes == ["Tesla T4 has compute capability 7.5, bfloat16 needs 8.0: --dtype half is given"]
    newer = replace(T4, compute_capability=(8, 0))
    assert _in_its_type(typed, Situation(newer, Engine("0.32.0"), Model()), notes.append) == typed
