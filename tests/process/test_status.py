"""`--status` of a real run: what is answered in every phase, to how many, and that nobody who asks can hurt the run."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import stat
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from autolaunch.door import CONNECTIONS
from autolaunch.lock import CardLocks
from tests import fake_nvml
from tests.fake_engine import behaviours as b
from tests.fake_engine import leftovers
from tests.fake_engine.scenario import Outcome
from tests.ports import free_port
from tests.process.browser import BROWSER, browsing
from tests.process.crowd import ROUTES, crowded
from tests.process.stage import DEADLINE_S, ROOT, SECRET, TOKEN, Stage, drive, ok, state_of, stopped, until

pytestmark = pytest.mark.process


class Asked:
    """The status of a run, asked over TCP."""

    def __init__(self, port: int) -> None:
        self.port = port

    def get(self, path: str, timeout: float = DEADLINE_S) -> tuple[int, str]:
        client = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        with contextlib.closing(client):
            client.request("GET", path)
            answer = client.getresponse()
            return answer.status, answer.read().decode()

    def there(self, path: str) -> tuple[int, str]:
        """Return what is answered, (0, "") while nobody listens yet."""
        try:
            return self.get(path)
        except OSError:
            return 0, ""

    def json(self) -> dict[str, Any]:
        value: dict[str, Any] = json.loads(self.get("/status")[1])
        return value

    def probes(self) -> tuple[int, int, int]:
        return self.get("/livez")[0], self.get("/startupz")[0], self.get("/readyz")[0]

    def metric(self, name: str) -> float:
        text = self.get("/metrics")[1]
        return float(next(line.split()[-1] for line in text.splitlines() if line.startswith(name + " ")))


def launched(stage: Stage, *more: str, **how: Any) -> tuple[subprocess.Popen[bytes], Asked]:
    port = free_port()
    return stage.launch("--status", str(port), *more, **how), Asked(port)


def leader(stage: Stage) -> int:
    """Return the API server that lives; who is stopped stays in its phase for as long as a test looks."""
    known = leftovers.roles(stage.folder)
    return next(pid for pid in leftovers.alive(stage.folder) if known.get(pid) == "leader")


def end(stage: Stage, process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    assert stage.end(process).code == 0


def test_a_climb_is_told_while_it_goes_on(stage: Stage) -> None:
    stage.play(Outcome(kind="kv_too_small"), ok(delay_s={"profile": 3.0}))
    process, asked = launched(stage)
    until(lambda: '"attempt": 2' in asked.there("/status")[1], "the second attempt is told")
    until(lambda: len(leftovers.starts(stage.folder)) == 2, "its engine")
    with stopped(leader(stage)):
        assert asked.probes() == (200, 503, 503)
        line = "attempt 2 of at most 10: kv_too_small, context: max_model_len auto -> 70624\n"
        assert asked.get("/readyz") == asked.get("/startupz") == (503, line)
        told = asked.json()
        assert (told["phase"], told["attempt"], told["settings"]) == ("starting", 2, {"max_model_len": 70624})
        page = asked.get("/")[1]
    assert "131072 tokens need 5.00 GiB of KV cache, 2.69 GiB are there; 70624 tokens fit" in page
    ready = stage.line("ready")
    until(lambda: asked.probes() == (200, 200, 200), "the probes pass")
    told = asked.json()
    assert [told[name] for name in ("phase", "run", "effective", "url")] == [
        "ready", ready["run"], ready["effective"], ready["url"],
    ]  # fmt: skip
    assert asked.metric("autolaunch_attempts_total") == 2
    assert asked.metric('autolaunch_failures_total{kind="kv_too_small"}') == 1
    assert asked.metric('autolaunch_phase_seconds_total{phase="starting",step="profile"}') > 1
    end(stage, process)


CARD = {"name": "NVIDIA GeForce RTX 4090", "total": 24 << 30, "free": 22 << 30}


def believe(stage: Stage, card: dict[str, Any]) -> None:
    """Show the supervisor a card that is not there."""
    named = {"uuid": f"GPU-{uuid.uuid4()}", **card}  # its lock is one for the whole host
    stage.environment |= fake_nvml.environment(stage.folder / "nvml.json", named)
    stage.environment["PYTHONPATH"] += f"{os.pathsep}{ROOT}"


@contextlib.contextmanager
def starting_elsewhere(card: str) -> Iterator[None]:
    """Another supervisor that holds the card's lock, as during a start."""
    held = CardLocks("another-model", lambda _: None).acquire([card], wait_s=0.0)
    assert held is not None
    try:
        yield
    finally:
        held.release()


