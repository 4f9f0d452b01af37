"""Engine options in the spelling of the engine at hand: what an old command line says still holds on a new vLLM.

Owns the reading of engine_changes.toml and what becomes of an option that a release does not take: it is left out where
that changes nothing, written anew where the same can be said, and refused where either would change what was meant.
Every change is said in a line. An option of which nothing is known passes through.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from autolaunch.arguments import Arity, Given, engine_options, given, walk
from autolaunch.errors import WishError
from autolaunch.releases import Span, Version, parse_version, releases
from autolaunch.tables import shipped_table

NEAR = 0.85
"""How alike two options must be to take one for a slip of the other."""


@dataclass(frozen=True, slots=True)
class Translated:
    """Engine tokens that a release takes, and a line for each option that was changed."""

    tokens: tuple[str, ...]
    said: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Change:
    """What becomes of one option: see engine_changes.toml."""

    dropped: str = ""
    becomes: tuple[str, ...] = ()
    by_value: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    instead: str = ""
    off: tuple[str, ...] = ()
    against: tuple[str, ...] = ()
    needs: str = ""


@dataclass(frozen=True, slots=True)
class Release:
    """The engine's version, as it is written and as numbers."""

    text: str
    version: Version

    def takes(self, name: str) -> bool:
        """Whether it has an option."""
        span = releases().options.get(name)
        return span is not None and span.holds(self.version)


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
        instead=entry.get("instead", ""),
        off=tuple(entry.get("off", ())),
        against=tuple(entry.get("against", ())),
        needs=entry.get("needs", ""),
    )


def translate(tokens: Sequence[str], *, version: str | None) -> Translated:
    """Return engine tokens as the release `version` takes them; unchanged where that is no known version.

    Raises `WishError` for an option whose meaning the release has no words for, and for one that stands beside its
    new spelling.
    """
    numbers = parse_version(version or "")
    if numbers is None:
        return Translated(tuple(tokens))
    release = Release(str(version), numbers)
    names = frozenset(option.name for option in given(tokens))
    made: list[str] = []
    said: list[str] = []
    index = 0
    for begin, end, option in walk(tokens):
        made += tokens[index:begin]
        words, why = _meant(option, release, names)
        made += words
        said += [why] if why else []
        index = end
    return Translated((*made, *tokens[index:]), tuple(dict.fromkeys(said)))


def _meant(option: Given, release: Release, names: frozenset[str]) -> tuple[Sequence[str], str]:
    """Return the tokens for one option and what is to be said of them, "" where they are the user's own."""
    name, state = _state(option)
    span = releases().options.get(name)
    if span is None or "." in option.tokens[0].split("=", 1)[0]:
        slip = _slip(option, name)
        return option.tokens, f"{slip} It is passed on as it is" if slip else ""
    gone, not_yet = changes()
    if span.after(release.version):
        return _changed(option, gone[name], names, _Place(release, name, state, span))
    if span.before(release.version):
        change = not_yet.get(name, Change())
        return _changed(option, change, names, _Place(release, name, state, span))
    return _spelled(option, name, state, release)


@dataclass(frozen=True, slots=True)
class _Place:
    """One option and the release that does not take it; `state` is whether a flag is on, None for another option."""

    release: Release
    name: str
    state: bool | None
    span: Span

    @property
    def when(self) -> str:
        """Since or until when it is not there."""
        if self.span.after(self.release.version):
            return f"vLLM {self.release.text} has no --{self.name} any more (it went with {self.span.gone})"
        return f"vLLM {self.release.text} has no --{self.name} yet (it came with {self.span.since})"


