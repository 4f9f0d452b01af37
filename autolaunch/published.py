"""A model as GLM-4's own openai_api_server.py had it: the names that its clients send, and what its files need.

Owns what `python -m autolaunch.openai_api_server` adds to a model that was found by its name; what was promised to
clients is in docs/replacing-openai-api-server.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from autolaunch.arguments import Given, with_all_values
from autolaunch.catalog import shipped
from autolaunch.checkpoint_files import configuration_of, template_of
from autolaunch.dialect import names_for
from autolaunch.entry import REMOTE_CODE, Entry, runs_code
from autolaunch.models_file import Facts

NAMES = "glm-4"
"""The dialect whose names every model is served under there, for the script took any name."""

VISION = ("GLM-4v-9b", "glm-4v", "glm-4v-9b")
"""The names under which GLM-4's vision server was asked, its own first."""

GLM = ("chatglm", "glm")
"""Model types of GLM-4-9B, with remote code and without."""


def as_published(entry: Entry) -> Entry:
    """Return an entry as the script served it: the script's names first, remote code and all that its files need.

    Code and options come only for what is known: hub ids of the catalogue, folders that speak like GLM-4's, the vision
    model. Options of a user's own models file stay as they are.
    """
    vision = _sees(entry)
    known: Facts = {} if entry.file else _facts(entry, vision=vision)
    own = with_all_values(entry.engine_args)
    names = VISION if vision else names_for(NAMES)
    served = next((option.values for option in own if option.name == "served-model-name"), (entry.name, entry.model))
    words = (*_words(own), *_words(with_all_values(known.get("engine_args", ())), beside=own))
    return replace(
        entry,
        engine_args=("--served-model-name", *dict.fromkeys((*names, *served)), *words),
        since=entry.since or known.get("since", ""),
        remote_code=entry.remote_code or runs_code(words),
    )


def unlike_published(entry: Entry) -> str:
    """Return what is to be said of a folder that may be GLM-4's and is not known as such, "" for any other model."""
    folder = Path(entry.model)
    kind = configuration_of(folder).get("model_type") if not entry.alias and not entry.dialect else None
    if kind not in GLM or _sees(entry):
        return ""
    why = "its chat template is another" if template_of(folder) else "it has no chat template"
    return (
        f"{entry.name} is of type {kind} and not known as GLM-4 chat, for {why}: it is served as glm-4, but without "
        f'GLM-4\'s chat template, tool parser, defaults and remote code; a short name with dialect = "glm-4" and '
        f'engine_args = ["{REMOTE_CODE}"] in a models file gives them (docs/models.md)'
    )


def _sees(entry: Entry) -> bool:
    """Whether this is GLM-4's vision model: by the configuration of a folder, else by its name, as the script did."""
    table = configuration_of(Path(entry.model))
    kind = table.get("model_type")
    if kind not in (None, "chatglm"):
        return False
    return "vision_config" in table or re.search(r"glm[-_]?4v", entry.name.lower()) is not None


def _facts(entry: Entry, *, vision: bool) -> Facts:
    alias = entry.alias or ("glm-4v-9b" if vision else "")
    if alias:
        return shipped().models[alias].facts
    return {"engine_args": (REMOTE_CODE,)} if entry.dialect else {}


def _words(options: Iterable[Given], *, beside: Iterable[Given] = ()) -> tuple[str, ...]:
    """Return options as words, but for the served names and those that stand beside them already."""
    named = {"served-model-name", *(option.name for option in beside)}
    return tuple(word for option in options if option.name not in named for word in option.tokens)
