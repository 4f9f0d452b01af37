"""What a fake engine is to do, as pure data: Scenario, Outcome, Rule; from and to JSON and an environment.

The vocabulary is documented on the fields here, on `behaviours` and on `memory.MemoryModel`. Unknown keys are
errors. Must not act.
"""

from __future__ import annotations

from .behaviours import PHASES, Behaviour
from .memory import MemoryModel
from .record import Record, ScenarioError
from .release import RELEASES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from os import PathLike
    from typing import TypeVar

    B = TypeVar("B", bound=Behaviour)

VARIABLE = "FAKE_ENGINE"
"""The environment variable with a scenario: a path to a JSON file, or JSON that begins with '{'."""

KINDS = (
    "ok",
    "auto",
    "free_memory_low",
    "weights_oom",
    "profile_oom",
    "kv_none",
    "kv_too_small",
    "seqs_too_many",
    "kv_alloc_oom",
    "graph_oom",
    "sampler_oom",
    "runtime_oom",
    "oom",
    "host_oom",
    "profiling_race",
    "config_error",
    "model_not_found",
    "port_in_use",
    "hardware_unsupported",
    "distributed_error",
    "compile_error",
    "other_crash",
    "unknown",
)
"""The kinds of autolaunch.failure, and "auto": what the memory model says, "ok" where there is none."""

ENDS = ("exit", "hang", "hang_core")
OPERATORS = ("eq", "ne", "lt", "le", "gt", "ge", "in", "given")


