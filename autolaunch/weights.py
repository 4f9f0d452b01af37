"""The bytes of a checkpoint on disk, from the headers of its safetensors files, or from file sizes.

I/O. Owns the reading of files; which tensors count is `tensors`'. A file is a claim too: what cannot be a header
is refused with a reason, whatever its length says, and no more than a header is ever read.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from autolaunch.facts import Basis, Weights
from autolaunch.tensors import Reading, Stored, Tensor, kept

HEADER_LIMIT = 100_000_000
"""The longest header that safetensors itself accepts, in bytes."""

INDEX = "model.safetensors.index.json"

_BITS = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 64),
    **dict.fromkeys(("F32", "I32", "U32"), 32),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 16),
    **dict.fromkeys(("F8_E4M3", "F8_E5M2", "F8_E8M0", "I8", "U8", "BOOL"), 8),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    "F4": 4,
}

_NO_WEIGHTS = frozenset(("training_args.bin", "optimizer.bin", "optimizer.pt", "scheduler.pt", "scaler.pt"))
"""What vLLM leaves out of *.bin and *.pt files."""

_ADAPTER = "adapter_model"
"""How the files begin that change a model and are none."""

_POINTER = b"version https://git-lfs.github.com/spec/"
"""How a pointer of git-lfs begins, which stands where a file was not fetched."""

_SHARD = re.compile(r"^(.*)-(\d+)-of-(\d+)\.(?:safetensors|bin|gguf)$")


class Unreadable(Exception):
    """A checkpoint that says nothing, not the whole, or what cannot be; the text says which file and why."""


@dataclass(frozen=True, slots=True)
class Found:
    """The weights of a folder, None where it holds none that can be counted, and what has to be said about it.

    `stored` is what its tensors tell of the model's dimensions, None where they were not read.
    """

    weights: Weights | None
    notes: tuple[str, ...] = ()
    stored: Stored | None = field(default=None, compare=False)


def weigh(folder: Path, reading: Reading) -> Found:
    """Return the bytes that an engine keeps of the checkpoint in a folder. Never raises for what is in it."""
    try:
        names = sorted(file.name for file in folder.iterdir() if file.is_file())
    except OSError as error:
        return Found(None, (f"the weights cannot be read: {why(error)}",))
    try:
        files = _safetensors(folder, names)
        if files:
            stored = Stored()
            counted = kept(stored.watch(_tensors(files)), reading, source="safetensors headers")
            return Found(counted, stored=stored)
        return Found(_by_size(folder, names, reading))
    except Unreadable as error:
        return Found(_index_total(folder), (str(error),))
    except OSError as error:
        return Found(None, (f"the weights cannot be read: {why(error)}",))


def weigh_file(file: Path) -> Found:
    """Return the bytes of a model that is one file (GGUF), from its size."""
    try:
        _refuse_pointer(file.name, _begin(file))
        return Found(Weights(file.stat().st_size, basis=Basis.ESTIMATED, source="the file's size"))
    except Unreadable as error:
        return Found(None, (str(error),))
    except OSError as error:
        return Found(None, (f"the weights cannot be read: {why(error)}",))


def read_header(file: Path) -> tuple[Tensor, ...]:
    """Return the tensors that a safetensors file holds; raise `Unreadable` where its header cannot be true.

    A little-endian u64 with the length of a JSON table, the table, the data; offsets count from the data's begin.
    """
    with file.open("rb") as opened:
        size = opened.seek(0, 2)
        opened.seek(0)
        begin = opened.read(8)
        _refuse_pointer(file.name, begin + opened.read(len(_POINTER) - 8))
        opened.seek(8)
        length = int.from_bytes(begin, "little")
        if size < 8 or length > size - 8:
            raise Unreadable(f"{file.name} is cut off: {size} bytes do not hold its header")
        if length > HEADER_LIMIT:
            raise Unreadable(f"{file.name} claims a header of {length} bytes, which is no safetensors file")
        text = opened.read(length)
    try:
        table = json.loads(text)
    except (ValueError, RecursionError):
        raise Unreadable(f"{file.name} has a header that is not JSON") from None
    if not isinstance(table, dict):
        raise Unreadable(f"{file.name} has a header that is not a table")
    table.pop("__metadata__", None)
    return tuple(_tensor(file.name, str(name), entry, size - 8 - length) for name, entry in table.items())


def _refuse_pointer(file: str, begin: bytes) -> None:
    """Raise `Unreadable` for what git-lfs leaves in the place of a file that was not fetched."""
    if begin == _POINTER:
        raise Unreadable(f"{file} is a pointer of git-lfs in the place of the weights: git lfs pull fetches them")


def _tensor(file: str, name: str, entry: Any, data: int) -> Tensor:
    """Return one tensor of a header; `data` is how many bytes the file has for all of them."""
    try:
        dtype, sizes, (begin, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
        numbers = all(type(number) is int and number >= 0 for number in (*sizes, begin, end))
    except (TypeError, KeyError, ValueError):
        numbers = False
    if not numbers or not isinstance(dtype, str):
        raise Unreadable(f"{file} does not say the size of {name[:80]}")
    if not begin <= end <= data:
        raise Unreadable(f"{file} is cut off: {name[:80]} ends at byte {end} of {data}")
    bits = _BITS.get(dtype)
    if bits is not None and math.prod(sizes) * bits != (end - begin) * 8:
        raise Unreadable(f"{file} contradicts itself: {name[:80]} is {dtype} {list(sizes)} in {end - begin} bytes")
    return Tensor(name, dtype, sizes, end - begin)


def _tensors(files: list[Path]) -> Iterator[Tensor]:
    """Give every tensor once, although files may repeat each other's."""
    seen: set[str] = set()
    for file in files:
        for tensor in read_header(file):
            if tensor.name not in seen:
                seen.add(tensor.name)
                yield tensor


