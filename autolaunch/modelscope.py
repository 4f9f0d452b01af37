"""ModelScope in place of the hub: where its downloads lie on this host, and what it says of a model that is not here.

I/O. Owns its variables, the layouts of its cache and its public API, as the packages `modelscope` 1.15 to 1.40 and
`modelscope-hub` 0.4 have them. Imports neither; a login that they keep is a pickle, which is not opened here.
"""

from __future__ import annotations

import urllib.parse
from collections.abc import Iterator, Mapping
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

from autolaunch.entry import is_hub_id
from autolaunch.snapshot import Snapshot, expanded

if TYPE_CHECKING:
    from autolaunch.inquiry import Answer

VARIABLE = "VLLM_USE_MODELSCOPE"
PACKAGE = "modelscope>=1.18.1"
"""What vLLM needs for it (vllm/transformers_utils/__init__.py)."""

SECONDS = 3.0
"""How long a start may wait for ModelScope in all."""


def wanted(environment: Mapping[str, str]) -> bool:
    """Whether vLLM would take models from ModelScope; it reads the variable so (vllm/envs.py)."""
    return environment.get(VARIABLE, "").strip().lower() in ("1", "true")


def find(model: str, *, environment: Mapping[str, str], revision: str = "", cache: str = "") -> Snapshot | None:
    """Return where a folder or a model of ModelScope lies here, None where it does not.

    `revision` and `cache` are as in `snapshot.find`. Older downloads do not say which revision they are: one that is
    asked for by name is found in the newest layout only. `OSError` where a folder cannot be looked up.
    """
    own = expanded(model)
    if own.is_dir():
        return Snapshot(own)
    if not is_hub_id(model):
        return None
    for root in _roots(environment, cache):
        kept = root / "models" / model.replace("/", "--") / "snapshots"
        folder = kept / (revision or "master")
        if ".." not in Path(revision).parts and (folder / "config.json").is_file():
            return Snapshot(folder)
        for folder in () if revision else _older(root, model):
            if (folder / "config.json").is_file():
                return Snapshot(folder)
    return None


def _roots(environment: Mapping[str, str], cache: str) -> Iterator[Path]:
    """Give the folders that releases of the package have called their cache."""
    given = cache or environment.get("MODELSCOPE_CACHE") or ""
    root = expanded(given) if given else expanded("~/.cache/modelscope")
    yield root
    yield root / "hub"


def _older(root: Path, model: str) -> Iterator[Path]:
    """Give the layouts before snapshots: dots in a name are kept as ___, and linked under the name itself."""
    owner, name = model.split("/", maxsplit=1)
    for folder in (root / "models" / owner, root / owner):
        yield folder / name
        yield folder / name.replace(".", "___")


def ask(model: str, *, environment: Mapping[str, str], revision: str = "", seconds: float = SECONDS) -> Answer:
    """Ask ModelScope about a model, for at most `seconds`; what did not come until then is missing. Never raises.

    MODELSCOPE_ENDPOINT or MODELSCOPE_DOMAIN names another server, MODELSCOPE_API_TOKEN opens private models.
    """
    from autolaunch.inquiry import Line, joined  # noqa: PLC0415 - HTTP takes 30 ms to import

    place = f"{endpoint(environment)}/api/v1/models/{urllib.parse.quote(model)}/repo"
    commit = urllib.parse.quote(revision or "master", safe="")
    token = environment.get("MODELSCOPE_API_TOKEN", "").strip()
    secret = {"Authorization": f"Bearer {token}", "Cookie": f"m_session_id={token}"} if token else {}
    line = Line("ModelScope", secret=secret, deadline=monotonic() + seconds, opens="MODELSCOPE_API_TOKEN")
    line.get(f"{place}?Revision={commit}&FilePath=config.json", _config)
    line.get(f"{place}/files?Revision={commit}&Recursive=False", _files)
    return joined(line.wait(2), silence=f"ModelScope did not answer within {seconds:g} s")


def endpoint(environment: Mapping[str, str]) -> str:
    """Return the server's address; a bare name is one of https."""
    given = environment.get("MODELSCOPE_ENDPOINT") or environment.get("MODELSCOPE_DOMAIN") or "www.modelscope.cn"
    given = given.strip().rstrip("/")
    return given if given.lower().startswith(("http://", "https://")) else f"https://{given}"


def _config(answer: Any) -> Answer:
    from autolaunch.inquiry import Answer  # noqa: PLC0415

    if not isinstance(answer, dict):
        return Answer(notes=("ModelScope's config.json is no table",))
    if answer.get("Success") is False:
        return Answer(notes=(_failed(answer),))
    return Answer(config=answer)


def _files(answer: Any) -> Answer:
    """Read the list of the repository's own folder: {"Data": {"Files": [{"Path": ..., "Size": ..., "Type": ...}]}}.

    vLLM loads what lies there: safetensors, else .bin; Mistral's `consolidated` ones are a second copy.
    """
    from autolaunch.inquiry import Answer  # noqa: PLC0415

    if not isinstance(answer, dict):
        return Answer(notes=("ModelScope's list of files is no table",))
    if answer.get("Success") is False:
        return Answer(notes=(_failed(answer),))
    data = answer.get("Data")
    files = data.get("Files") if isinstance(data, dict) else None
    sizes = {str(file.get("Path")): file.get("Size") for file in files or () if isinstance(file, dict)}
    for ending in (".safetensors", ".bin"):
        weights = {name: size for name, size in sizes.items() if name.endswith(ending) and _is_size(size)}
        weights = {name: size for name, size in weights.items() if not name.startswith("consolidated")} or weights
        if weights:
            return Answer(file_bytes=sum(size for size in weights.values() if isinstance(size, int)))
    return Answer()


def _is_size(size: object) -> bool:
    return type(size) is int and 0 <= size < 1 << 50


def _failed(answer: Mapping[str, Any]) -> str:
    return f"ModelScope has no such model (code {answer.get('Code')})" if "Code" in answer else "ModelScope refused"
