"""A file that may be written for months: its first part is kept for good, of the rest the newest, and no line is torn.

I/O. Owns the names of the parts, their turning over and the reading of all of them as one. What stands in them is
of no concern here.

    attempt-1.log                 the first 8 MiB: versions, arguments, the start
    attempt-1.from-41943040.log   what was written from that byte on, 16 MiB
    attempt-1.from-58720256.log   the newest

A part is never renamed: its name says where it belongs, who follows it never loses the place, and a kill between
two steps leaves nothing half done.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import BinaryIO

HEAD_BYTES = 8 << 20
"""Of the starts that were looked at none printed more than 40 kB: the head holds the longest of them 200 times."""

TAIL_BYTES = 16 << 20
TAILS = 2
"""The newest 16 to 32 MiB: a busy server logs some 100 kB an hour, so that a week is at hand after it ended."""

OVERHANG_BYTES = 1 << 20
"""How far a part may exceed its size to end with a line; a longer line goes on in the next part."""

CHUNK_BYTES = 1 << 18

_FROM = re.compile(r"(?:\.from-(\d{1,18}))?")
"""One pattern for all files: one for each would stay in the cache of `re`, hundreds of them after months."""

_ENDS = re.compile(rb"\n?\[autolaunch: goes on in .*\.from-(\d{1,18})\.[^\n]*\]\n\Z")
_LONGEST_END = 512


@dataclass(frozen=True, slots=True)
class Bounds:
    """How many bytes are kept of a file's beginning, and of its end at least (and at most `tails` times that)."""

    head_bytes: int = HEAD_BYTES
    tail_bytes: int = TAIL_BYTES
    tails: int = TAILS
    overhang_bytes: int = OVERHANG_BYTES


class LogFile:
    """The writing of such a file, unbuffered, readable by its owner only. Not for two threads at once."""

    def __init__(self, path: Path, bounds: Bounds = Bounds()) -> None:
        """Create the file, empty; OSError where that is impossible."""
        self.path = path
        self._bounds = bounds
        self._file = _create(path)
        self._written = 0
        self._size = 0
        self._limit = bounds.head_bytes
        self._whole_line = True
        self._tails: list[Path] = []

    def write(self, data: bytes) -> None:
        """Append whole lines, or pieces of a line that is too long to be held; OSError where that is impossible."""
        while self._size + len(data) > self._limit:
            cut = self._cut(data)
            if cut is None:
                break
            self._put(data[:cut])
            self._turn()
            data = data[cut:]
        self._put(data)

    def close(self) -> None:
        """End the file."""
        self._file.close()

    def _put(self, data: bytes) -> None:
        if data:
            write_all(self._file, data)
            self._written += len(data)
            self._size += len(data)
            self._whole_line = data.endswith((b"\n", b"\r"))

    def _cut(self, data: bytes) -> int | None:
        """Return how much of the data still goes into this part; None for all, in the midst of a long line."""
        room = max(0, self._limit - self._size)
        whole = data.rfind(b"\n", 0, room) + 1 or data.rfind(b"\r", 0, room) + 1
        if whole or (self._whole_line and self._size):
            return whole
        most = self._limit + self._bounds.overhang_bytes - self._size
        end = data.find(b"\n", room, most) + 1
        return end or (most if len(data) > most else None)

    def _turn(self) -> None:
        """Go on in the next part; the last one says where, and the oldest is removed."""
        path = part_of(self.path, self._written)
        file = _create(path)
        with self._file, contextlib.suppress(OSError):
            start = "" if self._whole_line else "\n"
            self._file.write(f"{start}[autolaunch: goes on in {path.name}]\n".encode("utf-8", "surrogateescape"))
        self._file, self._size, self._limit, self._whole_line = file, 0, self._bounds.tail_bytes, True
        self._tails.append(path)
        while len(self._tails) > self._bounds.tails:
            with contextlib.suppress(OSError):
                self._tails.pop(0).unlink()


def _create(path: Path) -> FileIO:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    return os.fdopen(descriptor, "wb", buffering=0)


def write_all(file: FileIO, data: bytes) -> None:
    """Write to an unbuffered file until all is written; OSError where that is impossible."""
    view = memoryview(data)
    while view:
        view = view[file.write(view) or 0 :]


