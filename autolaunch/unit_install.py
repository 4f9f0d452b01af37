"""A systemd unit for this machine: what the command line needs here, where the unit goes, and writing it there.

I/O. The text is `unit`'s. Refuses what would fail or leak as a service; never runs systemctl, never makes an account.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import shlex
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from autolaunch.arguments import Given, given, split
from autolaunch.container import container_in
from autolaunch.errors import HostError, WishError
from autolaunch.installation import command_words
from autolaunch.options import Asked, Options, ask
from autolaunch.redaction import redact_argv, secrets_in
from autolaunch.secrets_file import fault
from autolaunch.unit import MARK, ROOTLESS, STATE, Service, create_account, unit_name

SECRET_VARIABLES = ("VLLM_API_KEY", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
WRITTEN = ("--record", "--state-dir", "--models", "AUTOLAUNCH_RECORD", "AUTOLAUNCH_STATE_DIR", "AUTOLAUNCH_MODELS")
"""What need not be there yet, so that it is known for a path by the option's name only."""

_ASSIGNS = re.compile(r"(?:--)?[\w.-]+=")


@dataclass(frozen=True, slots=True)
class Typed:
    """What was typed behind `systemd`, its own options left out; `takes_value` are the options of a launch."""

    own: tuple[str, ...]
    model: str | None
    engine: tuple[str, ...]
    takes_value: Mapping[str, bool]


@dataclass(frozen=True, slots=True)
class Place:
    """Which manager a unit is for, its name if one was given, and the account it runs as."""

    for_user: bool = False
    name: str | None = None
    account: str = "autolaunch"
    dynamic: bool = False


def service(typed: Typed, options: Options, place: Place, *, environment: Mapping[str, str]) -> Service:
    """Return the service for a command line; raises `WishError` for one that would fail, end at once or leak."""
    asked = ask(typed.model, typed.engine, options)
    if options.check:
        raise WishError("--check ends as soon as the engine is up", hint="leave it out: a service stays")
    name = place.name or unit_name(asked.wish.model)
    secrets = _secrets_file(name, for_user=place.for_user)
    variables = tuple(sorted((key, value) for key, value in environment.items() if _is_option(key, typed)))
    added = () if place.for_user else _added(options, asked)
    if asked.modelscope and not options.modelscope:
        added = (*added, "--modelscope")  # the variable is this shell's
    command = _command(typed, asked, added)
    _refuse_bytes(command)
    _refuse_secrets((*command, *(f"{key}={value}" for key, value in variables)), secrets)
    _refuse_relative(typed, variables)
    _refuse_open(secrets, for_user=place.for_user)
    runtime = _runtime(options.engine, for_user=place.for_user)
    return Service(
        name=name,
        model=asked.wish.model,
        command=command,
        secrets_file=str(secrets),
        for_user=place.for_user,
        account=place.account,
        dynamic=place.dynamic,
        environment=variables,
        reads=_reads(command, options),
        writes=_writes(options, asked),
        drain_s=options.drain_timeout,
        runtime=runtime,
    )


def _added(options: Options, asked: Asked) -> tuple[str, ...]:
    """Return what a system's service has to be told since it has no home: the state folder, a file of own models."""
    state = () if options.state_dir is not None else ("--state-dir", STATE.replace("%S", "/var/lib"))
    return (*state, *(("--models", asked.entry.file) if asked.entry.file and options.models is None else ()))


def _command(typed: Typed, asked: Asked, added: Sequence[str]) -> tuple[str, ...]:
    """Return the whole command line, read by `serve` exactly as what was typed."""
    script = Path(sys.argv[0]).absolute()
    head = (str(script),) if script.name == "autolaunch" and script.is_file() else (sys.executable, "-m", "autolaunch")
    own = (*typed.own, *added)
    model = () if typed.model is None else (_full(typed.model, asked),)
    bare = split((*own, *model, *typed.engine), typed.takes_value)
    same = (bare.own, bare.model, bare.engine, bare.stray) == (own, *(model or (None,)), typed.engine, ())
    return (*head, "serve", *own, *model, *(() if same else ("--",)), *typed.engine)


def _full(model: str, asked: Asked) -> str:
    """Return a folder or file with its full path: a service has another working folder."""
    path = Path(model).expanduser()
    return str(path.absolute()) if path.exists() and asked.entry.model == str(path) else model


def _is_option(variable: str, typed: Typed) -> bool:
    """Whether a variable stands for an option of a launch that the command line does not give itself."""
    option = "--" + variable.removeprefix("AUTOLAUNCH_").replace("_", "-").lower()
    if not variable.startswith("AUTOLAUNCH_") or option not in typed.takes_value:
        return False
    return all(token.split("=", 1)[0] != option for token in typed.own)


def _secrets_file(name: str, *, for_user: bool) -> Path:
    if not for_user:
        return Path("/etc/autolaunch") / f"{name}.env"
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "autolaunch" / f"{name}.env"


def _refuse_bytes(command: Sequence[str]) -> None:
    for word in command:
        try:
            word.encode()
        except UnicodeEncodeError as error:
            raise WishError(f"{word!r} is no UTF-8, and a unit is", hint="name the file in UTF-8") from error


def _refuse_secrets(words: Sequence[str], secrets: Path) -> None:
    """Raise for a secret on the command line: a unit can be read by every user of the machine."""
    shown = redact_argv(words, secrets_in(given(words), {}, words).anywhere)
    for word, redacted in zip(words, shown, strict=True):
        if word != redacted:
            before = next((one for one in reversed(words[: words.index(word)]) if one.startswith("--")), "")
            option = redacted.split("=")[0] if _ASSIGNS.match(redacted) else before
            raise WishError(
                f"the value of {option or 'an argument'} is a secret, and every user can read a unit",
                hint=f"put it into {secrets} (mode 0600), for example as VLLM_API_KEY=... or HF_TOKEN=...",
            )


