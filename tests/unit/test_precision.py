"""In which type a model runs where there is no bfloat16."""

from __future__ import annotations

from dataclasses import replace

import pytest

from autolaunch.errors import WishError
from autolaunch.facts import Device, DeviceKind, Model
from autolaunch.precision import Precision, precision

T4 = Device(DeviceKind.CUDA, "Tesla T4", compute_capability=(7, 5))
QWEN, GLM, GLM_0414 = Model(model_type="qwen2"), Model(model_type="glm"), Model(model_type="glm4")
CARD = "Tesla T4 has compute capability 7.5, bfloat16 needs 8.0"


def test_a_card_without_bfloat16_gets_half() -> None:
    assert precision(QWEN, T4, asked=None) == Precision(("--dtype", "half"), f"{CARD}: --dtype half is given")
    assert precision(Model(), T4, asked=None).words == ("--dtype", "half")
    assert precision(replace(QWEN, dtype="bfloat16"), T4, asked=None).words == ("--dtype", "half")


def test_a_family_that_overflows_is_given_the_sign_of_it() -> None:
    said = precision(GLM, T4, asked=None).said
    assert said == f"{CARD}: --dtype half is given: should it answer '!!!!', its numbers left float16's range"


@pytest.mark.parametrize(
    "device",
    [
        replace(T4, compute_capability=(8, 0)),
        replace(T4, compute_capability=(9, 0)),
        replace(T4, compute_capability=None),
        replace(T4, kind=DeviceKind.CPU),
        Device(),
    ],
)
def test_elsewhere_the_engines_own_choice_stands(device: Device) -> None:
    assert precision(GLM_0414, device, asked=None) == Precision()


@pytest.mark.parametrize("asked", ["half", "float16", "float32"])
def test_the_users_type_stands(asked: str) -> None:
    assert precision(GLM, T4, asked=asked) == Precision()


def test_auto_asks_for_no_type() -> None:
    assert precision(GLM, T4, asked="auto") == precision(GLM, T4, asked=None)
    with pytest.raises(WishError, match="refuses float16 for models of type glm4"):
        precision(GLM_0414, T4, asked="auto")


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_a_checkpoint_of_a_type_that_the_card_has_is_left_to_vllm(dtype: str) -> None:
    assert precision(replace(QWEN, dtype=dtype), T4, asked=None) == Precision()


@pytest.mark.parametrize(
    ("model", "asked", "what"),
    [
        (GLM, "bfloat16", f"--dtype bfloat16: {CARD}"),
        (GLM_0414, None, f"{CARD}, and vLLM refuses float16 for models of type glm4"),
        (GLM_0414, "half", "--dtype half: vLLM refuses float16 for models of type glm4"),
    ],
)
def test_what_the_card_cannot_do_is_refused_before_the_start(model: Model, asked: str | None, what: str) -> None:
    with pytest.raises(WishError) as caught:
        precision(model, T4, asked=asked)
    assert caught.value.what == what
    assert "--dtype" in caught.value.hint
