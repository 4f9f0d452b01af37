"""What is known of a model before it is loaded: from its own files, else from the catalogue, else from the hub.

I/O. Joins what `snapshot`, `configuration`, `weights`, `catalog` and `hub` say of one model, and says of each
figure that nobody gave why it is missing. Never torch; the network only where the caller allows it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from autolaunch import configuration, modelscope, snapshot, weights
from autolaunch.configuration import Configuration
from autolaunch.entry import Entry
from autolaunch.facts import Basis, Model, Weights
from autolaunch.identity import fingerprint
from autolaunch.tensors import Reading, contradictions, with_linear

CONFIG_BYTES = 4 << 20
"""More than any config.json has; the rest of a larger file is not read."""


@dataclass(frozen=True, slots=True)
class Where:
    """How the engine will be told to find the model: its `--revision`, its `--download-dir`, whether for text only.

    `release` is the engine's own, None where it is not known: releases read some configurations differently.
    """

    revision: str = ""
    download_dir: str = ""
    text_only: bool = False
    release: tuple[int, int] | None = None


def look_at(
    entry: Entry,
    *,
    online: bool = False,
    environment: Mapping[str, str] = os.environ,
    where: Where | None = None,
) -> Model:
    """Return what is known of a model; what no file, no catalogue and no hub says stays None, and `notes` say why.

    `online` allows at most three seconds for the hub, and only if a figure is missing that a hub could have.
    """
    where = where or Where()
    if entry.model.endswith(".gguf"):
        file = snapshot.expanded(entry.model)
        found = weights.weigh_file(file)
        told = _model(entry, Configuration(quantization="gguf"), found.weights, found.notes)
        return replace(told, revision=fingerprint(file))
    here = _on_disk(entry, environment, where)
    missing = here.shape is None or here.weights is None
    return _asked(entry, here, environment, where) if online and missing and snapshot.on_hub(entry.model) else here


def _on_disk(entry: Entry, environment: Mapping[str, str], where: Where) -> Model:
    """Return what the files on this host and the catalogue say."""
    try:
        found_by = modelscope.find if modelscope.wanted(environment) else snapshot.find
        place = found_by(entry.model, environment=environment, revision=where.revision, cache=where.download_dir)
    except OSError as error:
        return _model(entry, Configuration(), None, (f"its files cannot be looked up: {weights.why(error)}",))
    if place is None:
        return _model(entry, Configuration(), None, (), text_only=where.text_only)
    config, notes = read_config(place.folder, release=where.release)
    found = replace(config, notes=(*config.notes, *notes))
    counted = weights.weigh(place.folder, _reading(found, entry, where))
    model = _checked(_model(entry, found, counted.weights, counted.notes, text_only=where.text_only), found, counted)
    return replace(model, revision=place.revision or fingerprint(place.folder))


def read_config(folder: Path, *, release: tuple[int, int] | None = None) -> tuple[Configuration, tuple[str, ...]]:
    """Return what a folder's config.json says, and why it says nothing; hf_quant_config.json is ModelOpt's mark."""
    try:
        with (folder / "config.json").open("rb") as file:
            table = json.loads(file.read(CONFIG_BYTES))
        marked = (folder / "hf_quant_config.json").is_file()
    except FileNotFoundError:
        return Configuration(), ()
    except OSError as error:
        return Configuration(), (f"config.json cannot be read: {weights.why(error)}",)
    except (ValueError, RecursionError) as error:
        return Configuration(), (f"config.json is not JSON: {str(error)[:80]}",)
    if not isinstance(table, dict):
        return Configuration(), ("config.json is no table",)
    found = configuration.read(table, release=release)
    return (replace(found, quantization="modelopt") if marked and not found.quantization else found), ()


def _reading(found: Configuration, entry: Entry, where: Where) -> Reading:
    """Return how the checkpoint beside a configuration is loaded."""
    shape = found.shape or entry.shape
    return Reading(
        layers=shape.num_hidden_layers if shape else None,
        tied=shape.tie_word_embeddings if shape else False,
        quantized=found.quantization is not None,
        float32=found.dtype == "float32",
        text_only=where.text_only,
    )


def _checked(model: Model, found: Configuration, counted: weights.Found) -> Model:
    """Return a model whose weights are exact only where its configuration and its files say the same."""
    if found.shape is None or counted.stored is None:
        return model
    said = contradictions(counted.stored, found.shape, drafting=found.drafting)
    if not said or model.weights is None:
        return model
    note = f"config.json and the files of weights contradict each other: {'; '.join(said)}"
    return replace(model, weights=replace(model.weights, basis=Basis.ESTIMATED), notes=(*model.notes, note))


def _model(
    entry: Entry, found: Configuration, counted: Weights | None, notes: tuple[str, ...], *, text_only: bool = False
) -> Model:
    """Join what files say with what the catalogue knows.

    Weights that were counted come first, then the catalogue's, then what follows from the dimensions, then a mere
    sum. Where only the language model is loaded, the catalogue and sums know too much.
    """
    shape = found.shape or entry.shape
    quantization = found.quantization or entry.quantization
    weights = counted if counted is not None and counted.basis is Basis.EXACT else None
    if text_only and shape is not None and shape.vision:
        shape = replace(shape, vision=False)
        known = entry.weights or counted
        known = known and replace(known, basis=Basis.ESTIMATED)
        weights = weights or (None if quantization else found.text_weights or entry.text_weights) or known
    weights = weights or entry.weights or found.weights or counted
    if weights is not None and quantization is None:
        weights = with_linear(weights, shape)
    return Model(
        max_model_len=found.max_model_len or entry.max_model_len,
        quantization=quantization,
        variants=entry.variants,
        name=entry.name,
        shape=shape,
        weights=weights,
        notes=(*found.notes, *notes),
        model_type=found.model_type or entry.model_type,
        dtype=found.dtype,
    )


def _asked(entry: Entry, here: Model, environment: Mapping[str, str], where: Where) -> Model:
    """Return what is known with what the hub adds; the files on this host are believed before it."""
    from autolaunch import hub  # noqa: PLC0415 - HTTP takes 30 ms to import, and a known model needs none

    if hub.offline(environment):
        return here
    asks = modelscope.ask if modelscope.wanted(environment) else hub.ask
    answer = asks(entry.model, environment=environment, revision=where.revision)
    found = configuration.read(answer.config, release=where.release) if answer.config is not None else Configuration()
    quantized = (here.quantization or found.quantization) is not None
    sum_bytes = answer.weight_bytes(quantized=quantized, float32=found.dtype == "float32")
    counted = Weights(sum_bytes, basis=Basis.ESTIMATED, source="the hub's metadata") if sum_bytes else None
    told = _model(entry, found, counted, (), text_only=where.text_only)
    return replace(
        told,
        max_model_len=here.max_model_len or told.max_model_len,
        quantization=here.quantization or told.quantization,
        shape=here.shape or told.shape,
        weights=here.weights or told.weights,
        revision=here.revision or answer.revision,
        model_type=here.model_type or told.model_type,
        dtype=here.dtype or told.dtype,
        notes=(*here.notes, *found.notes, *answer.notes),
    )
