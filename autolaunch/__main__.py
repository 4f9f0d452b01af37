"""The command: takes the signals before anything slow is imported, then leaves the rest to `cli`.

In a container, where this is process 1, `init` stays in front and the rest is done by a child.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType

from autolaunch.init import become_init, is_init

TAKEN = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def _leave(number: int, _: FrameType | None) -> None:
    """Leave before a run has begun: nothing was started, so nothing is left."""
    text = f"stopped ({signal.Signals(number).name}) before anything was started"
    if not _said_as_json(text):
        with contextlib.suppress(OSError):  # a terminal that is gone
            os.write(2, text.encode() + b"\n")
    raise SystemExit(0)


def _said_as_json(text: str) -> bool:
    """Say it as the lines before it were, where those are JSON; the signal may have come amid one of them."""
    voice = getattr(sys.modules.get("autolaunch.talk"), "VOICE", None)
    if voice is None or voice.log is None:
        return False
    with contextlib.suppress(RuntimeError):  # amid a write to the same stream
        voice.log.info(text)
        return True
    return False


def _ignore_signals() -> None:
    """From here on what the exit code says stands."""
    sys.unraisablehook = _but_for_late_signals
    for number in TAKEN:
        signal.signal(number, signal.SIG_IGN)


def _but_for_late_signals(ignored: sys.UnraisableHookArgs) -> None:
    """Say nothing of a signal that came between CPython's last look and SIG_IGN: it is one of those ignored."""
    if type(ignored.exc_value) is not OSError or ignored.object is not None:
        sys.__unraisablehook__(ignored)


def _open_missing_streams() -> None:
    """Fill descriptors 0 to 2 where the caller closed them: a log file must not become stderr."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) < 3:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)


def autolaunch() -> None:
    """Run the command line."""
    from autolaunch.cli import main as run  # noqa: PLC0415 - a signal may come while this is imported

    run()


def main(run: Callable[[], None] = autolaunch) -> None:
    """Run a command of autolaunch; the supervisor takes the signals over once it has a run to stop."""
    taken = [one for one in TAKEN if one is not signal.SIGHUP or signal.getsignal(one) is not signal.SIG_IGN]  # nohup
    for number in taken:
        signal.signal(number, _leave)
    if is_init():
        become_init(taken)
    if "AUTOLAUNCH_PARENT" in os.environ:
        from autolaunch.parent import adopt  # noqa: PLC0415 - few are started by autolaunch.launch

        adopt(os.environ)
    try:
        _open_missing_streams()
        run()
    finally:
        _ignore_signals()


if __name__ == "__main__":
    main()
