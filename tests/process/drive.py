"""autolaunch with some of its constants changed, for what would take minutes or a card.

`python -m tests.process.drive` takes autolaunch's command line;
AUTOLAUNCH_DRIVE is JSON: `policy` replaces defaults of phases.Policy, `attendant` constants of that module,
`free_gib` makes every measurement after the first see a card with so much free memory (the first: 20 of 24 GiB), of a
list one after the other, round and round: memory that never stands still,
`restart_wait_s` is the first wait after a crash, `slow_start_s` lets the preparation of the run take that long,
`refuse_launch` refuses that launch of the run, after a SIGTERM came while it was tried; `clock` names a file with the
seconds by which the time of day is wrong, read anew whenever it is looked at.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import signal
import time
import zlib
from functools import partial
from pathlib import Path
from typing import Any, cast

from autolaunch import __main__, attendant, facts, hardware, phases, port, serving, supervisor, visible
from autolaunch.errors import HostError

GIB = 1 << 30


def change(wanted: dict[str, Any]) -> None:
    """Replace what the environment asks to replace."""
    if "policy" in wanted:
        phases.Policy = partial(phases.Policy, **wanted["policy"])  # type: ignore[assignment,misc]
    for name, value in wanted.get("attendant", {}).items():
        assert hasattr(attendant, name)
        setattr(attendant, name, value)
    if "free_gib" in wanted:
        name = f"a card {zlib.crc32(os.environ['TMPDIR'].encode()):08x}"  # its lock is one for the whole host
        card = facts.Device(facts.DeviceKind.CUDA, name, 24 * GIB, 20 * GIB)
        given = wanted["free_gib"]
        turns = itertools.cycle(given if isinstance(given, list) else [given])
        hardware.look = lambda *_, **__: visible.Seen((card,))
        hardware.measure = lambda *_, **__: dataclasses.replace(card, free_bytes=int(next(turns) * GIB))
    if "restart_wait_s" in wanted:
        monkey: Any = serving
        monkey.jittered = lambda *_: lambda crashes: wanted["restart_wait_s"] * 2**crashes
    if "clock" in wanted:
        set_clock(Path(wanted["clock"]))
    if "slow_start_s" in wanted:
        look = hardware.look

        def slowly(*args: Any, **named: Any) -> visible.Seen:
            print("measuring", flush=True)
            time.sleep(wanted["slow_start_s"])
            return look(*args, **named)

        hardware.look = slowly
    if "refuse_launch" in wanted:
        calls = iter(range(1, 100))
        refuse = port.refuse_taken_port

        def refuse_one(address: Any) -> None:
            if next(calls) == wanted["refuse_launch"]:
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(0.05)  # the handler has run, the event is queued
                raise HostError("the port is taken")
            refuse(address)

        supervisor.refuse_taken_port = refuse_one  # type: ignore[attr-defined]  # the name it calls


def set_clock(file: Path) -> None:
    """Let the time of day be wrong: no namespace of Linux shifts CLOCK_REALTIME for some processes only."""
    clock, form, monkey = time.time, time.strftime, cast("Any", time)
    monkey.time = lambda: clock() + float(file.read_text(encoding="ascii"))
    monkey.strftime = lambda text, when=None: form(text, when or time.localtime(time.time()))


if __name__ == "__main__":
    change(json.loads(os.environ.get("AUTOLAUNCH_DRIVE", "{}")))
    __main__.main()
