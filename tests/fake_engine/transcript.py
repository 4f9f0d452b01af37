"""What a whole start prints, without a process: phase by phase up to its failure, and what follows it. Pure."""

from __future__ import annotations

from .arguments import parse
from .behaviours import PHASES
from .failures import aftermath, cause, phase_of
from .release import release
from .texts import Speech, Texts
from .values import fill_values, numbers

API_PID, CORE_PID = 4001, 4065


def transcript(version: str, kind: str, *args: str) -> list[str]:
    """Give the lines of a start of this release that ends so ("ok" serves), without their newlines."""
    said = speech(version, kind, *args)
    at = phase_of(said, kind) if kind != "ok" else "serving"
    lines: list[tuple[int, str]] = []
    for phase in PHASES[: PHASES.index(at) + 1]:
        cut = phase == at and (phase != "serving" or kind == "port_in_use")
        lines += said.phase(phase, kind if cut and kind != "ok" else "")
    if kind != "ok":
        lines += cause(said, kind) + aftermath(said, kind)
    return [line for _, line in lines]


def speech(version: str, kind: str, *args: str) -> Speech:
    """Give a start's way of saying things, with its numbers, its pids and the flags of its command line."""
    arguments = parse(["--model", "m", *args], version)
    found = numbers(kind, {}, arguments.with_defaults())
    values = {**fill_values(arguments, found, reveal=False), "api_pid": API_PID, "core_pid": CORE_PID}
    values |= {"core_prefix": f"(EngineCore pid={CORE_PID}) ", "task": "generate", "hf_token": ""}
    values |= {"request": "GET /health", "status": "200 OK"}
    ranks = arguments.number("tensor_parallel_size", 1)
    flags = {"eager": bool(arguments.given.get("enforce_eager")), "ranks": ranks > 1}
    flags["estimate"] = release(version).estimates_graphs and not flags["eager"]
    return Speech(Texts(version), values, frozenset(name for name, holds in flags.items() if holds), ranks)