def part_of(path: Path, begin: int) -> Path:
    """Return the name of the part of a file that begins at a byte of the whole."""
    return path.with_name(f"{path.stem}.from-{begin}{path.suffix}") if begin else path


@dataclass(frozen=True, slots=True)
class Part:
    """A part that is there: the bytes of the whole from `begin` to `end`."""

    path: Path
    begin: int
    end: int


def parts(path: Path) -> tuple[Part, ...]:
    """Return what is there of a file, in order; empty where there is nothing. Never raises for what is missing."""
    found = []
    with contextlib.suppress(OSError):
        for file in path.parent.iterdir():
            rest = file.name.removeprefix(path.stem)
            if file.name.startswith(path.stem) and rest.endswith(path.suffix):
                match = _FROM.fullmatch(rest, 0, len(rest) - len(path.suffix))
                if match:
                    found.append((int(match[1] or 0), file))
    return tuple(part for begin, name in sorted(found) if (part := _part(name, begin)))


def _part(path: Path, begin: int) -> Part | None:
    """Measure a part without the line that says where the rest is."""
    try:
        with path.open("rb", buffering=0) as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _LONGEST_END))
            match = _ENDS.search(file.read(_LONGEST_END))
    except OSError:
        return None
    end = begin + size
    if match and 0 <= len(match[0]) - (end - int(match[1])) <= 1:  # else the engine printed such a line
        end = int(match[1])
    return Part(path, begin, end)


class Reading:
    """A file read as one, as far as it is there; asked again, what was written since. A gap is named in its place."""

    def __init__(self, path: Path, at: int = 0) -> None:
        self._path = path
        self._at = at
        self._last = b"\n"

    def read(self, most: int = CHUNK_BYTES) -> bytes:
        """Return the next bytes, `most` or a line about a gap; empty where there is nothing more now."""
        data = None
        while data is None:
            part = next((part for part in parts(self._path) if part.end > self._at), None)
            if part is None:
                return b""
            data = self._gap(part) if part.begin > self._at else self._piece(part, most)
        self._last = data[-1:] or self._last
        return data

    def _gap(self, part: Part) -> bytes:
        missing, self._at = part.begin - self._at, part.begin
        return (b"" if self._last == b"\n" else b"\n") + left_out(missing)

    def _piece(self, part: Part, most: int) -> bytes | None:
        """Read on in a part; None where it was removed since."""
        try:
            with part.path.open("rb", buffering=0) as file:
                file.seek(self._at - part.begin)
                data = file.read(min(most, part.end - self._at))
        except FileNotFoundError:
            return None
        except OSError:
            return b""
        self._at += len(data)
        return data


def opened(path: Path) -> AbstractContextManager[Reading] | BinaryIO:
    """Open any file for reading, one that goes on in parts as a whole; OSError where that is impossible."""
    if path.is_file() and len(parts(path)) > 1:
        return contextlib.nullcontext(Reading(path))
    return path.open("rb")


def left_out(amount: int) -> bytes:
    """Return the line that stands for bytes that are not kept."""
    return f"[autolaunch: {amount} bytes are left out here, only the newest are kept]\n".encode()


def everything(path: Path, *, at: int = 0) -> Iterator[bytes]:
    """Give all that there is of a file from a byte of the whole on, in chunks."""
    reading = Reading(path, at)
    while data := reading.read():
        yield data


def last_lines(path: Path, count: int) -> int:
    """Return at which byte of the whole the last lines of a file begin; a line without an end counts as one."""
    end = True
    for part in reversed(parts(path)):
        at = part.end
        for block in _backwards(part):
            found = len(block)
            if end and block.endswith(b"\n"):
                found -= 1
            end = False
            while (found := block.rfind(b"\n", 0, found)) >= 0:
                count -= 1
                if count <= 0:
                    return at - len(block) + found + 1
            at -= len(block)
    return 0


def _backwards(part: Part) -> Iterator[bytes]:
    """Give a part's blocks, the last one first."""
    with contextlib.suppress(OSError), part.path.open("rb", buffering=0) as file:
        at = part.end - part.begin
        while at > 0:
            size = min(CHUNK_BYTES, at)
            at -= size
            file.seek(at)
            yield file.read(size)
