"""Where a model's files lie on this host: a folder of the user's, or a snapshot in the hub's cache.

I/O. Owns the layout of the cache (huggingface_hub: refs, snapshots, blobs) and the variables that move it; never
the network, and what is in the files is `model`'s.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from autolaunch.entry import is_hub_id


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The folder that holds a model, and the commit it was downloaded at ("" for a folder of the user's)."""

    folder: Path
    revision: str = ""


def find(model: str, *, environment: Mapping[str, str], revision: str = "", cache: str = "") -> Snapshot | None:
    """Return where a folder or hub id lies here, None where it does not; `OSError` where that cannot be looked up.

    `revision` is a branch, tag or commit, "" the default branch; `cache` replaces the hub's own folder, as
    `--download-dir` does.
    """
    own = expanded(model)
    if own.is_dir():
        return Snapshot(own)
    if not is_hub_id(model):
        return None
    place = (Path(cache) if cache else cache_folder(environment)) / ("models--" + model.replace("/", "--"))
    commit = _commit(place, revision or "main")
    return Snapshot(place / "snapshots" / commit, commit) if commit else None


def on_hub(model: str) -> bool:
    """Whether a model is one of a hub: a folder of that name that is here goes before, as it does in vLLM."""
    try:
        return is_hub_id(model) and not expanded(model).is_dir()
    except OSError:
        return True


def cache_folder(environment: Mapping[str, str]) -> Path:
    """Return the hub's cache: HF_HUB_CACHE, else in HF_HOME, else below XDG_CACHE_HOME or ~/.cache."""
    given = environment.get("HF_HUB_CACHE") or environment.get("HUGGINGFACE_HUB_CACHE")
    return expanded(given) if given else home_folder(environment) / "hub"


def expanded(path: str) -> Path:
    """Return a path with its `~` expanded; as it is for a user without a home, who has nothing there."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def home_folder(environment: Mapping[str, str]) -> Path:
    """Return the hub's own folder, which holds its cache and the user's token."""
    given = environment.get("HF_HOME")
    below = environment.get("XDG_CACHE_HOME") or "~/.cache"
    return expanded(given) if given else expanded(below) / "huggingface"


def _commit(place: Path, revision: str) -> str:
    """Return the commit that a branch or tag stands for in the cache, "" where it was never downloaded."""
    if ".." in Path(revision).parts or revision.startswith("/"):
        return ""
    try:
        commit = (place / "refs" / revision).read_text(encoding="utf-8").strip()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, UnicodeDecodeError):
        commit = revision
    good = re.fullmatch(r"[\w.-]+", commit) is not None
    return commit if good and (place / "snapshots" / commit).is_dir() else ""
