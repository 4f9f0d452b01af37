"""An SQLite file that may be killed, filled up, damaged or replaced at any moment, and is used or left alone.

I/O. Owns opening, schema steps, and what is done about a file that is none of ours; knows nothing of its rows.

The file is opened for one piece of work and closed again: a run that lasts for months holds no lock, no journal and
no file that was set aside meanwhile, and any thread may ask. The rollback journal is kept and not WAL: a start
writes one row, so that WAL gains nothing, and two hosts that share a home over NFS would destroy the file with it
(sqlite.org/wal.html: all processes must be on one host).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import sqlite3

T = TypeVar("T")

BUSY_S = 5.0
"""How long another process's write is waited for; one takes milliseconds."""

_SIBLINGS = ("-journal", "-wal")
"""Files that SQLite would play into a new database of the same name: they are moved before it."""


class Unusable(Exception):
    """Nothing can be read or written now; the text says why."""


class _Damaged(Exception):
    """The file is no database of ours."""


@dataclass(frozen=True, slots=True)
class Schema:
    """What makes a database ours: SQLite's application_id, the steps that lead to its tables, a look at them.

    A file's user_version counts the steps it has taken, so that a published step never changes. `look` is a query
    that fails where a table or a column is missing.
    """

    application: int
    steps: tuple[tuple[str, ...], ...]
    look: str


