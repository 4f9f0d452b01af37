"""What has to cross the boundary of an engine's container: its port, its cards, our folders and variables.

Pure. Nothing that the user wrote is changed; what is added stands in front of it, so that the user's own words win.
Added are a read-only mount of each folder that the engine is told to read and that is here, and the variables that have
to mean the same to autolaunch and to the engine, whose environment is not ours. Beside these every start gets a label,
by which its container is found again whatever else dies (`containment`). Not added: --rm (a container with our label is
removed by us, also after a SIGKILL of everything here), --name and --cidfile (the user's to give), --init (an engine
that is deaf to SIGTERM because it is process 1 gets SIGKILL from the runtime all the same).
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from autolaunch.container import Container
from autolaunch.errors import WishError
from autolaunch.visible import ORDER, PCI_BUS_ID, VISIBLE

PASSED = (
    "VLLM_API_KEY", "HF_TOKEN", "HF_ENDPOINT", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "VLLM_USE_MODELSCOPE",
    "VLLM_ALLOW_LONG_MAX_MODEL_LEN", "PYTHONUNBUFFERED",
)  # fmt: skip
"""Variables that autolaunch goes by or sets itself: the engine must not see others."""

SECRET = frozenset({"VLLM_API_KEY", "HF_TOKEN"})
"""Of these only the name is written: a command line can be read by every user of the host."""

WEIGHTS = "/root/.cache/huggingface"
"""Where vLLM's own image keeps what it downloads."""


# --- where it is reached

Published = tuple[str, "int | None", int]
"""Address and port of the host (None: one that the runtime picks), port of the container."""


def published(container: Container) -> tuple[Published, ...]:
    """Return the TCP ports that a command publishes, ranges one by one."""
    return tuple(port for value in container.values("publish") for port in _published(value))


def _published(value: str) -> Iterator[Published]:
    ports, _, protocol = value.partition("/")
    found = re.fullmatch(r"(?:(\[[^]]*\]|[^:]*):)??(?:([\d-]*):)?([\d-]+)", ports)
    if found is None or protocol not in ("", "tcp"):
        return
    inside = _range(found[3])
    outside: Sequence[int | None] = _range(found[2]) if found[2] else [None] * len(inside)
    for ours, its in zip(outside, inside):  # noqa: B905 - strict came with 3.10; the runtime refuses uneven ranges
        yield (found[1] or "").strip("[]"), ours, its


def _range(text: str) -> Sequence[int]:
    first, _, last = text.partition("-")
    return range(int(first or 0), int(last or first or 0) + 1)


def reached(container: Container, *, host: str, port: int) -> tuple[str, int]:
    """Return address and port of this host where an engine told `--host` and `--port` is reached.

    Raises `WishError` where it could not be reached at all.
    """
    network = "".join(container.values("network")[-1:]).removeprefix("name=")
    if network == "host" or network.startswith(("container:", "ns:")) or container.values("pod"):
        return host, port
    every = published(container)
    both = f"add -p {port}:{port} to its run options, or --network host"
    if not every:
        raise WishError("the container of --engine publishes no port: nobody could reach it", hint=both)
    here = [(address, ours) for address, ours, its in every if its == port]
    if not here:
        known = ", ".join(str(its) for _, _, its in every)
        raise WishError(
            f"the engine will listen on port {port} of its container, which publishes port {known}",
            hint=f"{both}; or tell the engine with --port {every[0][2]}",
        )
    address, ours = here[0]
    if ours is None:
        raise WishError(f"the container's port {port} is published on a port of chance", hint=both)
    if host in ("127.0.0.1", "localhost", "::1"):
        raise WishError(
            f"--host {host} is the container's own: what it publishes would lead nowhere",
            hint=f"leave out --host; -p {host if host != 'localhost' else '127.0.0.1'}:{ours}:{port} keeps others out",
        )
    return address, ours


# --- which cards it has


