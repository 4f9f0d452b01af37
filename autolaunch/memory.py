"""What is remembered of every start: one row each, in the state folder.

I/O over `database`. Owns the rows and their number. Never ends a launch and delays it by seconds at most: what cannot
be read is not known, what cannot be written is lost, and either is said once.
"""

from __future__ import annotations

import contextlib
import json
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from autolaunch.database import Database, Schema, Unusable
from autolaunch.outcome_form import from_text, to_text
from autolaunch.past import Entry, Key, Outcome, Past, Sought
from autolaunch.state import MEMORY_FILE

if TYPE_CHECKING:
    import sqlite3

T = TypeVar("T")

KEPT_PER_KEY = 200
KEPT = 20_000
"""How many starts are remembered of one model on one card, and in all: some 30 MB."""

LONGEST_LINE = 2000
"""Characters of the engine's own line that are kept."""

SCHEMA = Schema(
    application=0x6175746F,  # "auto"
    steps=(
        (
            """
            CREATE TABLE outcomes (
                number INTEGER PRIMARY KEY AUTOINCREMENT,
                key TEXT NOT NULL, model TEXT NOT NULL, wish TEXT NOT NULL,
                at REAL NOT NULL, came_up INTEGER NOT NULL,
                outcome TEXT NOT NULL
            )
            """,
        ),
    ),
    look="SELECT number, key, model, wish, at, came_up, outcome FROM outcomes LIMIT 0",
)
"""`key` is a `Key` and `outcome` an `Outcome`, both as JSON, the latter behind its checksum; what is asked for has a
column of its own. There is no index: a damaged one hides rows in silence, and all of `KEPT` are read in 14 ms."""

_OF_KEYS = "SELECT outcome FROM outcomes WHERE key IN (?, ?) ORDER BY number DESC LIMIT ?"
_INSERT = "INSERT INTO outcomes (key, model, wish, at, came_up, outcome) VALUES (?, ?, ?, ?, ?, ?)"
_PRUNE_KEY = """
    DELETE FROM outcomes WHERE key = :key
    AND number NOT IN (SELECT number FROM outcomes WHERE key = :key ORDER BY number DESC LIMIT :kept)
    AND number NOT IN (SELECT max(number) FROM outcomes WHERE key = :key AND came_up GROUP BY wish)
"""
_PRUNE = """
    DELETE FROM outcomes WHERE number IN (
        SELECT number FROM outcomes
        WHERE number NOT IN (SELECT max(number) FROM outcomes WHERE came_up GROUP BY key)
        ORDER BY number LIMIT max(0, (SELECT count(*) FROM outcomes) - :kept)
    )
"""
_ENTRIES = """
    SELECT number, key, model, outcome FROM outcomes
    WHERE (:all OR substr(key, 1, length(:key)) = :key OR substr(key, 1, length(:old)) = :old OR model = :name)
    AND (:number IS NULL OR number = :number)
    ORDER BY number DESC LIMIT :limit
"""
_FORGET = """
    DELETE FROM outcomes
    WHERE (:all OR substr(key, 1, length(:key)) = :key OR substr(key, 1, length(:old)) = :old OR model = :name)
    AND (:number IS NULL OR number = :number)
    AND (:before IS NULL OR at < :before)
"""
"""A model's rows are found by what it stands for and by its name: as it was typed, and as old keys begin with it."""


