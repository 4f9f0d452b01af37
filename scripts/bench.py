"""What `scripts/bench` measures; each part prints what it ran, how often, and minimum, median and maximum.

start   from the command to the engine's exec; from the engine's decisive line to the next engine's start
output  memory of the supervisor after 200 MB of engine output, and time against a plain reader of the same output
real    seconds to READY of a real vLLM under autolaunch against the same command by hand (needs the engine)
memory  the memory model against records of real starts (--records FILE), by card and by kind of model
attempts  hundreds of situations through the real supervisor over the fake engine, against an oracle (--situations N)
soak    a thousand lives of an engine under one supervisor (--lives N): nothing may grow
requests  a served engine with and without its supervisor, window by window (--real: a real vLLM)
restart  from an engine's death or hang to the next one's start (--real: a real vLLM)
rest    processor time and memory of supervisor and warden while an engine serves (--seconds S)
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import shlex
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
AUTOLAUNCH = [sys.executable, "-m", "autolaunch"]
FAKE_ENGINE = f"{shlex.quote(sys.executable)} -S {shlex.quote(str(CHECKOUT / 'tests' / 'fake_engine'))}"
OUTPUT_BYTES = 200_000_000
COPY = ["/bin/cat"]
READ_LINES = [sys.executable, "-c", "import sys\nfor line in sys.stdin.buffer: sys.stdout.buffer.write(line)"]


def free_port() -> int:
    """Return a port that is free now."""
    with socket.socket() as chosen:
        chosen.bind(("127.0.0.1", 0))
        return int(chosen.getsockname()[1])


def row(name: str, values: Sequence[float], unit: str, goal: str = "") -> None:
    """Print one figure."""
    least, middle, most = min(values), statistics.median(values), max(values)
    text = f"{name:<58}{least:8.3f} {middle:8.3f} {most:8.3f} {unit:<4} n={len(values)}"
    print(text + (f"  (goal: {goal})" if goal else ""), flush=True)


def wait_for(ready: Callable[[], object], *, within_s: float) -> None:
    """Poll until something is true; raise after the deadline."""
    deadline = time.monotonic() + within_s
    while not ready():
        if time.monotonic() > deadline:
            raise TimeoutError(f"nothing within {within_s} s")
        time.sleep(0.005)


def lines(file: Path) -> list[dict[str, object]]:
    """Return a file's JSON lines, the last one left out if it is not whole yet."""
    if not file.exists():
        return []
    found = []
    for line in file.read_text(encoding="utf-8").splitlines():
        with contextlib.suppress(ValueError):
            found.append(json.loads(line))
    return found


def to_exec(runs: int) -> None:
    """From the command to the engine's first instruction."""
    taken = []
    for _ in range(runs):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            engine = folder / "engine"
            engine.write_text(f"#!/bin/sh\ndate +%s.%N > {folder}/born\nexec sleep 60\n")
            engine.chmod(0o755)
            began = time.time()
            command = [
                *AUTOLAUNCH,
                "tiny-glm",
                "--engine",
                str(engine),
                "--port",
                str(free_port()),
                "--state-dir",
                name,
            ]
            with subprocess.Popen(command, stderr=subprocess.DEVNULL) as run:
                taken.append(float(text_of(folder / "born")) - began)
                run.send_signal(signal.SIGTERM)
    row("command to the engine's exec", taken, "s", "at most 0.35")


def text_of(file: Path) -> str:
    """Return a file's text once there is some."""
    wait_for(lambda: file.exists() and file.read_text(encoding="utf-8"), within_s=20)
    return file.read_text(encoding="utf-8")


def reaction(runs: int) -> None:
    """From the decisive line of an engine that then hangs to the start of the next engine."""
    taken = []
    for _ in range(runs):
        with tempfile.TemporaryDirectory() as name:
            hangs = {"kind": "kv_too_small", "then": "hang", "behaviours": ["child", "worker", "ignore_sigterm"]}
            environment = fake_environment(name, {"starts": [hangs, "ok"]})
            command = [*fake_command(name), "--check"]
            subprocess.run(command, env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True)
            cause = next(float(str(e["time"])) for e in lines(Path(name, "events.jsonl")) if e["event"] == "cause")
            second = lines(Path(name, "starts.jsonl"))[1]
            taken.append(float(str(second["time"])) - cause)
    row("decisive line (engine hangs, ignores SIGTERM) to next start", taken, "s", "median at most 1.5")


def fake_environment(folder: str, scenario: dict[str, object]) -> dict[str, str]:
    """Return an environment with a fake engine's scenario that keeps its ledger in a folder."""
    return {**os.environ, "FAKE_ENGINE": json.dumps({"folder": folder, **scenario})}


def fake_command(folder: str) -> list[str]:
    """Return autolaunch over the fake engine."""
    where = ["--port", str(free_port()), "--state-dir", folder]
    return [*AUTOLAUNCH, "glm-4-9b", "--engine", FAKE_ENGINE, "--engine-version", "0.13.0", *where]


