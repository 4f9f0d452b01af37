"""A command as a shell takes it: the variables that autolaunch set for the engine in front, then the words.

Pure. Without them the plain command would start something else: the engine on another card, a model from elsewhere.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence


def beside(environment: Mapping[str, str], own: Mapping[str, str]) -> Mapping[str, str]:
    """Return what an engine's environment has beside the user's `own`, by name in order."""
    return {name: value for name, value in sorted(environment.items()) if own.get(name) != value}


def shell_line(argv: Sequence[str], variables: Mapping[str, str]) -> str:
    """Return one line that a shell reads as this command with these variables."""
    return " ".join((*(f"{name}={shlex.quote(value)}" for name, value in variables.items()), shlex.join(argv)))
