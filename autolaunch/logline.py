"""One raw line of engine output, taken apart: who printed it, at which level, and what it says.

Owns log prefixes (vLLM's own, torch's, journald, docker, kubernetes, compose, quoting). Must not know causes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

HEAD = 6144
TAIL = 2048
"""A longer line keeps its first HEAD and last TAIL characters: the text may stand at its end."""

_ANSI = re.compile(r"#033\[[0-9;]{0,10}m|\x1b(?:\[[0-9;?]{0,30}[A-Za-z]|\][^\x07\x1b]{0,200}\x07)|\\x1b\[[0-9;]{0,10}m")
_PREFIX = re.compile(
    r"""
      \s+
    | [`"'*>|\u2502\u2503]+
    | [-\#\u2022]\s
    | \{"log":"
    | (?P<stamp>\[?\d{4}[-/]\d\d[-/]\d\d[T ,]{1,2}\d\d:\d\d:\d\d(?:[.,]\d{1,9})?(?:Z|[ ]?[+-]\d\d:?\d\d)?\]?:?)
    | \[?\d\d:\d\d:\d\d(?:[.,]\d{1,9})?\]?(?=\s)
    | std(?:out|err)\ [FP]\s
    | [A-Z][a-z]{2}\ [ \d]\d\ \d\d:\d\d:\d\d\ [\w.-]{1,80}\ [\w.@/-]{1,80}(?:\[\d{1,9}\])?:
    | [\w./-]{1,80}\ {1,40}\|\s
    | vLLM\ STD(?:OUT|ERR):
    | \(Process\)
    | \[Stage-\d{1,4}\]
    | \((?P<who>[\w.:/=,\ -]{1,60}?)\ ?pid=(?P<pid>\d{1,10})(?:,\ ip=[\w.:]{1,60})?\)
    | \[(?:rank|default)?\d{1,4}\]:
    | \[(?P<torch>[EWIF])\d{2,4}\ [\d:.]{4,24}\ [\w./+-]{1,80}:\d{1,6}\]
    | (?P<level>ERROR|INFO|WARNING|CRITICAL|DEBUG|WARN)\ \d\d-\d\d\ \d\d:\d\d:\d\d(?:\.\d{1,6})?
        (?:\ \[?(?P<file>[\w./-]{1,120}):\d{1,6}\]?)?
    | (?:ERROR|INFO|WARNING|DEFAULT)\ (?=\d{4}-\d\d-\d\dT) | \[resource\.labels[^\]]{1,120}\]  # Google Cloud's own
    | (?P<plain>ERROR|INFO|WARNING|CRITICAL|DEBUG)(?::(?=\s)|(?=\s))
    | \S{1,80}:\d{1,9}:\d{1,9}\ \[\d{1,3}\]\ NCCL\ (?P<nccl>INFO)\b
    | //\s | \u2192\s                                                # comments and arrows of notes
    | \[(?P<bracket>ERROR|INFO|WARNING|CRITICAL|DEBUG)\]
    | \[(?:Error|Info|Warn|Warning|Debug|INFO\ |WARN\ |ERROR)\ ?\]  # a launcher's own opinion of the line
    | [a-z0-9]{10,20}\[(?:info|error|warning)\]                        # RunPod's
    | -\ [\w.]{1,60}\ -\ (?:INFO|ERROR|DEBUG|WARNING)\ -
    | W-\d{1,6}-[\w.-]{1,60}\ MODEL_LOG\ -
    | [\w./-]{1,120}:(?=\()
    """,
    re.VERBOSE,
)
_MAX_PREFIXES = 16


@dataclass(frozen=True, slots=True)
class LogLine:
    """`text` has no prefix; `who` is the process's own name ("EngineCore_DP0"), empty if it gave none."""

    text: str
    low: str
    who: str = ""
    pid: str = ""
    level: str = ""
    file: str = ""

    @property
    def calm(self) -> bool:
        """Whether the engine itself says that this is no error."""
        return self.level in {"INFO", "DEBUG", "WARNING", "WARN", "I", "W"}


def shorten(line: str) -> str:
    """Return `line` bounded to HEAD + TAIL characters."""
    return line if len(line) <= HEAD + TAIL else line[:HEAD] + " ... " + line[-TAIL:]


def plain(line: str) -> str:
    """Return `line` without NULs, colour codes and the quoting of JSON."""
    if "\0" in line:
        line = line.replace("\0", "")
    if "\x1b" in line or "\\x1b" in line or "#033" in line:  # the last is rsyslog's spelling
        line = _ANSI.sub("", line)
    if '\\"' in line:  # a line inside JSON, as docker and loggers keep it
        line = line.replace('\\"', '"')
    return line


def parse(line: str) -> LogLine:
    """Take one line without its newline apart; any text is accepted."""
    line = plain(line)
    found = {"who": "", "pid": "", "level": "", "file": ""}
    position = 0
    for _ in range(_MAX_PREFIXES):
        match = _PREFIX.match(line, position)
        if match is None or match.end() == position:
            break
        position = match.end()
        if match["who"]:
            found["who"], found["pid"] = match["who"], match["pid"]
        level = match["level"] or match["plain"] or match["bracket"] or match["torch"] or match["nccl"]
        if level:
            found["level"], found["file"] = level.upper(), match["file"] or ""
    text = line[position:].rstrip(" \t\r`")
    return LogLine(text=text, low=text.lower(), **found)
