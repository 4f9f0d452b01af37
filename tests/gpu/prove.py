"""Proves on one real GPU of 80 GB that GLM-4-9B's real shape comes up, as a 24, 20 and 16 GiB card too.

usage: prove.py OUT [SCENARIO ...]     (no scenario: all of them; minutes each)

Weights are dummies of the real size: real allocations, real KV cache, nothing downloaded. A neighbour holds the
rest of the card, `small_card` makes engine and NVML report the smaller total. OUT gets the records and engine logs
of every scenario and a table, summary.txt. The card is left as it was found; nothing of its settings is touched.
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
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
MODEL = HERE.parent / "data" / "glm-4-9b-shape"
COMMON = ("--load-format", "dummy", "--served-model-name", "glm-4-9b", "--port", "8123")


@dataclass(frozen=True)
class Scenario:
    """A card's apparent size and free memory in GiB, and the options given to autolaunch.

    `alone` starts vLLM itself once, without autolaunch; `after` runs in the state folder of that scenario. Every
    other scenario has state and compile cache of its own, so that all start alike.
    """

    card_gib: float | None
    free_gib: float | None
    options: tuple[str, ...] = ()
    alone: bool = False
    after: str = ""


SCENARIOS = {
    "24g_plain": Scenario(24, 23.2, alone=True),
    "24g_auto": Scenario(24, 23.2, ("--max-model-len", "auto"), alone=True),
    "24g_default": Scenario(24, 23.2),
    "24g_default_again": Scenario(24, 23.2, after="24g_default"),
    "24g_less_again": Scenario(24, 21.7, after="24g_default"),
    "24g_neighbour": Scenario(24, 14.0),
    "24g_four_at_once": Scenario(24, 23.2, ("--concurrency", "4")),
    "16g_plain": Scenario(16, 15.5, alone=True),
    "16g_auto": Scenario(16, 15.5, ("--max-model-len", "auto"), alone=True),
    "16g_keep_context": Scenario(16, 15.5, ("--strategy", "keep-context")),
    "20g_plain": Scenario(20, 19.5, alone=True),
    "20g_auto": Scenario(20, 19.5, ("--max-model-len", "auto"), alone=True),
    "80g_plain": Scenario(None, None, alone=True),
    "24g_no_auto": Scenario(24, 23.2, ("--engine-version", "0.13.0")),
    "24g_keep_context": Scenario(24, 23.2, ("--strategy", "keep-context")),
    "16g_default": Scenario(16, 15.5),
    "20g_default": Scenario(20, 19.5),
    "80g_default": Scenario(None, None),
    "80g_kv_none": Scenario(None, None, ("--strategy", str(HERE / "start-at-0.23.toml"), "--enforce-eager")),
}


def used_mib() -> int:
    """Return the card's used memory in MiB, as nvidia-smi says."""
    text = subprocess.run(
        ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    return int(text.split()[0])


@contextlib.contextmanager
def neighbour(free_gib: float | None) -> Iterator[None]:
    """Hold the card's memory but for `free_gib`."""
    if free_gib is None:
        yield
        return
    command = [sys.executable, str(HERE / "hold_memory.py"), str(free_gib)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        print("   ", holder.stdout.readline().strip(), flush=True)
        try:
            yield
        finally:
            holder.kill()


def environment(scenario: Scenario, folder: Path) -> dict[str, str]:
    """Return this environment with the smaller card and the scenario's compile cache in it."""
    paths = [str(HERE.parent.parent), str(HERE / "small_card"), os.environ.get("PYTHONPATH", "")]
    small = {"SMALL_CARD_GIB": str(scenario.card_gib)} if scenario.card_gib else {}
    quiet = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_USE_FLASHINFER_SAMPLER": "0"}
    small["VLLM_CACHE_ROOT"] = str(folder.with_name("cache") / (scenario.after or folder.name))
    return {**os.environ, **quiet, **small, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


def command(scenario: Scenario, folder: Path) -> list[str]:
    """Return autolaunch's command line for a scenario."""
    return [
        sys.executable, "-m", "autolaunch", str(MODEL), *COMMON, *scenario.options,
        "--record", str(folder / "record.jsonl"),
        "--state-dir", str(folder.with_name(scenario.after) if scenario.after else folder),
    ]  # fmt: skip


def lines(folder: Path) -> list[dict[str, object]]:
    """Return the record's events so far."""
    file = folder / "record.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def run(name: str, scenario: Scenario, out: Path) -> str:
    """Run a scenario with --check and return its line of the table."""
    folder = out / name
    folder.mkdir(parents=True)
    before, began = used_mib(), time.monotonic()
    if scenario.alone:
        with neighbour(scenario.free_gib):
            alone = by_hand(scenario, folder)
        return f"{name}: {alone}; {time.monotonic() - began:.0f} s in all; MiB used after {settle(before)}"
    with neighbour(scenario.free_gib):
        done = subprocess.run([*command(scenario, folder), "--check"], env=environment(scenario, folder), check=False)
        held = used_mib()
    took = time.monotonic() - began
    story = []
    for event in lines(folder):
        if event["event"] == "plan":
            budget = event["budget"]
            assert isinstance(budget, dict)
            predicted = budget.get("kv_cache_bytes", 0) / 2**30
            story.append(f"plan: {predicted:.2f} GiB of KV cache predicted, {event['why']}")
        elif event["event"] == "failed":
            failure = event["failure"]
            assert isinstance(failure, dict)
            story.append(f"{failure['kind']} ({event['seconds']} s, reacted in {event['reaction_seconds']} s)")
        elif event["event"] == "step":
            story.append(f"{event['rung']} {event['from']} -> {event['to']}")
        elif event["event"] == "ready":
            story.append(
                f"READY in {event['seconds']} s: {json.dumps(event['effective'])} {json.dumps(event['settings'])}"
            )
        elif event["event"] == "exhausted":
            story.append(f"exhausted: {event['why']} {event['closest']}")
    after = settle(before)
    memory = f"MiB used before {before}, with the neighbour at the end {held}, after {after}"
    return f"{name}: exit {done.returncode} after {took:.0f} s; {'; '.join(story)}; {memory}"


def by_hand(scenario: Scenario, folder: Path) -> str:
    """Start vLLM once as a person would; return what it said of its cache and whether it came up."""
    words = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(MODEL), *COMMON]
    log = folder / "engine.log"
    began = time.monotonic()
    with log.open("wb") as out:
        engine = subprocess.Popen(
            [*words, *scenario.options], env=environment(scenario, folder), stdout=out, stderr=out,
            start_new_session=True,
        )  # fmt: skip
        while engine.poll() is None and not healthy() and time.monotonic() < began + 240:
            time.sleep(0.2)
        came_up, took = healthy(), time.monotonic() - began
        with contextlib.suppress(ProcessLookupError):
            os.killpg(engine.pid, signal.SIGKILL)
        engine.wait()
    text = log.read_text(errors="replace")
    told = re.findall(r"Available KV cache memory: [\d.]+ GiB|KV cache size: [\d,]+ tokens|estimated maximum model "
                      r"length is \d+|reduced from \d+ to \d+|OutOfMemoryError: .{0,80}", text)  # fmt: skip
    return f"{'READY' if came_up else 'failed'} in {took:.1f} s: {list(dict.fromkeys(told))}"


def healthy() -> bool:
    """Whether the engine says that it serves."""
    with contextlib.suppress(OSError), urllib.request.urlopen("http://127.0.0.1:8123/health", timeout=2) as answer:
        return bool(answer.status == 200)
    return False


def settle(before: int) -> int:
    """Return the used memory once it is back, or after 10 s."""
    deadline = time.monotonic() + 10
    while used_mib() > before and time.monotonic() < deadline:
        time.sleep(0.1)
    return used_mib()


def kill_ready(out: Path) -> str:
    """SIGKILL the supervisor of an engine that serves; return how long its memory takes to come back."""
    folder = out / "sigkill_when_ready"
    folder.mkdir(parents=True)
    before = used_mib()
    scenario = Scenario(None, None, ("--enforce-eager",))
    with subprocess.Popen(command(scenario, folder), env=environment(scenario, folder)) as supervisor:
        deadline = time.monotonic() + 240
        while not any(event["event"] == "ready" for event in lines(folder)) and time.monotonic() < deadline:
            time.sleep(0.2)
        serving = used_mib()
        supervisor.send_signal(signal.SIGKILL)
        killed = time.monotonic()
    after = settle(before)
    took = time.monotonic() - killed
    return f"sigkill_when_ready: MiB used before {before}, serving {serving}, after {after}; {took:.1f} s from SIGKILL"


def main() -> None:
    """Run what was named."""
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    names = sys.argv[2:] or [*SCENARIOS, "sigkill_when_ready"]
    for name in names:
        print("==", name, flush=True)
        line = kill_ready(out) if name == "sigkill_when_ready" else run(name, SCENARIOS[name], out)
        print(line, flush=True)
        with (out / "summary.txt").open("a") as file:
            file.write(line + "\n")


if __name__ == "__main__":
    main()
