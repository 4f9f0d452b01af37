"""Which words of a command line, an environment or a log must never be shown, and how they are hidden.

Pure. Two kinds of secret, because hiding has a price: a secret that nobody would guess is replaced wherever it
stands, also inside other words and in the engine's whole output. One that is a plain word or a short one
("EMPTY", "token", "1234", all of them common as --api-key) protects nothing, and hiding it everywhere would
turn log lines such as "even a single token" into stars and blind the diagnosis: it is hidden where it stands
as the value of its option, and in the engine's log where it stands behind a secret's name, and nowhere else.
Numbers and truth values are no secrets, whatever the variable
that holds them is called, nor are the places of files (MAX_TOKENS=8192, HF_TOKEN_PATH=/etc/hf/token).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from autolaunch.arguments import Given, given, walk
from autolaunch.looks import STARS, hide_looks, secrets_by_look

_SECRET_OPTION = re.compile(
    r"(?:^|-)(?:api-?key|access-key|secret|secret-key|password|passwd|credentials?|(?:hf|auth|access|bearer)-token)s?$"
    r"|(?:^|-)(?:auth-header|authorization)$|^(?!max-|num-)(?:.*-)?token$"
)
_SECRET_VARIABLE = re.compile(
    r"(?:^|_)(?:API_?KEY|ACCESS_KEY|PRIVATE_KEY|KEY|TOKEN|SECRET|PASSWORD|PASSWD|PASS|CREDENTIALS?)S?(?:_ID)?$"
    r"|(?:^|_)(?:API_?KEY|SECRET|PASSWORD)_",
    re.IGNORECASE,
)
_IN_JSON = re.compile(r'"[^"]*(?:key|token|secret|password)"\s*:\s*"([^"]+)"', re.IGNORECASE)
_ASSIGNED = re.compile(r"((?:^|\s)(?:--)?)([A-Za-z_][A-Za-z0-9_-]*)=(\S+)")
_NUMBER = re.compile(r"[\d.,]+|true|false|yes|no|none", re.IGNORECASE)
_NAMED = r"(?:api[-_]?key|access[-_]key|secret|secret[-_]key|password|passwd|credentials?|token|session[-_]?id)s?"
_VALUE = r"""((?<=['"])[^'"\n]{1,1000}?(?=\\*['"]|$)|[^\s'",;()\[\]{}\\]+)"""
_BEHIND = r"""\\*['"]?\s{0,8}[:=]\s{0,8}[\[(]?\\*['"]?"""
_BEHIND_A_NAME = re.compile(rf"(\b\w*{_NAMED}\b{_BEHIND})(?!\*\*\*){_VALUE}", re.IGNORECASE | re.MULTILINE)
_BEHIND_AN_OPTION = re.compile(
    rf"""((?<![\w-])--[a-z0-9_-]{{0,80}}{_NAMED}(?:=|['"]?,?\s{{1,8}}['"]?))(?![-*]){_VALUE}""",
    re.IGNORECASE | re.MULTILINE,
)
_RANDOM = (
    r"(?=[A-Za-z+/-]*\d)(?=[\d+/-]*[A-Za-z])(?:[A-Za-z0-9+][A-Za-z0-9+/]{15,}={0,2}|[0-9a-f]{8}(?:-[0-9a-f]{4,12}){4})"
)
_BEHIND_A_WEAK_NAME = re.compile(rf"((?:key|signature|sig)\b{_BEHIND}){_RANDOM}(?![\w.-])", re.IGNORECASE)
"""Of names that are rarely a secret's only what looks like chance is hidden: key_value= and such stay."""
_HARMLESS_KEY = re.compile(
    r"(?:cache|hash|graph|compile|aot|fx|block|sort|group|public|primary|foreign|partition)[-_ ]?\Z", re.IGNORECASE
)
_COOKIE = re.compile(rf"(\bcookie{_BEHIND})(?!\*\*\*)[^'\"\n]+", re.IGNORECASE)
_CURL_USER = re.compile(
    r"""(\bcurl\b[^\n|;]{0,200}?\s(?:-u|--user|--proxy-user)[\s=]?(?P<quote>['"])?[^\s:'"]{0,80}:)"""
    r"""(?(quote)[^'"\n]+|[^\s'"]+)"""
)
_PLACE = re.compile(r"_(?:FILE|PATH|DIR)$", re.IGNORECASE)
_PLAIN = re.compile(r"[A-Za-z]{1,11}|[A-Za-z]{1,8}[-_ ][A-Za-z]{1,8}|[\d.,]+")
_SHORTEST = 8


@dataclass(frozen=True, slots=True)
class Secrets:
    """What is secret about a run, longest first: hidden `anywhere`, or only where it is `named` as a secret."""

    anywhere: tuple[str, ...] = ()
    named: tuple[str, ...] = ()

    def hide(self, text: str) -> str:
        """Return a text that the engine said without any secret."""
        text = redact(text, self.anywhere)
        for secret in self.named:
            text = behind_its_name(secret).sub(rf"\1{STARS}", text)
        return text


def secrets_in(options: Iterable[Given], environment: Mapping[str, str], command: Sequence[str] = ()) -> Secrets:
    """Return every secret of a run, of its engine options, its environment and the `command` that starts the engine.

    Values of options and variables that are named like secrets, what looks like one wherever it stands, secrets inside
    JSON values and in assignments such as HF_TOKEN=... within the command. What nobody would guess is hidden anywhere.
    """
    found = _secrets(options, environment, command) - {""}
    guessed = {value for value in found if not _unguessable(value)}
    return Secrets(_longest_first(found - guessed), _longest_first(guessed))


def _longest_first(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(values, key=lambda value: (-len(value), value)))


def _secrets(options: Iterable[Given], environment: Mapping[str, str], command: Sequence[str]) -> set[str]:
    found: set[str] = set()
    for option in (*options, *given(command)):
        if _is_secret(option):
            found.update(option.values)
        for value in option.values:
            found.update(_inside(value))
    assigned = (word.partition("=") for word in command)
    variables = [(name, value) for name, _, value in assigned if not {"'", '"'} & set(value)]  # not a shell's words
    for name, value in (*environment.items(), *variables):
        if _is_secret_variable(name, value):
            found.add(value)
        found.update(_inside(value))
    for word in command:
        found.update(_inside(word))
    return found | {line for value in found for line in value.splitlines() if _unguessable(line)}


def is_secret_option(name: str) -> bool:
    """Whether the value of an engine option is a secret by the option's canonical name."""
    return _SECRET_OPTION.search(name) is not None


def _is_secret(option: Given) -> bool:
    """Judge an option by its name, a dotted one (--kv-transfer-config.api_key) by the last part of it."""
    typed = option.tokens[0].split("=", 1)[0] if option.tokens else ""
    last = typed.lstrip("-").rsplit(".", 1)[-1].replace("_", "-")
    return is_secret_option(option.name) or ("." in typed and is_secret_option(last))


def _is_secret_variable(name: str, value: str) -> bool:
    named = _SECRET_VARIABLE.search(name) is not None and not _PLACE.search(name)
    return named and not _NUMBER.fullmatch(value)


def _inside(value: str) -> set[str]:
    found = secrets_by_look(value) | set(_IN_JSON.findall(value))
    for _, name, assigned in _ASSIGNED.findall(value):
        if _is_secret_variable(name, assigned) or is_secret_option(name.replace("_", "-")):
            found.add(assigned.strip("'\""))
    return found


def _unguessable(value: str) -> bool:
    return len(value) >= _SHORTEST and not _PLAIN.fullmatch(value)


def redact(text: str, hidden: Sequence[str]) -> str:
    """Return the text without any of `hidden` and what looks like a secret."""
    for secret in hidden:
        text = text.replace(secret, STARS)
    return hide_looks(text)


def scrub(text: str, hidden: Sequence[str]) -> str:
    """Return text as a stranger may see it: beside what `redact` hides, whatever stands behind a secret's name.

    For reports, whose readers know none of the secrets of the host that they come from: an end-of-text token that
    is hidden too is the lesser harm. Numbers of tokens and truth values stay.
    """
    text = _BEHIND_A_WEAK_NAME.sub(_unless_harmless, redact(text, hidden))
    for named in (_COOKIE, _CURL_USER):
        text = named.sub(rf"\1{STARS}", text)
    return _BEHIND_AN_OPTION.sub(_unless_no_secret, _BEHIND_A_NAME.sub(_unless_no_secret, text))


def _unless_no_secret(found: re.Match[str]) -> str:
    name, value = found.groups()
    counts = "token" in name.lower() or not value[0].isdigit()
    return found.group() if counts and _NUMBER.fullmatch(value) else name + STARS


def _unless_harmless(found: re.Match[str]) -> str:
    before = found.string[max(0, found.start() - 12) : found.start()]
    return found.group() if _HARMLESS_KEY.search(before) else found.group(1) + STARS


def behind_its_name(secret: str) -> re.Pattern[str]:
    """Return what finds a plain secret in a log where a secret's name stands before it; group 1 is to be kept.

    As vLLM shows its arguments: 'api_key': ['EMPTY'], hf_token='tok1', VLLM_API_KEY=EMPTY; as a server echoes a header.
    """
    name = rf"""(\bbearer\s|\b\w*{_NAMED}['"]?\s*[:=]\s*(?:\[[^\]\n]{{0,1000}}?)?['"]?)"""
    return re.compile(rf"{name}{re.escape(secret)}(?![\w-])", re.IGNORECASE)


def redact_argv(argv: Sequence[str], hidden: Sequence[str]) -> tuple[str, ...]:
    """Return a command line as it may be shown: the values of secret options hidden, however short they are."""
    shown = [_ASSIGNED.sub(_starred, redact(word, hidden)) for word in argv]
    for begin, end, option in walk(argv):
        if not _is_secret(option):
            continue
        if "=" in argv[begin]:
            shown[begin] = argv[begin].split("=", 1)[0] + "=" + STARS
        for index in range(begin + 1, end):
            shown[index] = STARS
    return tuple(shown)


def _starred(assigned: re.Match[str]) -> str:
    before, name, value = assigned.groups()
    return f"{before}{name}={STARS}" if _is_secret_variable(name, value) else assigned.group()
