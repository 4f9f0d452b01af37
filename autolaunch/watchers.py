"""Which watchers a run has: systemd where it started us, the status page where it is asked for.

I/O. Owns their making only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from autolaunch.options import Options
from autolaunch.redaction import Secrets
from autolaunch.sd_notify import SOCKET, Notifier, watchdog_s
from autolaunch.systemd_watcher import SystemdWatcher
from autolaunch.watching import Watcher


def watchers(
    options: Options, environment: Mapping[str, str], secrets: Secrets, warn: Callable[[str], None]
) -> tuple[Watcher, ...]:
    """Return those who watch a run, to show none of its secrets; raises `HostError` for what cannot be had."""
    return (*_systemd(options, environment), *_status(options, secrets, warn))


def _systemd(options: Options, environment: Mapping[str, str]) -> tuple[Watcher, ...]:
    address = environment.get(SOCKET, "")
    if not address:
        return ()
    waits_s = watchdog_s(environment)
    return (SystemdWatcher(Notifier(address), watchdog_s=waits_s, stall_s=options.stall_timeout),)


def _status(options: Options, secrets: Secrets, warn: Callable[[str], None]) -> tuple[Watcher, ...]:
    if options.status is None:
        return ()
    from autolaunch.status_server import StatusServer  # noqa: PLC0415 - only where it is asked for

    if not options.status.local:
        warn(f"whoever reaches {options.status} can read the status and the end of the engine's log")
    return (StatusServer(options.status, hidden=secrets.anywhere),)