def _changed(option: Given, change: Change, names: frozenset[str], place: _Place) -> tuple[Sequence[str], str]:
    typed = " ".join(option.tokens)
    other = next((word for name in change.against for word in (name, f"no-{name}") if word in names), None)
    if other is not None and other.startswith("no-") and place.state and change.off:
        return (), f"{place.when}: {typed} is left out, --{other} says the same"
    if other is not None:
        raise WishError(f"{place.when}, and --{other} stands beside it", hint=f"keep --{other}, drop {typed}")
    words = _words(option, change, place)
    if words is None or not all(place.release.takes(_name(word)) for word in words if word.startswith("--")):
        hint = change.instead.replace("{value}", option.value)
        raise WishError(place.when, hint=f"write instead: {hint}" if hint else _leave_out(place))
    if words:
        return (
            words,
            f"{place.when}: {' '.join(words)} is given instead of {typed}{change.needs and f', {change.needs}'}",
        )
    return (), f"{place.when}: {typed} is left out{f', {change.dropped}' if change.dropped else ''}"


def _words(option: Given, change: Change, place: _Place) -> tuple[str, ...] | None:
    """Return the words that say the same, () for none, None where there are none that do."""
    if place.state is False:
        return change.off
    if change.by_value:
        return change.by_value.get(option.value)
    if change.becomes:
        return tuple(word for given in change.becomes for word in _filled(given, option))
    return () if change.dropped else None


def _filled(word: str, option: Given) -> tuple[str, ...]:
    return option.values if word == "{values}" else (word.replace("{value}", option.value),)


def _name(word: str) -> str:
    return word[2:].split(".", 1)[0].replace("_", "-")


def _leave_out(place: _Place) -> str:
    if place.span.before(place.release.version):
        return (
            f"leave it out, or use a vLLM from {place.span.since} on; --engine-version says what a fork is built from"
        )
    return "leave it out"


def unrecognized(tokens: Sequence[str], *, version: str | None) -> tuple[str, ...]:
    """Return what is to be done about each of the arguments that an engine of some version did not recognize."""
    numbers = parse_version(version or "")
    said = []
    for option in given(tokens):
        name, state = _state(option)
        span = releases().options.get(name)
        if span is not None and numbers is not None and not span.holds(numbers):
            said.append(f"{_Place(Release(str(version), numbers), name, state, span).when}: leave it out.")
        elif span is not None:
            until = f" to the one before {span.gone}" if span.gone else ""
            said.append(f"--{name} is an option of vLLM from {span.since}{until}: this engine is another release.")
        else:
            said.append(
                _slip(option, name) or f"No vLLM up to {releases().newest} has {option.tokens[0]}: leave it out."
            )
    return tuple(said) or ("The engine got a word that it cannot place: leave it out.",)


# --- flags, which were written in three ways


def _state(option: Given) -> tuple[str, bool | None]:
    """Return an option's name without `no-`, and whether it is switched on; None for an option with values."""
    options = engine_options().arity
    if options.get(option.name) not in (Arity.NONE, Arity.SWITCH):
        return option.name, None
    if option.name.startswith("no-") and option.name[3:] in options:
        return option.name[3:], False
    value = option.value.lower()
    return option.name, None if value not in ("", "true", "false") else value != "false"


def _spelled(option: Given, name: str, state: bool | None, release: Release) -> tuple[Sequence[str], str]:
    """Return a flag in a way that the release reads: `--x`, `--no-x` or `--x=false`."""
    table = releases()
    twin, switch = (name in some and some[name].holds(release.version) for some in (table.twins, table.switches))
    bare, negative = not option.values, option.name != name
    if state is None or (bare and (state or twin)) or (switch and not negative):
        return option.tokens, ""
    typed = " ".join(option.tokens)
    if not state and not twin and not switch:
        return (), f"vLLM {release.text} has no word against --{name}, which is off: {typed} is left out"
    word = f"--{name}" if state else f"--no-{name}" if twin else f"--{name}=false"
    return (word,), f"vLLM {release.text} writes {typed} as {word}"


def _slip(option: Given, name: str) -> str:
    """Return a word about an option that no release has but that is nearly one, "" for any other."""
    if name in engine_options().arity or not option.tokens[0].startswith("--") or "." in option.tokens[0]:
        return ""
    near = difflib.get_close_matches(name, releases().options, n=1, cutoff=NEAR)
    if not near or any(known.startswith(name) for known in releases().options):
        return ""
    return f"no vLLM up to {releases().newest} has --{name}: did you mean --{near[0]}?"
