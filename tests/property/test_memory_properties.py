"""What holds for any outcome, any order of starts and any damage: nothing invented, nothing raised, one warning."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

from hypothesis import given, settings
from hypothesis import strategies as st

from autolaunch.facts import GIB, Device, DeviceKind, Engine, Situation
from autolaunch.failure import NUMBER_NAMES, Failure, Kind, Phase
from autolaunch.figures import Effective
from autolaunch.memory import Memory
from autolaunch.outcome_form import from_text, to_text
from autolaunch.past import Key, Outcome, Past, Sought, came_up, holds, refusal
from autolaunch.settings import AUTO, Settings
from autolaunch.state import MEMORY_FILE

FINITE = st.floats(allow_nan=False, allow_infinity=False)
WHOLE = st.integers(-(2**63), 2**63 - 1)
TEXT = st.text(max_size=20)
VALUES: dict[Any, st.SearchStrategy[Any]] = {
    int: WHOLE,
    float: FINITE,
    bool: st.booleans(),
    str: TEXT,
    tuple[int, ...]: st.lists(WHOLE, max_size=4).map(tuple),
    type(None): st.none(),
}


def any_of_fields(kind: type) -> st.SearchStrategy[Any]:
    """Return instances with any value of the type that each field has: a field of a new type fails here."""
    hints = get_type_hints(kind)
    parts = {field.name: st.one_of(*(VALUES[part] for part in get_args(hints[field.name]))) for field in fields(kind)}
    return st.builds(kind, **parts)


SETTINGS = st.one_of(
    any_of_fields(Settings),
    st.builds(Settings, st.sampled_from([0.8, 0.9]), st.sampled_from([None, AUTO, 8192])),
)
FAILURES = st.builds(
    Failure,
    st.sampled_from(Kind),
    line=TEXT,
    line_number=st.integers(0, 10**9),
    phase=st.sampled_from(Phase),
    numbers=st.dictionaries(st.sampled_from(NUMBER_NAMES), FINITE, max_size=4),
    engine_version=st.none() | TEXT,
)
BYTES = st.none() | st.integers(0, 200 * GIB)
OUTCOMES = st.builds(
    Outcome,
    settings=SETTINGS,
    failure=st.none() | FAILURES,
    effective=any_of_fields(Effective),
    engine_version=st.none() | st.sampled_from(["0.6.6", "0.24.0", "0.32.0"]),
    total_bytes=BYTES,
    free_bytes=BYTES,
    seconds=st.integers(0, 10**6).map(lambda n: n / 1000),
    phases=st.dictionaries(st.sampled_from([str(phase) for phase in Phase]), st.integers(0, 999).map(float)),
    at=st.floats(0, 4e9),
    wish=st.sampled_from(["w", "v", ""]),
    in_service=st.booleans(),
)
KEYS = st.builds(Key, st.sampled_from(["a", "b", "\ud800"]), st.sampled_from(["", "r"]), cards=st.integers(1, 2))


@contextmanager
def memory() -> Iterator[tuple[Memory, list[str], Path]]:
    """Give a memory in a folder of its own, and what it warned of."""
    warnings: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        yield Memory.open(Path(folder), warnings.append), warnings, Path(folder) / MEMORY_FILE


@given(OUTCOMES)
def test_any_outcome_is_written_and_read_as_it_was(outcome: Outcome) -> None:
    text = to_text(outcome)
    assert text.isascii()
    assert from_text(text) == outcome


JSON = st.recursive(
    st.none() | st.booleans() | WHOLE | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(OUTCOMES, st.data())
def test_a_written_outcome_with_anything_in_it_is_read_or_refused(outcome: Outcome, data: st.DataObject) -> None:
    """A later release, or a hand with an editor, may have put anything anywhere."""
    import json

    table = json.loads(to_text(outcome))
    place = data.draw(st.sampled_from([table, table["settings"], table["effective"]]))
    place[data.draw(st.sampled_from([*place, "of_the_future"]))] = data.draw(JSON)
    try:
        read = from_text(json.dumps(table))
    except ValueError:
        return
    assert from_text(to_text(read)) == read


@given(st.text() | st.binary().map(lambda raw: raw.decode("utf-8", "replace")))
def test_any_text_is_an_outcome_or_refused(text: str) -> None:
    try:
        from_text(text)
    except ValueError:
        return


# --- what the past says


@given(st.lists(OUTCOMES, max_size=8), OUTCOMES, BYTES)
def test_only_a_failure_of_exactly_these_settings_stands_against_them(
    past: list[Outcome], asked: Outcome, free: int | None
) -> None:
    situation = Situation(Device(DeviceKind.CUDA, "c", 24 * GIB, free), Engine("0.24.0", DeviceKind.CUDA))
    found = refusal(Past(tuple(past)), asked.settings, wish="w", situation=situation)
    if found is not None:
        assert found in past
        assert (found.settings, found.wish) == (asked.settings, "w")
        assert found.failure is not None
        assert found.failure.memory
        assert holds(found, situation)


@given(OUTCOMES, st.integers(0, 200 * GIB), st.integers(0, 200 * GIB))
def test_more_memory_never_brings_a_failure_back(outcome: Outcome, one: int, other: int) -> None:
    less, more = (
        Situation(Device(DeviceKind.CUDA, "c", 24 * GIB, free), Engine("0.24.0")) for free in sorted([one, other])
    )
    assert holds(outcome, less) or not holds(outcome, more)


@given(st.lists(OUTCOMES, max_size=8), st.sampled_from([None, "0.24.0"]))
def test_what_came_up_is_a_success_of_the_wish_that_did_not_die_of_memory_since(
    past: list[Outcome], version: str | None
) -> None:
    found = came_up(Past(tuple(past)), wish="w", engine_version=version)
    fit = [outcome for outcome in past if outcome.failure is None and outcome.wish == "w"]
    if found is None:
        died = {outcome.settings for outcome in past if outcome.in_service and outcome.failure is not None}
        assert all(outcome.settings in died for outcome in fit)
        return
    assert found in fit
    newer = past[: past.index(found)]
    assert not any(
        outcome.wish == "w" and outcome.in_service and outcome.failure is not None and outcome.failure.memory
        and outcome.settings == found.settings for outcome in newer
    )  # fmt: skip


# --- the file


@given(st.lists(st.tuples(KEYS, OUTCOMES), max_size=6))
@settings(max_examples=40)
def test_the_past_of_a_key_is_what_was_added_under_it_newest_first(added: list[tuple[Key, Outcome]]) -> None:
    with memory() as (kept, warnings, _):
        for key, outcome in added:
            kept.add(key, outcome)
        for asked, _ in added:
            counted = {asked, Key(asked.model, "", asked.card, asked.total_bytes, asked.cards)}
            assert kept.past(asked) == Past(tuple(outcome for key, outcome in reversed(added) if key in counted))
        assert [(entry.key, entry.outcome) for entry in kept.entries()] == added[::-1]
        assert warnings == []


@given(
    st.lists(st.tuples(KEYS, OUTCOMES), max_size=6), st.sampled_from([None, "a", "c"]), st.none() | st.floats(0, 4e9)
)
@settings(max_examples=40)
def test_forgetting_removes_what_meets_the_conditions_and_nothing_else(
    added: list[tuple[Key, Outcome]], model: str | None, before: float | None
) -> None:
    with memory() as (kept, _, _):
        for key, outcome in added:
            kept.add(key, outcome)
        gone = [
            (key, outcome) for key, outcome in added
            if model in (None, key.model) and (before is None or outcome.at < before)
        ]  # fmt: skip
        assert kept.forget(model=None if model is None else Sought(model, model), before=before) == len(gone)
        left = [one for one in added if one not in gone]
        assert [(entry.key, entry.outcome) for entry in kept.entries()] == left[::-1]


PLAIN = Outcome(Settings(0.9), Failure(Kind.OOM, line="x" * 900), Effective(), wish="w")
KEY = Key("glm-4-9b")


@given(
    st.lists(
        st.tuples(st.sampled_from(["cut", "write"]), st.floats(0, 1), st.binary(min_size=1, max_size=600)),
        min_size=1,
        max_size=3,
    )
)
@settings(max_examples=150)
def test_any_damage_costs_what_was_remembered_and_nothing_else(wounds: list[tuple[str, float, bytes]]) -> None:
    """The launch goes on; what it shows is remembered, unless a warning said that it is not."""
    with memory() as (kept, warnings, file):
        for _ in range(12):
            kept.add(KEY, PLAIN)
        size = file.stat().st_size
        with file.open("r+b") as raw:
            for how, where, content in wounds:
                raw.seek(int(where * size))
                _ = raw.truncate() if how == "cut" else raw.write(content)
        again = Memory.open(file.parent, warnings.append)
        before = again.past(KEY).outcomes
        assert len(before) <= 12
        new = Outcome(Settings(0.5), None, Effective(), wish="new")
        again.add(KEY, new)
        remembered = again.past(KEY).outcomes
        assert new in remembered or any("cannot be" in text for text in warnings)
        assert sum("cannot be" in text for text in warnings) <= 1
        assert len(again.entries()) <= 13
