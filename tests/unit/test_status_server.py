"""The status at an address: taken addresses, sockets of their own, and what whoever asks gets to see."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import stat
from collections.abc import Iterator
from dataclasses import replace
from http.client import HTTPConnection
from pathlib import Path

import pytest

from autolaunch import routes, status_server
from autolaunch.cli import main
from autolaunch.errors import HostError, WishError
from autolaunch.logfile import Bounds, LogFile
from autolaunch.options import Options, ask
from autolaunch.redaction import Secrets
from autolaunch.settings import Settings
from autolaunch.status import Status
from autolaunch.status_address import StatusAddress, parse_status_address
from autolaunch.status_server import TAIL_LINES, StatusServer, listen, tail
from autolaunch.watchers import watchers
from tests.ports import free_port
from tests.unit.test_status_form import FULL, SECRET

SERVING = replace(FULL, phase="ready", step=None)


@contextlib.contextmanager
def serving(address: StatusAddress | None = None, **how: tuple[str, ...]) -> Iterator[StatusServer]:
    made = StatusServer(address or StatusAddress(port=free_port()), **how)
    try:
        yield made
    finally:
        made.close()


def get(server: StatusServer, path: str, method: str = "GET") -> tuple[int, str]:
    """Return the code and body, over TCP."""
    client = HTTPConnection(server.address.host, server.address.port, timeout=10)
    with contextlib.closing(client):
        client.request(method, path)
        answer = client.getresponse()
        return answer.status, answer.read().decode()


def test_what_is_shown_is_what_is_answered() -> None:
    with serving() as server:
        assert get(server, "/readyz") == (503, "planning\n")
        server.show(FULL)
        assert get(server, "/readyz") == (503, FULL.line + "\n")
        server.show(SERVING)
        assert get(server, "/readyz") == (200, SERVING.line + "\n")
        assert json.loads(get(server, "/status")[1])["phase"] == "ready"
        assert get(server, "/metrics")[0] == get(server, "/")[0] == 200
        assert get(server, "/nothing")[0] == 404
        assert get(server, "/status", "DELETE")[0] == 405
        assert get(server, "/readyz", "HEAD") == (200, "")


def test_a_beat_that_stays_away_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving() as server:
        assert get(server, "/livez") == (200, "alive\n")
        monkeypatch.setattr(routes, "BEAT_MOST_S", -1.0)
        monkeypatch.setattr(status_server, "FRESH_S", 0.0)
        assert get(server, "/livez") == (503, "the supervisor's loop was last seen 0 s ago\n")


def test_beats_are_asked_for_often_enough() -> None:
    assert StatusServer.beat_s is not None
    assert StatusServer.beat_s * 5 < routes.BEAT_MOST_S


def test_an_answer_is_kept_for_a_moment_and_never_for_another_status(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status_server, "FRESH_S", 3600.0)
    with serving() as server:
        server.show(FULL)
        first = get(server, "/")
        assert get(server, "/") == first
        server.show(SERVING)
        assert get(server, "/") != first


def test_a_kept_answer_is_no_way_around_the_refusal_of_a_foreign_page() -> None:
    with serving() as server:
        server.show(SERVING)
        assert get(server, "/")[0] == 200
        client = HTTPConnection("127.0.0.1", server.address.port, timeout=10)
        with contextlib.closing(client):
            client.request("GET", "/", headers={"Host": "evil.example"})
            assert client.getresponse().status == 403


def test_a_fault_in_an_answer_does_not_end_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving() as server:
        server.show(replace(SERVING, budget={"total_bytes": "much", "requested_bytes": None}))
        code, said = get(server, "/metrics")
        assert (code, said) == (500, "this cannot be shown: ValueError\n")
        assert get(server, "/livez")[0] == 200


# --- secrets


def test_no_route_gives_a_secret_away(tmp_path: Path) -> None:
    (tmp_path / "attempt-2.log").write_text(f"vllm serve --api-key {SECRET}\n")
    leaky = replace(
        SERVING, log=str(tmp_path), reason=f"said {SECRET}", why=(SECRET,), settings=Settings(model=f"/m/{SECRET}")
    )
    with serving(hidden=(SECRET,)) as server:
        server.show(leaky)
        for path in (*routes.ROUTES, "/nothing"):
            said = get(server, path)[1]
            assert SECRET not in said
        assert "vllm serve --api-key ***" in get(server, "/")[1]


# --- the end of the log


def at(folder: Path) -> Status:
    return replace(SERVING, log=str(folder), attempt=1)


def test_the_newest_lines_are_shown_without_colours_and_with_the_newest_state_of_a_bar(tmp_path: Path) -> None:
    (tmp_path / "attempt-1.log").write_bytes(
        b"\x1b[36mINFO\x1b[0m one\nLoading:  10%\rLoading: 100%\r\n\x1b]0;title\x07two\x00\n" + b"y" * 700 + b"\nlast"
    )
    assert tail(at(tmp_path), ()) == ("INFO one", "Loading: 100%", "two", "y" * 597 + "...", "last")


def test_a_long_log_is_read_from_its_end_only(tmp_path: Path) -> None:
    with (tmp_path / "attempt-1.log").open("wb") as file:
        file.truncate(3 << 30)
        file.seek(0, os.SEEK_END)
        file.write(b"\n" + b"".join(b"line %d\n" % number for number in range(100)))
    before = bytes_read()
    assert tail(at(tmp_path), ()) == tuple(f"line {number}" for number in range(100 - TAIL_LINES, 100))
    assert bytes_read() - before < 1 << 20


def bytes_read() -> int:
    """Return what this process has read of any file so far."""
    return int(Path("/proc/self/io").read_text().split()[1])


def test_a_line_that_is_cut_by_the_bound_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "attempt-1.log").write_bytes(b"x" * (1 << 17) + b"\nwhole\n")
    assert tail(at(tmp_path), ()) == ("whole",)


def test_a_log_in_parts_is_shown_from_its_newest(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "attempt-1.log", Bounds(head_bytes=1000, tail_bytes=100_000, tails=2))
    for number in range(20_010):
        log.write(b"line %5d\n" % number)
    log.close()
    newest = max(tmp_path.iterdir(), key=lambda part: part.stat().st_mtime_ns)
    assert newest.name != "attempt-1.log"
    assert tail(at(tmp_path), ()) == tuple(f"line {number}" for number in range(19_950, 20_010))


def test_no_log_is_no_lines(tmp_path: Path) -> None:
    assert tail(at(tmp_path), ()) == ()
    assert tail(Status(), ()) == ()
    (tmp_path / "attempt-1.log").touch()
    assert tail(at(tmp_path), ()) == ()


# --- addresses


def test_a_taken_port_is_the_hosts_fault_and_names_its_holder() -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        with pytest.raises(HostError) as error:
            listen(StatusAddress(port=port))
    assert error.value.what.startswith(
        f"the status cannot be served: port {port} cannot be listened on: Address already"
    )
    assert f"pid {os.getpid()})" in error.value.what
    assert error.value.hint == "choose another with --status"


def test_an_address_that_is_not_this_hosts_is_told() -> None:
    with pytest.raises(HostError, match=r"192\.0\.2\.1, port \d+ cannot be listened on: Cannot assign"):
        listen(StatusAddress("192.0.2.1", free_port()))


def test_an_address_is_free_again_after_a_run(tmp_path: Path) -> None:
    address = StatusAddress(port=free_port())
    for _ in range(3):
        with serving(address) as server:
            assert get(server, "/livez")[0] == 200


def test_the_other_loopback_address_serves_too() -> None:
    with contextlib.closing(socket.socket(socket.AF_INET6)) as trial:
        try:
            trial.bind(("::1", 0))
        except OSError:
            pytest.skip("there is no IPv6 here")
    with serving(StatusAddress("::1", free_port())) as server:
        assert get(server, "/livez") == (200, "alive\n")


def unix(path: Path) -> StatusAddress:
    return parse_status_address(f"unix:{path}")


def said_at(path: Path) -> bytes:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(str(path))
        client.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        return b"".join(iter(lambda: client.recv(1 << 16), b""))


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_a_unix_socket_is_for_its_owner_and_group_and_goes_with_the_server(tmp_path: Path, umask: int) -> None:
    path, before = tmp_path / "x.sock", os.umask(umask)
    try:
        with serving(unix(path)):
            assert stat.S_IMODE(path.stat().st_mode) == 0o660
            assert said_at(path).endswith(b"alive\n")
        assert not path.exists()
    finally:
        os.umask(before)


def test_a_socket_that_a_killed_run_left_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with serving(unix(path)):
        assert said_at(path).endswith(b"alive\n")


def test_a_socket_at_which_somebody_listens_is_not_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    with serving(unix(path)):
        with pytest.raises(HostError) as error:
            listen(unix(path))
        assert said_at(path).endswith(b"alive\n")
    assert error.value.what == f"the status cannot be served at unix:{path}: somebody listens there already"


def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    path.write_text("precious")
    with pytest.raises(HostError, match="a file that is no socket has this name"):
        listen(unix(path))
    assert path.read_text() == "precious"
    with pytest.raises(HostError, match="No such file or directory"):
        listen(unix(tmp_path / "missing" / "x.sock"))


def test_a_successors_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    with serving(unix(path)):
        path.unlink()
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(path))
    assert path.exists()


# --- how it is asked for


def test_nobody_listens_where_nobody_asks() -> None:
    assert watchers(Options(), {}, Secrets(), pytest.fail) == ()


def test_the_watcher_hides_the_secrets_of_the_run() -> None:
    """It knew those of the environment only, not what stood behind --api-key or in --engine."""
    options = Options(status=StatusAddress(port=free_port()))
    (server,) = watchers(options, {}, Secrets((SECRET,)), pytest.fail)
    assert isinstance(server, StatusServer)
    with contextlib.closing(server):
        server.show(replace(SERVING, reason=SECRET))
        assert json.loads(get(server, "/status")[1])["reason"] == "***"


def test_whoever_may_read_from_elsewhere_is_warned_of() -> None:
    warnings: list[str] = []
    address = StatusAddress("0.0.0.0", free_port())
    (server,) = watchers(Options(status=address), {}, Secrets(), warnings.append)
    assert isinstance(server, StatusServer)
    server.close()
    assert warnings == [f"whoever reaches {address} can read the status and the end of the engine's log"]


@pytest.mark.parametrize("asked", [("--status", "8000"), ("--status", "0.0.0.0:9000", "--port", "9000")])
def test_the_engines_own_address_is_refused(asked: tuple[str, ...]) -> None:
    with pytest.raises(WishError, match="is where the engine is to serve"):
        ask("glm-4-9b", asked[2:], Options(status=parse_status_address(asked[1])))


def test_an_address_that_cannot_be_read_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["serve", "glm-4-9b", "--status", "myhost:1"])
    assert end.value.code == 2
    assert "'myhost' is no IP address; write one, or localhost" in capsys.readouterr().err
