"""A file that is damaged, of another release, locked or impossible: set aside or left alone, and no launch is ended."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from autolaunch import database
from autolaunch.database import Database, Schema, Unusable
from autolaunch.memory import SCHEMA
from autolaunch.past import Past
from autolaunch.state import MEMORY_FILE
from tests.unit.kept import KEY, Kept, at_once, start


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    return Kept(tmp_path / "state")


# --- damage


def in_the_schema(file: Path) -> None:
    """Damage the schema's text: SQLite's message then quotes bytes that are no UTF-8."""
    file.write_bytes(file.read_bytes().replace(b"CREATE TABLE outcomes", b"CREATE TABL\x80 outcomes"))


def another_program(file: Path) -> None:
    file.unlink()
    with sqlite3.connect(file) as db:
        db.execute("CREATE TABLE recipes (name TEXT)")


def without_a_column(file: Path) -> None:
    with sqlite3.connect(file) as db:
        db.execute("ALTER TABLE outcomes RENAME COLUMN wish TO desire")


def without_its_table(file: Path) -> None:
    with sqlite3.connect(file) as db:
        db.execute("DROP TABLE outcomes")


def a_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()
    (file / "precious").write_text("kept")


def a_pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def over_the_table(file: Path) -> None:
    """Overwrite the pages behind the schema's."""
    with file.open("r+b") as pages:
        pages.seek(4096)
        pages.write(b"\xff" * (file.stat().st_size - 4096))


