"""The engine's output: kept in a file, scanned line by line, bounded in memory whatever is printed.

I/O. Owns chunking; what is hidden is `veil`'s, how much is kept is `logfile`'s, what a line means is `diagnose`'s.
"""

from __future__ import annotations

import codecs
import os
import select
import time
from collections.abc import Callable
from io import FileIO
from typing import Protocol

from autolaunch.diagnosis import Scanner, interesting
from autolaunch.failure import Failure
from autolaunch.logfile import LogFile
from autolaunch.redaction import Secrets
from autolaunch.veil import LONG_LINE_BYTES, Shapes, Sieve, Veil

PATIENCE_S = 1.0
"""How long a full pipe or a stopped terminal is waited for before what it should show is dropped."""

CHUNK_BYTES = 1 << 16
REST_S = 0.01
"""After a read that did not fill a chunk the next one waits so long: an engine that logs thousands of lines a second
would else wake this reader with each of them, and pay for it. The pipe holds 1 MiB meanwhile."""

KEPT_END_BYTES = 1 << 13


class Lines:
    """Cuts bytes into whole lines; of a line without an end only its head and its newest end are kept.

    Gives the lines instead of handing them to a callback: its owner's would make a cycle of them, and what an engine
    that is gone has left would stay until the garbage collector comes by, some twenty engines later.
    """

    def __init__(self) -> None:
        self._line = b""
        self._head = b""

    def feed(self, block: bytes) -> bytes | None:
        """Take the next bytes; return the lines that are whole now, without the last one's end, None for none."""
        data = self._line + block
        end = data.rfind(b"\n") + 1
        whole, line = data[:end], data[end:]
        if whole and self._head:
            whole, self._head = self._head + whole, b""
        if len(line) > LONG_LINE_BYTES:
            self._head = self._head or line[:KEPT_END_BYTES]
            line = line[-KEPT_END_BYTES:]
        self._line = line
        return whole[:-1] if whole else None

    def finish(self) -> bytes | None:
        """Return what was left without a line's end."""
        return self.feed(b"\n") if self._line else None


class Output:
    """One attempt's output on its way to the log file, the scanner and perhaps the terminal.

    No secret gets past its veil. Fed by one thread. A full disk ends the file, not the engine, and is told once to
    `warn`.
    """

    def __init__(
        self,
        file: LogFile | None,
        scanner: Scanner,
        *,
        secrets: Secrets,
        echo: FileIO | None,
        warn: Callable[[str], None],
    ) -> None:
        self.scanner = scanner
        self._file = file
        self._echo = echo
        self._warn = warn
        self._shapes = Shapes()
        self._veil = Veil(secrets, self._shapes)
        self._lines = Lines()
        self._sieve = Sieve(interesting)
        self._judging = True
        self._patience_s = PATIENCE_S

    def feed(self, data: bytes) -> None:
        """Take the next bytes, of any content and cut anywhere."""
        self._pass_on(self._veil.feed(data))

    def finish(self) -> None:
        """Take what was left without a line's end, and close the file."""
        self._pass_on(self._veil.finish())
        self._judge(self._lines.finish())
        if self._file is not None:
            self._file.close()
            self._file = None

    def _pass_on(self, block: bytes) -> None:
        if not block:
            return
        self._write(block)
        self._judge(self._lines.feed(block))

    def _judge(self, lines: bytes | None) -> None:
        if self._judging and lines is not None:
            try:
                self._scan(lines)
            except Exception as error:  # a fault in the diagnosis must stop neither the engine nor its log
                self._judging = False
                self._warn(f"the diagnosis failed on the engine's output ({error!r}); its exit alone is judged")

    def _write(self, block: bytes) -> None:
        if self._file is not None:
            try:
                self._file.write(block)
            except OSError as error:
                self._warn(f"the engine's output is no longer kept: {error.strerror or error}")
                self._file = None
        if self._echo is not None:
            try:
                self._patience_s = PATIENCE_S if offer(self._echo, block, self._patience_s) else 0.0
            except OSError:
                self._echo = None

    def _scan(self, lines: bytes) -> None:
        """Feed the scanner the lines that may matter to it and skip the rest, told apart by their shapes."""
        shapes, distinct = self._shapes.of(lines)
        wanted = self._sieve.keep(distinct)  # no trigger of the scanner holds a digit
        if not wanted:
            self.scanner.skip(len(shapes))
            return
        for shape, line in zip(shapes, lines.split(b"\n"), strict=True):
            if shape in wanted:
                self.scanner.feed(line.decode("utf-8", "replace"))
            else:
                self.scanner.skip(1)


def offer(file: FileIO, data: bytes, patience_s: float) -> bool:
    """Write to a terminal or pipe what its reader takes and drop the rest: the engine must not wait for it.

    Return whether everything was taken; OSError where nothing ever will be.
    """
    view = memoryview(data)
    while view:
        if not takes(file.fileno(), patience_s):
            return False
        view = view[file.write(view[: select.PIPE_BUF]) or 0 :]
    return True


def takes(descriptor: int, patience_s: float) -> bool:
    """Whether a descriptor takes a line (PIPE_BUF bytes) without blocking, or will within some seconds."""
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return bool(poll.poll(patience_s * 1000))


def pump(descriptor: int, output: Output, *, on_block: Callable[[], None]) -> None:
    """Read a pipe to its end, calling `on_block` after each read; closes the pipe."""
    try:
        while True:
            data = os.read(descriptor, CHUNK_BYTES)
            if not data:
                break
            output.feed(data)
            on_block()
            if len(data) < CHUNK_BYTES:
                time.sleep(REST_S)
    finally:
        os.close(descriptor)
        output.finish()
        on_block()


class Readable(Protocol):
    """What gives its next bytes, none at its end."""

    def read(self, most: int, /) -> bytes: ...


def read_log(file: Readable) -> Failure:
    """Return the verdict on a log of any length, or any excerpt of one; OSError where it cannot be read."""
    scanner = Scanner(excerpt=True)

    def take(whole: bytes | None) -> None:
        for line in () if whole is None else whole.split(b"\n"):
            scanner.feed(line.decode("utf-8", "replace"))

    lines = Lines()
    data = file.read(CHUNK_BYTES)
    wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))  # a log redirected by PowerShell
    decoder = codecs.getincrementaldecoder("utf-16")("replace") if wide else None
    while data:
        take(lines.feed(data if decoder is None else decoder.decode(data).encode("utf-8", "replace")))
        data = file.read(CHUNK_BYTES)
    take(lines.finish())
    return scanner.conclude(None)
