"""Which watchers a run has: systemd where it started us, the status page where it is asked for.

I/O. Owns their making only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from autolaunch.options import Options
from autolaunch.sd_notify import SOCKET, Notifier, watchdog_s
from autolaunch.systemd_watcher import SystemdWatcher
from autolaunch.watching import Watcher


def watchers(options: Options, environment: Mapping[str, str], warn: Callable[[str], None]) -> tuple[Watcher, ...]:
    """Return those who watch a run; raises `HostError` for what was asked for and cannot be had."""
    del warn
    return (*_systemd(options, environment),)


def _systemd(options: Options, environment: Mapping[str, str]) -> tuple[Watcher, ...]:
    address = environment.get(SOCKET, "")
    if not address:
        return ()
    waits_s = watchdog_s(environment)
    return (SystemdWatcher(Notifier(address), watchdog_s=waits_s, stall_s=options.stall_timeout),)