def test_a_wait_for_the_card_has_words_and_is_alive(stage: Stage) -> None:
    card = f"GPU-{uuid.uuid4()}"
    believe(stage, {**CARD, "uuid": card})
    stage.play(ok())
    with starting_elsewhere(card):
        process, asked = launched(stage, "--log-format", "json")
        until(lambda: "is starting on this card" in asked.there("/readyz")[1], "the wait is told")
        assert asked.probes() == (200, 503, 503)
        told = asked.json()
        assert (told["phase"], told["attempt"], told["model"]) == ("planning", 0, "glm-4-9b")
        waits = f"another autolaunch (pid {os.getpid()}, another-model) is starting on this card: waiting up to 600 s"
        assert told["line"] == waits
        assert waits in asked.get("/")[1]
        (line,) = [json.loads(line) for line in stage.err.splitlines()]
        assert [line[name] for name in ("run", "attempt", "phase", "level", "event")] == [
            told["run"], 0, "planning", "info", waits,
        ]  # fmt: skip
    stage.line("ready")
    until(lambda: asked.probes() == (200, 200, 200), "it went on")
    assert asked.json()["line"].startswith("serving glm-4-9b at")
    end(stage, process)


def test_a_stop_while_the_card_is_waited_for_is_obeyed_and_told_as_the_rest(stage: Stage) -> None:
    card = f"GPU-{uuid.uuid4()}"
    believe(stage, {**CARD, "uuid": card})
    stage.play(ok())
    with starting_elsewhere(card):
        process, asked = launched(stage, "--log-format", "json")
        until(lambda: "is starting on this card" in asked.there("/readyz")[1], "the wait is told")
        end(stage, process)
    lines = [json.loads(line) for line in stage.err.splitlines()]
    assert lines[-1]["event"] == "stopped (SIGTERM) before anything was started"
    assert leftovers.starts(stage.folder) == []
    stage.nothing_left()


def test_a_wait_for_a_neighbours_memory_has_words(stage: Stage) -> None:
    """Until it lets go; then the start goes on as if nobody had been there."""
    believe(stage, {**CARD, "free": 2 << 30})
    stage.play(ok())
    process, asked = launched(stage)
    until(lambda: "of the memory are held by" in asked.there("/readyz")[1], "the wait is told")
    assert asked.get("/readyz") == (
        503,
        "22.00 GiB of the memory are held by other processes: waiting up to 20 s for it\n",
    )
    assert asked.probes() == (200, 503, 503)
    fake_nvml.write(stage.folder / "nvml.json", CARD)
    stage.line("ready")
    end(stage, process)


def test_a_crash_and_the_way_back_are_told(stage: Stage) -> None:
    stage.play(ok())
    process, asked = launched(stage, module=drive(stage, restart_wait_s=10))
    stage.line("ready")
    until(lambda: asked.probes() == (200, 200, 200), "the probes pass")
    stage.crash()
    until(lambda: asked.probes() == (200, 200, 503), "it is not ready, but has served")
    until(lambda: asked.probes() == (200, 200, 200), "it serves again")
    assert asked.metric("autolaunch_restarts_total") == 1
    assert [(one["event"], one["death"]) for one in asked.json()["history"]] == [("crashed", "crash")]
    assert asked.json()["deaths"] == {"crash": 1}
    assert (
        asked.metric('autolaunch_deaths_total{death="crash"}'),
        asked.metric('autolaunch_deaths_total{death="hang"}'),
    ) == (1, 0)
    assert "died in service" in asked.get("/")[1]
    end(stage, process)