def output(runs: int) -> None:
    """The supervisor's memory, and what 200 MB of output cost it against a plain reader."""
    peaks, ours, copied, read = [], [], [], []
    for _ in range(runs):
        quiet, _ = supervised(0)
        loud, peak = supervised(OUTPUT_BYTES)
        ours.append(loud - quiet)
        peaks.append(peak)
        copied.append(read_by(COPY, OUTPUT_BYTES) - read_by(COPY, 0))
        read.append(read_by(READ_LINES, OUTPUT_BYTES) - read_by(READ_LINES, 0))
    row("supervisor's peak memory after 200 MB of output", peaks, "MiB", "under 50")
    row("seconds that 200 MB add to a start under autolaunch", ours, "s")
    row("seconds that they add when Python reads line by line", read, "s")
    row("seconds that they add when `cat >file` copies them", copied, "s")
    row("ratio to reading line by line", [a / b for a, b in zip(ours, read, strict=True)], "", "at most 1")


def spamming(folder: str, amount: int) -> dict[str, str]:
    """Return an environment in which the fake engine prints so many bytes and then becomes ready."""
    spam = {"spam": {"bytes": amount, "line_length": 120, "phase": "load"}}
    return fake_environment(folder, {"starts": [{"kind": "ok", "behaviours": [spam] if amount else []}]})


def until_ready(folder: str) -> None:
    """Wait until the fake engine says that it is ready."""
    wait_for(lambda: any(e["event"] == "ready" for e in lines(Path(folder, "events.jsonl"))), within_s=120)


def supervised(amount: int) -> tuple[float, float]:
    """Return the seconds until a spamming engine is ready under autolaunch, and the supervisor's peak memory."""
    with tempfile.TemporaryDirectory() as name:
        began = time.monotonic()
        with subprocess.Popen(fake_command(name), env=spamming(name, amount), stderr=subprocess.DEVNULL) as run:
            until_ready(name)
            taken = time.monotonic() - began
            peak = peak_mib(run.pid)
            run.send_signal(signal.SIGTERM)
        return taken, peak


def read_by(reader: Sequence[str], amount: int) -> float:
    """Return the seconds until the same engine is ready when a plain reader takes its output into a file."""
    with tempfile.TemporaryDirectory() as name:
        command = [*shlex.split(FAKE_ENGINE), "--model", "m", "--port", str(free_port())]
        began = time.monotonic()
        with (
            Path(name, "log").open("wb") as log,
            subprocess.Popen(
                command, env=spamming(name, amount), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
            ) as engine,
            subprocess.Popen(reader, stdin=engine.stdout, stdout=log),
        ):
            until_ready(name)
            taken = time.monotonic() - began
            engine.send_signal(signal.SIGTERM)
        return taken


def peak_mib(pid: int) -> float:
    """Return the largest resident size a process ever had."""
    text = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("VmHWM")) / 1024


def real(runs: int) -> None:
    """A real vLLM: seconds to READY under autolaunch, then by hand with the final settings, one after the other."""
    ours, plain, attempts = [], [], []
    for _ in range(runs):
        with tempfile.TemporaryDirectory() as name:
            record = Path(name, "record.jsonl")
            command = [*AUTOLAUNCH, "tiny-glm", "--enforce-eager", "--port", str(free_port()), "--check"]
            done = subprocess.run(
                [*command, "--record", str(record), "--state-dir", name],
                capture_output=True,
                text=True,
                check=True,
            )
            ready = next(e for e in lines(record) if e["event"] == "ready")
            ours.append(float(str(ready["seconds"])))
            attempts.append(int(str(ready["n"])))
            plain.append(by_hand(shlex.split(done.stdout), str(ready["url"])))
    row("real vLLM on the CPU to READY, under autolaunch", ours, "s")
    row("the printed command by hand, to the same first completion", plain, "s")
    row("ratio", [a / b for a, b in zip(ours, plain, strict=True)], "")
    row("attempts", attempts, "")


def by_hand(command: list[str], url: str) -> float:
    """Start the plain command and return the seconds until it has answered one completion."""
    began = time.monotonic()
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    ) as engine:
        try:
            wait_for(lambda: answers(url), within_s=300)
            return time.monotonic() - began
        finally:
            os.killpg(engine.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                engine.wait(10)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(engine.pid, signal.SIGKILL)


def answers(url: str) -> bool:
    """Whether a server answers a completion of one token."""
    body = json.dumps({"model": "tiny-glm", "prompt": "Hi", "max_tokens": 1}).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{url}/v1/completions", body, headers)  # noqa: S310 - our own child on loopback
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - our own child on loopback
            return bool(answer.status == 200)
    except OSError:
        time.sleep(0.25)
        return False


PARTS = {
    "start": lambda: (to_exec(11), reaction(11)),
    "output": lambda: output(5),
    "real": lambda: real(3),
}

OWN_FILES = ("memory", "attempts", "soak", "requests", "restart", "rest")


def main() -> None:
    """Run the parts that were named; without a name those that need no engine."""
    if sys.argv[1:2] and sys.argv[1] in OWN_FILES:  # with options of their own, and needs that the others have not
        sys.path.insert(0, str(CHECKOUT))
        sys.exit(importlib.import_module(f"scripts.bench_{sys.argv[1]}").main(sys.argv[2:]))
    names = sys.argv[1:] or ["start", "output"]
    for name in names:
        if name not in PARTS:
            sys.exit(f"error: no part {name!r}\nhint: {', '.join((*PARTS, *OWN_FILES))}")
    print(f"{'':<58}{'min':>8} {'median':>8} {'max':>8}")
    for name in names:
        PARTS[name]()


if __name__ == "__main__":
    main()
