"""The daemon: containers by id, one thread a client. See the package for what it stands in for.

Standard library only; started by its path. A container's processes hang below a shim (`Shim`), a process of its own
that adopts orphans and ends with the daemon.
"""

from __future__ import annotations

import ctypes
import json
import os
import queue
import secrets
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

ENGINE = [sys.executable, "-S", str(Path(__file__).parents[1] / "fake_engine")]
VALUED = ("-e", "-v", "-p", "-l", "--name", "--label", "--cidfile", "--gpus", "--network", "--ipc", "--env", "--volume")
LIBC = ctypes.CDLL(None)
SUBREAPER, PDEATHSIG = 36, 1


ID_LENGTH = 64


class Refused(Exception):
    """The daemon's answer to what it does not do; `code` is the client's exit code."""

    def __init__(self, text: str, code: int = 1) -> None:
        super().__init__(text)
        self.code = code


class Container:
    """One container, made by `run`."""

    def __init__(self, words: list[str], environment: dict[str, str], folder: str) -> None:
        self.id = secrets.token_hex(32)
        self.given: list[tuple[str, str]] = []
        rest = list(words)
        while rest and rest[0].startswith("-"):
            word = rest.pop(0)
            name, equals, value = word.partition("=")
            self.given.append((name, value if equals else rest.pop(0) if name in VALUED else ""))
        if not rest:
            raise Refused("docker: 'docker run' requires at least 1 argument", 125)
        self.image, self.arguments = rest[0], rest[1:]
        self.name = "".join(self.values("--name")) or f"quiet_{self.id[:6]}"
        self.cidfile = Path(folder, *self.values("--cidfile")) if self.values("--cidfile") else None
        self.labels = self.values("--label", "-l")
        pairs = [value.partition("=") for value in self.values("-e", "--env")]
        self.environment = {
            name: value if eq else environment[name] for name, eq, value in pairs if eq or name in environment
        }
        self.process: subprocess.Popen[bytes] | None = None
        self.code: int | None = None
        self.started, self.ended = threading.Event(), threading.Event()
        self.log = os.memfd_create(self.id)
        self.stopping = False

    def values(self, *names: str) -> list[str]:
        return [value for name, value in self.given if name in names]

    @property
    def removes_itself(self) -> bool:
        return any(name == "--rm" for name, _ in self.given)

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__, "--shim", *ENGINE, *self.arguments],
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=self.log,
            env={"PATH": os.environ["PATH"], **self.environment},
            start_new_session=True,
        )

    def signal(self, number: int) -> None:
        assert self.process is not None
        if self.process.poll() is None:
            os.kill(self.process.pid, signal.SIGUSR1 if number == signal.SIGKILL else number)

    def busy(self) -> bool:
        """Whether its processes used any processor time in a tenth of a second."""
        assert self.process is not None
        before = _ticks(self.process.pid)
        time.sleep(0.1)
        return _ticks(self.process.pid) > before

    def summary(self) -> dict[str, Any]:
        return {
            "Id": self.id,
            "Name": f"/{self.name}",
            "Image": self.image,
            "Args": self.arguments,
            "State": {
                "Running": self.code is None,
                "Pid": self.process.pid if self.process else 0,
                "ExitCode": self.code,
            },
            "Config": {"Labels": dict(label.split("=", 1) for label in self.labels), "Env": self.environment},
            "HostConfig": {"Binds": self.values("-v", "--volume"), "Ports": self.values("-p")},
        }


