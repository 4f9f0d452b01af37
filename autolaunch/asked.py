"""What the user asked, as a digest: two starts with the same one may learn from each other.

Pure. Owns what belongs to a wish and what does not. No secret is part of it, not even hashed: a digest of a short
one could be guessed from the state folder.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from enum import Enum
from typing import Any

from autolaunch.arguments import Given
from autolaunch.case import Limits
from autolaunch.redaction import is_secret_option, redact, secrets_in
from autolaunch.settings import Settings
from autolaunch.strategy import Strategy

BESIDE_THE_POINT = frozenset({
    "allow-credentials", "allowed-headers", "allowed-methods", "allowed-origins", "chat-template",
    "disable-fastapi-docs", "disable-log-requests", "disable-log-stats", "disable-uvicorn-access-log",
    "enable-auto-tool-choice", "enable-log-requests", "enable-request-id-headers", "enable-ssl-refresh",
    "exclude-tools-when-tool-choice-none", "host", "max-log-len", "override-generation-config", "port",
    "response-role", "return-tokens-as-token-ids", "root-path", "served-model-name", "ssl-ca-certs",
    "ssl-cert-reqs", "ssl-certfile", "ssl-keyfile", "tool-call-parser", "tool-parser-plugin", "uds",
    "uvicorn-log-level",
})  # fmt: skip
"""Options that change how the server is reached or what it prints, never what fits: a port often differs by start."""

_TITLES = ("name", "description")
"""What a strategy is called; its rungs are what it is."""


def wish_digest(
    pinned: Settings, *, pins: Iterable[str], limits: Limits, strategy: Strategy, options: Sequence[Given]
) -> str:
    """Return a digest of a wish, the same in every process and in every release that reads the wish alike.

    `options` are the engine options of the catalogue and of the user; the last of a name wins in vLLM, so that
    their order among other names does not count. Of a strategy its content counts, not its name or its comments.
    """
    asked = {
        "pinned": _plain(pinned),
        "pins": sorted(pins),
        "limits": _plain(limits),
        "strategy": {name: value for name, value in _plain(strategy).items() if name not in _TITLES},
        "options": sorted(filter(None, map(_option, options)), key=lambda option: option[0]),
    }
    text = json.dumps(asked, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).hexdigest()[:32]


def _option(option: Given) -> list[str]:
    """Return an option's full name and its values without their secrets; [] where it does not count."""
    if option.name in BESIDE_THE_POINT or is_secret_option(option.name):
        return []
    secrets = secrets_in([option], {})
    hidden = (*secrets.anywhere, *secrets.named)
    typed = option.tokens[0].split("=", 1)[0] if option.tokens else ""
    part = typed.lstrip("-").partition(".")[2]
    return [f"{option.name}.{part}" if part else option.name, *(redact(value, hidden) for value in option.values)]


def _plain(value: Any) -> Any:
    """Return a value as JSON holds it; of a dataclass what is not its default, so that new fields change none."""
    if is_dataclass(value):
        held = ((field, getattr(value, field.name)) for field in fields(value))
        return {field.name: _plain(content) for field, content in held if content != _default(field)}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, frozenset):
        return sorted(map(_plain, value))
    if isinstance(value, tuple):
        return list(map(_plain, value))
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _default(field: Field[Any]) -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()
