"""The models known by a short name, and what is known of them before anything is downloaded.

Owns `catalog.toml` and the reading of a model's name. The facts of a model on disk are `model`'s.
"""

from __future__ import annotations

import contextlib
import difflib
import json
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from autolaunch import configuration
from autolaunch.arguments import given
from autolaunch.dialect import dialect_of, names_for
from autolaunch.errors import WishError
from autolaunch.facts import Basis, Variant, Weights
from autolaunch.shape import Shape
from autolaunch.snapshot import is_hub_id

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


_CONFIGURATIONS = ("config.json", "params.json")
"""A model's own description: as transformers writes it, as Mistral does."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A model as it will be given to the engine: an alias of the catalogue, a hub id or a folder.

    `max_model_len`, `quantization`, `shape` and `weights` are what the catalogue knows, None where it knows
    nothing. `also` are other names and hub ids of the same model, `like` hub ids of other weights in the same
    dimensions. `since` and `until` are the first and the last release of vLLM that serve it ("0.8.5"), "" where any
    does; `refusal` says why none does. `model_type` is the configuration's ("glm4").
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
    like: tuple[str, ...] = ()
    since: str = ""
    until: str = ""
    refusal: str = ""
    dialect: str = ""
    model_type: str = ""


@lru_cache(maxsize=1)
def catalog() -> dict[str, Entry]:
    """Load the whole shipped catalogue: alias to entry, those that vLLM cannot serve included."""
    return {name: _entry(name, facts) for name, facts in _tables().items()}


@lru_cache(maxsize=1)
def _tables() -> dict[str, dict[str, Any]]:
    return tomllib.loads(Path(__file__).with_name("catalog.toml").read_text(encoding="utf-8"))


def _entry(name: str, facts: Mapping[str, Any], *, called: str = "") -> Entry:
    model = facts["model"]
    if model.startswith("package:"):
        model = str(Path(__file__).with_name("models") / model.removeprefix("package:"))
    known = configuration.read(facts.get("config", {}))
    dialect = facts.get("dialect", "")
    names = names_for(dialect, called or name, name, *((model,) if dialect else ()))
    return Entry(
        name=name,
        model=model,
        description=facts["description"],
        engine_args=("--served-model-name", *names, *facts.get("engine_args", ())),
        max_model_len=known.max_model_len,
        variants=tuple(_variant(variant, of=model) for variant in facts.get("variants", ())),
        quantization=known.quantization,
        shape=known.shape,
        weights=_weights(facts["weights"]) if "weights" in facts else None,
        also=tuple(facts.get("also", ())),
        like=tuple(facts.get("like", ())),
        since=facts.get("since", ""),
        until=facts.get("until", ""),
        refusal=facts.get("refusal", ""),
        dialect=dialect,
        model_type=known.model_type,
    )


def _weights(facts: Mapping[str, Any]) -> Weights:
    return Weights(**{**facts, "basis": Basis(facts.get("basis", "exact"))}, source="catalogue")


def _variant(facts: Mapping[str, Any], *, of: str) -> Variant:
    weights = Weights(facts["loaded_bytes"], basis=Basis.ESTIMATED, source="catalogue")
    major, minor = facts["capability"]
    official = facts["model"].split("/")[0].lower() == of.split("/", maxsplit=1)[0].lower()
    return Variant(facts["model"], facts["quantization"], weights, (major, minor), official)


@lru_cache(maxsize=1)
def _aliases() -> dict[str, str]:
    """Return the alias under every other name and hub id, in small letters."""
    found: dict[str, str] = {}
    for alias, facts in _tables().items():
        for name in (facts["model"], *facts.get("also", ()), *facts.get("like", ())):
            found[name.lower()] = alias
    return found | {alias: alias for alias in _tables()}


def _known(name: str) -> Entry | None:
    """Return what the catalogue knows under a name or hub id.

    A hub id keeps the name that was asked for and gets no option that nobody typed (`--trust-remote-code` runs its
    code) but what its dialect needs, and the variants of other weights are not its own; a short name is served beside
    the entry's own.
    """
    alias = _aliases().get(name.lower())
    if alias is None:
        return None
    if "/" in name:
        entry = _entry(alias, _tables()[alias])
        other = name.lower() in map(str.lower, entry.like)
        called = _speaking(replace(entry, name=name, model=name, engine_args=()))
        return replace(called, variants=()) if other else called
    return _entry(alias, _tables()[alias], called=name.lower())


def _speaking(entry: Entry) -> Entry:
    """Return an entry named by hub id or folder, served as that and as what clients of its dialect send."""
    if not entry.dialect:
        return entry
    names = dict.fromkeys((entry.model, entry.name, *names_for(entry.dialect)))
    return replace(entry, engine_args=("--served-model-name", *names))


def _folder(name: str, path: Path) -> Entry:
    """Return the entry for a folder; its own chat template tells its dialect."""
    return _speaking(Entry(name=name, model=str(path), dialect=dialect_of(_template(path))))


def _template(folder: Path) -> str:
    """Return a folder's own chat template, "" where it has none that can be read."""
    with contextlib.suppress(OSError, ValueError):
        return (folder / "chat_template.jinja").read_text(encoding="utf-8")
    with contextlib.suppress(OSError, ValueError):
        table = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        template = table.get("chat_template") if isinstance(table, dict) else None
        return template if isinstance(template, str) else ""
    return ""


