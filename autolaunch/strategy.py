"""Strategies: TOML files, each an ordered list of rungs with the failures they answer and their limits.

Owns the closed vocabulary of a strategy file and its validation. Must not hold any rung's arithmetic
(`ladder`) and allows no conditions or code in a file.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autolaunch.checks import Checks
from autolaunch.errors import StrategyError
from autolaunch.failure import Kind
from autolaunch.settings import AUTO

RUNG_NAMES = ("utilization", "gpus", "context", "batch", "eager", "fp8_kv", "quantized_weights")
QUANTIZE_METHODS = ("fp8", "variant", "bitsandbytes")

_TOP_KEYS = ("description", "max_attempts", "start", "rung")
_START_KEYS = ("gpu_memory_utilization", "max_model_len")
_RUNG_KEYS: Mapping[str, tuple[str, ...]] = {
    "utilization": ("values", "min", "max", "partial"),
    "gpus": (),
    "context": ("step", "min"),
    "batch": (),
    "eager": (),
    "fp8_kv": (),
    "quantized_weights": ("methods",),
}
_COMMON_KEYS = ("name", "answers")


@dataclass(frozen=True, slots=True)
class Rung:
    """One kind of concession, for the failures it answers.

    `values` (utilization): go down these literal values instead of computing one; `min`/`max`: bounds of a
    utilization, or the smallest context of a literal ladder; `partial`: raise as far as there is memory even
    where that alone does not cure; `step` (context): "engine" uses the engine's own number, "halve" halves;
    `methods` (quantized_weights): which ways are allowed, in the order they are tried.
    """

    name: str
    answers: frozenset[Kind]
    values: tuple[float, ...] = ()
    min: float = 0.0
    max: float = 1.0
    partial: bool = False
    step: str = "engine"
    methods: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Strategy:
    """A named ladder with its preferences.

    `start_utilization` None lets the memory that is free decide; `start_max_model_len` None is the engine's
    default, AUTO lets an engine that can fit the context itself.
    """

    name: str
    description: str
    max_attempts: int
    start_utilization: float | None
    start_max_model_len: int | None
    rungs: tuple[Rung, ...]

    @property
    def literal(self) -> bool:
        """Whether the ladder goes down written values, blind to causes and to the engine's numbers."""
        return any(rung.values or rung.step == "halve" for rung in self.rungs)


def _rung(file: Checks, table: Any, index: int) -> Rung:
    where = f"[[rung]] number {index}"
    table = file.table(table, where)
    name = file.choice(table.get("name"), RUNG_NAMES, f"'name' of {where}")
    where = f"rung {name!r}"
    file.keys(table, (*_COMMON_KEYS, *_RUNG_KEYS[name]), where)
    kinds = tuple(kind.value for kind in Kind if kind is not Kind.OK)
    answers = file.items(table.get("answers"), f"'answers' of {where}")
    rung: dict[str, Any] = {
        "name": name,
        "answers": frozenset(Kind(file.choice(a, kinds, f"an entry of 'answers' of {where}")) for a in answers),
    }
    if "values" in table:
        values = tuple(
            file.share(v, f"'values' of {where}") for v in file.items(table["values"], f"'values' of {where}")
        )
        if list(values) != sorted(set(values), reverse=True):
            raise file.fail(f"'values' of {where} must fall strictly: {list(values)}")
        rung["values"] = values
    if "min" in table:
        read = file.count if name == "context" else file.share
        rung["min"] = read(table["min"], f"'min' of {where}")
    if "max" in table:
        rung["max"] = file.share(table["max"], f"'max' of {where}")
    if "partial" in table:
        if not isinstance(table["partial"], bool):
            raise file.fail(f"'partial' of {where} is {table['partial']!r}; it must be true or false")
        rung["partial"] = table["partial"]
    if "step" in table:
        rung["step"] = file.choice(table["step"], ("engine", "halve"), f"'step' of {where}")
    if name == "quantized_weights":
        methods = file.items(table.get("methods", list(QUANTIZE_METHODS)), f"'methods' of {where}")
        rung["methods"] = tuple(file.choice(m, QUANTIZE_METHODS, f"an entry of 'methods' of {where}") for m in methods)
    made = Rung(**rung)
    if name == "utilization" and made.min > made.max:
        raise file.fail(f"'min' {made.min} of {where} is above its 'max' {made.max}")
    return made


def parse_strategy(name: str, text: str) -> Strategy:
    """Read one strategy file's text; raise `StrategyError` naming the file, the key and the nearest known key."""
    file = Checks(f"strategy {name}", error=StrategyError, see="docs/strategies.md")
    table = file.parsed(text)
    file.keys(table, _TOP_KEYS, "the file")
    start = file.table(table.get("start", {}), "[start]")
    file.keys(start, _START_KEYS, "[start]")
    utilization = start.get("gpu_memory_utilization", "free")
    context = start.get("max_model_len")
    rungs = table.get("rung", [])
    if not isinstance(rungs, list) or not rungs:
        raise file.fail("has no [[rung]]")
    return Strategy(
        name=Path(name).stem,
        description=file.text(table.get("description", ""), "'description'"),
        max_attempts=file.count(table.get("max_attempts", 8), "'max_attempts'"),
        start_utilization=None
        if utilization == "free"
        else file.share(utilization, "'gpu_memory_utilization' of [start]", also=', or "free"'),
        start_max_model_len=(
            None
            if context is None
            else AUTO
            if context == "auto"
            else file.count(context, "'max_model_len' of [start]", also=', or "auto"')
        ),
        rungs=tuple(_rung(file, rung, index) for index, rung in enumerate(rungs, 1)),
    )


def strategies_folder() -> Path:
    """Return where the shipped strategies lie: inside the wheel, or beside the package in a checkout."""
    inside = Path(__file__).with_name("strategies")
    return inside if inside.is_dir() else Path(__file__).parent.parent / "strategies"


def shipped_strategies() -> tuple[str, ...]:
    """Return the names of the shipped strategies."""
    return tuple(sorted(path.stem for path in strategies_folder().glob("*.toml")))


def load_strategy(name_or_file: str) -> Strategy:
    """Load a shipped strategy by name or any TOML file by path; raise `StrategyError`."""
    shipped = shipped_strategies()
    path = Path(name_or_file)
    if name_or_file in shipped:
        path = strategies_folder() / f"{name_or_file}.toml"
    elif path.suffix != ".toml" and not path.is_file():
        near = difflib.get_close_matches(name_or_file, shipped, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise StrategyError(
            f"there is no strategy named {name_or_file!r}",
            hint=f"{hint}shipped: {', '.join(shipped)}; or give the path of a .toml file",
        )
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise StrategyError(f"strategy file {path} cannot be read: {error}", hint="check the path") from error
    return parse_strategy(str(path) if name_or_file not in shipped else name_or_file, text)
