"""The file that a unit takes its secrets from: who besides its owner may read or write it.

I/O: looks at a file's mode and owner, never into it. systemd reads the file as root, so that a service only knows its
name, by a variable that `unit` sets.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path

from autolaunch.unit import SECRETS_FILE

TOO_OPEN = 0o037
"""No one but the owner may write the file of secrets, and no one but a group read it."""


def fault(file: Path) -> str:
    """Return what is wrong with a file of secrets; "" where nothing is, and where it is not there or not to be seen."""
    try:
        found = file.stat()
    except OSError:
        return ""
    if not stat.S_IMODE(found.st_mode) & TOO_OPEN and found.st_uid in (0, os.getuid()):
        return ""
    return f"{file} has mode {stat.S_IMODE(found.st_mode):04o} and belongs to uid {found.st_uid}"


def warning(environment: Mapping[str, str]) -> str:
    """Return what a service should say of its file of secrets at its start, "" where there is nothing to be said.

    A warning and no refusal: the secrets are known already, and a server that does not come up hides nothing.
    """
    wrong = fault(Path(environment[SECRETS_FILE])) if environment.get(SECRETS_FILE) else ""
    return (
        f"others may read the secrets of this service: {wrong}; chmod 0600 it, and think of new secrets"
        if wrong
        else ""
    )
