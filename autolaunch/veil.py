"""The engine's output without its secrets, into whatever blocks it is cut.

Pure: bytes in, bytes out. Owns which bytes are held back until a secret that may have begun in them is whole. What a
secret is called or looks like is `redaction`'s and `looks`'s.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable

from autolaunch.looks import LONGEST_BYTES, STARS, hide_looks_in_bytes, is_suspicious, may_begin_key, open_key
from autolaunch.redaction import Secrets, behind_its_name

LONG_LINE_BYTES = 1 << 16
"""Of a longer line all but its newest end is passed on before it is whole."""

KNOWN_SHAPES = 1024
"""How many shapes of lines are remembered about which a question was answered with no: a flood repeats a few."""

_DIGITS = bytes.maketrans(b"123456789", b"000000000")
_STARS = STARS.encode("ascii")


class Shapes:
    """Lines told apart by their shapes (each digit a 0), the newest answer kept: several ask for the same lines."""

    def __init__(self) -> None:
        self._lines = b""
        self._shapes = [b""]
        self._distinct = {b""}

    def of(self, lines: bytes) -> tuple[list[bytes], set[bytes]]:
        """Return the shape of each line, and which there are."""
        if lines != self._lines:
            self._lines = lines
            self._shapes = lines.translate(_DIGITS).split(b"\n")
            self._distinct = set(self._shapes)
        return self._shapes, self._distinct


class Sieve:
    """Finds the shapes that matter to a question, and remembers those that do not."""

    def __init__(self, matters: Callable[[bytes], bool]) -> None:
        self._matters = matters
        self._dull: set[bytes] = set()

    def keep(self, shapes: set[bytes]) -> set[bytes]:
        """Return those of the shapes that matter."""
        return {shape for shape in shapes - self._dull if self._keeps(shape)}

    def _keeps(self, shape: bytes) -> bool:
        if self._matters(shape):
            return True
        if len(self._dull) >= KNOWN_SHAPES:
            self._dull.clear()
        if len(shape) <= LONGEST_BYTES:
            self._dull.add(shape)
        return False


class Veil:
    """Gives the output on in whole lines, with stars in place of the secrets of a run and of what looks like one."""

    def __init__(self, secrets: Secrets, shapes: Shapes) -> None:
        self._anywhere = _spellings(secrets.anywhere)
        self._named = [
            (_bytes(secret), re.compile(_bytes(behind_its_name(secret).pattern), re.IGNORECASE))
            for secret in secrets.named
        ]
        self._shapes = shapes
        self._suspicious = Sieve(is_suspicious)
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        """Take the next bytes, cut anywhere; return what can be shown now."""
        data = self._held + data
        end = max(data.rfind(b"\n"), data.rfind(b"\r")) + 1
        block, rest = data[:end], data[end:]
        shown, held = self._lines(block) if block else (b"", b"")
        held += rest
        if len(held) > LONG_LINE_BYTES:
            held = hide_looks_in_bytes(self._hide_known(held), whole=False)
            shown, held = shown + held[:-LONGEST_BYTES], held[-LONGEST_BYTES:]
        self._held = held
        return shown

    def finish(self) -> bytes:
        """Return what was held back."""
        shown, held = self._lines(self._held)
        self._held = b""
        return shown + hide_looks_in_bytes(held)

    def _lines(self, block: bytes) -> tuple[bytes, bytes]:
        """Return whole lines without secrets, and those at their end that belong to a key whose end is to come."""
        block = self._hide_known(block)
        lines = block.removesuffix(b"\n")
        shapes, distinct = self._shapes.of(lines)
        suspects = self._suspicious.keep(distinct)
        if not suspects:
            return block, b""
        begin = open_key(block)
        if begin < len(block) or any(map(may_begin_key, suspects)):
            return hide_looks_in_bytes(block[:begin]), block[begin:]
        hidden = (
            hide_looks_in_bytes(line) if shape in suspects else line
            for shape, line in zip(shapes, lines.split(b"\n"), strict=True)
        )
        return b"\n".join(hidden) + block[len(lines) :], b""

    def _hide_known(self, block: bytes) -> bytes:
        for secret in self._anywhere:
            if secret in block:
                block = block.replace(secret, _STARS)
        for secret, named in self._named:
            if secret in block:
                block = named.sub(rb"\1" + _STARS, block)
        return block


def _spellings(hidden: Iterable[str]) -> list[bytes]:
    """Return secrets as bytes, longest first, also as Python's repr and JSON spell them."""
    spelt = {form for secret in hidden for form in (secret, repr(secret)[1:-1], json.dumps(secret)[1:-1])}
    return sorted(map(_bytes, spelt), key=lambda form: -len(form))


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