def _refuse_relative(typed: Typed, variables: Sequence[tuple[str, str]]) -> None:
    """Raise for a file that is named from here: a service has another working folder."""
    words = (*typed.own, *typed.engine, *(f"{name}={value}" for name, value in variables))
    before = ""
    for word in words:
        name, glued, value = word.partition("=")
        option, value = (name, value) if glued else (before, word)
        before = word
        ours = option in WRITTEN and not value.startswith("-")
        found = ("/" in value or "." in value) and _is_here(value)
        if value.startswith("~") or ((ours or found) and not value.startswith("/")):
            raise WishError(
                f"{value} is found from this folder only, and a service starts in another",
                hint=f"write {Path(value).expanduser().absolute()}",
            )


def _runtime(engine: str | None, *, for_user: bool) -> str:
    """Return what runs the engine's container, "" for none; raise `WishError` for what no such unit can start."""
    words = command_words(engine or "")
    found = container_in(words)
    runtime = "" if found is None else found.runtime
    if words and Path(words[0]).name == "sudo":
        allowed = "the unit gives its account the group docker" if runtime == "docker" else "a service asks nobody"
        raise WishError("--engine begins with sudo, which a service cannot use", hint=f"leave it out: {allowed}")
    if runtime in ROOTLESS and not for_user:
        raise WishError(
            f"{runtime} needs more of a system's service than a hardened unit gives",
            hint="write a unit for your own manager with --user, or use docker",
        )
    return runtime


def _is_here(value: str) -> bool:
    with contextlib.suppress(OSError, ValueError):
        return Path(value).exists()
    return False


def _refuse_open(secrets: Path, *, for_user: bool) -> None:
    """Raise for a file of secrets that others may read or write."""
    wrong = fault(secrets)
    if wrong:
        file = shlex.quote(str(secrets))
        owned = f"chmod 0600 {file}" if for_user else f"chown root {file} && chmod 0600 {file}"
        if for_user and secrets.stat().st_uid != os.getuid():
            owned = "put a file of your own in its place, mode 0600"
        raise HostError(wrong, hint=f"{owned}: it is there for secrets")


def _reads(command: Sequence[str], options: Options) -> tuple[str, ...]:
    """Return the full paths that a start needs: programs, with what their links lead to, and files that are named."""
    words = [sys.prefix, sys.base_prefix, str(Path(__file__).parent), *(options.engine or "").split()]
    words += [word.partition("=")[2] if word.startswith("-") else word for word in command]
    found = {path for word in words if word.startswith("/") for path in (word, os.path.realpath(word))}
    return tuple(sorted(path for path in found if _is_here(path) and not path.startswith(("/usr/", "/proc/", "/dev/"))))


def _writes(options: Options, asked: Asked) -> tuple[str, ...]:
    """Return the folders that are written besides the service's own."""
    named: dict[str, Given] = {option.name: option for option in asked.wish.options}
    files = [str(options.record)] if options.record else []
    files += [named[name].value for name in ("uds",) if name in named]
    files += [options.status.path] if options.status is not None and options.status.path else []
    folders = [named[name].value for name in ("download-dir",) if name in named]
    folders += [str(options.state_dir)] if options.state_dir else []
    found = {*folders, *(str(Path(file).parent) for file in files)}
    return tuple(sorted(path for path in found if path.startswith("/") and not path.startswith("/dev/")))


def unit_folder(*, for_user: bool) -> Path:
    """Return where an administrator's, or a user's own, units are kept."""
    if not for_user:
        return Path("/etc/systemd/system")
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "systemd" / "user"


def install(text: str, name: str, folder: Path) -> Path:
    """Write a unit at once and whole, readable by all, and return where; a unit that is not ours is left alone."""
    path = folder / f"{name}.service"
    try:
        if path.exists() and MARK not in path.read_text(encoding="utf-8", errors="replace").partition("\n")[0]:
            raise WishError(f"{path} is there and was not {MARK}", hint="choose another name with --name")
        folder.mkdir(parents=True, exist_ok=True)
        descriptor, part = tempfile.mkstemp(prefix=f".{name}.", dir=folder)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                os.fchmod(descriptor, 0o644)
                file.write(text)
                file.flush()
                os.fsync(descriptor)
            Path(part).replace(path)
        except BaseException:
            Path(part).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise HostError(
            f"{path} cannot be written: {error.strerror}",
            hint="run it as root, or write a unit of your own with --user",
        ) from error
    return path


def to_do(made: Service, *, environment: Mapping[str, str]) -> tuple[str, ...]:
    """Return what is left for a person to do before the unit can be started."""
    steps = []
    if not made.for_user and not made.dynamic and not _is_account(made.account):
        steps.append(create_account(made.account))
    found = [name for name in SECRET_VARIABLES if environment.get(name)]
    if found and not Path(made.secrets_file).exists():
        steps.append(f"put {' and '.join(found)} of this shell into {made.secrets_file}, mode 0600")
    if made.in_home and not made.for_user:
        steps.append(f"see that {made.account} may read what lies in a home: {', '.join(made.in_homes)}")
    control = "systemctl --user" if made.for_user else "systemctl"
    return (*steps, f"{control} daemon-reload && {control} enable --now {made.name}")


def _is_account(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True
