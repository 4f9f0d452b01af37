"""What a bug report says of the host: versions, platform, the engine and the cards as they are found now.

I/O, reading only. Owns the wording; hiding what is secret is left to `report`, but for variables, which are shown
by their names.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from importlib import metadata

from autolaunch import __version__, hardware, inventory
from autolaunch.errors import HostError
from autolaunch.facts import Device
from autolaunch.installation import find_engine
from autolaunch.looks import STARS
from autolaunch.redaction import redact_argv, scrub, secrets_in

PACKAGES = ("vllm", "torch", "transformers", "nvidia-ml-py", "psutil", "click", "structlog", "tenacity", "rich")
PREFIXES = ("AUTOLAUNCH_", "VLLM_", "CUDA_", "NVIDIA_", "NCCL_", "PYTORCH_", "TORCH_", "HF_", "TRANSFORMERS_")
LONGEST_VALUE = 200
MOST_VARIABLES = 100


def describe(environment: Mapping[str, str]) -> str:
    """Return what is found here, line by line; what cannot be found is said in its place."""
    lines = [
        f"autolaunch  {__version__}",
        f"python      {platform.python_implementation()} {platform.python_version()} ({sys.executable})",
        f"platform    {platform.platform()}, {os.cpu_count()} processors, {platform.libc_ver()[1] or 'no'} glibc",
        *_engine(environment),
        *_cards(environment),
        *_packages(),
        *_variables(environment),
    ]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _engine(environment: Mapping[str, str]) -> Iterator[str]:
    try:
        found = find_engine(environment.get("AUTOLAUNCH_ENGINE"), version=None, environment=environment)
    except HostError as error:
        yield f"engine      {error.what}"
        return
    command = redact_argv(found.command, secrets_in((), environment, found.command).anywhere)
    yield f"engine      {' '.join(command)} (vLLM {found.engine.version or 'of unknown version'})"


def _cards(environment: Mapping[str, str]) -> Iterator[str]:
    seen = hardware.look(environment)
    nameless = replace(seen, devices=tuple(map(_nameless, seen.devices)), choosable=())
    for line in inventory.describe(nameless):
        yield f"memory      {line}"


def _nameless(device: Device) -> Device:
    """Return a card without the names of those who use it."""
    return replace(device, holders=tuple(replace(holder, user="") for holder in device.holders))


def _packages() -> Iterator[str]:
    for name in PACKAGES:
        try:
            yield f"package     {name} {metadata.version(name)}"
        except metadata.PackageNotFoundError:
            continue


def _variables(environment: Mapping[str, str]) -> Iterator[str]:
    """Give what the engine and autolaunch are told by variables; the values of secret ones hidden."""
    hidden = secrets_in((), environment).anywhere
    told = sorted(name for name in environment if name.startswith(PREFIXES))
    for name in told[:MOST_VARIABLES]:
        value = environment[name]
        own = secrets_in((), {name: value})
        shown = STARS if value in (*own.anywhere, *own.named) else scrub(value, hidden)
        yield f"variable    {name}={shown[:LONGEST_VALUE]!r}"