@dataclass(frozen=True, slots=True)
class Database:
    """One file with one schema; `tell` hears that a damaged file was set aside."""

    file: Path
    schema: Schema
    tell: Callable[[str], None]

    def read(self, work: Callable[[sqlite3.Connection], T], otherwise: T) -> T:
        """Do work that only reads; `otherwise` where there is no file. Raises `Unusable`."""
        return self._mended(lambda: self._once(work, "BEGIN") if self.file.exists() else otherwise)

    def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do work in one transaction, in a file that is made where there is none. Raises `Unusable`."""

        def once() -> T:
            self._make()
            return self._once(work, "BEGIN IMMEDIATE")

        return self._mended(once)

    def _mended(self, attempt: Callable[[], T]) -> T:
        """Try; where the file turns out damaged set it aside and try again."""
        import sqlite3  # noqa: PLC0415 - `autolaunch --version` needs no database

        try:
            try:
                return attempt()
            except (_Damaged, sqlite3.DatabaseError, UnicodeDecodeError) as error:
                if not _is_damage(error):
                    raise
                self._set_aside(_text(error))
            except FileNotFoundError:
                pass  # another process has just set it aside
            return attempt()
        except (_Damaged, sqlite3.Error, UnicodeDecodeError, OSError) as error:
            raise Unusable(_text(error)) from error

    def _once(self, work: Callable[[sqlite3.Connection], T], begin: str) -> T:
        with _locked(self.file.parent, fcntl.LOCK_SH):
            return self._work(work, begin)

    def _work(self, work: Callable[[sqlite3.Connection], T], begin: str) -> T:
        """Do work in one transaction, while no other process can set the file aside."""
        with contextlib.closing(self._connect()) as db:
            db.execute(begin)  # the schema is judged in the same transaction: another process may be making it
            if self._steps_taken(db) < len(self.schema.steps):
                db.execute("COMMIT")
                db.execute("BEGIN IMMEDIATE")
                self._climb(db)
            self._look(db)
            found = work(db)
            db.execute("COMMIT")
            return found

    def _make(self) -> None:
        """Make the folder and an empty file for this user only; OSError where nothing can be written there.

        SQLite itself would ask the umask, and would tell of a read-only disk only at the end of the first write.
        """
        folder = self.file.parent
        if not os.path.lexists(self.file):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with contextlib.suppress(FileExistsError):
                _make_empty(self.file)
        elif not os.access(folder, os.W_OK):
            number = errno.EROFS if os.statvfs(folder).f_flag & os.ST_RDONLY else errno.EACCES
            raise OSError(number, os.strerror(number))

    def _connect(self) -> sqlite3.Connection:
        import sqlite3  # noqa: PLC0415 - `autolaunch --version` needs no database

        if not stat.S_ISREG(self.file.stat().st_mode):
            raise _Damaged("it is no file")
        db = sqlite3.connect(self.file, timeout=BUSY_S, isolation_level=None)
        db.text_factory = lambda raw: raw.decode("utf-8", "replace")
        return db

    def _climb(self, db: sqlite3.Connection) -> None:
        """Take the schema steps that are missing, all or none."""
        for step in self.schema.steps[self._steps_taken(db) :]:
            for statement in step:
                db.execute(statement)
        db.execute(f"PRAGMA application_id = {self.schema.application}")
        db.execute(f"PRAGMA user_version = {len(self.schema.steps)}")

    def _look(self, db: sqlite3.Connection) -> None:
        import sqlite3  # noqa: PLC0415 - `autolaunch --version` needs no database

        try:
            db.execute(self.schema.look)
        except sqlite3.OperationalError as error:
            if "no such" not in str(error):
                raise
            raise _Damaged(str(error)) from error

    def _steps_taken(self, db: sqlite3.Connection) -> int:
        """Return how many steps the file has taken; refuse what is not ours or of a newer release."""
        version: int = _value(db, "PRAGMA user_version")
        application = _value(db, "PRAGMA application_id")
        new = application == version == 0 and not _value(db, "SELECT count(*) FROM sqlite_master")
        if application != self.schema.application and not new:
            raise _Damaged("it is another program's database")
        if version > len(self.schema.steps):
            known = len(self.schema.steps)
            raise Unusable(f"it is of a newer autolaunch (form {version}, this one knows {known})")
        return version

    def _set_aside(self, why: str) -> None:
        """Rename a damaged file, unless another process has done so since; its journal goes first.

        Nobody may have it open: SQLite finds a journal by its name, so that a connection to the old file would play
        the new file's journal into the old one and delete it under the one who writes there.
        """
        with _locked(self.file.parent, fcntl.LOCK_EX):
            if self._is_whole():
                return
            aside = _free_name(self.file)
            try:
                for sibling in _SIBLINGS:
                    with contextlib.suppress(FileNotFoundError):
                        _beside(self.file, sibling).rename(_beside(aside, sibling))
                self.file.rename(aside)
            except OSError as error:
                raise Unusable(f"it is damaged ({why}) and cannot be set aside: {error.strerror}") from error
        self.tell(f"{self.file} is damaged ({why}): it is set aside as {aside.name}, a new one is begun")

    def _is_whole(self) -> bool:
        import sqlite3  # noqa: PLC0415 - `autolaunch --version` needs no database

        try:
            return self._work(lambda db: bool(_value(db, "PRAGMA integrity_check(1)") == "ok"), "BEGIN")
        except FileNotFoundError:
            return True  # set aside already, and no new one begun
        except (_Damaged, sqlite3.DatabaseError, UnicodeDecodeError) as error:
            if not _is_damage(error):
                raise
            return False


def _make_empty(file: Path) -> None:
    try:
        os.mknod(file, 0o600 | stat.S_IFREG)  # not open: closing it would drop another thread's locks
    except FileExistsError:
        raise
    except OSError:  # a file system without mknod
        os.close(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))


def _value(db: sqlite3.Connection, query: str) -> Any:
    return db.execute(query).fetchone()[0]


def _is_damage(error: Exception) -> bool:
    """Whether an error is the file's own: Python gives SQLITE_CORRUPT and SQLITE_NOTADB the plain class, no other.

    What SQLite says of a damaged schema may quote bytes from it that Python cannot decode.
    """
    return isinstance(error, (_Damaged, UnicodeDecodeError)) or type(error).__name__ == "DatabaseError"


def _text(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "its schema cannot be read"
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _beside(file: Path, ending: str) -> Path:
    return file.with_name(file.name + ending)


def _free_name(file: Path) -> Path:
    name = _beside(file, f".damaged-{time.strftime('%Y%m%d-%H%M%S')}")
    taken = (n for n in range(2, 1000) if not os.path.lexists(_beside(name, f"-{n}")))
    return _beside(name, f"-{next(taken)}") if os.path.lexists(name) else name


@contextlib.contextmanager
def _locked(folder: Path, mode: int) -> Iterator[None]:
    """Hold a folder's lock, shared or alone, where its file system has locks; go on without it after `BUSY_S`."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        deadline = time.monotonic() + BUSY_S
        while time.monotonic() < deadline:
            try:
                fcntl.flock(descriptor, mode | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(0.01)
            except OSError:
                break  # no locks on a directory of this file system
        yield
    finally:
        os.close(descriptor)
