"""The models known by a short name, and what is known of them before anything is downloaded.

Owns `catalog.toml` and the reading of a model's name. The facts of a model on disk are `model`'s.
"""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from autolaunch import configuration
from autolaunch.errors import WishError
from autolaunch.facts import Variant, Weights
from autolaunch.shape import Shape

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


_CONFIGURATIONS = ("config.json", "params.json")
"""A model's own description: as transformers writes it, as Mistral does."""

_SOURCE = "catalogue"


@dataclass(frozen=True, slots=True)
class Entry:
    """A model as it will be given to the engine: an alias of the catalogue, a hub id or a folder.

    `max_model_len`, `quantization`, `shape` and `weights` are what the catalogue knows, None where it knows
    nothing. `also` are other names and hub ids of the same model. `since` and `until` are the first and the last
    release of vLLM that serve it ("0.8.5"), "" where any does. `refusal` says why vLLM cannot serve it at all.
    """

    name: str
    model: str
    description: str = ""
    engine_args: tuple[str, ...] = ()
    max_model_len: int | None = None
    variants: tuple[Variant, ...] = ()
    quantization: str | None = None
    shape: Shape | None = None
    weights: Weights | None = None
    also: tuple[str, ...] = ()
    since: str = ""
    until: str = ""
    refusal: str = ""


@lru_cache(maxsize=1)
def catalog() -> dict[str, Entry]:
    """Load the shipped catalogue: alias to entry."""
    here = Path(__file__).with_name("catalog.toml")
    return {name: _entry(name, facts) for name, facts in tomllib.loads(here.read_text(encoding="utf-8")).items()}


def _entry(name: str, facts: Mapping[str, Any]) -> Entry:
    model = facts["model"]
    if model.startswith("package:"):
        model = str(Path(__file__).with_name("models") / model.removeprefix("package:"))
    known = configuration.read(facts.get("config", {}))
    return Entry(
        name=name,
        model=model,
        description=facts["description"],
        engine_args=("--served-model-name", name, *facts.get("engine_args", ())),
        max_model_len=known.max_model_len,
        variants=tuple(_variant(variant) for variant in facts.get("variants", ())),
        quantization=known.quantization,
        shape=known.shape,
        weights=_weights(facts.get("weights")),
        also=tuple(facts.get("also", ())),
        since=facts.get("since", ""),
        until=facts.get("until", ""),
        refusal=facts.get("refusal", ""),
    )


def _weights(figures: Mapping[str, int] | None) -> Weights | None:
    if figures is None:
        return None
    return Weights(
        figures["loaded_bytes"], figures.get("linear_bytes", 0), figures.get("expert_bytes", 0), source=_SOURCE
    )


def _variant(facts: Mapping[str, Any]) -> Variant:
    major, minor = facts.get("capability", (7, 5))
    return Variant(facts["model"], facts["quantization"], _weights(facts.get("weights")), (major, minor))


def find_model(name: str) -> Entry:
    """Return the entry for an alias, a folder or a hub id; raise `WishError` where it can be none of them."""
    known = _named(name)
    if known is not None:
        return known
    path = Path(name).expanduser()
    if name and path.is_dir():
        if not any((path / file).is_file() for file in _CONFIGURATIONS) and not any(path.glob("*.gguf")):
            raise WishError(f"the folder {name} holds no model: no config.json in it", hint="give the model's folder")
        return Entry(name=name, model=str(path))
    if path.is_file() and path.suffix == ".gguf":
        return Entry(name=name, model=str(path))
    if re.fullmatch(r"[\w.-]+/[\w.-]+", name) and not name.startswith((".", "~")):
        return Entry(name=name, model=name)
    if "://" in name:
        return Entry(name=name, model=name)
    raise _no_model(name)


def _no_model(name: str) -> WishError:
    near = difflib.get_close_matches(name.lower(), catalog(), n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    what = (
        f"there is no folder {name}" if "/" in name or name.startswith((".", "~")) else f"no model is known as {name!r}"
    )
    return WishError(
        what,
        hint=f"{hint}give a folder, a hub id such as zai-org/glm-4-9b-chat-hf, or one of: {', '.join(catalog())}",
    )


def _named(name: str) -> Entry | None:
    """Return what the catalogue has under an alias or a hub id; other names of a model are served beside its own."""
    wanted = name.lower()
    for entry in catalog().values():
        if wanted == entry.name:
            return entry
        if wanted not in _names(entry):
            continue
        if entry.refusal:
            return entry
        rest = entry.engine_args[2:]
        if "/" in name:
            return replace(entry, name=name, model=name, engine_args=rest)
        return replace(entry, engine_args=("--served-model-name", wanted, entry.name, *rest))
    return None


def _names(entry: Entry) -> set[str]:
    return {name.lower() for name in (entry.model, *entry.also)}