class Memory:
    """The remembered starts of a state folder; a folder of None remembers nothing. Any thread may ask.

    `warn` hears what is wrong, each trouble once; it may be replaced when a run has found its voice.
    """

    def __init__(self, folder: Path | None, warn: Callable[[str], None]) -> None:
        self.warn = warn
        self._warned = False
        self._database = None if folder is None else Database(folder / MEMORY_FILE, SCHEMA, self._tell)

    @classmethod
    def open(cls, folder: Path, warn: Callable[[str], None]) -> Memory:
        """Return the memory of a folder, made where there is none; whatever is wrong with it is told to `warn` now."""
        memory = cls(folder, warn)
        memory._write(lambda _: None, None)
        return memory

    def past(self, key: Key) -> Past:
        """Return what is remembered under a key and those alike, newest first, at most twice `KEPT_PER_KEY`."""
        keys = [_key_text(one) for one in key.alike]

        def read(db: sqlite3.Connection) -> Past:
            rows = db.execute(_OF_KEYS, (keys[0], keys[-1], 2 * KEPT_PER_KEY))
            return Past(tuple(outcome for (text,) in rows for outcome in _readable(text)))

        return self._read(read, Past())

    def add(self, key: Key, outcome: Outcome) -> None:
        """Remember one start. No secret may be in its failure's line any more."""
        failure = outcome.failure
        if failure is not None:
            outcome = replace(outcome, failure=replace(failure, line=failure.line[:LONGEST_LINE]))
        text = _key_text(key)
        row = (text, _clean(key.shown), outcome.wish, outcome.at, failure is None, sealed(to_text(outcome)))

        def write(db: sqlite3.Connection) -> None:
            db.execute(_INSERT, row)
            db.execute(_PRUNE_KEY, {"key": text, "kept": KEPT_PER_KEY})
            db.execute(_PRUNE, {"kept": KEPT})

        self._write(write, None)

    def entries(
        self, *, model: Sought | None = None, number: int | None = None, limit: int | None = None
    ) -> tuple[Entry, ...]:
        """Return remembered starts, newest first: of a model, or the one of a number."""
        wanted = {**_wanted(model), "number": number, "limit": -1 if limit is None else limit}

        def read(db: sqlite3.Connection) -> tuple[Entry, ...]:
            rows = db.execute(_ENTRIES, wanted)
            return tuple(entry for row in rows for entry in _entry(*row))

        return self._read(read, ())

    def forget(
        self, *, model: Sought | None = None, number: int | None = None, before: float | None = None
    ) -> int | None:
        """Remove what meets every condition given, all where none is; `before` in Unix seconds.

        Return how many, None where the file cannot be written.
        """
        wanted = {**_wanted(model), "number": number, "before": before}

        def write(db: sqlite3.Connection) -> int | None:
            db.execute("PRAGMA secure_delete = ON")
            return db.execute(_FORGET, wanted).rowcount

        if self._database is None or not self._database.file.exists():
            return 0
        return self._write(write, None)

    def _read(self, work: Callable[[sqlite3.Connection], T], otherwise: T) -> T:
        if self._database is not None:
            try:
                return self._database.read(work, otherwise)
            except Unusable as error:
                self._say("read", error)
        return otherwise

    def _write(self, work: Callable[[sqlite3.Connection], T], otherwise: T) -> T:
        if self._database is not None:
            try:
                return self._database.write(work)
            except Unusable as error:
                self._say("written", error)
        return otherwise

    def _tell(self, text: str) -> None:
        self.warn(text)

    def _say(self, what: str, error: Unusable) -> None:
        assert self._database is not None
        if not self._warned:
            self.warn(f"the memory of earlier starts cannot be {what}: {self._database.file}: {error}")
        self._warned = True


def _key_text(key: Key) -> str:
    """Return a key as its rows have it: all of it but the name that was typed."""
    return json.dumps((key.model, key.revision, key.card, key.total_bytes, key.cards))


def _wanted(model: Sought | None) -> dict[str, str | bool | None]:
    """Return which model's rows are meant, as the statements take it."""
    if model is None:
        return {"all": True, "key": None, "old": None, "name": None}
    key, old = (json.dumps([name])[:-1] + "," for name in (model.stands_for, model.name))
    return {"all": False, "key": key, "old": old, "name": None if model.is_path else _clean(model.name)}


def _clean(text: str | None) -> str | None:
    """Return text as SQLite takes it: a folder's name may hold bytes that are no UTF-8."""
    return None if text is None else text.encode("utf-8", "backslashreplace").decode()


def sealed(text: str) -> str:
    """Return an outcome's text behind its checksum: a flipped bit must not become a setting to start with."""
    return f"{zlib.crc32(text.encode()):08x} {text}"


def _opened(kept: str) -> str:
    """Return the text behind a checksum; ValueError where it is not the text that was sealed."""
    _, _, text = kept.partition(" ")
    if sealed(text) != kept:
        raise ValueError("the checksum is another")
    return text


def _readable(kept: str) -> Iterator[Outcome]:
    """Give the outcome of a row, nothing where it is damaged or of a release that knows more."""
    with contextlib.suppress(ValueError, TypeError):
        yield from_text(_opened(kept))


def _entry(number: int, key: str, name: str, kept: str) -> Iterator[Entry]:
    with contextlib.suppress(ValueError, TypeError):
        yield Entry(number, replace(Key(*json.loads(key)), name=name), from_text(_opened(kept)))
