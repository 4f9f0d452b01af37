"""A models file: the catalogue that ships and a user's own have the same keys, and a mistake in one is named.

Pure. Owns the closed vocabulary of such a file and its validation. What its tables mean is `entry`'s.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from autolaunch import configuration
from autolaunch.arguments import given, split
from autolaunch.checks import Checks
from autolaunch.dialect import dialects
from autolaunch.entry import numbers
from autolaunch.errors import WishError

Facts = Mapping[str, Any]
"""One model's checked table."""

Tables = Mapping[str, Facts]
"""Checked tables by their short names."""

KEYS = (
    "model", "modelscope", "also", "like", "description", "engine_args", "since", "until", "before", "refusal",
    "dialect", "config", "weights", "variants",
)  # fmt: skip
WEIGHT_KEYS = ("loaded_bytes", "linear_bytes", "expert_bytes", "basis")
VARIANT_KEYS = ("model", "modelscope", "quantization", "loaded_bytes", "capability")

OWN: Mapping[str, bool] = {
    **dict.fromkeys(("--check", "--modelscope", "--no-memory", "--no-prove", "--try-anyway"), False),
    **dict.fromkeys((
        "--concurrency", "--drain-timeout", "--engine", "--engine-log", "--engine-version", "--gpus", "--hang-timeout",
        "--log-format", "--max-attempts", "--max-context", "--max-restarts", "--memory", "--min-context", "--models",
        "--record", "--restart-window", "--stall-timeout", "--start-timeout", "--state-dir", "--status", "--strategy",
    ), True),
}  # fmt: skip
"""autolaunch's own options of a launch, and whether each takes a value: none of them is the engine's."""

_SHORT = re.compile(r"[a-z0-9_][a-z0-9._-]*")
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+")
_RELEASE = re.compile(r"\d+(\.\d+)*|\d+\.\d+\.\d+\.post\d+")

COMMANDS = ("diagnose", "doctor", "history", "logs", "models", "plan", "report", "serve", "systemd")
"""autolaunch's own, which a model of that name could not be told from."""


def parse_models(name: str, text: str, *, shipped: Collection[str] = ()) -> Tables:
    """Read a user's models file; raise `WishError` naming the file, the key and the nearest known key.

    `shipped` are the short names that need not stand in it to be known.
    """
    file = Checks(f"models file {name}", error=WishError, see="docs/models.md")
    tables = file.parsed(text)
    taken: dict[str, str] = {}
    found: dict[str, Facts] = {}
    for alias, table in tables.items():
        facts = check(file, alias, table)
        for other in (alias, facts["model"], *facts.get("also", ()), *facts.get("like", ())):
            if taken.setdefault(other.lower(), alias) != alias:
                raise file.fail(
                    f"{other!r} stands for {taken[other.lower()]!r} and for {alias!r}", "name each model once"
                )
        found[alias] = facts
    for alias, facts in found.items():
        _before(file, facts, _where(alias), [name for name in (*taken, *shipped) if taken.get(name) != alias])
    return found


def check(file: Checks, alias: str, table: Any) -> Facts:
    """Return a model's table as it is after every key of it was checked."""
    where = _where(alias)
    if not _SHORT.fullmatch(alias):
        raise file.fail(f"{where} is no short name", 'write small letters, digits, ".", "_" and "-": ["qwen3-8b.own"]')
    facts = file.table(table, where)
    if "model" not in facts and any(isinstance(value, dict) and "model" in value for value in facts.values()):
        inner = next(iter(facts))
        raise file.fail(f"{where} is a table of tables", f'a name with a dot stands in quotes: ["{alias}.{inner}"]')
    file.keys(facts, KEYS, where)
    _model(file, facts.get("model"), where)
    _modelscope(file, facts, where)
    _callable(file, alias, where)
    for key in ("also", "like"):
        for name in file.texts(facts.get(key, []), f"{key!r} of {where}"):
            if not (_HUB_ID if key == "like" or "/" in name else _SHORT).fullmatch(name.lower()):
                raise file.fail(
                    f"{name!r} in {key!r} of {where} is no name of a model", "give a short name or a hub id"
                )
            _callable(file, name.lower(), f"{name!r} in {key!r} of {where}")
    for key in ("description", "refusal"):
        file.text(facts.get(key, ""), f"{key!r} of {where}")
    _options(file, facts, where)
    _releases(file, facts, where)
    _memory(file, facts, where)
    for index, variant in enumerate(_listed(file, facts.get("variants", []), f"'variants' of {where}"), 1):
        _variant(file, variant, f"variant {index} of {where}")
    return facts


def _where(alias: str) -> str:
    return f"[{alias}]" if re.fullmatch(r"[A-Za-z0-9_-]+", alias) else f'["{alias}"]'


def _callable(file: Checks, name: str, where: str) -> None:
    if name in COMMANDS:
        raise file.fail(f"{where} cannot be called: autolaunch {name} is a command", "give it another short name")


def _model(file: Checks, value: Any, where: str) -> None:
    text = file.text(value, f"'model' of {where}")
    if not (_HUB_ID.fullmatch(text) or "://" in text or text.startswith(("/", "~/"))):
        raise file.fail(
            f"'model' of {where} is {text!r}; it must be a hub id, a full path or a URL",
            "for example zai-org/glm-4-9b-chat-hf, /srv/models/glm-4 or s3://bucket/glm-4",
        )


