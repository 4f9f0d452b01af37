"""The models known by a short name, and what is known of them before anything is downloaded.

Owns `catalog.toml` and the reading of a model's name. The facts of a model on disk are `model`'s.
"""

from __future__ import annotations

import difflib
import re
import sys
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from autolaunch.errors import WishError
from autolaunch.facts import Variant

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


_CONFIGURATIONS = ("config.json", "params.json")
"""A model's own description: as transformers writes it, as Mistral does."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A model as it will be given to the engine: an alias of the catalogue, a hub id or a folder."""

    name: str
    model: str
    description: str = ""
    engine_args: tuple[str, ...] = ()
    max_model_len: int | None = None
    variants: tuple[Variant, ...] = ()


@lru_cache(maxsize=1)
def catalog() -> dict[str, Entry]:
    """Load the shipped catalogue: alias to entry."""
    here = Path(__file__)
    table = tomllib.loads(here.with_name("catalog.toml").read_text(encoding="utf-8"))
    entries: dict[str, Entry] = {}
    for name, facts in table.items():
        model = facts["model"]
        if model.startswith("package:"):
            model = str(here.with_name("models") / model.removeprefix("package:"))
        known = {**facts, "model": model, "engine_args": tuple(facts.get("engine_args", ()))}
        entries[name] = Entry(name=name, **known)
    return entries


def find_model(name: str) -> Entry:
    """Return the entry for an alias, a folder or a hub id; raise `WishError` where it can be none of them."""
    known = catalog()
    if name.lower() in known:
        return known[name.lower()]
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
    near = difflib.get_close_matches(name.lower(), known, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    what = (
        f"there is no folder {name}" if "/" in name or name.startswith((".", "~")) else f"no model is known as {name!r}"
    )
    raise WishError(
        what,
        hint=f"{hint}give a folder, a hub id such as zai-org/glm-4-9b-chat-hf, or one of: {', '.join(known)}",
    )
