"""A stand-in for docker: a daemon (`daemon`) that owns containers, and a client (`docker`) that asks it.

What matters is who is whose parent. As with docker, an engine's process is a descendant of the daemon and not of the
client that ran it: it survives the client's death and the death of whoever started the client. A container is a tree of
processes under a `shim` that adopts their orphans; when its first process ends, or it is killed, all of it ends. There
are no images, no file systems and no networks of their own: an image is the fake engine, its arguments are what stands
behind the image's name, its environment is what `-e` gives it. A port that is published under another number is
forwarded by the daemon.

    python -I -S tests/fake_docker/daemon.py SOCKET    the daemon; tests/fake_docker/bin/docker is the client
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).parent
BIN = HERE / "bin"


class Daemon:
    """A daemon and the environment of its clients. `kill` ends it as a power cut would, its containers too."""

    def __init__(self, folder: Path) -> None:
        self.socket = folder / "docker.sock"
        self.environment = {
            "DOCKER_HOST": f"unix://{self.socket}",
            "PATH": f"{BIN}:{os.environ['PATH']}",
        }
        plain = {"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"}
        words = [sys.executable, "-I", "-S", str(HERE / "daemon.py"), str(self.socket)]
        with (folder / "daemon.log").open("wb") as log:
            self.process = subprocess.Popen(
                words, env=plain, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    def docker(self, *words: str) -> str:
        """Return what the client prints."""
        done = subprocess.run(
            [str(BIN / "docker"), *words],
            env={**os.environ, **self.environment},
            check=True,
            capture_output=True,
            text=True,
            timeout=20,
        )
        return done.stdout

    def containers(self) -> list[str]:
        """Return the ids of all containers, those that ended included."""
        return self.docker("ps", "-aq", "--no-trunc").split()

    def kill(self) -> None:
        """End it and all its containers: its shims end with it."""
        self.process.kill()
        self.process.wait(10)


@contextmanager
def running() -> Iterator[Daemon]:
    """Give a daemon that answers."""
    with tempfile.TemporaryDirectory(prefix="dk-", dir="/tmp") as folder:
        made = Daemon(Path(folder))
        try:
            while not made.socket.exists():
                assert made.process.poll() is None, (Path(folder) / "daemon.log").read_text()
            yield made
        finally:
            made.kill()
