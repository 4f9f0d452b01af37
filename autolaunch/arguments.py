"""vLLM's command line as it is typed: which token is an option, which its value, which the model.

Owns the reading of engine options (arity, dashes or underscores, abbreviations, short forms). Must not
change a token: what the user typed reaches the engine as it stands.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache

from autolaunch.tables import shipped_table


class Arity(Enum):
    """How many values an option takes; a switch may be followed by `true` or `false`."""

    NONE = "none"
    ONE = "one"
    SEVERAL = "several"
    OPTIONAL = "optional"
    SWITCH = "switch"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Options:
    """The option table of vLLM's server: canonical long names without dashes in front."""

    arity: Mapping[str, Arity]
    short: Mapping[str, str]

    def canonical(self, token: str) -> str:
        """Return the long name an option token stands for, dashed, without leading dashes or its value.

        `-tp`, `--tensor_parallel_size=2` and `--tensor-par` are all `tensor-parallel-size`; a dotted option
        (`-cc.mode`, `--compilation-config.mode`) is its own; an unknown one stays as it is.
        """
        name = token.split("=", 1)[0]
        if not name.startswith("--"):
            return self._short(name)[0]
        name = name[2:].split(".", 1)[0].replace("_", "-")
        if name in self.arity:
            return name
        longer = [known for known in self.arity if known.startswith(name)]
        return longer[0] if len(longer) == 1 else name

    def _short(self, name: str) -> tuple[str, str | None]:
        """Return the long name of a short option and the value that is glued to it: -q fp8, -qfp8, -O3, -tp 2."""
        letters = name[1:].split(".", 1)[0]
        if letters in self.short:
            return self.short[letters], None
        if letters[:1] == "O":
            return "O", letters[1:] or None
        if letters[:1] in self.short:  # argparse glues a value to one letter only
            return self.short[letters[0]], letters[1:]
        return letters, None

    def glued(self, token: str) -> str | None:
        """Return the value that stands within an option token (--seed=1, -qfp8, -O3), None where it follows."""
        if "=" in token:
            return token.split("=", 1)[1]
        return None if token.startswith("--") else self._short(token)[1]

    def arity_of(self, token: str) -> Arity:
        """Return how many further tokens belong to this option token."""
        if self.glued(token) is not None:
            return Arity.NONE
        if "." in token:
            return Arity.ONE
        return self.arity.get(self.canonical(token), Arity.UNKNOWN)


@lru_cache(maxsize=1)
def engine_options() -> Options:
    """Load the option table that ships with the package."""
    table = shipped_table("engine_options.toml")
    arity: dict[str, Arity] = {}
    for name in table["flags"]:
        arity[name] = arity["no-" + name] = Arity.NONE
    arity.update(dict.fromkeys(table["switches"], Arity.SWITCH))
    for key, kind in (("values", Arity.ONE), ("several", Arity.SEVERAL), ("optional", Arity.OPTIONAL)):
        arity.update(dict.fromkeys(table[key], kind))
    return Options(arity, table["short"])


def is_option(token: str) -> bool:
    """Whether a token is an option and not a value such as `-1` or `-0.5`, or a text with a space in it."""
    if len(token) < 2 or token[0] != "-" or re.match(r"-\.?\d", token):
        return False
    return " " not in token.split("=", 1)[0]


@dataclass(frozen=True, slots=True)
class Given:
    """One engine option as typed: its canonical name, its values, and the tokens it was."""

    name: str
    values: tuple[str, ...]
    tokens: tuple[str, ...]

    @property
    def value(self) -> str:
        """The value where there is just one ("" for a flag)."""
        return self.values[-1] if self.values else ""


@dataclass(frozen=True, slots=True)
class Split:
    """A command line taken apart: our own tokens, the first bare word, the engine's tokens, stray words."""

    own: tuple[str, ...]
    model: str | None
    engine: tuple[str, ...]
    stray: tuple[str, ...]


def split(tokens: Sequence[str], own: Mapping[str, bool]) -> Split:
    """Tell our options from the engine's wherever they stand, and find the model.

    `own` maps our option names to whether they take a value. The first bare word that no option claims is the
    model; everything behind `--` belongs to the engine. No token is changed, except that ours are dashed.
    """
    ours: list[str] = []
    engine: list[str] = []
    stray: list[str] = []
    model: str | None = None
    options, index, greedy = engine_options(), 0, False
    while index < len(tokens):
        token = tokens[index]
        index += 1
        if token == "--":
            engine += tokens[index:]
            break
        if not is_option(token):
            if model is None:
                model = token
            elif greedy:
                engine.append(token)
            else:
                stray.append(token)
            continue
        name = token.split("=", 1)[0].replace("_", "-")
        if name in own:
            ours.append(name + token[len(name) :])
            if own[name] and "=" not in token and index < len(tokens):
                ours.append(tokens[index])
                index += 1
            continue
        end = _end_of_values(tokens, index, options.arity_of(token))
        engine += [token, *tokens[index:end]]
        greedy, index = options.arity_of(token) is Arity.UNKNOWN, end
    return Split(tuple(ours), model, tuple(engine), tuple(stray))


def _end_of_values(tokens: Sequence[str], index: int, arity: Arity) -> int:
    if arity is Arity.NONE:
        return index
    if arity is Arity.SWITCH:
        return index + (index < len(tokens) and tokens[index].lower() in ("true", "false"))
    end = index
    while end < len(tokens) and tokens[end] != "--" and not is_option(tokens[end]):
        end += 1
        if arity is not Arity.SEVERAL:
            break
    return end


def given(engine_tokens: Iterable[str]) -> tuple[Given, ...]:
    """Read engine tokens as options with their values, in order; bare words without an option are passed over."""
    return tuple(option for _, _, option in walk([token for token in engine_tokens if token != "--"]))


def walk(tokens: Sequence[str]) -> Iterator[tuple[int, int, Given]]:
    """Yield every option with the half-open range of tokens that it takes."""
    options, index = engine_options(), 0
    while index < len(tokens):
        begin = index
        token = tokens[begin]
        index += 1
        if not is_option(token) or token == "--":
            continue
        index = _end_of_values(tokens, index, options.arity_of(token))
        glued = options.glued(token)
        values = tuple(tokens[begin + 1 : index]) if glued is None else (glued,)
        yield begin, index, Given(options.canonical(token), values, tuple(tokens[begin:index]))


def with_all_values(tokens: Sequence[str]) -> tuple[Given, ...]:
    """Return the options of tokens that hold nothing else: one that no release knows has every word behind it."""
    found = list(walk(tokens))
    ends = (*(begin for begin, _, _ in found[1:]), len(tokens))
    return tuple(
        Given(option.name, (*option.values, *tokens[end:following]), tuple(tokens[begin:following]))
        for (begin, end, option), following in zip(found, ends, strict=False)
    )


def less(tokens: Sequence[str], name: str) -> tuple[str, ...]:
    """Return engine tokens without an option, however often it is given."""
    kept = list(tokens)
    for begin, end, option in reversed(list(walk(tokens))):
        if option.name == name:
            del kept[begin:end]
    return tuple(kept)


def flag_state(option: Given) -> tuple[str, bool | None]:
    """Return an option's name without `no-`, and whether it is switched on; None for an option with values."""
    options = engine_options().arity
    if options.get(option.name) not in (Arity.NONE, Arity.SWITCH):
        return option.name, None
    if option.name.startswith("no-") and option.name[3:] in options:
        return option.name[3:], False
    value = option.value.lower()
    return option.name, None if value not in ("", "true", "false") else value != "false"
