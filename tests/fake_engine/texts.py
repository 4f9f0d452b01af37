"""The texts of vLLM by version: reads `data/<version>.txt`, renders log lines and tracebacks.

A data file has sections. `[style]` holds the prefixes. `[phase NAME]` holds the lines of a phase:

    A INFO model.py:598 |text      logged by the API server (A), the engine core (E), the workers (W), the workers
                                   before they have a prefix (S), or a process before it has one (N)
    a text                         the same prefix without the log's own stamp (uvicorn)
    = text      ! text             as it is, to stdout, to stderr
    ?eager ...  ?!eager ...        only if the flag is set, or not set
    -- kv_none kv_too_small        a start that fails so prints no further; `-- *` is every other kind

`[failure KIND]` says whose failure it is (`in`), at which phase (`at`), the chunks of its traceback
(`frames`) and its last lines (`text`); `[frames NAME]` holds a chunk, a frame a line: file:line | function | source |
what is underlined. Texts are templates of str.format, frames are not.
"""

from __future__ import annotations

import os
import time

from .record import ScenarioError
from .release import texts_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

STDOUT, STDERR = 1, 2
ROLES = {"a": "api", "e": "core", "w": "worker", "s": "starting", "n": "nameless"}
RANKED = ("worker", "starting")


class Texts:
    """The sections of one version's data file, or of the nearest one that has texts, with this one's number."""

    def __init__(self, version: str) -> None:
        self.version = version
        nearest = texts_of(version)
        path = f"{os.path.dirname(os.path.abspath(__file__))}/data/{nearest}.txt"  # noqa: PTH100, PTH120
        self.sections: dict[str, list[str]] = {}
        lines: list[str] = []
        with open(path, encoding="utf-8") as file:  # noqa: PTH123  pathlib costs 5 ms of the start
            for line in file.read().replace(nearest, version).split("\n"):
                if line.startswith("[") and line.endswith("]"):
                    lines = self.sections.setdefault(line[1:-1], [])
                elif line and not line.startswith("#"):
                    lines.append(line)
        self.style = dict(_pair(line) for line in self.sections["style"])

    def kinds(self) -> tuple[str, ...]:
        """Give the failures that this version has texts for."""
        return tuple(
            name[8:]
            for name, lines in self.sections.items()
            if name.startswith("failure ") and any(line.startswith("in:") for line in lines)
        )

    def failure(self, kind: str, flags: frozenset[str]) -> dict[str, list[str]]:
        """Give the entries of a failure, each a list; one for a flag that is set replaces the plain one."""
        plain: dict[str, list[str]] = {}
        special: dict[str, list[str]] = {}
        if f"failure {kind}" not in self.sections:
            raise ScenarioError(f"vLLM {self.version} has no text for {kind}; it has {', '.join(self.kinds())}")
        for line in self.sections[f"failure {kind}"]:
            name, value = _pair(line)
            name, mark, flag = name.partition("?")
            if not mark:
                plain.setdefault(name, []).append(value)
            elif flag in flags:
                special.setdefault(name, []).append(value)
        return {**plain, **special}

    def traceback(self, chunks: Sequence[str], since: str = "") -> list[str]:
        """Give the frames of the named chunks as Python prints them, from the first that holds `since`."""
        lines: list[str] = []
        frames = [line for chunk in chunks for line in self.sections[f"frames {chunk}"]]
        first = next((n for n, line in enumerate(frames) if since in line), 0)
        for line in frames[first:]:
            place, function, source, marked = (*(part.strip() for part in line.split(" | ")), "", "")[:4]
            path, _, number = place.rpartition(":")
            lines.append(f'  File "{self._path(path)}", line {number}, in {function}')
            if source:
                lines.append(f"    {source}")
            if marked:
                lines.append(" " * (4 + source.index(marked)) + "^" * len(marked))
        return lines

    def _path(self, path: str) -> str:
        if path.startswith("std:"):
            return self.style["std"] + path[4:]
        return path if path.startswith(("<", "uvloop/loop.pyx")) else self.style["site"] + path


def _pair(line: str) -> tuple[str, str]:
    name, _, value = line.partition(":")
    return name, value[1:] if value.startswith(" ") else value


class Speech:
    """One start's way of saying things: the texts filled in with its values, pids and ranks."""

    def __init__(self, texts: Texts, values: Mapping[str, object], flags: frozenset[str], ranks: int) -> None:
        self.texts = texts
        self.values = dict(values)
        self.flags = flags
        self.ranks = ranks

    def phase(self, name: str, kind: str = "") -> list[tuple[int, str]]:
        """Give (stream, line) of a phase, up to where a start that fails with `kind` stops."""
        said: list[tuple[int, str]] = []
        lines = self.texts.sections.get(f"phase {name}", [])
        for line in lines:
            if line.startswith("--"):
                if kind and (kind in line.split() or ("*" in line.split() and not _stops(lines, kind))):
                    break
                continue
            said += self.line(line)
        return said

    def line(self, template: str) -> list[tuple[int, str]]:
        """Give one template's lines: none if its flag does not hold, one per rank for the workers."""
        if template.startswith("?"):
            flag, _, template = template[1:].partition(" ")
            if flag.startswith("!") == (flag.lstrip("!") in self.flags):
                return []
        who, _, rest = template.partition(" ")
        if who in "=!":
            return [(STDERR if who == "!" else STDOUT, self.fill(rest))]
        if who.islower():
            return [(STDOUT, self.prefix(ROLES[who]) + self.fill(rest))]
        level, _, rest = rest.partition(" ")
        source, _, text = rest.partition("|")
        role = ROLES[who.lower()]
        count = self.ranks if role in RANKED else 1
        return [(STDOUT, self.logged(role, level, source.strip(), text, rank)) for rank in range(count)]

    def logged(self, role: str, level: str, source: str, text: str, rank: int = 0) -> str:
        """Give one log line of a process."""
        now = time.localtime()
        return self.prefix(role, rank) + self.texts.style["stamp"].format(
            level=level,
            date=time.strftime("%m-%d", now),
            time=time.strftime("%H:%M:%S", now),
            source=source,
            text=self.fill(text, rank),
        )

    def prefix(self, role: str, rank: int = 0) -> str:
        """Give the prefix of a process; a single worker lives in the engine core where the style says so.

        With `driver` in the style that rank's worker does so always; what has no style has no prefix.
        """
        style = self.texts.style
        if role in RANKED and style["single"] and (self.ranks == 1 or style.get("driver") == str(rank)):
            role = style["single"]
        return self.fill(style.get(role, ""), rank)

    def fill(self, text: str, rank: int = 0) -> str:
        """Fill in a template."""
        if "{" not in text:
            return text
        worker = int(str(self.values["core_pid"])) + 1 + rank
        return text.format_map({**self.values, "rank": rank, "worker_pid": worker})


def _stops(lines: Sequence[str], kind: str) -> bool:
    """Whether a stop of this phase names the kind."""
    return any(kind in line.split() for line in lines if line.startswith("--"))
