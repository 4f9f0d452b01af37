"""A model of the catalogue: what is known of it before anything is downloaded, and what it needs of the engine.

Pure. Owns `Entry` and how a checked table of a models file becomes one; finding a model by its name is `catalog`'s.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from autolaunch import configuration
from autolaunch.arguments import given
from autolaunch.dialect import names_for
from autolaunch.facts import Basis, Variant, Weights
from autolaunch.shape import Shape

REMOTE_CODE = "--trust-remote-code"


@dataclass(frozen=True, slots=True)
class Entry:
    """A model as it will be given to the engine: an alias of the catalogue, a hub id or a folder.

    `max_model_len`, `quantization`, `shape` and `weights` are what the catalogue knows, None where it knows nothing;
    `text_weights` are those of a multimodal model without its encoders. `also` are other names and hub ids of the same
    model, `like` hub ids of other weights in the same dimensions. `since` and `until` are the first and the last
    release of vLLM that serve it ("0.8.5"), "" where any does; `before` is the short name of the same model for
    releases before that. `refusal` says why none does.
    `model_type` is the configuration's ("glm4"). `alias` is the short name whose facts these are and `file` the user's
    file that they are from, "" where none is.
    `modelscope` is its id on ModelScope, "" where that is not known, and `on_modelscope` are the variants there.
    `remote_code` says that the model is published with code of its own, which runs only where somebody allows it.
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
    text_weights: Weights | None = None
    also: tuple[str, ...] = ()
    like: tuple[str, ...] = ()
    since: str = ""
    until: str = ""
    before: str = ""
    refusal: str = ""
    dialect: str = ""
    model_type: str = ""
    alias: str = ""
    file: str = ""
    remote_code: bool = False
    modelscope: str = ""
    on_modelscope: tuple[Variant, ...] = ()


def entry_of(alias: str, facts: Mapping[str, Any], *, called: str = "", file: str = "") -> Entry:
    """Return the entry of a checked table; `called` is the name that was typed, `file` the user's own file."""
    model = facts["model"]
    known = configuration.read(facts.get("config", {}))
    dialect, words = facts.get("dialect", ""), facts.get("engine_args", ())
    named = _give(words, "served-model-name")
    names = names_for(dialect, called or alias, alias, *((model,) if dialect else ()))
    return Entry(
        name=alias,
        model=model,
        description=facts.get("description", ""),
        engine_args=(*(() if named else ("--served-model-name", *names)), *words),
        max_model_len=known.max_model_len,
        variants=tuple(_variant(variant, of=model) for variant in facts.get("variants", ())),
        quantization=known.quantization,
        shape=known.shape,
        weights=_weights(facts["weights"]) if "weights" in facts else known.weights,
        text_weights=known.text_weights,
        also=tuple(facts.get("also", ())),
        like=tuple(facts.get("like", ())),
        since=facts.get("since", ""),
        until=facts.get("until", ""),
        before=facts.get("before", ""),
        refusal=facts.get("refusal", ""),
        dialect=dialect,
        model_type=known.model_type,
        alias=alias,
        file=file,
        remote_code=runs_code(words),
        modelscope=facts.get("modelscope", ""),
        on_modelscope=tuple(
            replace(_variant(variant, of=model), model=variant["modelscope"])
            for variant in facts.get("variants", ())
            if "modelscope" in variant
        ),
    )


def runs_code(words: Iterable[str]) -> bool:
    """Whether engine options let a model's own code run."""
    return _give(words, REMOTE_CODE.removeprefix("--"))


def _give(words: Iterable[str], name: str) -> bool:
    return any(option.name == name for option in given(words))


def _weights(facts: Mapping[str, Any]) -> Weights:
    return Weights(**{**facts, "basis": Basis(facts.get("basis", "exact"))}, source="catalogue")


def _variant(facts: Mapping[str, Any], *, of: str) -> Variant:
    weights = Weights(facts["loaded_bytes"], basis=Basis.ESTIMATED, source="catalogue")
    major, minor = facts["capability"]
    official = facts["model"].split("/")[0].lower() == of.split("/", maxsplit=1)[0].lower()
    return Variant(facts["model"], facts["quantization"], weights, (major, minor), official)


def misfit(entry: Entry, release: str | None) -> str:
    """Return why this release of vLLM does not serve a model, "" where it does or where that is not known."""
    now = numbers(release or "")
    if too_old(entry, release):
        return f"{entry.name} needs vLLM {entry.since} or newer, this is {release}"
    if now and entry.until and now[: len(numbers(entry.until))] > numbers(entry.until):
        return f"{entry.name} needs vLLM {entry.until} or older, this is {release}"
    return ""


def too_old(entry: Entry, release: str | None) -> bool:
    """Whether this release of vLLM does not serve a model yet."""
    now = numbers(release or "")
    return bool(now and entry.since) and now < numbers(entry.since)


def numbers(release: str) -> tuple[int, ...]:
    """Return the numbers of a release, as many as there are: `until` 0.8 is all of 0.8; none for what is no release.

    0.8.5.post1 came after 0.8.5.
    """
    found = re.match(r"v?(\d+(?:\.(?:post)?\d+)*)", release)
    return tuple(map(int, found[1].replace("post", "").split("."))) if found else ()


def is_hub_id(model: str) -> bool:
    """Whether this can be the name of a model on a hub: an owner and a name."""
    return re.fullmatch(r"[\w.-]+/[\w.-]+", model) is not None and not model.startswith(".")


def taken_from_modelscope(entry: Entry) -> Entry:
    """Return a model of a hub as ModelScope has it, under the names it has anyway; folders and URLs as they are."""
    if not is_hub_id(entry.model) or not entry.alias:
        return entry
    found = entry.modelscope or entry.model
    named = entry.engine_args
    if not _give(named, "served-model-name") and found != entry.name:
        named = ("--served-model-name", entry.name, found, *named)
    return replace(entry, model=found, variants=entry.on_modelscope, engine_args=named)


def modelscope_notice(entry: Entry) -> str:
    """Return what is to be said of a model that is taken from ModelScope, "" where its id there is the one typed."""
    if entry.alias and not entry.modelscope:
        return f"the id of {entry.name} on ModelScope is not known here: {entry.model} is asked for"
    return "" if entry.name == entry.model or not entry.alias else f"on ModelScope {entry.name} is {entry.model}"


def code_notice(entry: Entry, *, allowed: bool) -> str:
    """Return what is to be said of a model that is published with code of its own, "" where nothing is.

    `allowed` says that the user gave `--trust-remote-code`; the catalogue turns it on for its own short names alone.
    """
    if not entry.remote_code or allowed:
        return ""
    if runs_code(entry.engine_args):
        return f"{entry.name} is published with code of its own, which will run: {REMOTE_CODE} is on for it"
    short = f"give it, or the short name {entry.alias}" if entry.alias else "give it"
    return f"{entry.name} is published with code of its own, which vLLM runs only with {REMOTE_CODE}: {short}"