class Daemon:
    """All containers, and what clients ask of them."""

    def __init__(self) -> None:
        self.containers: dict[str, Container] = {}
        self.lock = threading.RLock()
        self.starts: queue.SimpleQueue[Container] = queue.SimpleQueue()
        threading.Thread(target=self._start_all, daemon=True).start()

    def _start_all(self) -> None:
        """Start containers from one thread that lives on: a parent-death signal strikes when the thread dies."""
        while True:
            made = self.starts.get()
            made.start()
            made.started.set()

    def serve(self, client: socket.socket) -> None:
        stream = client.makefile("rw", encoding="utf-8")

        def send(**message: Any) -> None:
            stream.write(json.dumps(message) + "\n")
            stream.flush()

        try:
            request = json.loads(stream.readline())
            words = request["words"]
            if words[:1] == ["run"]:
                send(code=self.run(words[1:], request, send))
                return
            send(out=(self.answer(words) + "\n").encode().hex())
            send(code=0)
        except Refused as refusal:
            send(err=f"{refusal}\n")
            send(code=refusal.code)
        except OSError:
            pass  # the client is gone: that is its own matter

    # --- run

    def run(self, words: list[str], request: dict[str, Any], send: Any) -> int:
        made = Container(words, request["environment"], request["folder"])
        with self.lock:
            self._refuse(made)
            self.containers[made.id] = made
            if made.cidfile:
                made.cidfile.write_text(made.id)
            self.starts.put(made)
            made.started.wait()
        threading.Thread(target=self._wait, args=(made,), daemon=True).start()
        self._publish(made)
        send(attached=made.id)
        at = 0
        while True:
            ended = made.ended.is_set()
            while block := os.pread(made.log, 1 << 16, at):
                at += len(block)
                send(out=block.hex())
            if ended:
                return made.code or 0
            made.ended.wait(0.01)

    def _refuse(self, made: Container) -> None:
        before = "docker: Error response from daemon: "
        for other in self.containers.values():
            if other.name == made.name:
                raise Refused(
                    f'{before}Conflict. The container name "/{made.name}" is already in use by container "{other.id}". '
                    "You have to remove (or rename) that container to be able to reuse that name.",
                    125,
                )
        if made.cidfile and made.cidfile.exists():
            raise Refused(
                f"docker: container ID file found, make sure it isn't running or delete {made.cidfile}",
                125,
            )
        if made.image.startswith("nowhere/"):
            raise Refused(
                f"{before}pull access denied for {made.image}, repository does not exist or may require 'docker login'",
                125,
            )
        for value in made.values("-p"):
            port = int(value.split(":")[-2])
            with socket.socket() as trial:
                trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    trial.bind(("", port))
                except OSError:
                    why = f"Bind for 0.0.0.0:{port} failed: port is already allocated"
                    failed = f"driver failed programming external connectivity on endpoint {made.name}"
                    raise Refused(f"{before}{failed}: {why}", 125) from None

    def _wait(self, made: Container) -> None:
        assert made.process is not None
        code = made.process.wait()
        made.code = 128 - code if code < 0 else code
        if made.removes_itself:
            with self.lock:
                self.containers.pop(made.id, None)
        made.ended.set()

    def _publish(self, made: Container) -> None:
        for value in made.values("-p"):
            ours, _, its = value.rpartition(":")
            port = int(ours.rpartition(":")[2])
            if port != int(its):
                listening = socket.create_server(("127.0.0.1", port))
                threading.Thread(target=self._forward, args=(made, listening, int(its)), daemon=True).start()

    def _forward(self, made: Container, listening: socket.socket, port: int) -> None:
        """Be docker-proxy for one port."""
        while not made.ended.is_set():
            if select.select([listening], [], [], 0.05)[0]:
                client = listening.accept()[0]
                threading.Thread(target=_pass, args=(client, port), daemon=True).start()
        listening.close()

    # --- everything else

    def answer(self, words: list[str]) -> str:
        command = getattr(self, f"_{words[0]}", None)
        if command is None:
            raise Refused(f"docker: '{words[0]}' is not a docker command.")
        return "\n".join(command(words[1:]))

    def _inspect(self, rest: list[str]) -> list[str]:
        return [json.dumps([one.summary() for one in self._named(rest)])]

    def _stats(self, rest: list[str]) -> list[str]:
        named = self._named([word for word in rest if len(word) == ID_LENGTH])
        return [f"{'99.0' if one.busy() else '0.0'}%|1.2kB / 3kB|0B / 0B" for one in named]

    def _kill(self, rest: list[str]) -> list[str]:
        number = signal.SIGKILL
        if rest[0] in ("--signal", "-s"):
            number, rest = signal.Signals(int(rest[1])), rest[2:]
        for one in self._named(rest):
            if one.code is not None:
                raise Refused(f"Error response from daemon: cannot kill container: {one.id}: it is not running")
            one.signal(number)
        return rest

    def _stop(self, rest: list[str]) -> list[str]:
        seconds, rest = (float(rest[1]), rest[2:]) if rest[0] == "-t" else (10.0, rest)
        for one in self._named(rest):
            one.signal(signal.SIGTERM)
            if not one.ended.wait(seconds):
                one.signal(signal.SIGKILL)
            one.ended.wait()
        return rest

    def _rm(self, rest: list[str]) -> list[str]:
        named = [word for word in rest if not word.startswith("-")]
        for one in self._named(named):
            if one.code is None and "--force" in rest:
                one.signal(signal.SIGKILL)
            one.ended.wait()
            with self.lock:
                self.containers.pop(one.id, None)
        return named

    def _ps(self, rest: list[str]) -> list[str]:
        flags = {letter for word in rest if word[:1] == "-" and word[:2] != "--" for letter in word[1:]}
        every = "--all" in rest or "a" in flags
        wanted = [rest[at + 1].removeprefix("label=") for at, word in enumerate(rest) if word == "--filter"]
        with self.lock:
            known = list(self.containers.values())
        return [
            one.id
            for one in known
            if (every or one.code is None)
            and all(any(label == w or label.split("=")[0] == w for label in one.labels) for w in wanted)
        ]

    def _named(self, names: list[str]) -> list[Container]:
        with self.lock:
            found = [one for one in self.containers.values() if one.id in names or one.name in names]
        if len(found) < len(names):
            raise Refused(f"Error response from daemon: No such container: {names[0]}")
        return found


