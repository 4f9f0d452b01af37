"""What is remembered and for how long, and what becomes of a launch whose memory cannot be used."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from autolaunch import database
from autolaunch.failure import Failure, Kind
from autolaunch.figures import Effective
from autolaunch.memory import KEPT, KEPT_PER_KEY, LONGEST_LINE, SCHEMA, Memory
from autolaunch.outcome_form import to_text
from autolaunch.past import Entry, Key, Outcome, Past
from autolaunch.settings import Settings
from autolaunch.state import MEMORY_FILE

KEY = Key("glm-4-9b", "abc", "NVIDIA H100", 79 << 30)
OTHER = replace(KEY, model="qwen2.5-7b")


def start(seconds: float = 1.0, kind: Kind | None = None, **more: Any) -> Outcome:
    """Return an outcome that its seconds tell from others."""
    failure = None if kind is None else Failure(kind)
    return Outcome(Settings(0.9), failure, Effective(), seconds=seconds, wish=more.pop("wish", "w"), **more)


class Kept:
    """A memory in a folder, and every warning it gave."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / MEMORY_FILE
        self.warnings: list[str] = []

    def open(self) -> Memory:
        return Memory.open(self.folder, self.warnings.append)

    def seconds(self, key: Key = KEY) -> list[float]:
        return [outcome.seconds for outcome in self.open().past(key).outcomes]

    def aside(self) -> list[Path]:
        return sorted(self.folder.glob(f"{MEMORY_FILE}.damaged-*"))

    def query(self, *statements: str) -> list[Any]:
        with sqlite3.connect(self.file) as db:
            return [db.execute(statement).fetchall() for statement in statements]


def at_once(works: Sequence[Callable[[], None]]) -> None:
    """Do all of it in threads, to the end."""
    threads = [threading.Thread(target=work) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


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
    assert kept.open().entries(model=key.model) == (Entry(1, key, start(7)),)
    assert kept.open().forget(model=key.model) == 1


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
    rows = [(to_text(start(100 + n, Kind.OOM)),) for n in range(KEPT_PER_KEY)]
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


# --- history


def test_entries_are_listed_newest_first_by_model_number_and_limit(kept: Kept) -> None:
    memory = kept.open()
    for key, seconds in ((KEY, 1), (OTHER, 2), (KEY, 3)):
        memory.add(key, start(seconds))
    every = (Entry(3, KEY, start(3)), Entry(2, OTHER, start(2)), Entry(1, KEY, start(1)))
    assert memory.entries() == every
    assert memory.entries(limit=2) == every[:2]
    assert memory.entries(model="glm-4-9b") == (every[0], every[2])
    assert memory.entries(number=2) == (every[1],)
    assert memory.entries(model="glm-4-9b", number=2) == ()


def test_what_is_forgotten_is_gone_and_its_number_is_not_given_again(kept: Kept) -> None:
    memory = kept.open()
    for at in (100.0, 200.0, 300.0):
        memory.add(KEY, start(at=at))
    memory.add(OTHER, start(at=100.0))
    assert memory.forget(model="glm-4-9b", before=250.0) == 2
    assert [entry.number for entry in memory.entries()] == [4, 3]
    assert memory.forget(number=4) == 1
    assert memory.forget(model="no such model") == 0
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
        db.execute("UPDATE outcomes SET outcome = ? WHERE number = 2", (text,))
    assert (kept.seconds(), memory.entries(), kept.warnings) == ([1], (Entry(1, KEY, start(1)),), [])


# --- damage


def in_the_schema(file: Path) -> None:
    """Damage the schema's text: SQLite's message then quotes bytes that are no UTF-8."""
    file.write_bytes(file.read_bytes().replace(b"CREATE INDEX", b"CREATE INDE\x80"))


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
    assert (memory.past(KEY), memory.entries(), memory.forget()) == (Past(), (), 0)
    assert kept.file.read_bytes() == before
    newer = f"it is of a newer autolaunch (form {len(SCHEMA.steps) + 1}, this one knows {len(SCHEMA.steps)})"
    assert kept.warnings == [f"the memory of earlier starts cannot be written: {kept.file}: {newer}"]
    assert kept.aside() == []


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


def test_another_process_that_writes_is_waited_for(kept: Kept) -> None:
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