def _safetensors(folder: Path, names: list[str]) -> list[Path]:
    """Return the files that vLLM would load: those of the index, else all, without a second copy of the weights."""
    if INDEX in names:
        wanted = sorted(set(_index(folder / INDEX)["weight_map"].values()))
        _refuse_missing([name for name in wanted if name not in names], len(wanted))
        return [folder / name for name in wanted]
    there = [name for name in names if name.endswith(".safetensors") and not name.startswith(_ADAPTER)]
    chosen = [name for name in there if not name.startswith("consolidated")] or there
    _refuse_missing(*_shards_missing(chosen))
    return [folder / name for name in chosen]


def _shards_missing(names: list[str]) -> tuple[list[str], int]:
    """Return which of the shards that the names speak of are not there, and how many there should be."""
    for name in names:
        found = _SHARD.match(name)
        if found is not None and 0 < int(found[3]) <= 10_000:
            kind, width, of = found[1], len(found[2]), int(found[3])
            suffix = name[name.rindex("-of-") :]
            every = [f"{kind}-{number:0{width}}{suffix}" for number in range(1, of + 1)]
            return sorted(set(every) - set(names)), of
    return [], 0


def _refuse_missing(missing: list[str], of: int) -> None:
    if missing:
        raise Unreadable(f"{len(missing)} of {of} files of weights are not there, {missing[0]} among them")


def _index(file: Path) -> dict[str, Any]:
    try:
        table = json.loads(file.read_text(encoding="utf-8"))
        if isinstance(table["weight_map"], dict) and all(isinstance(v, str) for v in table["weight_map"].values()):
            return dict(table)
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    raise Unreadable(f"{file.name} is no index of weights")


def _index_total(folder: Path) -> Weights | None:
    """Return what the index says all files hold, parts that are not loaded included; None where it does not."""
    try:
        metadata = _index(folder / INDEX).get("metadata")
    except (OSError, Unreadable):
        return None
    total = metadata.get("total_size") if isinstance(metadata, dict) else None
    return total_of(total, "the index of its weights")


def total_of(total: Any, source: str) -> Weights | None:
    """Return weights of which only the sum is known; None for what can be no sum."""
    if isinstance(total, float) and total.is_integer():  # as some tools write it
        total = int(total)
    if type(total) is not int or not 0 < total < 1 << 50:
        return None
    return Weights(total, basis=Basis.ESTIMATED, source=source)


def _by_size(folder: Path, names: list[str], reading: Reading) -> Weights | None:
    """Return the sizes of the files where nothing tells what is in them; a float32 checkpoint is halved."""
    for suffix in (".bin", ".pt", ".gguf"):
        files = [name for name in names if name.endswith(suffix)]
        files = [name for name in files if name not in _NO_WEIGHTS and not name.startswith(_ADAPTER)]
        if not files:
            continue
        _refuse_missing(*_shards_missing(files))
        if suffix == ".gguf" and len(files) > 1 and _SHARD.match(files[0]) is None:
            raise Unreadable(f"there are {len(files)} GGUF files, and each is a whole model")
        for name in files:
            _refuse_pointer(name, _begin(folder / name))
        size = sum((folder / name).stat().st_size for name in files)
        halved = reading.float32 and not reading.quantized and suffix != ".gguf"
        return Weights(size // 2 if halved else size, basis=Basis.ESTIMATED, source=f"sizes of *{suffix} files")
    return None


def _begin(file: Path) -> bytes:
    with file.open("rb") as opened:
        return opened.read(len(_POINTER))


def why(error: OSError) -> str:
    """Return what went wrong, and with which file."""
    return f"{error.strerror or error} ({error.filename})" if error.filename else str(error)
