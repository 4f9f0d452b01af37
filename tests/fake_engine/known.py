"""Which options a release takes: autolaunch's table of them (engine_releases.toml), read as the data that it is. Pure.

The table was read from the sources by scripts/engine-options. It is parsed by hand: tomllib is not in Python 3.10, and
the fake engine runs without site-packages.
"""

from __future__ import annotations

import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

TABLE = "autolaunch/engine_releases.toml"


def taken(version: str) -> frozenset[str]:
    """Give the long options of a release, without dashes in front; `no-` twins included."""
    with open(f"{__file__.rpartition('/tests/')[0]}/{TABLE}", encoding="utf-8") as file:  # noqa: PTH123
        text = file.read()
    now = _numbers(version)
    gone = {(kind, name) for kind, _, since, name in _entries(text, "gone") if _numbers(since) <= now}
    there = {
        (kind, name)
        for kind, first, since, name in _entries(text, "since")
        if (first or _numbers(since) <= now) and (kind, name) not in gone
    }
    return frozenset(name if kind == "option" else f"no-{name}" for kind, name in there if kind != "switch")


def _entries(text: str, wanted: str) -> Iterator[tuple[str, bool, str, str]]:
    """Yield kind, whether it is the oldest release of the table, the release, and the option's name."""
    found = re.search(r'^oldest = "(.*)"', text, re.MULTILINE)
    oldest = found[1] if found else ""
    for section in re.split(r"^\[", text, flags=re.MULTILINE)[1:]:
        kind, _, when = section.partition("]")[0].partition(".")
        if when == wanted:
            for version, names in re.findall(r'^"([^"]+)" = \[(.*?)\]', section, re.MULTILINE | re.DOTALL):
                for name in re.findall(r'"([^"]+)"', names):
                    yield kind, version == oldest, version, name


def _numbers(version: str) -> tuple[int, ...]:
    numbers = [int(number) for number in re.findall(r"\d+", version)]
    return (*numbers, 0, 0, 0, 0)[:4]
