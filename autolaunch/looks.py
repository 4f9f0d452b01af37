"""What a secret looks like to somebody who was never told it, and how it is replaced in text and in bytes.

Pure. A look is a pattern whose group `secret` is replaced by stars, and some bytes without which it cannot match:
they are cheap to look for. Looks are few and narrow, since they are applied to the engine's whole output, where a
line that is destroyed blinds the diagnosis. What is a secret by its name only is `redaction`'s.
"""

from __future__ import annotations

import re
from typing import Final

STARS: Final = "***"

LONGEST_BYTES = 1 << 13
"""No secret that is printed is longer: an RSA key of 8192 bits takes 6.4 kB."""


class Look:
    """A pattern for text and for bytes; one of `needles` stands wherever it matches, none of them holds a digit."""

    def __init__(self, needles: tuple[str, ...], source: str, flags: int = 0) -> None:
        self.text = re.compile(source, flags | re.ASCII)
        self.data = re.compile(source.encode("ascii"), flags)
        self._needles = needles
        self.spelt = tuple(needle.encode("ascii") for needle in needles)

    def may_be_in(self, text: str) -> bool:
        """Whether it is worth to look closer."""
        return any(needle in text for needle in self._needles)

    def may_be_in_bytes(self, data: bytes) -> bool:
        """Whether it is worth to look closer."""
        return any(needle in data for needle in self.spelt)


_TOKEN = Look(
    (
        *("hf_", "sk-", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "glpat-"),
        *("AKIA", "ASIA", "AIza", "xox", "nvapi-", "ms-"),
    ),
    r"\b(?P<secret>hf_(?:(?=[a-z]{0,40}[A-Z0-9])[A-Za-z0-9]{8,}|[a-z]{30,})"  # no hf_overrides, which vLLM prints
    r"|sk-[A-Za-z0-9_-]{8,}|gh[pousr]_[A-Za-z0-9]{16,}|github_pat_[A-Za-z0-9_]{20,}|glpat-[A-Za-z0-9_-]{16,}"
    r"|A[KS]IA[A-Z0-9]{12,}|AIza[A-Za-z0-9_-]{30,}|xox[abeprs]-[A-Za-z0-9-]{10,}|nvapi-[A-Za-z0-9_-]{20,}"
    r"|ms-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})",
)
_BEARER = Look(("earer ",), r"\b[Bb]earer (?P<secret>(?=\S*\d)[A-Za-z0-9._~+/=-]{8,})")
_JWT = Look(("eyJ",), r"\b(?P<secret>eyJ[A-Za-z0-9_-]{6,1000}\.[A-Za-z0-9_-]{4,}\.[A-Za-z0-9_-]*)")
_USERINFO = Look(("@",), r"""://[^/\s:@'"]*:(?P<secret>[^/\s'"]+)@""")
_QUERY = Look(
    ("?", "&"),
    r"(?:[?&]|&amp;)(?:[\w.-]*(?:token|secret|passw(?:or)?d|api[-_]?key|access[-_]?key|signature)|key|sig|auth)"
    r"""=(?P<secret>[^&\s'"#<>\\]+)""",
    re.IGNORECASE,
)
_SCHEME = r"(?:(?:basic|bearer|digest|token)\s+)?"
_OPENED = r"""(?:b?\\*['"])?"""
_AUTHORIZATION = Look(
    ("uthorization", "UTHORIZATION"),
    rf"""\bauthorization\b(?:\\*['"]?\s{{0,8}}[:=]|\\*['"]\s?,)\s{{0,8}}"""
    rf"""(?!{_OPENED}{_SCHEME}\*\*\*){_OPENED}{_SCHEME}(?P<secret>[^\s'",;\\]+)""",
    re.IGNORECASE,
)
_BEGIN = r"-----BEGIN (?:[A-Z0-9]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----"
_NEWLINE = r"(?:\r?\n|\r(?!\n)|\\+r|\\+n)"  # each end of a line in one way only: two are exponential
_COLOUR = r"(?:\x1b\[[0-9;]{0,8}m){0,3}"
_KEY_LINE = (
    rf"{_NEWLINE}(?:{_COLOUR}\([^()\n]{{1,80}}\){_COLOUR} )?"  # vLLM says before each line which process speaks
    rf"""(?:[A-Za-z0-9+/=]+[ \t]*(?={_NEWLINE}|\Z|-----|\\*['"])|(?:Proc-Type|DEK-Info): [^\r\n\\]*|(?={_NEWLINE}))"""
)
_KEY = Look(
    ("PRIVATE KEY",),
    rf"{_BEGIN}(?P<secret>(?:[^-]|-(?!----)){{1,{LONGEST_BYTES}}}(?=-----END )|(?:{_KEY_LINE})+)",
)
_OPEN_KEY = re.compile(rf"{_BEGIN}(?:{_KEY_LINE})*{_NEWLINE}?\Z".encode("ascii"))

_LOOKS = (_TOKEN, _BEARER, _JWT, _USERINFO, _QUERY, _AUTHORIZATION, _KEY)
_ANY_NEEDLE = re.compile(b"|".join(re.escape(needle) for look in _LOOKS for needle in look.spelt))
"""Of a short line asked sooner than each of them."""


def secrets_by_look(text: str) -> set[str]:
    """Return what looks like a secret in a text."""
    return {found["secret"] for look in _LOOKS for found in look.text.finditer(text)}


def hide_looks(text: str) -> str:
    """Return a text with stars in place of what looks like a secret."""
    for look in _LOOKS:
        if look.may_be_in(text):
            text = look.text.sub(_starred, text)
    return text


def may_begin_key(line: bytes) -> bool:
    """Whether a line may hold the beginning of a private key, whose end is in a later one."""
    return _KEY.may_be_in_bytes(line)


def is_suspicious(line: bytes) -> bool:
    """Whether a line holds what looks like a secret, or begins a key; the same for every line of its shape."""
    if _ANY_NEEDLE.search(line) is None:
        return False
    suspects = (look for look in _LOOKS if look.may_be_in_bytes(line))
    return any(look is _KEY or look.data.search(line) is not None for look in suspects)


def hide_looks_in_bytes(data: bytes, *, whole: bool = True) -> bytes:
    """Return bytes with stars in place of what looks like a secret.

    Where the bytes are not `whole`, a secret that may go on behind their end is left as it stands.
    """
    for look in _LOOKS:
        if look.may_be_in_bytes(data):
            data = _hidden(look, data, whole=whole)
    return data


def _hidden(look: Look, data: bytes, *, whole: bool) -> bytes:
    end = len(data)

    def starred(found: re.Match[bytes]) -> bytes:
        may_go_on = not whole and found.end() == end and end - found.start() < LONGEST_BYTES
        return found.group() if may_go_on else _starred_bytes(found)

    return look.data.sub(starred, data)


def open_key(block: bytes) -> int:
    """Return where a private key begins whose end is not in these lines yet; their length where none does."""
    found = _OPEN_KEY.search(block) if _KEY.may_be_in_bytes(block) else None
    return len(block) if found is None or len(block) - found.start() > LONGEST_BYTES else found.start()


def _starred(found: re.Match[str]) -> str:
    begin, end = (place - found.start() for place in found.span("secret"))
    return found.group()[:begin] + STARS + found.group()[end:]


def _starred_bytes(found: re.Match[bytes]) -> bytes:
    begin, end = (place - found.start() for place in found.span("secret"))
    return found.group()[:begin] + STARS.encode("ascii") + found.group()[end:]
