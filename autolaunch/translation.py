"""Engine options in the spelling of the engine at hand: what an old command line says still holds on a new vLLM.

Owns what is done about an option that a release does not take: it is left out where that changes nothing, written anew
where the same can be said, and refused where either would change what was meant. Every change is said in a line. An
option of which nothing is known passes through, one that is a slip of a known one is refused where the table has the
release.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

from autolaunch.arguments import Given, engine_options, flag_state, given, walk
from autolaunch.engine_changes import Change, changes
from autolaunch.errors import WishError
from autolaunch.releases import Span, Version, parse_version, releases
from autolaunch.side_by_side import beside, without

NEAR = 0.85
"""How alike two options must be to take one for a slip of the other."""


@dataclass(frozen=True, slots=True)
class Translated:
    """Engine tokens that a release takes, and a line for each option that was changed."""

    tokens: tuple[str, ...]
    said: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Release:
    """The engine's version, as it is written and as numbers."""

    text: str
    version: Version

    def takes(self, name: str) -> bool:
        """Whether it has an option."""
        span = releases().options.get(name)
        return span is not None and span.holds(self.version)


def translate(
    tokens: Sequence[str], *, version: str | None, lenient: bool = False, others: Sequence[str] = ()
) -> Translated:
    """Return engine tokens as the release `version` takes them; unchanged where that is no known version.

    `others` are further tokens that the engine gets. Raises `WishError` for an option whose meaning the release has no
    words for, for one that contradicts its other spelling, and, unless it is `lenient`, for a slip where the table
    knows all options of the release.
    """
    numbers = parse_version(version or "")
    if numbers is None:
        return Translated(tuple(tokens))
    release = Release(str(version), numbers)
    options = given((*tokens, *others))
    made: list[str] = []
    said: list[str] = []
    index = 0
    for begin, end, option in walk(tokens):
        made += tokens[index:begin]
        words, why = _meant(option, release, options, lenient=lenient)
        made += words
        said += [why] if why else []
        index = end
    return Translated((*made, *tokens[index:]), tuple(dict.fromkeys(said)))


def _meant(option: Given, release: Release, options: Sequence[Given], *, lenient: bool) -> tuple[Sequence[str], str]:
    """Return the tokens for one option and what is to be said of them, "" where they are the user's own."""
    name, state = flag_state(option)
    span = releases().options.get(name)
    if span is None or "." in option.tokens[0].split("=", 1)[0]:
        return option.tokens, _passed_on(option, name, release, lenient=lenient)
    gone, not_yet = changes()
    if span.after(release.version):
        return _changed(option, gone[name], options, _Place(release, name, state, span))
    if span.before(release.version):
        change = not_yet.get(name, Change())
        return _changed(option, change, options, _Place(release, name, state, span))
    for change in filter(None, (gone.get(name), not_yet.get(name))):
        _refuse_opposite(option, change, options)
    return _spelled(option, name, state, release)


def _passed_on(option: Given, name: str, release: Release, *, lenient: bool) -> str:
    """Return what is to be said of an option that the table does not have."""
    slip = _slip(option, name)
    if slip and not lenient and releases().cover(release.text):
        raise WishError(slip[0], hint=f"{slip[1]} --try-anyway starts with it nevertheless")
    return f"{': '.join(slip)} It is passed on as it is" if slip else ""


def _refuse_opposite(option: Given, change: Change, options: Sequence[Given]) -> None:
    """Raise `WishError` where an option that the release takes contradicts another spelling of the same."""
    opposed = beside(change, option, options).opposed
    if opposed is not None:
        typed, other = " ".join(option.tokens), " ".join(opposed.tokens)
        raise WishError(f"{typed} and {other} contradict each other", hint=f"keep {other}, drop {typed}")


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


def _changed(option: Given, change: Change, options: Sequence[Given], place: _Place) -> tuple[Sequence[str], str]:
    typed = " ".join(option.tokens)
    others = beside(change, option, options)
    if others.opposed is not None:
        other = " ".join(others.opposed.tokens)
        raise WishError(f"{place.when}, and {other} beside it says otherwise", hint=f"keep {other}, drop {typed}")
    words = _words(option, change, place)
    if words is None:
        raise WishError(place.when, hint=change.help(option) or _leave_out(place))
    more = without(words, others.same)
    if more:
        needs = change.needs and f", {change.needs}"
        return more, f"{place.when}: {' '.join(more)} is given instead of {typed}{needs}"
    if others.same:
        return (), f"{place.when}: {typed} is left out, {' '.join(others.same[0].tokens)} says the same"
    return (), f"{place.when}: {typed} is left out{f', {change.dropped}' if change.dropped else ''}"


def _words(option: Given, change: Change, place: _Place) -> tuple[str, ...] | None:
    """Return the words that say the same and that the release takes, () for none, None where there are none that do."""
    words = change.words(option, place.state)
    if words is None or all(place.release.takes(_name(word)) for word in words if word.startswith("--")):
        return words
    return () if change.becomes and change.dropped and place.state is not False else None


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
        name, state = flag_state(option)
        span = releases().options.get(name)
        if span is not None and numbers is not None and not span.holds(numbers):
            said.append(f"{_Place(Release(str(version), numbers), name, state, span).when}: leave it out.")
        elif span is not None:
            until = f" to the one before {span.gone}" if span.gone else ""
            said.append(f"--{name} is an option of vLLM from {span.since}{until}: this engine is another release.")
        else:
            slip = ": ".join(_slip(option, name))
            said.append(slip or f"No vLLM up to {releases().newest} has {option.tokens[0]}: leave it out.")
    return tuple(said) or ("The engine got a word that it cannot place: leave it out.",)


# --- flags, which were written in three ways


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


def _slip(option: Given, name: str) -> tuple[str, str] | tuple[()]:
    """Return what is said of an option that no release has but that is nearly one, and which; () for any other."""
    if name in engine_options().arity or not option.tokens[0].startswith("--") or "." in option.tokens[0]:
        return ()
    near = difflib.get_close_matches(name, releases().options, n=1, cutoff=NEAR)
    if not near or any(known.startswith(name) for known in releases().options):
        return ()
    return f"no vLLM up to {releases().newest} has --{name}", f"did you mean --{near[0]}?"