def test_after_a_crash_the_line_counts_from_the_last_service_and_names_no_old_step(stage: Stage) -> None:
    """It once was "attempt 3 of at most 2: other_crash, utilization: ...", an old step beside a new crash."""
    stage.play(Outcome(kind="kv_too_small"), ok(), ok(delay_s={"load": 2.0}))
    process, asked = launched(stage, "--strategy", "classic", "--max-attempts", "2")
    until(lambda: asked.there("/readyz")[1].startswith("attempt 2 of at most 2: kv_too_small, "), "the climb is told")
    until(lambda: asked.probes() == (200, 200, 200), "it serves")
    stage.crash()
    again = "attempt 3, 1 of at most 2 since it last served: starting again after other_crash"
    until(lambda: asked.there("/readyz")[1].startswith(again), "the restart is told")
    until(lambda: asked.probes() == (200, 200, 200), "it serves again")
    assert asked.json()["why"] == [asked.json()["history"][1]["why"]], "of the settings at hand, not of the plan"
    end(stage, process)


def test_no_answer_holds_a_secret(stage: Stage) -> None:
    stage.environment |= {"HF_TOKEN": TOKEN}
    stage.play(Outcome(kind="kv_too_small", behaviours=(b.PrintSecret(),)), ok(b.PrintSecret()))
    process, asked = launched(stage, "--api-key", SECRET)
    stage.line("ready")
    until(lambda: asked.probes()[2] == 200, "it is ready")
    answers = [asked.get(path)[1] for path in (*ROUTES, "/nothing", f"/{SECRET}")]
    assert "***" in answers[0]  # the engine's log shows its arguments
    for answer in answers:
        assert SECRET not in answer
        assert TOKEN not in answer
        assert str(stage.folder / "scenario.json") not in answer  # of the environment
    end(stage, process)


def test_a_taken_address_ends_the_launch_before_anything_is_started(stage: Stage) -> None:
    stage.play(ok())
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        ended = stage.run("--status", str(port))
    assert ended.code == 5
    assert f"the status cannot be served: port {port} cannot be listened on" in ended.err
    assert "choose another with --status" in ended.err
    assert leftovers.starts(stage.folder) == []
    assert stage.lines() == []
    assert not (stage.state / "runs").exists()


def test_the_engines_own_port_is_refused(stage: Stage) -> None:
    stage.play(ok())
    assert stage.run("--status", str(stage.port)).code == 2
    assert leftovers.starts(stage.folder) == []


def said_at(path: Path) -> bytes:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(DEADLINE_S)
        client.connect(str(path))
        client.sendall(b"GET /readyz HTTP/1.1\r\nHost: a.proxy.example\r\n\r\n")
        return b"".join(iter(lambda: client.recv(1 << 16), b""))


def test_a_unix_socket_outlives_no_run_and_stops_no_run_after_a_kill(stage: Stage) -> None:
    path = stage.folder / "x.sock"
    stage.play(ok(), ok())
    process = stage.launch("--status", f"unix:{path}")
    stage.line("ready")
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    until(lambda: said_at(path).startswith(b"HTTP/1.1 200 OK\r\n"), "it is ready")
    process.kill()
    process.wait()
    stage.nothing_left()
    assert path.exists()
    process = stage.launch("--status", f"unix:{path}")
    stage.line("ready", 1)
    until(lambda: said_at(path).startswith(b"HTTP/1.1 200 OK\r\n"), "it is ready again")
    end(stage, process)
    assert not path.exists()


# --- load


def crash_to_restart(stage: Stage, nth: int) -> float:
    """Kill the engine that serves and return the seconds until the next one was started, the wait left out."""
    began = time.time()
    stage.crash()
    waited = float(stage.line("restarting", nth)["wait_seconds"])
    until(lambda: len(leftovers.starts(stage.folder)) == nth + 2, "the next start")
    stage.line("ready", nth + 1)
    return float(leftovers.starts(stage.folder)[nth + 1]["time"]) - began - waited