def cards_environment(container: Container, environment: Mapping[str, str]) -> Mapping[str, str]:
    """Return the environment by which this host's cards are chosen and measured for the container's engine.

    Cards that the command names (`--gpus device=1`, NVIDIA_VISIBLE_DEVICES, CDI) are the only ones; numbers in the
    container's own CUDA_VISIBLE_DEVICES count among them.
    """
    own = container.set_variables(environment)
    ordered = {ORDER: own[ORDER]} if ORDER in own else {}
    inner = own.get(VISIBLE)
    named = _named_cards(container, own)
    if named is None:
        return {**environment, **ordered, **({} if inner is None else {VISIBLE: inner})}
    if inner is not None:
        words = [word.strip() for word in inner.split(",")]
        numbered = (int(word) for word in words if word.isdecimal())
        named = [named[at] for at in numbered if at < len(named)] if words[0].isdecimal() else words
    return {**environment, VISIBLE: ",".join(named), ORDER: PCI_BUS_ID}


def _named_cards(container: Container, own: Mapping[str, str]) -> list[str] | None:
    """Return the cards that the runtime shows to the container, in the order of the bus; None for all or unknown."""
    words: list[str] = []
    for value in container.values("gpus"):
        for field in next(csv.reader([value]), []):
            key, _, text = field.partition("=")
            if key == "device":
                words += text.split(",")
            elif (text if key == "count" else key).isdecimal():
                words += map(str, range(int(text if key == "count" else key)))
    words += (value.partition("=")[2] for value in container.values("device") if value.startswith("nvidia.com/gpu="))
    if not words:
        words = [word for word in own.get("NVIDIA_VISIBLE_DEVICES", "").split(",") if word]
    if not words or "all" in words or not all(re.match(r"\d+$|GPU-|MIG-", word) for word in words):
        return None
    return sorted(dict.fromkeys(words), key=lambda word: (not word.isdecimal(), int(word) if word.isdecimal() else 0))


# --- what is added


def added(container: Container, environment: Mapping[str, str], folders: Iterable[str]) -> tuple[str, ...]:
    """Return options for the container: `folders` mounted where they are here, and what both sides go by."""
    words: list[str] = []
    if not container.is_remote(environment):
        for folder in folders:
            if not container.sees(folder):
                words += ("-v", f"{folder}:{folder}:ro")
    own = container.set_variables(environment)
    values = {"PYTHONUNBUFFERED": "1", **environment}
    names = [name for name in PASSED if name in values and name not in own]
    if _named_cards(container, own) is None and VISIBLE not in own:
        names += [name for name in (VISIBLE, ORDER) if name in values]
    for name in names:
        words += ("-e", name if name in SECRET else f"{name}={values[name]}")
    return tuple(words)


def refuse_lost_secrets(container: Container, environment: Mapping[str, str]) -> None:
    """Raise `WishError` where `sudo` would keep a secret from the client: the engine would serve without its key."""
    before = [word.rpartition("/")[2] for word in container.client]
    kept = any(word == "-E" or word.startswith("--preserve-env") for word in container.client)
    own = container.set_variables(environment)
    lost = [name for name in PASSED if name in SECRET and name in environment and name not in own]
    if lost and not kept and {"sudo", "doas"} & set(before):
        raise WishError(
            f"{before[0]} takes {' and '.join(lost)} out of the environment, and the engine would run without",
            hint=f"sudo --preserve-env={','.join(lost)} docker ..., or let your account use docker without sudo",
        )


def mounted_for(model: str) -> str:
    """Return the folder to mount for a model's folder: a hub snapshot is made of links into its repository's."""
    found = re.match(r"(.*/models--[^/]+)/snapshots/[^/]+/?$", model)
    return found[1] if found else model.rstrip("/") or "/"


def downloads_anew(container: Container) -> str:
    """Return the mount that keeps what the container downloads, "" where it has one as far as can be seen."""
    kept = any("huggingface" in place or ".cache" in place or place == "/root" for place in container.destinations)
    own = container.set_variables({})
    if kept or {"HF_HOME", "HF_HUB_CACHE"} & own.keys():
        return ""
    return f"-v ~/.cache/huggingface:{WEIGHTS}"
