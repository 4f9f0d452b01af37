"""One message shape after the other, from many versions: kind and numbers as the engine states them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from autolaunch.causes import Weight
from autolaunch.crashes import RULES
from autolaunch.diagnosis import diagnose, interesting
from autolaunch.failure import MEMORY_KINDS, Kind
from autolaunch.progress import TRIGGERS

SHAPES = [
    json.loads(line)
    for line in (Path(__file__).resolve().parent.parent / "data" / "diagnosis" / "shapes.jsonl")
    .read_text(encoding="utf-8")
    .splitlines()
]


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: f"{shape['kind']}-{shape['vllm']}")
def test_a_known_shape_has_its_kind_and_numbers(shape: dict[str, Any]) -> None:
    found = diagnose(shape["log"])
    assert found.kind is Kind(shape["kind"])
    assert dict(found.numbers) == shape["numbers"]
    assert found.memory == (found.kind in MEMORY_KINDS)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: f"{shape['kind']}-{shape['vllm']}")
def test_the_line_that_is_given_as_evidence_stands_in_the_log(shape: dict[str, Any]) -> None:
    found = diagnose(shape["log"])
    if found.line_number:
        assert found.line in shape["log"].split("\n")[found.line_number - 1]
        assert interesting(shape["log"].encode())


def test_every_decisive_rule_is_about_memory_arguments_or_a_port() -> None:
    decisive = {rule.kind for rule in RULES if rule.weight is Weight.DECISIVE}
    assert decisive - MEMORY_KINDS == {Kind.CONFIG_ERROR, Kind.PORT_IN_USE}


def test_every_text_of_the_table_is_lower_case_as_lines_are_compared() -> None:
    assert [text for rule in RULES for text in rule.texts if text != text.lower()] == []


def test_no_trigger_is_contained_in_another() -> None:
    assert [(a, b) for a in TRIGGERS for b in TRIGGERS if a != b and a in b] == []
