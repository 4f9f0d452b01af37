"""Ends the containers of one engine: those with its label, found and ended through the runtime's own client.

I/O. A container is no child of the `docker run` that started it: killing the client ends nothing. So every engine's
folder that belongs to one holds a note (`NOTE`) with the words that call the client, the label, and the variables the
client needs. Whoever ends the engine goes by that note: its warden, its supervisor where the warden was killed, and the
next start's sweep where both were. Standard library only, and nothing of the package: the warden runs it as a program.

    python -I -S containment.py stop FOLDER LEADER    SIGTERM to the engine, by way of the runtime
    python -I -S containment.py end FOLDER            kill and remove; prints what is left and why, if anything is

Every call of the client is bounded: a daemon that hangs is said, not waited for.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

NOTE = ".container"
CALL_S = 10.0
"""How long one call of the client may take."""

END_S = 12.0
"""How long containers may take to be gone after SIGKILL; well within the machine's wait for a killed engine."""

STOP_S = 600
"""What the runtime is given between SIGTERM and SIGKILL: more than any grace of ours, which end sooner."""

_CLIENTS = frozenset({"HOME", "PATH", "USER", "SSH_AUTH_SOCK"})
_CLIENTS_BEGIN = ("DOCKER_", "CONTAINER_", "CONTAINERS_", "CONTAINERD_", "XDG_")
"""The variables that a client goes by, and how the names of others begin."""


class NoAnswer(Exception):
    """The runtime's client failed or took too long; its text says which."""


@dataclass(frozen=True)
class Note:
    """What it takes to end an engine's containers; `cid_file` is where the user had docker write the id, or ""."""

    client: Sequence[str]
    label: str
    variables: Mapping[str, str]
    cid_file: str = ""

    def ask(self, *words: str, within_s: float = CALL_S) -> str:
        """Return what the client prints; raise `NoAnswer`."""
        return ask(self.client, *words, environment=self.variables, within_s=within_s)

    def containers(self, *more: str) -> list[str]:
        """Return the ids of the containers, those that ended included where `more` says --all."""
        return self.ask("ps", *more, "--quiet", "--no-trunc", "--filter", f"label={self.label}").split()


def ask(client: Sequence[str], *words: str, environment: Mapping[str, str], within_s: float = CALL_S) -> str:
    """Return what a client prints on stdout; raise `NoAnswer`. It is killed where it takes too long."""
    try:
        done = subprocess.run(
            [*client, *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=dict(environment),
            timeout=max(0.1, within_s),
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise NoAnswer(f"{Path(client[-1]).name} did not answer within {within_s:.0f} s") from None
    except OSError as error:
        raise NoAnswer(f"{client[0]} cannot be run: {error.strerror}") from error
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise NoAnswer(said[0] if said else f"{' '.join((*client, *words[:1]))} ended with {done.returncode}")
    return done.stdout.decode(errors="replace")


def write(folder: str, note: Note) -> None:
    """Leave the note in an engine's folder, whole or not at all; OSError where that is impossible."""
    table = {"client": note.client, "label": note.label, "variables": dict(note.variables), "cid_file": note.cid_file}
    part = Path(folder, f"{NOTE}.part")
    part.write_text(json.dumps(table), encoding="utf-8")
    part.replace(Path(folder, NOTE))


def variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Return those that a client goes by."""
    return {name: value for name, value in environment.items() if name in _CLIENTS or name.startswith(_CLIENTS_BEGIN)}


def read(folder: str) -> Note | None:
    """Return the note of an engine's folder, None where it has none: the engine is no container."""
    try:
        return Note(**json.loads(Path(folder, NOTE).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None


def stop(folder: str, leader: int) -> None:
    """Have the runtime send SIGTERM (or the image's own signal); before there is a container, signal the client.

    The client is not signalled beside that: it would pass the signal on, and the engine would get two.
    """
    note = read(folder)
    with contextlib.suppress(NoAnswer):
        found = note.containers() if note else []
        if note and found:
            note.ask("stop", "-t", str(STOP_S), *found, within_s=STOP_S)
            return
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGTERM)


@dataclass(frozen=True)
class End:
    """The containers that were found, and in words what is left of them and why, "" where nothing is."""

    found: Sequence[str] = ()
    left: str = ""


def end(folder: str, *, within_s: float = END_S) -> End:
    """Kill and remove an engine's containers, those included that have ended; return once none is left, or at last."""
    note = read(folder)
    if note is None:
        return End()
    last: Sequence[str] = ()
    deadline, trouble = time.monotonic() + within_s, ""
    while (left_s := deadline - time.monotonic()) > 0:
        try:
            found = note.containers("--all")
        except NoAnswer as error:
            return End(last, _left(note, last, str(error)))
        if not found:
            return End(last)
        _forget(note, found)
        last = found
        with contextlib.suppress(NoAnswer):  # what has ended cannot be killed
            note.ask("kill", *found, within_s=min(CALL_S, left_s))  # podman's rm --force would be polite first
        try:
            note.ask("rm", "--force", "--volumes", *found, within_s=min(CALL_S, left_s))
        except NoAnswer as error:  # being removed already, often
            trouble = str(error)
            time.sleep(0.1)
    return End(last, _left(note, last, trouble))


@dataclass(frozen=True)
class Use:
    """What a container uses of the processor now, as a share of one core, and has moved by network and disk."""

    cpu_share: float = 0.0
    moved_bytes: float = 0.0


def use(note: Note) -> Use:
    """Return what an engine's containers use; nothing where that cannot be learnt."""
    with contextlib.suppress(NoAnswer):
        found = note.containers()
        if found:
            form = "{{.CPUPerc}}|{{.NetIO}}|{{.BlockIO}}"
            return used(note.ask("stats", "--no-stream", "--format", form, *found))
    return Use()


def used(text: str) -> Use:
    """Read what `stats` prints of containers, a line each: 12.5%|1.2MB / 3kB|0B / 4.1GB."""
    share = sum(float(number) for number in re.findall(r"([\d.]+)%", text)) / 100
    sizes = re.findall(r"([\d.]+) ?([kMGTKi]*)B", text)
    return Use(share, sum(float(number) * _UNITS.get(unit[:1].lower(), 1) for number, unit in sizes))


_UNITS = {"k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12}


def _left(note: Note, found: Sequence[str], why: str) -> str:
    names = "".join(f"{one[:12]} " for one in found)
    return f"the engine's container {names}could not be ended ({why}); it has the label {note.label}"


def _forget(note: Note, found: Sequence[str]) -> None:
    """Remove the user's --cidfile where it names one of these: the runtime would refuse to start over it."""
    if note.cid_file:
        with contextlib.suppress(OSError):
            if Path(note.cid_file).read_text(encoding="utf-8").strip() in found:
                Path(note.cid_file).unlink()


if __name__ == "__main__":
    if sys.argv[1] == "stop":
        stop(sys.argv[2], int(sys.argv[3]))
    else:
        sys.stdout.write(end(sys.argv[2]).left)
