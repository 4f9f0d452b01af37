"""The engine's output: kept whole in a file, scanned line by line, bounded in memory whatever is printed.

I/O. Owns chunking, redaction and the log file; what a line means is `diagnose`'s.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

from autolaunch.diagnose import Scanner, interesting

CHUNK_BYTES = 1 << 16
LONG_LINE_BYTES = 1 << 16
KEPT_END_BYTES = 1 << 13


class Output:
    """One attempt's output on its way to the log file, the scanner and perhaps the terminal.

    Fed by one thread. A full disk ends the file, not the engine: `lost` then says why.
    """

    def __init__(
        self, file: BinaryIO | None, scanner: Scanner, *, hidden: Sequence[str], echo: BinaryIO | None
    ) -> None:
        self.scanner = scanner
        self.lost: str = ""
        self._file = file
        self._echo = echo
        self._hidden = [secret.encode() for secret in hidden]
        self._carry = b""
        self._head = b""

    def feed(self, data: bytes) -> None:
        """Take the next bytes, of any content and cut anywhere."""
        data = self._carry + data
        end = max(data.rfind(b"\n"), data.rfind(b"\r")) + 1
        block, carry = data[:end], data[end:]
        if block:
            self._write(block)
            self._scan(block)
        if len(carry) > LONG_LINE_BYTES:  # a line without an end: the file gets all, the scanner both its ends
            self._write(carry[:-KEPT_END_BYTES])
            self._head = self._head or carry[:KEPT_END_BYTES]
            carry = carry[-KEPT_END_BYTES:]
        self._carry = carry

    def finish(self) -> None:
        """Take what was left without a line's end, and close the file."""
        if self._carry:
            self._write(self._carry)
            self._scan(self._carry)
            self._carry = b""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _write(self, block: bytes) -> None:
        for secret in self._hidden:
            if secret in block:
                block = block.replace(secret, b"***")
        if self._file is not None:
            try:
                self._file.write(block)
            except OSError as error:
                self.lost = str(error)
                self._file = None
        if self._echo is not None:
            try:
                self._echo.write(block)
                self._echo.flush()
            except OSError:
                self._echo = None

    def _scan(self, block: bytes) -> None:
        if self._head:
            block, self._head = self._head + block, b""
        if not interesting(block):
            self.scanner.skip(block.count(b"\n"))
            return
        for secret in self._hidden:
            block = block.replace(secret, b"***")
        for line in block.removesuffix(b"\n").split(b"\n"):
            self.scanner.feed(line.decode("utf-8", "replace"))


def pump(descriptor: int, output: Output, *, on_block: Callable[[], None]) -> None:
    """Read a pipe to its end, calling `on_block` after each read; closes the pipe."""
    try:
        while True:
            data = os.read(descriptor, CHUNK_BYTES)
            if not data:
                break
            output.feed(data)
            on_block()
    finally:
        os.close(descriptor)
        output.finish()
        on_block()


def open_log(folder: Path, attempt: int) -> BinaryIO:
    """Create the log file of an attempt, readable by its owner only; OSError where that is impossible."""
    descriptor = os.open(folder / f"attempt-{attempt}.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    return os.fdopen(descriptor, "wb", buffering=0)
