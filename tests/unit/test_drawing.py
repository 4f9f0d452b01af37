"""The picture of a plan: parts that add up, nothing below zero, and whose figures they are."""

from __future__ import annotations

from dataclasses import replace

import pytest

from autolaunch.budget import Budget
from autolaunch.drawing import bar, parts
from autolaunch.facts import GIB, Basis
from autolaunch.plan_form import basis_as_json
from autolaunch.term import Term


def term(gib: float) -> Term:
    return Term(int(gib * GIB), int(gib * GIB), int(gib * GIB), Basis.ESTIMATED)


def budget(
    *, total: float = 24, free: float = 24, requested: float = 22, weights: float = 17, outside: float = 0.5
) -> Budget:
    """Return a start's budget in GiB: 1 of activations, 0.5 outside PyTorch, 0.5 for graphs, the rest KV cache."""
    return Budget(
        total_bytes=int(total * GIB),
        free_bytes=int(free * GIB),
        requested_bytes=int(requested * GIB),
        outside=term(outside),
        weights=term(weights),
        non_torch=term(0.5),
        activation=term(1),
        cudagraph=term(0.5),
        capture=term(0.5),
        kv_cache=term(requested - weights - 2),
        kv_bytes_per_token=40960.0,
    )


def drawn(found: Budget) -> dict[str, float]:
    """Return the parts that depend on what is left, in GiB."""
    fixed = {"weights", "activations", "outside PyTorch", "CUDA graphs", "CUDA context"}
    return {part.name: part.size / GIB for part in parts(found) if part.name not in fixed}


@pytest.mark.parametrize(
    ("found", "shown"),
    [
        (budget(), {"KV cache": 3, "left free": 1.5}),
        (budget(free=23), {"KV cache": 3, "held by others": 1, "left free": 0.5}),
        (budget(weights=22), {"missing": 2, "left free": 1.5}),
        (budget(free=20.5), {"KV cache": 1, "missing": 2, "held by others": 3.5}),
        (budget(free=0.5), {"missing": 19, "held by others": 23.5}),
        (budget(weights=22, free=20), {"missing": 4.5, "held by others": 4}),
    ],
    ids=["it fits", "others hold a part", "the needs are too large", "the request is", "nothing is free", "both are"],
)
def test_what_is_not_there_is_missing_and_never_left_free(found: Budget, shown: dict[str, float]) -> None:
    """`left free -21.94 GiB` stood there, below 2.13 GiB of KV cache."""
    assert drawn(found) == shown


def test_of_what_fits_nothing_is_missing() -> None:
    """vLLM before 0.8 may be given a share that is more than is free."""
    found = budget(free=20.5)
    assert "missing" not in {part.name for part in parts(found, fits=True)}
    assert "missing" in {part.name for part in parts(found, fits=False)}


def test_the_parts_of_what_fits_add_up_to_the_card() -> None:
    assert sum(part.size for part in parts(budget(free=23))) == 24 * GIB


def test_every_part_has_a_sign_in_the_bar_and_the_bar_its_width() -> None:
    shown = parts(budget(outside=0.01))
    text = "".join(piece for piece, _ in bar(shown, width=64))
    assert len(text) == 64
    assert set(text) == {part.sign for part in shown}


def test_what_others_hold_is_measured_only_where_somebody_looked() -> None:
    known = {part.name: part.known for part in parts(budget(free=23), held_known="as given")}
    assert known["held by others"] == "as given"


@pytest.mark.parametrize("basis", list(Basis))
def test_the_cards_total_is_as_well_known_as_its_table_says(basis: Basis) -> None:
    said = basis_as_json(replace(budget(), total_basis=basis))
    assert (said["total_bytes"], said["free_bytes"], said["requested_bytes"]) == (basis.value,) * 3
    assert basis_as_json(replace(budget(free=20), total_basis=basis))["free_bytes"] == "exact"
