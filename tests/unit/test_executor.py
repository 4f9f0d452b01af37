"""Ray, where the engine's environment has none."""

from __future__ import annotations

import shlex

import pytest

from autolaunch.errors import WishError
from autolaunch.executor import without_ray
from autolaunch.translation import Translated

LACKS = "the engine's environment lacks the package ray"


@pytest.mark.parametrize("typed", ["--worker-use-ray", "--worker_use_ray", "--worker-use-ray=True"])
def test_on_one_card_the_old_flag_is_left_out(typed: str) -> None:
    made = without_ray(["--seed", "1", *shlex.split(typed), "--port", "8001"], cards=1)
    said = f"{LACKS}: {typed} is left out, one card needs no Ray"
    assert made == Translated(("--seed", "1", "--port", "8001"), (said,))


@pytest.mark.parametrize(
    "typed",
    [
        "--seed 1",
        "--worker-use-ray=false --tensor-parallel-size 2",
        "--no-worker-use-ray",
        "--distributed-executor-backend mp",
        "--api-key a b -- --x",
    ],
)
def test_what_asks_for_no_ray_is_left_as_it_is(typed: str) -> None:
    tokens = tuple(shlex.split(typed))
    assert without_ray(tokens, cards=2) == Translated(tokens)


@pytest.mark.parametrize(
    ("typed", "cards"),
    [
        ("--worker-use-ray", 2),
        ("--distributed-executor-backend ray", 1),
        ("--distributed-executor-backend ray", 2),
        ("--distributed_executor_backend=ray", 1),
    ],
)
def test_ray_by_its_name_or_over_several_cards_is_refused_before_the_start(typed: str, cards: int) -> None:
    with pytest.raises(WishError) as caught:
        without_ray(shlex.split(typed), cards=cards)
    assert caught.value.what == f"{typed}: {LACKS}"
    assert caught.value.hint == f"pip install ray there, or leave out {typed}"
