"""What is remembered, for how long, and under what it is found again."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from autolaunch.failure import Failure, Kind
from autolaunch.memory import KEPT, KEPT_PER_KEY, LONGEST_LINE, Memory, sealed
from autolaunch.outcome_form import to_text
from autolaunch.past import Entry, Key, Past, Sought
from autolaunch.state import MEMORY_FILE
from tests.unit.kept import KEY, Kept, at_once, start

OTHER = replace(KEY, model="qwen2.5-7b")


def named(name: str) -> Sought:
    """Return a model that is sought by a name that stands for itself."""
    return Sought(name, name)


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    return Kept(tmp_path / "state")


# --- remembering


def test_what_one_start_showed_the_next_one_knows_newest_first(kept: Kept) -> None:
    kept.open().add(KEY, start(1))
    kept.open().add(KEY, start(2, Kind.KV_TOO_SMALL))
    assert kept.open().past(KEY) == Past((start(2, Kind.KV_TOO_SMALL), start(1)))
    assert kept.warnings == []


@pytest.mark.parametrize(
    "other",
    [
        OTHER,
        replace(KEY, revision="def"),
        replace(KEY, card="NVIDIA A100"),
        replace(KEY, total_bytes=24 << 30),
        replace(KEY, cards=2),
    ],
)
def test_what_is_under_another_key_is_not_told(kept: Kept, other: Key) -> None:
    memory = kept.open()
    memory.add(other, start())
    assert memory.past(KEY) == Past()


def test_a_start_that_had_to_download_its_model_counts_for_the_revision_it_got(kept: Kept) -> None:
    memory = kept.open()
    memory.add(replace(KEY, revision=""), start(1))
    memory.add(KEY, start(2))
    assert kept.seconds() == [2, 1]
    assert kept.seconds(replace(KEY, revision="")) == [1]


def test_a_name_that_is_no_utf8_is_remembered_like_any_other(kept: Kept) -> None:
    key = replace(KEY, model=os.fsdecode(b"/models/\xff\xfe"))
    kept.open().add(key, start(7))
    assert kept.seconds(key) == [7]
    assert kept.open().entries(model=named(key.model)) == (Entry(1, key, start(7)),)
    assert kept.open().forget(model=named(key.model)) == 1


def test_the_engines_line_is_kept_up_to_a_length(kept: Kept) -> None:
    memory = kept.open()
    memory.add(KEY, replace(start(), failure=Failure(Kind.OOM, line="x" * 10**6)))
    assert memory.past(KEY).outcomes[0].failure == Failure(Kind.OOM, line="x" * LONGEST_LINE)


def test_no_folder_remembers_nothing_and_says_nothing() -> None:
    warnings: list[str] = []
    memory = Memory(None, warnings.append)
    memory.add(KEY, start())
    assert (memory.past(KEY), memory.entries(), memory.forget(), warnings) == (Past(), (), 0, [])


def test_looking_into_a_folder_without_a_memory_makes_none(kept: Kept) -> None:
    memory = Memory(kept.folder, kept.warnings.append)
    assert (memory.past(KEY), memory.entries(), kept.warnings) == (Past(), (), [])
    assert not kept.folder.exists()


def test_what_is_remembered_is_the_users_own(kept: Kept) -> None:
    kept.open()
    assert (kept.folder.stat().st_mode & 0o777, kept.file.stat().st_mode & 0o777) == (0o700, 0o600)
    assert [path.name for path in kept.folder.iterdir()] == [MEMORY_FILE]


def test_threads_may_remember_at_once(kept: Kept) -> None:
    memory = kept.open()

    def work(n: int) -> None:
        for i in range(5):
            memory.add(KEY, start(n * 100 + i))

    at_once([partial(work, n) for n in range(4)])
    assert sorted(kept.seconds()) == sorted(n * 100 + i for n in range(4) for i in range(5))
    assert kept.warnings == []


def test_a_version_costs_no_database() -> None:
    code = (
        "import sys; from autolaunch import cli, history, memory; "
        "sys.exit(any(name in sys.modules for name in ('sqlite3', '_sqlite3')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- how much


def test_the_newest_starts_of_a_key_are_kept_and_the_last_that_came_up_for_each_wish(kept: Kept) -> None:
    memory = kept.open()
    memory.add(KEY, start(1, wish="old"))
    memory.add(KEY, start(2, wish="old"))
    memory.add(KEY, start(3, Kind.OOM, wish="failed only"))
    memory.add(OTHER, start(4))
    rows = [(sealed(to_text(start(100 + n, Kind.OOM))),) for n in range(KEPT_PER_KEY)]
    with sqlite3.connect(kept.file) as db:
        db.executemany(
            "INSERT INTO outcomes (key, model, wish, at, came_up, outcome)"
            " SELECT key, model, 'w', 0, 0, ? FROM outcomes WHERE number = 1",
            rows,
        )
    memory.add(KEY, start(999))
    assert kept.seconds() == [999, *(99 + n for n in range(KEPT_PER_KEY, 1, -1)), 2]
    assert kept.seconds(OTHER) == [4]


def test_the_oldest_starts_of_all_go_but_never_the_last_that_came_up_of_a_key(kept: Kept) -> None:
    memory = kept.open()
    memory.add(KEY, start(1))
    memory.add(KEY, start(2))
    with sqlite3.connect(kept.file) as db:
        db.executemany(
            "INSERT INTO outcomes (key, model, wish, at, came_up, outcome) VALUES (?, 'm', 'w', 0, 0, '{}')",
            ((f"key {n}",) for n in range(KEPT)),
        )
    memory.add(OTHER, start(3))
    ((rows,), (oldest,)) = (
        kept.query(
            "SELECT count(*), max(number) FROM outcomes", "SELECT key FROM outcomes WHERE model = 'm' ORDER BY number"
        )[0],
        kept.query("SELECT key FROM outcomes WHERE model = 'm' ORDER BY number LIMIT 1")[0],
    )
    assert rows == (KEPT, KEPT + 3)
    assert oldest == ("key 2",)
    assert (kept.seconds(), kept.seconds(OTHER)) == ([2], [3])


# --- what a name stands for


def test_one_model_under_two_names_has_one_past_and_two_models_under_one_name_have_two(kept: Kept) -> None:
    memory = kept.open()
    alias, hub_id = (replace(KEY, model="zai-org/m", name=name) for name in ("glm-4-9b", "zai-org/m"))
    here, there = (replace(KEY, model=path, name="./m") for path in ("/a/m", "/b/m"))
    for seconds, key in enumerate((alias, hub_id, here, there)):
        memory.add(key, start(seconds))
    assert kept.seconds(alias) == kept.seconds(hub_id) == [1, 0]
    assert (kept.seconds(here), kept.seconds(there)) == ([2], [3])
    assert [entry.key.name for entry in memory.entries()] == ["./m", "./m", "zai-org/m", "glm-4-9b"]


def test_the_revision_of_what_lies_here_is_always_known(kept: Kept) -> None:
    memory, folder = kept.open(), replace(KEY, model="/a/m", name="./m")
    memory.add(replace(folder, revision=""), start(1))
    memory.add(folder, start(2))
    assert kept.seconds(folder) == [2], "what was there before may have been another model"


def test_starts_are_found_by_the_name_that_was_typed_and_by_any_other_of_the_model(kept: Kept) -> None:
    memory = kept.open()
    keys = {
        1: replace(KEY, model="zai-org/m", name="glm-4-9b"),
        2: replace(KEY, model="zai-org/m", name="zai-org/m"),
        3: replace(KEY, model="/a/m", name="./m"),
        4: replace(KEY, model="/b/m", name="./m"),
        5: replace(KEY, model="./m"),  # as it was remembered by name alone
        6: replace(KEY, model="zai-org/mm", name="zai-org/mm"),
    }
    for key in keys.values():
        memory.add(key, start())

    def numbers(sought: Sought) -> list[int]:
        return [entry.number for entry in memory.entries(model=sought)]

    assert numbers(Sought("glm-4-9b", "zai-org/m")) == [2, 1]
    assert numbers(Sought("zai-org/m", "zai-org/m")) == [2, 1]
    assert numbers(Sought("./m", "/a/m", is_path=True)) == [5, 3]
    assert numbers(Sought("/b/m", "/b/m", is_path=True)) == [4]
    assert numbers(Sought("./m", "./m")) == [5, 4, 3], "a folder that is gone is found by its name alone"
    assert memory.forget(model=Sought("./m", "/a/m", is_path=True)) == 2
    assert [entry.number for entry in memory.entries()] == [6, 4, 2, 1]


# --- history


def test_entries_are_listed_newest_first_by_model_number_and_limit(kept: Kept) -> None:
    memory = kept.open()
    for key, seconds in ((KEY, 1), (OTHER, 2), (KEY, 3)):
        memory.add(key, start(seconds))
    every = (Entry(3, KEY, start(3)), Entry(2, OTHER, start(2)), Entry(1, KEY, start(1)))
    assert memory.entries() == every
    assert memory.entries(limit=2) == every[:2]
    assert memory.entries(model=named("glm-4-9b")) == (every[0], every[2])
    assert memory.entries(number=2) == (every[1],)
    assert memory.entries(model=named("glm-4-9b"), number=2) == ()


def test_what_is_forgotten_is_gone_and_its_number_is_not_given_again(kept: Kept) -> None:
    memory = kept.open()
    for at in (100.0, 200.0, 300.0):
        memory.add(KEY, start(at=at))
    memory.add(OTHER, start(at=100.0))
    assert memory.forget(model=named("glm-4-9b"), before=250.0) == 2
    assert [entry.number for entry in memory.entries()] == [4, 3]
    assert memory.forget(number=4) == 1
    assert memory.forget(model=named("no such model")) == 0
    assert memory.forget() == 1
    memory.add(KEY, start())
    assert [entry.number for entry in memory.entries()] == [5]


def test_what_is_forgotten_is_not_left_in_the_file(kept: Kept) -> None:
    memory = kept.open()
    memory.add(KEY, replace(start(), failure=Failure(Kind.OTHER_CRASH, line="a private path")))
    assert b"a private path" in kept.file.read_bytes()
    memory.forget()
    assert b"a private path" not in kept.file.read_bytes()


@pytest.mark.parametrize(
    "text", ["", "{", "null", '{"settings": {"of_the_future": 1}}', '{"failure": {"kind": "of_the_future"}}']
)
def test_a_row_of_a_later_release_is_passed_over(kept: Kept, text: str) -> None:
    memory = kept.open()
    memory.add(KEY, start(1))
    memory.add(KEY, start(2))
    with sqlite3.connect(kept.file) as db:
        db.execute("UPDATE outcomes SET outcome = ? WHERE number = 2", (sealed(text),))
    assert (kept.seconds(), memory.entries(), kept.warnings) == ([1], (Entry(1, KEY, start(1)),), [])


def test_a_row_in_which_one_digit_fell_over_is_passed_over(kept: Kept) -> None:
    """A flipped bit in the file is still JSON: 0.92 became 0.52."""
    memory = kept.open()
    memory.add(KEY, start(1))
    memory.add(KEY, start(2))
    with sqlite3.connect(kept.file) as db:
        ((text,),) = db.execute("SELECT outcome FROM outcomes WHERE number = 2")
        digit = max(place for place, letter in enumerate(text) if letter == "2")
        db.execute("UPDATE outcomes SET outcome = ? WHERE number = 2", (text[:digit] + "7" + text[digit + 1 :],))
    assert kept.seconds() == [1]
