"""An engine behind `docker run`: stopped, not orphaned, whoever dies first; a stand-in for docker owns it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.fake_docker import Daemon, running
from tests.fake_engine import behaviours as b
from tests.fake_engine import leftovers
from tests.fake_engine.scenario import Outcome
from tests.ports import free_port
from tests.process.stage import DEADLINE_S, Stage, cmdline, halt, ok, stopped, until

pytestmark = pytest.mark.process

IMAGE = "vllm/vllm-openai:v0.24.0"


class Dock:
    """A stage whose engine is a container of a daemon of its own."""

    def __init__(self, stage: Stage, daemon: Daemon) -> None:
        self.stage = stage
        self.daemon = daemon
        stage.environment |= daemon.environment

    def words(self, *args: str, options: str = "", image: str = IMAGE) -> list[str]:
        publish = "" if "-p " in options or "--network" in options else f"-p {self.stage.port}:{self.stage.port}"
        engine = f"docker run -e FAKE_ENGINE {publish} {options} {image}"
        return [*self.stage.command(*args, engine=None), "--engine", engine]

    def launch(self, *args: str, options: str = "", image: str = IMAGE) -> subprocess.Popen[bytes]:
        return self.stage.start(self.words(*args, options=options, image=image))

    def ready(self, *args: str, options: str = "") -> subprocess.Popen[bytes]:
        process = self.launch(*args, options=options)
        self.stage.line("ready")
        return process

    def inspect(self) -> dict[str, Any]:
        """The only container that is there."""
        (one,) = json.loads(self.daemon.docker("inspect", *self.daemon.containers()))
        return dict(one)

    def clients(self) -> list[int]:
        return [pid for pid in self.stage.mentioning() if cmdline(pid).split(b"\0")[4:5] == [b"run"]]

    def asked_to_stop(self) -> None:
        """Wait until the runtime is being asked to stop the container: the first SIGTERM is obeyed."""
        until(lambda: any(b"containment.py" in cmdline(pid) for pid in self.stage.mentioning()), "it is asked")

    def nothing_left(self, deadline_s: float = 20.0) -> None:
        until(lambda: not self.daemon.containers(), "no container", deadline_s=deadline_s)
        self.stage.nothing_left(deadline_s)


@pytest.fixture
def dock(stage: Stage) -> Iterator[Dock]:
    with running() as daemon:
        yield Dock(stage, daemon)


def test_a_container_serves_and_is_stopped_politely(dock: Dock) -> None:
    dock.stage.play(ok(b.Worker()))
    process = dock.ready()
    assert dock.stage.lines("ready")[0]["url"] == f"http://127.0.0.1:{dock.stage.port}"
    process.terminate()
    assert dock.stage.end(process).code == 0
    assert dock.daemon.containers() == []
    assert dock.stage.left() == []
    assert len(leftovers.events(dock.stage.folder, "stopping")) == 1, "one SIGTERM, and in time"
    assert "vLLM 0.24.0" in dock.stage.err, "by the image's tag"


@pytest.mark.parametrize("options", ["--rm", "--name glm", "--rm --name glm --init -i", "--sig-proxy=false"])
def test_after_a_failed_attempt_its_container_is_gone_before_the_next(dock: Dock, options: str) -> None:
    dock.stage.play(Outcome(kind="kv_too_small", then="hang"), Outcome(kind="kv_too_small", then="hang_core"), ok())
    process = dock.ready(options=options)
    assert [line["n"] for line in dock.stage.lines("attempt")] == [1, 2, 3]
    assert len(dock.daemon.containers()) == 1
    process.terminate()
    assert dock.stage.end(process).code == 0
    assert dock.daemon.containers() == []


def test_a_users_file_for_the_containers_id_does_not_stop_the_second_attempt(dock: Dock) -> None:
    dock.stage.play(Outcome(kind="kv_too_small"), ok())
    file = dock.stage.folder / "cid"
    process = dock.ready(options=f"--cidfile {file}")
    assert [file.read_text()] == dock.daemon.containers()
    dock.stage.stop(process)
    assert not file.exists()


def test_an_engine_that_is_deaf_to_sigterm_is_killed_in_its_container(dock: Dock) -> None:
    dock.stage.play(ok(b.IgnoreSigterm(), b.Worker(count=2), b.DoubleFork(clear_env=True)))
    process = dock.ready("--drain-timeout", "0")
    process.terminate()
    dock.asked_to_stop()
    process.terminate()
    began = time.monotonic()
    assert dock.stage.end(process).code == 0
    assert time.monotonic() - began < 15  # of the 20 that it would have taken
    dock.nothing_left()


@pytest.mark.parametrize("delay_s", [{}, {"graphs": 60.0}])
def test_sigkill_of_the_supervisor_ends_the_container(dock: Dock, delay_s: dict[str, float]) -> None:
    dock.stage.play(ok(b.Worker(count=2), b.IgnoreSigterm(), delay_s=delay_s))
    process = dock.launch()
    dock.stage.grown({"leader", "core", "worker1"})
    process.kill()
    dock.nothing_left()


def test_a_client_that_is_killed_is_a_crash_and_its_container_is_ended_before_the_next(dock: Dock) -> None:
    dock.stage.play(ok(b.Worker()))
    process = dock.ready()
    (first,) = dock.daemon.containers()
    (client,) = dock.clients()
    os.kill(client, signal.SIGKILL)
    dock.stage.line("ready", 1)
    (second,) = dock.daemon.containers()
    assert second != first
    assert dock.stage.events[-5:] == ["ready", "crashed", "restarting", "attempt", "ready"]
    dock.stage.stop(process)
    dock.nothing_left()


def test_a_container_that_is_killed_from_outside_is_a_crash(dock: Dock) -> None:
    dock.stage.play(ok())
    process = dock.ready()
    dock.daemon.docker("kill", *dock.daemon.containers())
    dock.stage.line("ready", 1)
    dock.stage.stop(process)
    dock.nothing_left()


def test_a_warden_that_is_killed_leaves_no_container(dock: Dock) -> None:
    dock.stage.play(ok())
    process = dock.ready()
    (first,) = dock.daemon.containers()
    (warden,) = dock.stage.wardens()
    os.kill(warden, signal.SIGKILL)
    dock.stage.line("ready", 1)
    assert first not in dock.daemon.containers()
    dock.stage.stop(process)
    dock.nothing_left()


def test_supervisor_and_warden_killed_at_once_leave_a_container_that_the_next_start_ends(dock: Dock) -> None:
    dock.stage.play(ok(b.Worker()))
    process = dock.ready()
    (left,) = dock.daemon.containers()
    halt(process.pid)  # else it may end what it runs between the two kills
    for victim in (*until(dock.stage.wardens, "the warden"), process.pid):
        os.kill(victim, signal.SIGKILL)
    process.wait(DEADLINE_S)
    until(lambda: not dock.clients(), "the client goes with its warden")
    assert dock.daemon.containers() == [left], "nothing to sweep: the test proves nothing"
    again = dock.stage.end(dock.launch("--check"))
    assert again.code == 0, again.err
    assert f"ended the container {left[:12]} of a run that was killed" in again.err
    dock.nothing_left()


def test_the_sweep_spares_the_container_of_a_run_that_lives(dock: Dock) -> None:
    dock.stage.play(ok())
    process = dock.ready()
    (first,) = dock.daemon.containers()
    dock.stage.port = free_port()
    assert dock.stage.end(dock.launch("--check", options="--name other")).code == 0
    assert dock.daemon.containers() == [first]
    dock.stage.stop(process)


# --- ports


def test_a_port_that_is_published_under_another_number_is_where_it_is_reached(dock: Dock) -> None:
    inside, outside = dock.stage.port, free_port()
    dock.stage.play(ok())
    process = dock.ready(options=f"-p 127.0.0.1:{outside}:{inside}")
    assert dock.stage.lines("ready")[0]["url"] == f"http://127.0.0.1:{outside}"
    dock.stage.stop(process)


def test_the_hosts_network_needs_no_published_port(dock: Dock) -> None:
    dock.stage.play(ok())
    process = dock.ready(options="--network host")
    dock.stage.stop(process)


def test_a_port_that_is_taken_is_told_before_anything_is_started(dock: Dock) -> None:
    dock.stage.play(ok())
    with socket.create_server(("127.0.0.1", dock.stage.port)):
        ended = dock.stage.end(dock.launch())
    assert ended.code == 5
    assert f"port {dock.stage.port} cannot be listened on" in ended.err
    assert dock.stage.lines("attempt") == []


# --- what it is given


def test_a_container_gets_a_label_our_folder_and_the_variables_that_both_go_by(dock: Dock) -> None:
    dock.stage.play(ok())
    dock.stage.environment |= {"VLLM_API_KEY": "sk-0123456789abcdef", "HF_HUB_OFFLINE": "1", "OTHER": "not passed"}
    process = dock.ready(options="-e HF_HUB_OFFLINE=0 -l mine=1")
    seen = dock.inspect()
    assert seen["Config"]["Env"] == {
        "FAKE_ENGINE": str(dock.stage.folder / "scenario.json"),
        "HF_HUB_OFFLINE": "0",
        "PYTHONUNBUFFERED": "1",
        "VLLM_API_KEY": "sk-0123456789abcdef",
    }
    assert set(seen["Config"]["Labels"]) == {"autolaunch.engine", "mine"}
    (bound,) = seen["HostConfig"]["Binds"]
    folder, _, rest = bound.partition(":")
    assert rest == f"{folder}:ro"
    assert any(word.startswith(folder) for word in seen["Args"]), "the chat template that GLM-4 gets"
    shown = " ".join(dock.stage.lines("attempt")[0]["argv"])
    assert "-e VLLM_API_KEY " in shown
    assert "sk-0123456789abcdef" not in dock.stage.record.read_text() + dock.stage.err
    dock.stage.stop(process)


def test_a_models_folder_is_mounted_where_it_is(dock: Dock) -> None:
    model = dock.stage.folder / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    dock.stage.play(ok())
    words = dock.words()
    words[words.index("glm-4-9b")] = str(model)
    process = dock.stage.start(words)
    dock.stage.line("ready")
    assert dock.inspect()["HostConfig"]["Binds"] == [f"{model}:{model}:ro"]
    dock.stage.stop(process)


# --- what goes wrong


def test_a_name_that_is_taken_ends_the_run_with_dockers_words(dock: Dock) -> None:
    dock.stage.play(ok())
    other = subprocess.Popen(
        ["docker", "run", "--name", "taken", "-e", "FAKE_ENGINE={}", "x", "--port", str(free_port())],
        env=dock.stage.environment,
        stdout=subprocess.DEVNULL,
    )
    (theirs,) = until(dock.daemon.containers, "the other container")
    ended = dock.stage.end(dock.launch(options="--name taken"))
    assert ended.code == 5, ended.err
    assert 'The container name "/taken" is already in use' in ended.err
    assert len(dock.stage.lines("attempt")) == 1, "no setting mends that"
    assert dock.daemon.containers() == [theirs]
    other.kill()
    other.wait(DEADLINE_S)


def test_an_image_that_is_not_there_ends_the_run_with_dockers_words(dock: Dock) -> None:
    dock.stage.play(ok())
    ended = dock.stage.end(dock.launch(image="nowhere/vllm:v0.24.0"))
    assert ended.code == 5, ended.err
    assert "pull access denied for nowhere/vllm" in ended.err
    assert len(dock.stage.lines("attempt")) == 1


def test_docker_that_is_missing_is_told_at_once(dock: Dock) -> None:
    dock.stage.environment["PATH"] = str(dock.stage.folder)
    ended = dock.stage.end(dock.launch())
    assert ended.code == 5
    assert "the engine command docker does not exist" in ended.err


def test_a_daemon_that_is_not_running_is_told_before_anything_is_started(dock: Dock) -> None:
    dock.stage.environment["DOCKER_HOST"] = "unix:///nowhere/docker.sock"
    ended = dock.stage.end(dock.launch())
    assert ended.code == 5
    assert "no container can be run: Cannot connect to the Docker daemon at unix:///nowhere/docker.sock." in ended.err
    assert dock.stage.lines("attempt") == []


@pytest.mark.skipif(not Path("/usr/local/bin/docker").exists(), reason="no real docker client is here")
def test_the_real_client_without_a_daemon_is_told_in_its_own_words(stage: Stage) -> None:
    stage.environment["DOCKER_HOST"] = "unix:///nowhere/docker.sock"
    words = [*stage.command(engine=None), "--engine", f"/usr/local/bin/docker run -p {stage.port}:{stage.port} {IMAGE}"]
    ended = stage.end(stage.start(words))
    assert ended.code == 5
    assert "no container can be run: Cannot connect to the Docker daemon at unix:///nowhere/docker.sock." in ended.err


def test_a_daemon_that_does_not_answer_is_told_within_seconds(dock: Dock) -> None:
    began = time.monotonic()
    with stopped(dock.daemon.process.pid):
        ended = dock.stage.end(dock.launch())
    assert ended.code == 5
    assert "no container can be run: docker did not answer within 10 s" in ended.err
    assert time.monotonic() - began < 60


def test_a_daemon_that_hangs_at_the_stop_is_told_and_its_container_ended_once_it_answers(dock: Dock) -> None:
    dock.stage.play(ok())
    process = dock.ready("--drain-timeout", "0")
    (left,) = dock.daemon.containers()
    label = dock.inspect()["Config"]["Labels"]["autolaunch.engine"]
    with stopped(dock.daemon.process.pid):
        process.terminate()
        dock.asked_to_stop()
        process.terminate()
        ended = dock.stage.end(process)
        assert ended.code == 5
        assert "the engine's container could not be ended (docker did not answer within 10 s)" in ended.err
        assert f"autolaunch.engine={label}" in ended.err
    assert left
    dock.nothing_left(60)


def test_detached_containers_are_refused_and_nothing_is_started(dock: Dock) -> None:
    ended = dock.stage.end(dock.launch(options="-d"))
    assert ended.code == 2
    assert "--detach: its output and its end could not be seen" in ended.err


@contextmanager
def other_python(folder: Path) -> Iterator[str]:
    """Another environment's interpreter, which knows a vLLM of its own: the fake one."""
    place = folder / "other"
    site = place / "site"
    (site / "vllm-0.11.0.dist-info").mkdir(parents=True)
    (site / "vllm-0.11.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm\nVersion: 0.11.0\n")
    package = site / "vllm" / "entrypoints" / "openai"
    package.mkdir(parents=True)
    for one in (package, package.parent, package.parent.parent):
        (one / "__init__.py").write_text("")
    fake = Path(__file__).parents[1] / "fake_engine"
    (package / "api_server.py").write_text(
        f"import sys\nsys.argv[0] = {str(fake)!r}\nimport runpy\nrunpy.run_path({str(fake)!r}, run_name='__main__')\n"
    )
    python = place / "python3"
    real = shutil.which("python3")
    python.write_text(f'#!/bin/sh\nPYTHONPATH="{site}:$PYTHONPATH" exec {real} "$@"\n')
    python.chmod(0o755)
    yield str(python)


def test_another_environments_python_is_asked_for_its_version_and_ended_like_any(stage: Stage) -> None:
    stage.play(Outcome(kind="kv_too_small", then="hang"), ok(b.Worker()))
    with other_python(stage.folder) as python:
        words = stage.command(engine=None)
        process = stage.start([*words, "--engine", f"{python} -m vllm.entrypoints.openai.api_server"])
        stage.line("ready")
        assert "vLLM 0.11.0" in stage.err
        stage.stop(process)