def _pass(client: socket.socket, port: int) -> None:
    try:
        server = socket.create_connection(("127.0.0.1", port))
    except OSError:
        client.close()
        return
    with client, server:
        while True:
            for ready in select.select([client, server], [], [])[0]:
                block = ready.recv(1 << 16)
                if not block:
                    return
                (server if ready is client else client).sendall(block)


# --- the shim


def shim(argv: list[str]) -> None:
    """Run a container's first process; pass signals on, SIGUSR1 as SIGKILL; end all of it when it ends."""
    LIBC.prctl(PDEATHSIG, signal.SIGKILL)
    LIBC.prctl(SUBREAPER, 1)
    first = 0

    def passed(number: int, _frame: object) -> None:
        if first:
            os.kill(first, signal.SIGKILL if number == signal.SIGUSR1 else number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, passed)
    first = subprocess.Popen(
        argv,
        start_new_session=True,
        preexec_fn=lambda: LIBC.prctl(PDEATHSIG, signal.SIGKILL),  # noqa: PLW1509 - the shim has one thread
    ).pid
    code = 0
    while True:
        pid, status = os.waitpid(-1, 0)
        if pid == first:
            code = os.waitstatus_to_exitcode(status)
            break
    while children := _below(os.getpid()):
        for child in children:
            os.kill(child, signal.SIGKILL)
        for _ in children:
            os.waitpid(-1, 0)
    sys.exit(128 - code if code < 0 else code)


def _ticks(root: int) -> int:
    """Return the processor time of a tree in clock ticks."""
    own = Path(f"/proc/{root}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return int(own[11]) + int(own[12]) + sum(map(_ticks, _below(root)))


def _below(root: int) -> list[int]:
    text = Path(f"/proc/{root}/task/{root}/children").read_text(encoding="ascii")
    return [int(word) for word in text.split()]


def main(path: str) -> None:
    """Listen for clients until killed."""
    daemon = Daemon()
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(path + ".new")
    listening.listen(64)
    Path(path + ".new").rename(path)
    while True:
        client = listening.accept()[0]
        threading.Thread(target=daemon.serve, args=(client,), daemon=True).start()


if __name__ == "__main__":
    if sys.argv[1] == "--shim":
        shim(sys.argv[2:])
    else:
        main(sys.argv[1])