def test_many_and_slow_clients_do_not_hurt_the_run(stage: Stage) -> None:
    """How fast they are answered, and the next start with them there, is `scripts/bench restart`'s to measure."""
    stage.play(ok(), ok(), ok())
    process, asked = launched(stage)
    stage.line("ready")
    calm_s = crash_to_restart(stage, 0)
    for path in ROUTES:
        asked.get(path)
    before = {name: state_of(process.pid, name) for name in ("VmRSS", "Threads")}
    with crowded(asked.port, stage.folder) as crowd:
        crowd.answered(400)
        until(lambda: crowd.told()["dripped"] > 100, "the slow ones are there")
        loaded_s = crash_to_restart(stage, 1)
        during = {name: state_of(process.pid, name) for name in ("VmRSS", "Threads")}
        held = len(os.listdir(f"/proc/{process.pid}/fd"))  # noqa: PTH208 - of another process, at once
        crowd.answered(400)
        until(lambda: asked.probes() == (200, 200, 200), "the probes pass among them")
        told = crowd.told()
    print(f"calm {calm_s:.3f} s, loaded {loaded_s:.3f} s, {before} {during}, {held} descriptors, {told}")
    assert set(told["codes"]) <= {"200", "503"}
    assert loaded_s < 5 * calm_s + 5.0
    assert during["VmRSS"] < before["VmRSS"] + 16 * 1024
    assert during["Threads"] <= before["Threads"] + 3  # those of a start
    assert held < CONNECTIONS + 40
    end(stage, process)


# --- a real browser


@pytest.mark.skipif(BROWSER is None, reason="there is no Chromium here")
def test_a_real_browser_shows_the_page_and_renews_it(stage: Stage) -> None:
    believe(stage, CARD)
    stage.play(Outcome(kind="kv_too_small"), ok(b.Garbage(), delay_s={"profile": 5.0}))
    process, asked = launched(stage)
    until(lambda: '"step": "profile"' in asked.there("/status")[1], "the second start is told")
    with contextlib.ExitStack() as stack:
        held = stack.enter_context(contextlib.ExitStack())
        held.enter_context(stopped(leader(stage)))
        browser = stack.enter_context(browsing(stage.folder / "browser"))
        with held:
            browser.open(f"http://127.0.0.1:{asked.port}/", width=400, height=900)
            until(lambda: browser.value("document.querySelector('.phase')?.textContent"), "the page is there")
            phase = "document.querySelector('.phase').textContent"
            assert browser.value(phase) == "Starting the engine: measuring memory"
        stage.line("ready")
        until(lambda: browser.value(phase) == "Serving", "it renewed itself")
        assert browser.value("[...document.querySelectorAll('li')].map(one => one.className).join()") == "bad,step,good"
        drawn = browser.value("[...document.querySelectorAll('rect')].map(one => one.getBoundingClientRect().width)")
        assert len(drawn) >= 5
        assert sum(drawn) == pytest.approx(browser.value("document.querySelector('svg').clientWidth"), abs=1)
        assert browser.value("document.documentElement.scrollWidth") == 400, "nothing sticks out of a phone's screen"
        pictures = Path(os.environ.get("AUTOLAUNCH_PICTURES", stage.folder))
        for scheme, ground in (("light", "rgb(246, 247, 249)"), ("dark", "rgb(17, 20, 23)")):
            browser.prefer(scheme)
            assert browser.value("getComputedStyle(document.body).backgroundColor") == ground
            browser.picture(pictures / f"page-{scheme}.png")
            assert (pictures / f"page-{scheme}.png").read_bytes().startswith(b"\x89PNG")
        end(stage, process)
        until(lambda: browser.value("!document.getElementById('lost').hidden"), "it says that nobody answers")
        assert [said for said in browser.said if "ERR_CONNECTION_REFUSED" not in said] == []
