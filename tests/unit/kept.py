"""A memory to be tried: its folder, its file, what it warned of; and starts to be remembered."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from autolaunch.failure import Failure, Kind
from autolaunch.figures import Effective
from autolaunch.memory import Memory
from autolaunch.past import Key, Outcome
from autolaunch.settings import Settings
from autolaunch.state import MEMORY_FILE

KEY = Key("glm-4-9b", "abc", "NVIDIA H100", 79 << 30)


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