def _modelscope(file: Checks, facts: Facts, where: str) -> None:
    found = file.text(facts.get("modelscope", "a/b"), f"'modelscope' of {where}")
    if not _HUB_ID.fullmatch(found):
        raise file.fail(f"'modelscope' of {where} is {found!r}; it must be an id such as ZhipuAI/glm-4-9b-chat")


def _options(file: Checks, facts: Facts, where: str) -> None:
    of = f"'engine_args' of {where}"
    words = file.texts(facts.get("engine_args", []), of)
    for word in words:
        if re.match(r"--?[A-Za-z][\w-]*\s", word):
            raise file.fail(f"{of}: {word!r} is one word", f"write an option and its value as two: {word.split()}")
    parts = split((where, *words), OWN)
    if words and not words[0].startswith("-"):
        raise file.fail(f"{of} begin with {words[0]!r}, which is no option", "write --name, then its value")
    if parts.own:
        name = parts.own[0].partition("=")[0]
        variable = f"AUTOLAUNCH_{name[2:].replace('-', '_').upper()}"
        raise file.fail(f"{of}: {name} is autolaunch's, not vLLM's", f"type it, or set {variable}")
    if "--" in words:
        raise file.fail(f"{of}: a word '--' says nothing there", "leave it out")
    if parts.stray:
        raise file.fail(f"{of}: {parts.stray[0]!r} belongs to no option", "an option's values follow it")
    if any(option.name == "model" for option in given(words)):
        raise file.fail(f"{of} name a model", "that is what the key 'model' is for")
    if "dialect" in facts:
        file.choice(facts["dialect"], tuple(dialects()), f"'dialect' of {where}")


def _releases(file: Checks, facts: Facts, where: str) -> None:
    for key in ("since", "until"):
        if key in facts and not _RELEASE.fullmatch(file.text(facts[key], f"{key!r} of {where}")):
            raise file.fail(
                f"{key!r} of {where} is {facts[key]!r}, which is no release of vLLM",
                'write one such as "0.8.5" or "0.8.5.post1"',
            )
    since, until = numbers(facts.get("since", "")), numbers(facts.get("until", ""))
    if until and since[: len(until)] > until:
        raise file.fail(f"{where} is served since {facts['since']} and until {facts['until']}: by no release at all")
    if "before" in facts and not _SHORT.fullmatch(file.text(facts["before"], f"'before' of {where}")):
        raise file.fail(f"'before' of {where} is {facts['before']!r}, which is no short name")
    if "before" in facts and not since:
        raise file.fail(f"{where} has 'before' and no 'since'", "'before' is the model for releases before 'since'")


def _before(file: Checks, facts: Facts, where: str, others: Sequence[str]) -> None:
    """Raise for a model for older releases that is none of the others; a slip finds the nearest."""
    wanted = facts.get("before", "")
    if wanted and wanted not in others:
        near = difflib.get_close_matches(wanted, [name for name in others if "/" not in name], n=1)
        hint = f"did you mean {near[0]!r}?" if near else "give a short name of this file or of autolaunch models"
        raise file.fail(f"'before' of {where} is {wanted!r}, which is no short name of another model", hint)


def _memory(file: Checks, facts: Facts, where: str) -> None:
    config = file.table(facts.get("config", {}), f"'config' of {where}")
    if config:
        read = configuration.read(config)
        if read.shape is None:
            why = "; ".join(read.notes) or "it gives no dimensions"
            raise file.fail(f"'config' of {where}: {why}", "copy the keys of the model's config.json, or leave it out")
    if "weights" not in facts:
        return
    weights, of = file.table(facts["weights"], f"'weights' of {where}"), f"'weights' of {where}"
    file.keys(weights, WEIGHT_KEYS, of)
    loaded = _bytes(file, weights.get("loaded_bytes"), f"'loaded_bytes' in {of}", least=1)
    linear = _bytes(file, weights.get("linear_bytes", 0), f"'linear_bytes' in {of}")
    experts = _bytes(file, weights.get("expert_bytes", 0), f"'expert_bytes' in {of}")
    if not experts <= linear <= loaded:
        raise file.fail(f"{of}: {experts} bytes of experts, {linear} of linear layers and {loaded} in all do not nest")
    file.choice(weights.get("basis", "exact"), ("exact", "estimated"), f"'basis' in {of}")


def _bytes(file: Checks, value: Any, where: str, *, least: int = 0) -> int:
    found = file.count(value, where, least=least)
    if found >= 1 << 50:
        raise file.fail(f"{where} is {found} bytes, which is more than any model has")
    return found


def _listed(file: Checks, value: Any, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise file.fail(f"{where} is {value!r}; it must be a list of tables")
    return value


def _variant(file: Checks, value: Any, where: str) -> None:
    variant = file.table(value, where)
    file.keys(variant, VARIANT_KEYS, where)
    model = file.text(variant.get("model"), f"'model' of {where}")
    if not _HUB_ID.fullmatch(model):
        raise file.fail(f"'model' of {where} is {model!r}; it must be a hub id")
    _modelscope(file, variant, where)
    file.text(variant.get("quantization"), f"'quantization' of {where}")
    _bytes(file, variant.get("loaded_bytes"), f"'loaded_bytes' of {where}", least=1)
    numbers = _listed(file, variant.get("capability"), f"'capability' of {where}")
    if len(numbers) != 2:
        raise file.fail(f"'capability' of {where} is {numbers!r}; it must be two numbers such as [8, 0]")
    for number in numbers:
        file.count(number, f"a number in 'capability' of {where}", least=0)