VISION = ("GLM-4v-9b", "glm-4v", "glm-4v-9b")
"""The names under which GLM-4's vision server was asked, its own first."""


def as_published(entry: Entry) -> Entry:
    """Return an entry as GLM-4's own server had it: its names first, remote code and all that its files need.

    Only for what the catalogue knows: hub ids of its entries, and folders that are named or that speak like GLM-4's.
    """
    vision = re.match(r"glm[-_]?4v", Path(entry.name).name.lower())
    alias = _aliases().get(entry.name.lower()) or ("glm-4v-9b" if vision else "")
    if alias:
        own, since = given(_tables()[alias].get("engine_args", ())), _tables()[alias].get("since", "")
    else:
        own, since = given(("--trust-remote-code",) if entry.dialect else ()), ""
    names = (*VISION, entry.name) if vision else names_for(entry.dialect, entry.name) if entry.dialect else ()
    named = ("--served-model-name", *names) if names else entry.engine_args
    words = (word for option in own if option.name != "served-model-name" for word in option.tokens)
    return replace(entry, engine_args=(*named, *words), since=entry.since or since)


def before(entry: Entry, release: str | None) -> Entry:
    """Return the entry for an engine that is too old for it: another form of the same model, where there is one."""
    older = _tables().get(entry.name, {}).get("before", "")
    return _entry(older, _tables()[older], called=entry.name) if older and misfit(entry, release) else entry


def misfit(entry: Entry, release: str | None) -> str:
    """Return why this release of vLLM does not serve a model, "" where it does or where that is not known."""
    now = _numbers(release or "")
    if now and entry.since and now < _numbers(entry.since):
        return f"{entry.name} needs vLLM {entry.since} or newer, this is {release}"
    if now and entry.until and now[: len(_numbers(entry.until))] > _numbers(entry.until):
        return f"{entry.name} needs vLLM {entry.until} or older, this is {release}"
    return ""


def _numbers(release: str) -> tuple[int, ...]:
    found = re.match(r"v?(\d+(?:\.\d+)*)", release)
    return tuple(map(int, found[1].split("."))) if found else ()


def find_model(name: str) -> Entry:
    """Return the entry for an alias, a folder or a hub id.

    Raises `WishError` where it can be none of them, and for a model that vLLM cannot serve.
    """
    path = Path(name).expanduser()
    known = None if "/" in name and path.is_dir() else _known(name)
    if known is not None and known.refusal:
        raise WishError(known.refusal, hint="a folder with its files is given to vLLM all the same")
    if known is not None:
        return known
    if name and path.is_dir():
        if not any((path / file).is_file() for file in _CONFIGURATIONS) and not any(path.glob("*.gguf")):
            raise WishError(f"the folder {name} holds no model: no config.json in it", hint="give the model's folder")
        return _folder(name, path)
    if path.is_file() and path.suffix == ".gguf":
        return Entry(name=name, model=str(path))
    if is_hub_id(name) or "://" in name:
        return Entry(name=name, model=name)
    raise _no_model(name)


def find_name(name: str | None) -> str | None:
    """Return the name under which a model's starts are remembered: an alias for its other short names, else itself."""
    if name is None or "/" in name:
        return name
    return _aliases().get(name.lower(), name)


def _no_model(name: str) -> WishError:
    near = difflib.get_close_matches(name.lower(), _aliases(), n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    what = (
        f"there is no folder {name}" if "/" in name or name.startswith((".", "~")) else f"no model is known as {name!r}"
    )
    return WishError(
        what,
        hint=f"{hint}give a folder, a hub id such as zai-org/glm-4-9b-chat-hf, or a short name that autolaunch models "
        "lists",
    )
