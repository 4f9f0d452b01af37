"""What became of engine options that some release of vLLM does not take: the reading of engine_changes.toml.

Owns the forms of a change and the words that one gives for an option. Which release takes what is `releases`', what is
done about it is `translation`'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from autolaunch.arguments import Given
from autolaunch.tables import shipped_table

Words = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Change:
    """What becomes of one option: see engine_changes.toml."""

    dropped: str = ""
    becomes: Words = ()
    by_value: Mapping[str, Words] = field(default_factory=dict)
    behind_colon: Mapping[str, Words] = field(default_factory=dict)
    instead: str = ""
    advice: str = ""
    off: Words = ()
    against: Words = ()
    needs: str = ""

    def words(self, option: Given, state: bool | None) -> Words | None:
        """Return the words that say the same, () for none, None where there are none that do.

        `state` is whether a flag is on, None for an option with values.
        """
        if state is False:
            return self.off
        if self.by_value:
            return self.by_value.get(option.value)
        if self.becomes and self.behind_colon:
            return self._parted(option.value)
        if self.becomes:
            return tuple(word for given in self.becomes for word in _filled(given, option))
        return () if self.dropped else None

    def _parted(self, value: str) -> Words | None:
        value, colon, rest = value.partition(":")
        words = [word.replace("{value}", value) for word in self.becomes]
        for part in rest.strip().split(",") if colon else ():
            if part not in self.behind_colon:
                return None
            words += self.behind_colon[part]
        return tuple(words)

    def help(self, option: Given) -> str:
        """Return what to do about an option that has no words, "" where nothing is known but to leave it out."""
        if self.instead:
            return "write instead: " + self.instead.replace("{value}", option.value)
        if self.advice:
            return self.advice.replace("{value}", option.value)
        known = self.by_value or (self.behind_colon if ":" in option.value else {})
        return f"give one of {', '.join(known)}, or leave it out" if known else ""


@lru_cache(maxsize=1)
def changes() -> tuple[Mapping[str, Change], Mapping[str, Change]]:
    """Load the options that went, and those that are not there yet, with what becomes of each."""
    table = shipped_table("engine_changes.toml")
    before = table.pop("before")
    return {name: _change(entry) for name, entry in table.items()}, {name: _change(e) for name, e in before.items()}


def _change(entry: Mapping[str, Any]) -> Change:
    return Change(
        dropped=entry.get("dropped", ""),
        becomes=tuple(entry.get("becomes", ())),
        by_value={old: tuple(words) for old, words in entry.get("by_value", {}).items()},
        behind_colon={part: tuple(words) for part, words in entry.get("behind_colon", {}).items()},
        instead=entry.get("instead", ""),
        advice=entry.get("advice", ""),
        off=tuple(entry.get("off", ())),
        against=tuple(entry.get("against", ())),
        needs=entry.get("needs", ""),
    )


def _filled(word: str, option: Given) -> Words:
    return option.values if word == "{values}" else (word.replace("{value}", option.value),)
