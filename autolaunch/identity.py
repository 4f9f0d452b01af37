"""What a model's name stands for, and which files of it lie here: what is remembered goes by these.

I/O, reading only. The name that was typed says little: `./m` is another model in another folder, a short name can be
pointed elsewhere, and a folder can be overwritten.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from autolaunch.catalog import Known
from autolaunch.past import Sought
from autolaunch.snapshot import expanded

HEAD_BYTES = 1 << 20
"""How much of a weight file is looked at. The names and sizes of its tensors stand there, and no file is read whole."""

CONFIG_BYTES = 4 << 20
"""More than any config.json has."""

_WEIGHTS = (".safetensors", ".bin", ".pt", ".gguf")
_WITH_HEADER = (".safetensors", ".gguf")


def stands_for(model: str) -> str:
    """Return the absolute real path of a folder or file, else the name as it is: a hub id or an address."""
    own = expanded(model)
    try:
        return str(own.resolve()) if own.exists() else model
    except (OSError, ValueError):  # nothing that can be looked up has such a name
        return model


def sought(name: str, known: Known) -> Sought:
    """Return the model whose starts a user asks for by a name, found as `catalog.find_model` finds it."""
    named = None if "/" in name else known.names.get(name.lower())
    if named is None:
        found = stands_for(name)
        return Sought(name, found, is_path=found.startswith("/"))
    return Sought(named.alias, stands_for(named.facts["model"]))


def fingerprint(place: Path) -> str:
    """Return a digest of a folder's config.json and of its weight files' names, sizes and headers, or of one file's.

    "" where they cannot be read. Weights that were trained further in the same dimensions have the same digest: they
    need the same memory.
    """
    digest = hashlib.sha256()
    try:
        for part in _parts(place):
            digest.update(len(part).to_bytes(8, "big") + part)
    except OSError:
        return ""
    return f"files-{digest.hexdigest()[:16]}"


def _parts(place: Path) -> Iterator[bytes]:
    """Give what tells one model's files from another's, in a fixed order."""
    if place.is_file():
        yield from _of_file(place)
        return
    for file in sorted(file for file in place.iterdir() if file.is_file()):
        if file.name == "config.json":
            yield from (b"config.json", _head(file, CONFIG_BYTES))
        elif file.suffix in _WEIGHTS:
            yield from _of_file(file)


def _of_file(file: Path) -> Iterator[bytes]:
    yield str(file.name).encode("utf-8", "surrogateescape")
    yield str(file.stat().st_size).encode()
    yield _head(file, HEAD_BYTES) if file.suffix in _WITH_HEADER else b""


def _head(file: Path, most: int) -> bytes:
    """Return the header of a safetensors file, else the beginning of a file; at most so many bytes."""
    with file.open("rb") as opened:
        if file.suffix != ".safetensors":
            return opened.read(most)
        length = int.from_bytes(opened.read(8), "little")
        return opened.read(min(length, most))
