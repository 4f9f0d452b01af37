"""Which release of vLLM's server took which option.

Owns the reading of engine_releases.toml, which was read from the sources of every release (scripts/engine-options).
Says nothing of what an option means; what becomes of one that a release does not take is `translation`'s.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from autolaunch.tables import shipped_table

_VERSION = re.compile(
    r"v?(\d+)\.(\d+)(?:\.(\d+))?(?:(?:a|b|rc)\d+)?(?:\.post(\d+))?(?:\.dev\d+)?(?:\+[\w.]+|-(?:cu|cpu|rocm)\w*)?"
)

Version = tuple[int, int, int, int]
"""Major, minor and patch number, and the number of a post-release."""


def parse_version(text: str) -> Version | None:
    """Return the numbers of a vLLM version such as 0.8.5.post1 or 0.24.1.dev3+gabc; None for what is no version."""
    found = _VERSION.fullmatch(text.strip())
    if found is None:
        return None
    major, minor, patch, post = (int(number or 0) for number in found.groups())
    return major, minor, patch, post


@dataclass(frozen=True, slots=True)
class Span:
    """The releases that take something: from `since` on, up to the one before `gone` where it went again.

    `first` says that it was there in the oldest release that was read.
    """

    since: str
    gone: str | None = None
    first: bool = False

    def holds(self, version: Version) -> bool:
        """Whether a release is among them; one before the oldest counts as the oldest."""
        return not self.before(version) and not self.after(version)

    def before(self, version: Version) -> bool:
        """Whether a release came before them."""
        return not self.first and version < _known(self.since)

    def after(self, version: Version) -> bool:
        """Whether a release came after them."""
        return self.gone is not None and version >= _known(self.gone)


@dataclass(frozen=True, slots=True)
class Releases:
    """Options by canonical name; those with a `--no-...` twin; those that may be followed by `true` or `false`.

    `oldest` and `newest` are the first and the last release that was read.
    """

    options: Mapping[str, Span]
    twins: Mapping[str, Span]
    switches: Mapping[str, Span]
    oldest: str
    newest: str

    def cover(self, text: str) -> bool:
        """Whether all options of this version are among them: it is a release, and not one after the newest."""
        version = parse_version(text)
        return version is not None and ".dev" not in text and _known(self.oldest) <= version <= _known(self.newest)


@lru_cache(maxsize=1)
def releases() -> Releases:
    """Load the table that ships with the package."""
    table = shipped_table("engine_releases.toml")
    oldest = table["oldest"]
    options, twins, switches = (_spans(table[key], oldest) for key in ("option", "twin", "switch"))
    return Releases(options, twins, switches, oldest, table["newest"])


def _spans(table: Mapping[str, Any], oldest: str) -> dict[str, Span]:
    gone = {name: version for version, names in table["gone"].items() for name in names}
    since = table["since"]
    return {name: Span(v, gone.get(name), v == oldest) for v, names in since.items() for name in names}


def _known(text: str) -> Version:
    version = parse_version(text)
    assert version is not None, text
    return version
