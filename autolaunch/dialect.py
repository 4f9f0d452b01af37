"""What a family of models needs of the engine beyond memory: chat template, tool parser, defaults of a request.

Owns `dialects.toml`, and which of it a release of vLLM is given beside the user's own options. Runs nothing; the files
that it names lie in `engine_side`, and the engine reads them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from autolaunch.arguments import Given, flag_state, given
from autolaunch.releases import parse_version, releases
from autolaunch.tables import shipped_table

FOLDER = Path(__file__).with_name("engine_side")
"""Where the files lie that an engine reads; one in a container has to see it at the same place."""

_ELSEWHERE = frozenset({"docker", "podman", "nerdctl", "kubectl", "ssh"})
"""Commands behind which an engine has another file system than ours."""


@dataclass(frozen=True, slots=True)
class Offer:
    """Options that belong together: see dialects.toml."""

    words: tuple[str, ...]
    unless: frozenset[str] = frozenset()
    files: bool = False
    without: str = ""

    @property
    def options(self) -> tuple[Given, ...]:
        """Its words as options."""
        return given(self.words)


@dataclass(frozen=True, slots=True)
class Dialect:
    """A family's title, the names that its clients send, how its own template begins, and what it is offered."""

    title: str
    names: tuple[str, ...]
    template: str
    offers: tuple[Offer, ...]


@dataclass(frozen=True, slots=True)
class Fitted:
    """Words for an engine's command line, and what has to be said of those that it does not get."""

    words: tuple[str, ...] = ()
    said: tuple[str, ...] = ()


@lru_cache(maxsize=1)
def dialects() -> Mapping[str, Dialect]:
    """Load the dialects that ship with the package."""
    tables = shipped_table("dialects.toml")
    return {name: _dialect(table) for name, table in tables.items()}


def _dialect(table: Mapping[str, Any]) -> Dialect:
    offers = tuple(map(_offer, table["offer"]))
    return Dialect(table["title"], tuple(table["names"]), table["template"], offers)


def _offer(table: Mapping[str, Any]) -> Offer:
    words = tuple(word.replace("{folder}", str(FOLDER)) for word in table["words"])
    rest = {key: table[key] for key in ("files", "without") if key in table}
    return Offer(words, unless=frozenset(table.get("unless", ())), **rest)


def dialect_of(template: str) -> str:
    """Return the dialect of a model's own chat template, "" for none of these."""
    return next((name for name, one in dialects().items() if template.startswith(one.template)), "")


def names_for(dialect: str, *own: str) -> tuple[str, ...]:
    """Return the names to serve a model under: those that a dialect's clients send, then its own, each once."""
    known = dialects()[dialect].names if dialect else ()
    return tuple(dict.fromkeys((*known, *own)))


def fit(dialect: str, *, options: Iterable[Given], version: str | None, sees: bool = True) -> Fitted:
    """Return what of a dialect an engine is given beside the user's `options`, which win; a flag may be given by both.

    `version` is the engine's; one that is not known gets nothing, since it would not start with an option that it does
    not take. `sees` says whether the engine can read our files.
    """
    if not dialect:
        return Fitted()
    one, users = dialects()[dialect], {option.name.removeprefix("no-"): option for option in options}
    words: list[str] = []
    missing: dict[str, list[str]] = {}
    for offer in one.offers:
        why = _refusal(offer, users, version, sees=sees)
        if not why:
            words += (word for option in offer.options if option.name not in users for word in option.tokens)
        elif offer.without:
            missing.setdefault(why, []).append(f"{offer.words[0]}, {offer.without}")
    said = (f"{why}: {one.title} goes without {'; without '.join(each)}" for why, each in missing.items())
    return Fitted(tuple(words), tuple(said))


def _refusal(offer: Offer, users: Mapping[str, Given], version: str | None, *, sees: bool) -> str:
    """Return why an engine does not get an offer, "" where it does."""
    flags = {option.name for option in offer.options if not option.values}
    own = [option.name for option in offer.options]
    taken = [name for name in own if name in users and not (name in flags and users[name].name == name)]
    taken += [name for name in sorted(offer.unless) if name in users and flag_state(users[name])[1] is not False]
    if taken:
        return f"{users[taken[0]].tokens[0].split('=')[0]} is yours"
    now = parse_version(version or "")
    if now is None:
        return "the engine's version is not known (--engine-version says it)"
    for option in offer.options:
        span = releases().options[option.name]
        if span.before(now):
            return f"vLLM {version} has no --{option.name} yet (it came with {span.since})"
        if span.after(now):
            return f"vLLM {version} has no --{option.name} any more (it went with {span.gone})"
    if offer.files and not sees:
        return f"the engine does not see {FOLDER} (mount it there: -v {FOLDER}:{FOLDER}:ro)"
    return ""


def sees_files(command: Sequence[str]) -> bool:
    """Whether an engine's command runs it where our files are: on this host, or with their folder mounted."""
    away = any(Path(word).name in _ELSEWHERE for word in command)
    return not away or any(f"{FOLDER}:{FOLDER}" in word for word in command)