DAMAGES: dict[str, Callable[[Path], Any]] = {
    "garbage": lambda file: file.write_bytes(os.urandom(8192)),
    "text": lambda file: file.write_text("not a database, and long enough to be looked at as one"),
    "half": lambda file: os.truncate(file, file.stat().st_size // 2),
    "one page": lambda file: os.truncate(file, 4096),
    "a piece of the header": lambda file: os.truncate(file, 50),
    "over the table": over_the_table,
    "in the schema": in_the_schema,
    "another program's": another_program,
    "without a column": without_a_column,
    "without its table": without_its_table,
    "a folder": a_folder,
    "a pipe": a_pipe,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_set_aside_with_a_word_and_a_new_one_begun(kept: Kept, damage: str) -> None:
    kept.open().add(KEY, start(1))
    DAMAGES[damage](kept.file)
    memory = kept.open()
    assert memory.past(KEY) == Past()
    memory.add(KEY, start(2))
    assert kept.seconds() == [2]
    (aside,) = kept.aside()
    (said,) = kept.warnings
    assert said.startswith(f"{kept.file} is damaged (")
    assert said.endswith(f"): it is set aside as {aside.name}, a new one is begun")
    assert damage != "a folder" or (aside / "precious").read_text() == "kept"


def test_a_file_of_no_bytes_is_where_a_killed_beginning_left_it(kept: Kept) -> None:
    kept.open()
    os.truncate(kept.file, 0)
    kept.open().add(KEY, start(1))
    assert (kept.seconds(), kept.aside(), kept.warnings) == ([1], [], [])


def test_a_journal_goes_with_its_damaged_file_and_is_not_played_into_the_new_one(kept: Kept) -> None:
    kept.open().add(KEY, start(1))
    a_folder(kept.file)
    for ending in ("-journal", "-wal"):
        kept.file.with_name(MEMORY_FILE + ending).write_text("half of it")
    kept.open().add(KEY, start(2))
    assert kept.seconds() == [2]
    aside, *others = kept.aside()
    assert [path.name.removeprefix(aside.name) for path in others] == ["-journal", "-wal"]
    assert sorted(path.name for path in kept.folder.iterdir()) == [MEMORY_FILE, *(path.name for path in kept.aside())]


def test_files_that_are_damaged_in_the_same_second_are_all_kept(kept: Kept) -> None:
    for n in range(3):
        kept.open()
        kept.file.write_text(f"not a database, number {n}" * 100)
    kept.open()
    texts = [path.read_text() for path in kept.aside()]
    assert sorted(text[:24] for text in texts) == [f"not a database, number {n}" for n in range(3)]


def test_damage_that_shows_only_when_it_is_read_ends_no_launch(kept: Kept) -> None:
    memory = kept.open()
    for n in range(40):
        memory.add(KEY, start(n))
    over_the_table(kept.file)
    assert memory.past(KEY) == Past()
    memory.add(KEY, start(99))
    assert kept.seconds() == [99]
    assert len(kept.aside()) == len(kept.warnings) == 1


@pytest.mark.parametrize("found", [b"garbage" * 1000, b""])
def test_many_that_find_the_same_file_at_once_begin_one_new_one(tmp_path: Path, found: bytes) -> None:
    """Once a reader took a half-made database for another program's, since it asked in several transactions."""
    for n in range(15):
        kept = Kept(tmp_path / str(n))
        kept.open()
        kept.file.write_bytes(found)
        at_once([partial(lambda kept, n: kept.open().add(KEY, start(n)), kept, n) for n in range(6)])
        assert sorted(kept.seconds()) == [0, 1, 2, 3, 4, 5]
        assert len(kept.aside()) == len(kept.warnings) == bool(found)


# --- other releases


def test_a_file_of_a_newer_release_is_left_as_it_is(kept: Kept) -> None:
    kept.open().add(KEY, start(1))
    kept.query(f"PRAGMA user_version = {len(SCHEMA.steps) + 1}")
    before = kept.file.read_bytes()
    memory = kept.open()
    memory.add(KEY, start(2))
    assert (memory.past(KEY), memory.entries(), memory.forget()) == (Past(), (), None)
    assert kept.file.read_bytes() == before
    newer = f"it is of a newer autolaunch (form {len(SCHEMA.steps) + 1}, this one knows {len(SCHEMA.steps)})"
    assert kept.warnings == [f"the memory of earlier starts cannot be written: {kept.file}: {newer}"]
    assert kept.aside() == []


FIRST = Schema(7, (("CREATE TABLE notes (text TEXT)",),), "SELECT text FROM notes")
SECOND = replace(
    FIRST,
    steps=(*FIRST.steps, ("ALTER TABLE notes ADD COLUMN at REAL DEFAULT 0", "UPDATE notes SET at = 1")),
    look="SELECT text, at FROM notes",
)


def notes(file: Path, schema: Schema) -> Database:
    """Return a database that must not be damaged."""
    return Database(file, schema, pytest.fail)


def write(text: str) -> Callable[[sqlite3.Connection], Any]:
    return lambda db: db.execute("INSERT INTO notes (text) VALUES (?)", (text,))


def everything(db: sqlite3.Connection) -> list[Any]:
    return db.execute("SELECT * FROM notes").fetchall()


def version(file: Path) -> int:
    with sqlite3.connect(file) as db:
        return int(db.execute("PRAGMA user_version").fetchone()[0])


def test_a_file_of_an_earlier_release_takes_the_steps_it_lacks_and_keeps_its_rows(tmp_path: Path) -> None:
    file = tmp_path / "notes"
    notes(file, FIRST).write(write("old"))
    notes(file, SECOND).write(write("new"))
    assert notes(file, SECOND).read(everything, []) == [("old", 1.0), ("new", 0.0)]
    assert version(file) == 2
    with pytest.raises(Unusable, match=r"newer autolaunch \(form 2, this one knows 1\)"):
        notes(file, FIRST).read(everything, [])


def test_reading_takes_the_steps_as_well(tmp_path: Path) -> None:
    notes(tmp_path / "notes", FIRST).write(write("old"))
    assert notes(tmp_path / "notes", SECOND).read(everything, []) == [("old", 1.0)]


def test_a_step_that_fails_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "notes"
    notes(file, FIRST).write(write("old"))
    broken = replace(SECOND, steps=(*SECOND.steps, ("CREATE TABLE half (a)", "INSERT INTO nowhere VALUES (1)")))
    with pytest.raises(Unusable, match="no such table: nowhere"):
        notes(file, broken).write(write("new"))
    assert version(file) == 1
    assert notes(file, FIRST).read(everything, []) == [("old",)]


def test_many_that_take_the_same_step_at_once_take_it_once(tmp_path: Path) -> None:
    file = tmp_path / "notes"
    notes(file, FIRST).write(write("old"))
    at_once([partial(notes(file, SECOND).write, write(f"new {n}")) for n in range(6)])
    assert sorted(notes(file, SECOND).read(everything, [])) == [*((f"new {n}", 0.0) for n in range(6)), ("old", 1.0)]


def test_work_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    def half(db: sqlite3.Connection) -> None:
        write("half")(db)
        raise KeyError("a fault of ours is not hidden")

    file = tmp_path / "notes"
    with pytest.raises(KeyError):
        notes(file, FIRST).write(half)
    notes(file, FIRST).write(write("whole"))
    assert notes(file, FIRST).read(everything, []) == [("whole",)]


# --- what cannot be used


@pytest.mark.parametrize("folder", ["/dev/null/state", "/proc/autolaunch", "/sys/autolaunch"])
def test_a_folder_that_cannot_be_made_is_told_once_and_nothing_is_remembered(folder: str) -> None:
    kept = Kept(Path(folder))
    memory = kept.open()
    memory.add(KEY, start())
    assert (memory.past(KEY), memory.entries(), memory.forget()) == (Past(), (), 0)
    (said,) = kept.warnings
    assert said.startswith(f"the memory of earlier starts cannot be written: {kept.file}: ")


def test_what_goes_wrong_later_is_told_to_whoever_listens_then(kept: Kept) -> None:
    memory = kept.open()
    later: list[str] = []
    memory.warn = later.append
    kept.file.write_text("not a database" * 100)
    memory.add(KEY, start())
    kept.query("PRAGMA user_version = 99")
    memory.add(KEY, start())
    assert [text.partition(":")[0] for text in later] == [
        f"{kept.file} is damaged (file is not a database)",
        "the memory of earlier starts cannot be written",
    ]
    assert kept.warnings == []


def test_another_process_that_writes_is_waited_for(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "BUSY_S", 60)
    memory = kept.open()
    other = sqlite3.connect(kept.file, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN EXCLUSIVE")
    threading.Timer(0.3, lambda: other.execute("COMMIT")).start()
    memory.add(KEY, start(5))
    assert (kept.seconds(), kept.warnings) == ([5], [])
    other.close()


def test_a_process_that_never_ends_its_write_costs_one_start_its_memory(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = kept.open()
    monkeypatch.setattr(database, "BUSY_S", 0.05)
    with sqlite3.connect(kept.file, isolation_level=None) as other:
        other.execute("BEGIN EXCLUSIVE")
        memory.add(KEY, start(1))
        memory.add(KEY, start(2))
        assert memory.past(KEY) == Past()
        other.execute("ROLLBACK")
    memory.add(KEY, start(3))
    assert kept.seconds() == [3]
    assert kept.warnings == [f"the memory of earlier starts cannot be written: {kept.file}: database is locked"]
