"""The text of a systemd unit: what is to run, as whom, what it may touch, and which ends are worth another start.

Pure. Owns the quoting (systemd.syntax(7), systemd.service(5) "Command lines") and every directive with its reason.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from autolaunch.errors import ExitCode
from autolaunch.phases import Policy

MARK = "written by autolaunch"
"""Stands in the first line of every unit of ours."""

STATE = "%S/autolaunch"
CACHE = "%C/autolaunch"
"""Where systemd puts StateDirectory and CacheDirectory: /var/lib and /var/cache for a system service."""

SECRETS_FILE = "AUTOLAUNCH_SECRETS_FILE"
"""Tells a service where its EnvironmentFile is, whose mode it looks at when it starts."""

HOMES = ("/home/", "/root/", "/run/user/")
SHARED = ("/tmp/", "/var/tmp/")  # noqa: S108 - compared with
START_S = 900
"""What comes before the first sign of work: up to 600 s for another start on the card, 20 s for others' memory."""

ROOTLESS = frozenset({"podman", "nerdctl"})
"""Runtimes that an ordinary user runs without a daemon that is root."""

MARGIN_S = 20
WATCHDOG_S = 60
"""The loop gives a sign every 30 s; the longest that it is kept busy is a few seconds (a database that waits for a
lock, a full pipe)."""

_PLAIN = re.compile(r"[A-Za-z0-9_@+=:,./-]+")
_ESCAPED = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Service:
    """What a unit is written for.

    `command` is the whole command line, the executable with its full path; `environment` what was given by variable.
    `reads` are full paths that must be there (the executable's too), `writes` folders that must be writable beside
    state and cache.
    `drain_s` is how long running requests may take at the end, `runtime` what runs the engine's container ("docker").
    """

    name: str
    model: str
    command: tuple[str, ...]
    secrets_file: str
    for_user: bool = False
    account: str = "autolaunch"
    dynamic: bool = False
    environment: tuple[tuple[str, str], ...] = ()
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    drain_s: float = 0.0
    runtime: str = ""

    @property
    def stop_s(self) -> int:
        """How long an end as asked may take: the drain, the grace behind SIGTERM and SIGKILL, and a margin."""
        policy = Policy()
        return math.ceil(self.drain_s + policy.stop_grace_s + policy.kill_wait_s + MARGIN_S)

    @property
    def in_home(self) -> bool:
        """Whether something that is needed lies in somebody's home."""
        return bool(self.in_homes)

    @property
    def in_homes(self) -> tuple[str, ...]:
        """What of it does."""
        return tuple(path for path in (*self.reads, *self.writes) if path.startswith(HOMES))

    @property
    def in_tmp(self) -> bool:
        """Whether something that others use, or that is needed, lies in /tmp."""
        return any(f"{path}/".startswith(SHARED) for path in (*self.reads, *self.writes))


def unit_name(model: str) -> str:
    """Return the name, without `.service`, of the unit for a model: an alias, a hub id or a folder."""
    last = model.rstrip("/").rsplit("/", 1)[-1] if model.startswith(("/", ".", "~")) else model
    return "autolaunch-" + (re.sub("[^A-Za-z0-9_.-]+", "-", last).strip("-.") or "model")


def quoted(word: str) -> str:
    """Return one word of a command line: never expanded, never split, whatever is in it."""
    return _quoted(word.replace("$", "$$"))


def _quoted(word: str) -> str:
    """Return one word of any other list: there `$` means nothing."""
    if _PLAIN.fullmatch(word):
        return word
    escaped = "".join(_ESCAPED.get(letter, letter) for letter in word.replace("%", "%%"))
    return '"' + _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", escaped) + '"'


def unit(service: Service, *, version: str) -> str:
    """Return the unit's text, with its comments."""
    sections = (_head(service, version), _about(service), _service(service), _install(service))
    return "\n".join("\n".join(section) + "\n" for section in sections)


