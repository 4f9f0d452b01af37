"""Two spellings of one thing on one command line: whether they say the same or contradict each other.

Pure. Owns the comparison of an old option with the new ones beside it; the table of which belong together is
engine_changes.toml, what follows is `translation`'s.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from autolaunch.arguments import Given, flag_state, given
from autolaunch.engine_changes import Change

Said = tuple[tuple[str, ...], bool | None]
"""What an option says: its values, and whether a flag is on."""


@dataclass(frozen=True, slots=True)
class Beside:
    """The user's own options that stand beside an old one: those that say `same`, and the first that is `opposed`."""

    same: tuple[Given, ...] = ()
    opposed: Given | None = None


def beside(change: Change, old: Given, options: Iterable[Given]) -> Beside:
    """Return what the user's `options` say of the thing that an `old` one is about, as its change has it.

    The last one of a name counts, as it does for vLLM. A value for one key of a JSON option (`--x.key`) contradicts
    another value for this key, and the whole of it.
    """
    _, state = flag_state(old)
    words = change.words(old, state)
    affirmed = _read(words or ())
    denied = {} if words else _read(change.becomes if state is False else change.off)
    same: list[Given] = []
    last = {_key(option): option for option in options if flag_state(option)[0] in change.against}
    for key, option in last.items():
        said = _said(option)
        whole = "." not in key and any(name.startswith(key + ".") for name in affirmed)
        if whole or (key in affirmed and said != affirmed[key]) or (key in denied and said == denied[key]):
            return Beside(opposed=option)
        if key in affirmed or (key in denied and said[1] is not None):
            same.append(option)
    return Beside(tuple(same))


def without(words: Iterable[str], said: Iterable[Given]) -> tuple[str, ...]:
    """Return words less the options that are said already."""
    keys = {_key(option) for option in said}
    return tuple(token for option in given(words) if _key(option) not in keys for token in option.tokens)


def _read(words: Iterable[str]) -> Mapping[str, Said]:
    return {_key(option): _said(option) for option in given(words)}


def _said(option: Given) -> Said:
    state = flag_state(option)[1]
    return (() if state is not None else option.values), state


def _key(option: Given) -> str:
    """Return an option's name without `no-`, with the key of a JSON option that it gives (`--x.key`)."""
    return ".".join((flag_state(option)[0], *option.tokens[0].split("=", 1)[0].split(".")[1:]))
