"""A real systemd as PID 1 of a namespace of its own, and one autolaunch unit in it; skipped where that cannot be.

The machine's own systemd is never touched. The script that boots one is not part of this project: it is looked for
beside the checkout, as `shared/systemd_boot.sh`, or where AUTOLAUNCH_SYSTEMD_BOOT says.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from autolaunch.unit import quoted
from tests.process.stage import DEADLINE_S, ENGINE, INHERITED, ROOT, Stage, cmdline, drive, until

SCRIPT = Path(os.environ.get("AUTOLAUNCH_SYSTEMD_BOOT", ROOT.parent / "shared" / "systemd_boot.sh"))

SERVE = b"\0serve\0"
"""What only the supervisor has in its command line."""

USERS = ("env", "XDG_RUNTIME_DIR=/run/user/0", "HOME=/root")
"""What the words to root's own service manager need."""


class Booted:
    """The systemd; `pid` as this side sees it."""

    def __init__(self, script: subprocess.Popen[bytes], folder: Path) -> None:
        self._script = script
        self.root = folder / "root"
        self.pid = until(self._init, "a systemd as PID 1", deadline_s=60.0)
        for path in (sys.prefix, sys.base_prefix, str(ROOT)):
            self.share(Path(path))
        until(lambda: "running" in self.inside("systemctl", "is-system-running").stdout, "its boot", deadline_s=120.0)

    def _init(self) -> int:
        assert self._script.poll() is None, "the script has ended"
        with contextlib.suppress(OSError):
            for child in Path(f"/proc/{self._script.pid}/task/{self._script.pid}/children").read_text().split():
                if b"/systemd\0--system" in cmdline(int(child)):
                    return int(child)
        return 0

    def share(self, path: Path) -> None:
        """Show a folder of this side there as well; /tmp is the other side's own."""
        if path.is_relative_to("/tmp"):
            target = f"{self.root}{path}"
            script = f"mkdir -p '{target}' && mount --bind '{path}' '{target}'"
            subprocess.run(["nsenter", "-t", str(self.pid), "-m", "sh", "-c", script], check=True, cwd="/", timeout=60)

    def begin_users(self) -> None:
        """Start root's own service manager, as a login would."""
        assert self.inside("install", "-d", "-m", "0700", "/run/user/0").returncode == 0
        assert self.inside("systemctl", "start", "user@0").returncode == 0

    def open_up(self, folder: Path) -> None:
        """Let every account there write to a folder, and read the Python, which may lie in root's home."""
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o777 if path.is_dir() else 0o666)
        homes = [str(home) for home in Path(sys.base_prefix).parents if str(home) != "/"]
        assert self.inside("chmod", "a+rx", *homes).returncode == 0  # of the overlay: not on this side

    def inside(self, *words: str, given: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command there to its end."""
        command = ["nsenter", "-t", str(self.pid), "-a", "-r", "-w", *words]
        return subprocess.run(
            command, input=given, capture_output=True, text=True, timeout=180, check=False, cwd="/", env=_plain()
        )

    def write(self, path: str, text: str) -> None:
        """Write a file there."""
        self.inside("mkdir", "-p", str(Path(path).parent))
        assert self.inside("tee", path, given=text).returncode == 0


def _plain() -> dict[str, str]:
    return {**{key: value for key, value in os.environ.items() if key in INHERITED}, "PYTHONPATH": str(ROOT)}


@contextlib.contextmanager
def booted() -> Iterator[Booted]:
    """Boot one, and end it with everything in it; skip where that needs what is not there."""
    if not SCRIPT.is_file():
        pytest.skip(f"no {SCRIPT}, which boots a systemd")
    if os.geteuid() != 0:
        pytest.skip("a systemd of one's own needs root")
    missing = [name for name in ("systemctl", "nsenter", "unshare", "chroot") if shutil.which(name) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    folder = Path(tempfile.mkdtemp(prefix="alsd-", dir="/tmp"))
    quiet = subprocess.DEVNULL
    script = subprocess.Popen([str(SCRIPT), str(folder)], stdin=quiet, stdout=quiet, stderr=quiet, cwd="/")
    try:
        yield Booted(script, folder)
    finally:
        script.kill()  # unshare --kill-child: PID 1 goes with it, and with PID 1 its namespace
        script.wait(DEADLINE_S)
        shutil.rmtree(folder, ignore_errors=True)


class Unit:
    """autolaunch's own unit for a fake engine on a stage, installed by its own command."""

    def __init__(self, system: Booted, stage: Stage, *, for_user: bool = False) -> None:
        self.system = system
        self.stage = stage
        self._of_user = USERS if for_user else ()
        self.name = f"autolaunch-test-{stage.port}"
        system.share(stage.folder)

    def install(
        self, *options: str, account: str = "root", driven: dict[str, Any] | None = None, **directives: str
    ) -> str:
        """Write the unit, with a drop-in of what a test must change; return what the command said.

        The drop-in has the scenario and shorter times, and with `driven` constants of autolaunch, as
        tests.process.drive names them. Only root has its state on the stage.
        """
        words = [sys.executable, "-m", "autolaunch", "systemd", "glm-4-9b", "--install", "--name", self.name]
        words += ["--user"] if self._of_user else ["--run-as", account]
        words += ["--engine", ENGINE, "--engine-version", "0.24.0", *options]
        words += ["--port", str(self.stage.port), "--record", str(self.stage.record)]
        words += ["--state-dir", str(self.stage.state)] if account == "root" else []
        self.stage.state.mkdir(exist_ok=True)
        done = self.system.inside(*self._of_user, *words)
        assert done.returncode == 0, done.stderr
        wanted = {"RestartSec": "100ms", "StandardError": f"append:{self.stage.folder}/err", **directives}
        passed = ("FAKE_ENGINE", "HF_HUB_OFFLINE", "PYTHONPATH", "TMPDIR")
        lines = [f"Environment={name}={self.stage.environment[name]}" for name in passed]
        lines += [f"{name}={value}" for name, value in wanted.items() if not name.startswith("StartLimit")]
        about = [f"{name}={value}" for name, value in wanted.items() if name.startswith("StartLimit")]
        lines += [] if driven is None else self._driven(driven)
        text = "\n".join(["[Unit]", *about, "[Service]", *lines, ""])
        folder = "/run/user/0/systemd/user" if self._of_user else "/run/systemd/system"
        self.system.write(f"{folder}/{self.name}.service.d/test.conf", text)
        self.control("daemon-reload", named=False)
        return done.stderr

    def _driven(self, wanted: dict[str, Any]) -> list[str]:
        """Give the lines that run the unit's own command with other constants."""
        shown = self.control("cat").stdout.replace("\\\n", " ").splitlines()
        (command,) = (line for line in shown if line.startswith("ExecStart="))
        assert " -m autolaunch serve " in command
        changed = command.replace(" -m autolaunch serve ", f" -m {drive(self.stage, **wanted)} serve ")
        given = quoted(f"AUTOLAUNCH_DRIVE={self.stage.environment['AUTOLAUNCH_DRIVE']}")
        return [f"Environment={given}", "ExecStart=", changed]

    def control(self, verb: str, *more: str, named: bool = True) -> subprocess.CompletedProcess[str]:
        manager = ("systemctl", "--user") if self._of_user else ("systemctl",)
        return self.system.inside(*self._of_user, *manager, verb, *more, *([self.name] if named else []))

    def start(self) -> None:
        """Order the start and wait for nothing."""
        self.control("start", "--no-block")

    def get(self, prop: str) -> str:
        return self.control("show", "-p", prop, "--value").stdout.strip()

    def becomes(self, state: str, deadline_s: float = DEADLINE_S) -> None:
        """Wait for an ActiveState."""
        until(lambda: self.get("ActiveState") == state, f"ActiveState={state}", deadline_s=deadline_s)

    def says(self, text: str, deadline_s: float = DEADLINE_S) -> None:
        """Wait for a StatusText that has this in it."""
        until(lambda: text in self.get("StatusText"), f"a status with {text!r}", deadline_s=deadline_s)

    def pids(self, mark: bytes) -> list[int]:
        """Give the unit's processes with `mark` in their command line, numbered as on this side."""
        return [pid for pid in self.stage.mentioning() if mark in cmdline(pid)]

    def supervisor(self) -> int:
        (pid,) = (pid for pid in self.pids(SERVE) if b"warden" not in cmdline(pid))
        return pid

    def leader(self) -> int:
        """Give the fake engine's API server, which the warden's command line also names."""
        found = [pid for pid in self.pids(b"tests/fake_engine") if b"warden" not in cmdline(pid)]
        return min(pid for pid in found if SERVE not in cmdline(pid))

    def close(self) -> None:
        """Stop it, whatever became of it."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            if self.stage.mentioning():
                for pid in self.pids(SERVE):
                    os.kill(pid, signal.SIGCONT)
            self.control("stop")
            self.control("reset-failed")
        for pid in self.stage.mentioning():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