def _head(service: Service, version: str) -> Iterable[str]:
    control = "systemctl --user" if service.for_user else "systemctl"
    yield f"# {service.name}.service, {MARK} {version}"
    yield f"# secrets: {service.secrets_file}, mode 0600, lines such as VLLM_API_KEY=... and HF_TOKEN=..."
    if service.for_user:
        yield "# to run while nobody is logged in: loginctl enable-linger"
    elif not service.dynamic:
        yield f"# account: {create_account(service.account)}"
    yield f"# then:    {control} daemon-reload && {control} enable --now {service.name}"


def create_account(account: str) -> str:
    """Return the command that makes the service's account."""
    return f"useradd --system --user-group --home-dir /var/lib/autolaunch --shell /usr/sbin/nologin {account}"


def _about(service: Service) -> Iterable[str]:
    yield "[Unit]"
    yield f"Description={_one_line(service.model)} on vLLM, kept by autolaunch"
    if not service.for_user:
        daemon = " docker.service" if service.runtime == "docker" else ""
        yield f"Wants=network-online.target{daemon}"
        yield f"After=network-online.target nvidia-persistenced.service{daemon}"
    if service.reads and not service.for_user:
        yield f"RequiresMountsFor={_words(service.reads)}"
    yield "# A crashed engine is restarted by autolaunch, which ends with 6 beyond its own limit. This is the limit of"
    yield "# autolaunch's own ends; where it was reached: systemctl reset-failed"
    yield "StartLimitIntervalSec=3600"
    yield "StartLimitBurst=5"


def _service(service: Service) -> Iterable[str]:
    yield "[Service]"
    yield "Type=notify"
    yield "NotifyAccess=main"
    yield from _command(service)
    yield from _ends(service)
    if service.for_user:
        yield "# What needs a namespace or a cgroup of its own is left out: a user's manager may have neither."
    else:
        yield from _account(service)
    yield from _environment(service)
    yield from _hardening(service)


def _command(service: Service) -> Iterable[str]:
    if not service.for_user:
        yield "# The devices' nodes may not be there after a boot, and the service itself may not make them."
        yield "ExecStartPre=+-/usr/bin/nvidia-modprobe -c 0 -u"
    yield "ExecStart=" + " \\\n    ".join(_lines(service.command))
    yield "# Opens the record file anew, for logrotate; the command line is read at the start only."
    yield "ExecReload=/bin/kill -HUP $MAINPID"


def _lines(command: Sequence[str]) -> Iterable[str]:
    """Give the command's words as lines: each option begins one."""
    line = quoted(command[0])
    for word in command[1:]:
        if word.startswith("-") and len(word) > 2:
            yield line
            line = quoted(word)
        else:
            line += " " + quoted(word)
    yield line


def _ends(service: Service) -> Iterable[str]:
    codes = (ExitCode.USAGE, ExitCode.NOTHING_FITS, ExitCode.HOST_AT_FAULT)
    yield "Restart=on-failure"
    yield "RestartSec=10"
    yield "# No restart cures 2 (the command line is wrong), 3 (nothing fits, after everything was tried) and 5 (the"
    yield "# host needs a hand: no engine, a taken port, no permission). It may cure 4 (the engine failed, but not of"
    yield "# memory: a hub that did not answer) and 6 (too many crashes in a short time)."
    yield f"RestartPreventExitStatus={' '.join(str(int(code)) for code in codes)}"
    yield "# SIGTERM to autolaunch only, which lets the engine finish and sees that its whole tree is gone. To every"
    yield "# process it would cut the requests that still run. What outlives autolaunch itself gets SIGKILL."
    yield "KillMode=mixed"
    yield f"TimeoutStopSec={service.stop_s}"
    yield "# Until the first sign of work, waiting for the card included. From then on autolaunch asks for more time"
    yield "# while the start goes on, however big the model, and ends a start that stalls (--stall-timeout)."
    yield f"TimeoutStartSec={START_S}"
    yield "# A supervisor that hangs is killed, and its engine with it; no core, which would be the size of the model."
    yield f"WatchdogSec={WATCHDOG_S}"
    yield "WatchdogSignal=SIGKILL"
    yield "LimitCORE=0"
    yield "# An engine that the kernel kills over host memory is a failure that autolaunch answers with other settings."
    yield "OOMPolicy=continue"
    yield f"SyslogIdentifier={service.name}"


