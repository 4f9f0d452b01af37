"""Whether a stream is systemd's journal, and lines as the journal takes them: with their priority, without colour.

I/O only to look at a descriptor. Sources: systemd.exec(5) for JOURNAL_STREAM, sd-daemon(3) for the prefixes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from enum import IntEnum

STREAM = "JOURNAL_STREAM"

_COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


class Priority(IntEnum):
    """How grave a line is, as syslog counts."""

    ERROR = 3
    WARNING = 4
    INFO = 6


def connected(environment: Mapping[str, str], descriptor: int = 2) -> bool:
    """Whether a descriptor is the very stream to the journal that systemd made.

    The variable alone says nothing: it is inherited by programs whose output was sent elsewhere since.
    """
    stream = environment.get(STREAM, "")
    if not stream:
        return False
    try:
        found = os.fstat(descriptor)
    except OSError:
        return False
    return stream == f"{found.st_dev}:{found.st_ino}"


def prefixed(text: str, priority: Priority) -> str:
    """Return text with the priority before each of its lines and without colours."""
    plain = _COLOUR.sub("", text)
    return "\n".join(f"<{int(priority)}>{line}" for line in plain.split("\n"))