def _among(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ScenarioError(f"{name}: {value!r} is not one of {', '.join(known)}")


class Outcome(Record):
    """How one start goes. In JSON a bare string is the kind alone.

    kind        "ok" becomes ready, "auto" asks the memory model, anything else is the failure printed.
    phase       where it fails; "" is where vLLM itself fails with that kind.
    then        after the cause is printed: "exit"; "hang" (prints no more and lives on); "hang_core" (the API
                server ends, the engine core lives on in its session).
    code        the exit status, None is what vLLM gives (1; host_oom is killed by signal 9).
    signal      ends by this signal instead of an exit status.
    delay_s     seconds to wait before a phase prints, by phase; "exit" waits between the cause and the end,
                "shutdown" between SIGTERM and the end.
    numbers     numbers for the texts, by the names of autolaunch.failure.NUMBER_NAMES and kv_cache_tokens,
                max_model_len; they win over those of the memory model.
    lines       printed instead of the kind's own text, as they are.
    log         a file printed line by line instead of all texts of the start (a real log, replayed).
    behaviours  see the module `behaviours`.
    """

    kind: str = "auto"
    phase: str = ""
    then: str = "exit"
    code: int | None = None
    signal: int | None = None
    delay_s: Mapping[str, float] = {}
    numbers: Mapping[str, float] = {}
    lines: tuple[str, ...] = ()
    log: str = ""
    behaviours: tuple[Behaviour, ...] = ()

    def check(self) -> None:
        _among("Outcome.kind", self.kind, KINDS)
        _among("Outcome.phase", self.phase, ("", *PHASES))
        _among("Outcome.then", self.then, ENDS)
        for phase in self.delay_s:
            _among("Outcome.delay_s", phase, (*PHASES, "exit", "shutdown"))

    @classmethod
    def from_json(cls, value: object, where: str) -> Outcome:
        """Read an outcome object, or a bare kind."""
        return super().from_json({"kind": value} if isinstance(value, str) else value, where)

    def find(self, kind: type[B]) -> B | None:
        """Give the behaviour of that class, if the outcome has it."""
        for behaviour in self.behaviours:
            if isinstance(behaviour, kind):
                return behaviour
        return None

    def at(self, phase: str) -> tuple[Behaviour, ...]:
        """Give the behaviours that happen at `phase`."""
        return tuple(behaviour for behaviour in self.behaviours if getattr(behaviour, "phase", "") == phase)


class Rule(Record):
    """An outcome for the starts whose arguments match all of `when`.

    when  by argument in vLLM's spelling with underscores (defaults filled in; `start` is the number of the
          start from 0): a value it must equal, or an object of operators: eq ne lt le gt ge in given.
    """

    when: Mapping[str, object]
    do: Outcome

    def check(self) -> None:
        for name, wanted in self.when.items():
            for operator in wanted if isinstance(wanted, dict) else ():
                _among(f"Rule.when.{name}", operator, OPERATORS)


class Scenario(Record):
    """Everything one fake engine needs to know.

    folder           where starts are counted and recorded; "" is the folder of the scenario's file.
    version          one of release.RELEASES: whose texts are printed, whose options and memory rules hold.
    rules            looked at first, the first that matches gives the outcome.
    starts           the n-th start takes the n-th outcome, the last one repeats; empty is Outcome().
    memory           what the kind "auto" asks.
    behaviours       of every start, before those of its outcome.
    unknown_options  "tolerate", or with argparse's error and exit status 2 "refuse" those that nobody here knows,
                     "release" those that this release does not take.
    """

    folder: str = ""
    version: str = "0.24.0"
    rules: tuple[Rule, ...] = ()
    starts: tuple[Outcome, ...] = ()
    memory: MemoryModel | None = None
    behaviours: tuple[Behaviour, ...] = ()
    unknown_options: str = "tolerate"

    def check(self) -> None:
        _among("Scenario.version", self.version, RELEASES)
        _among("Scenario.unknown_options", self.unknown_options, ("tolerate", "refuse", "release"))

    def write(self, path: str | PathLike[str]) -> dict[str, str]:
        """Write the scenario to a file; give the environment that makes a fake engine follow it."""
        import json
        import os
        from pathlib import Path

        whole = Path(path).absolute()
        part = whole.with_name(f".{whole.name}.{os.getpid()}")
        part.write_text(json.dumps(self.to_json(), indent=1), encoding="utf-8")
        part.replace(whole)  # at once: another start may be reading it
        return {VARIABLE: str(whole)}

    def env(self) -> dict[str, str]:
        """Give the environment that makes a fake engine follow this scenario, without a file."""
        import json

        return {VARIABLE: json.dumps(self.to_json())}


def load(text: str) -> Scenario:
    """Read the value of FAKE_ENGINE ("" is an engine that becomes ready and records nothing)."""
    import json

    if not text:
        return Scenario()
    if text.lstrip().startswith("{"):
        return Scenario.from_json(json.loads(text), "scenario")
    with open(text, encoding="utf-8") as file:  # noqa: PTH123  pathlib costs 5 ms of the start
        value = json.load(file)
    if isinstance(value, dict) and not value.get("folder"):
        value["folder"] = text.rpartition("/")[0] or "."
    return Scenario.from_json(value, text)


def matches(when: Mapping[str, object], arguments: Mapping[str, object]) -> bool:
    """Whether the arguments of a start satisfy a rule."""
    return all(_holds(wanted, arguments.get(name)) for name, wanted in when.items())


def _holds(wanted: object, found: object) -> bool:
    if not isinstance(wanted, dict):
        return found == wanted
    return all(_compare(operator, found, bound) for operator, bound in wanted.items())


def _compare(operator: str, found: object, bound: object) -> bool:
    if operator == "given":
        return (found is not None) == bool(bound)
    if operator in ("eq", "ne"):
        return (found == bound) == (operator == "eq")
    if operator == "in":
        return isinstance(bound, (list, tuple)) and found in bound
    if not isinstance(found, (int, float)) or not isinstance(bound, (int, float)):
        return False
    return {"lt": found < bound, "le": found <= bound, "gt": found > bound, "ge": found >= bound}[operator]


def choose(scenario: Scenario, start: int, arguments: Mapping[str, object]) -> Outcome:
    """Give the outcome of start number `start` (from 0) with these arguments."""
    for rule in scenario.rules:
        if matches(rule.when, {**arguments, "start": start}):
            return rule.do
    return scenario.starts[min(start, len(scenario.starts) - 1)] if scenario.starts else Outcome()