def _account(service: Service) -> Iterable[str]:
    yield f"User={service.account}"
    if service.dynamic:
        yield "DynamicUser=yes"
    if service.runtime == "docker":
        yield "# Whoever may speak to docker's daemon may do anything on this machine, as root."
        yield "SupplementaryGroups=docker"
    yield "StateDirectory=autolaunch"
    yield "StateDirectoryMode=0750"
    yield "CacheDirectory=autolaunch"
    yield "CacheDirectoryMode=0750"


def _environment(service: Service) -> Iterable[str]:
    if not service.for_user:
        yield "# Models and what the engine compiles outlive a restart, which a private /tmp does not."
        yield f"Environment=HOME={STATE} XDG_CACHE_HOME={CACHE} HF_HOME={CACHE}/huggingface"
        yield f"Environment=VLLM_CACHE_ROOT={CACHE}/vllm TORCHINDUCTOR_CACHE_DIR={CACHE}/torchinductor"
        yield f"Environment=TRITON_CACHE_DIR={CACHE}/triton CUDA_CACHE_PATH={CACHE}/cuda"
    for name, value in service.environment:
        yield f"Environment={_quoted(f'{name}={value}')}"
    yield f"Environment={_quoted(f'{SECRETS_FILE}={service.secrets_file}')}"
    yield f"EnvironmentFile=-{_path(service.secrets_file)}"


def _hardening(service: Service) -> Iterable[str]:
    if service.runtime in ROOTLESS:
        yield f"# {service.runtime} makes a user namespace with newuidmap, which is setuid, and unpacks setuid files."
        yield "UMask=0027"
        return
    yield "NoNewPrivileges=yes"
    yield "LockPersonality=yes"
    yield "RestrictRealtime=yes"
    yield "RestrictSUIDSGID=yes"
    yield "SystemCallArchitectures=native"
    yield "UMask=0027"
    if service.for_user:
        return
    yield "ProtectSystem=strict"
    yield "ProtectHome=" + ("read-only" if service.in_home else "yes")
    if service.writes:
        yield f"ReadWritePaths={_words(service.writes)}"
    yield "# /dev/shm stays the host's: there autolaunch keeps two starts on one card apart."
    yield "PrivateTmp=" + ("no" if service.in_tmp else "yes")
    yield "# nvidia (older drivers: nvidia-frontend): the cards, nvidiactl; -uvm; -caps: MIG; -nvswitch, -nvlink."
    yield "DevicePolicy=closed"
    yield "DeviceAllow=char-nvidia* rw"
    yield "CapabilityBoundingSet="
    yield "AmbientCapabilities="
    for name in ("Clock", "ControlGroups", "Hostname", "KernelLogs", "KernelModules", "KernelTunables"):
        yield f"Protect{name}=yes"
    yield "RestrictNamespaces=yes"
    yield "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK"
    yield "# Not MemoryDenyWriteExecute (kernels are compiled at run time), PrivateDevices (the cards), ProtectProc"
    yield "# (neighbours on the card are named), nor a list of allowed calls: drivers and NCCL change theirs."
    yield "SystemCallFilter=~@clock @cpu-emulation @module @mount @obsolete @raw-io @reboot @swap"
    yield "SystemCallErrorNumber=EPERM"


def _install(service: Service) -> Iterable[str]:
    yield "[Install]"
    yield f"WantedBy={'default' if service.for_user else 'multi-user'}.target"


def _words(words: Iterable[str]) -> str:
    return " ".join(map(_quoted, words))


def _path(path: str) -> str:
    """Return a single path, which systemd takes to the line's end without quotes."""
    return path.replace("%", "%%")


def _one_line(text: str) -> str:
    return _CONTROL.sub(" ", text).replace("%", "%%").rstrip("\\")
