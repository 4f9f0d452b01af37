"""What runs leave behind is shown, followed and packed, whatever state it is in."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from autolaunch.logfile import Bounds, LogFile
from autolaunch.state import log_of
from tests.fake_engine import behaviours as b
from tests.fake_engine.scenario import Outcome
from tests.process.booted import booted
from tests.process.stage import DEADLINE_S, ENGINE, ROOT, SECRET, TOKEN, Stage, ok, until

pytestmark = pytest.mark.process

UP = b"Application startup complete.\n"


def words(state: Path, *args: str) -> list[str]:
    return [sys.executable, "-m", "autolaunch", "logs", "--state-dir", str(state), *args]


def logs(state: Path, *args: str) -> subprocess.CompletedProcess[bytes]:
    """Run `autolaunch logs` to its end."""
    return subprocess.run(words(state, *args), capture_output=True, check=False, timeout=120)


def kept(state: Path, run: str, *texts: bytes) -> Path:
    """Make a run with the logs of so many attempts."""
    folder = state / "runs" / run
    folder.mkdir(parents=True)
    for attempt, text in enumerate(texts, start=1):
        log_of(folder, attempt).write_bytes(text)
    return folder


class Follower:
    """`autolaunch logs --follow` with what it has written so far."""

    def __init__(self, folder: Path, state: Path, *args: str) -> None:
        self._out, self._err = folder / "followed.out", folder / "followed.err"
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(words(state, "--follow", *args), stdout=out, stderr=err)

    @property
    def out(self) -> bytes:
        return self._out.read_bytes()

    @property
    def err(self) -> str:
        return self._err.read_text()

    def shows(self, text: bytes) -> None:
        until(lambda: text in self.out, f"{text!r} in what is followed")

    def says(self, text: str) -> None:
        until(lambda: text in self.err, f"{text!r} on stderr")

    def end(self, number: signal.Signals = signal.SIGINT) -> int:
        self.process.send_signal(number)
        return self.process.wait(DEADLINE_S)


@contextlib.contextmanager
def following(folder: Path, state: Path, *args: str) -> Iterator[Follower]:
    made = Follower(folder, state, *args)
    try:
        yield made
    finally:
        made.process.kill()
        made.process.wait(DEADLINE_S)


# --- shown once


def test_the_newest_attempt_is_shown_as_it_was_and_its_place_is_said(stage: Stage) -> None:
    stage.play(Outcome(kind="kv_too_small"), ok())
    assert stage.run("--check").code == 0
    shown = logs(stage.state)
    path = stage.folder_of_run() / "attempt-2.log"
    assert (shown.returncode, shown.stdout) == (0, path.read_bytes())
    assert shown.stderr.decode() == f"run {path.parent.name}, attempt 2: {path}\n"
    first = logs(stage.state, "--attempt", "1", "--lines", "2", "--run", path.parent.name[:8])
    assert first.stdout.splitlines() == stage.log(1).splitlines()[-2:]
    assert logs(stage.state, "--path").stdout.decode() == f"{path}\n"


def test_of_a_flood_head_and_end_are_shown_with_what_is_between_them_named(stage: Stage) -> None:
    stage.play(ok(b.Spam(bytes=60_000_000)))
    assert stage.run("--check").code == 0
    shown = logs(stage.state).stdout
    head, gap, rest = shown.partition(b"[autolaunch: ")
    assert b"non-default args" in head
    assert gap
    assert b" bytes are left out here" in rest[:60]
    assert UP in rest
    assert len(logs(stage.state, "--path").stdout.splitlines()) == 3
    assert logs(stage.state, "-n", "200000").stdout == shown[-len(logs(stage.state, "-n", "200000").stdout) :]


def test_a_cause_behind_a_flood_is_diagnosed_from_the_name_of_the_head(stage: Stage) -> None:
    stage.play(Outcome(kind="kv_too_small", behaviours=(b.Spam(bytes=10_000_000),)))
    assert stage.run("--max-attempts", "1").code == 3
    path = stage.folder_of_run() / "attempt-1.log"
    assert b"To serve at least one request" not in path.read_bytes()
    words = [sys.executable, "-m", "autolaunch", "diagnose", "--json", str(path)]
    said = subprocess.run(words, capture_output=True, check=True, timeout=120).stdout
    assert json.loads(said)["kind"] == "kv_too_small"


def test_the_newest_run_is_taken_or_the_newest_of_a_beginning(tmp_path: Path) -> None:
    kept(tmp_path, "20260101-000000-1-aaaa", b"first\n")
    kept(tmp_path, "20260102-000000-1-bbbb", b"second\n")
    kept(tmp_path, "20260102-000001-1-cccc", b"third\n", b"fourth\n")
    assert logs(tmp_path).stdout == b"fourth\n"
    assert logs(tmp_path, "--run", "20260102").stdout == b"fourth\n"
    assert logs(tmp_path, "--run", "20260102-000000").stdout == b"second\n"
    assert logs(tmp_path, "--run", "20260101", "--attempt", "1").stdout == b"first\n"


def test_what_is_not_there_is_said_with_what_is(tmp_path: Path) -> None:
    def said(*args: str) -> str:
        ended = logs(tmp_path, *args)
        assert ended.returncode == 2
        assert ended.stdout == b""
        return ended.stderr.decode()

    runs = tmp_path / "runs"
    assert said() == (
        f"error: no run is kept in {runs}\nhint: autolaunch MODEL makes one; --state-dir looks elsewhere\n"
    )
    kept(tmp_path, "20260101-000000-1-aaaa", b"one\n", b"two\n")
    assert said("--run", "x") == (
        f"error: no run in {runs} begins with 'x'\nhint: the newest of 1 is 20260101-000000-1-aaaa\n"
    )
    assert said("--attempt", "7") == (
        "error: run 20260101-000000-1-aaaa has no log of attempt 7\nhint: there are 1, 2\n"
    )
    kept(tmp_path, "20260102-000000-1-bbbb")
    assert said() == (
        "error: run 20260102-000000-1-bbbb kept no output of an engine: it started none, or the log could not be"
        " written\nhint: the newest run with a log is --run 20260101-000000-1-aaaa\n"
    )


@pytest.mark.parametrize("closed", ["runs", "run"])
def test_a_folder_of_another_user_is_no_empty_one(stage: Stage, closed: str) -> None:
    """What a service of another account keeps was said not to be there."""
    nobody = ["setpriv", "--reuid", "65534", "--clear-groups"]
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("to become another user needs root and setpriv")
    if subprocess.run([*nobody, sys.executable, "-c", "import autolaunch.cli"], check=False, cwd=ROOT).returncode != 0:
        pytest.skip("another user cannot run this Python")
    run = kept(stage.state, "20260101-000000-1-aaaa", b"line\n")
    for folder in (stage.folder, stage.state, run.parent, run):
        folder.chmod(0o755)
    (run if closed == "run" else run.parent).chmod(0o700)
    ended = subprocess.run([*nobody, *words(stage.state)], capture_output=True, check=False, cwd=ROOT)
    assert (ended.returncode, ended.stdout) == (5, b"")
    assert ended.stderr.decode().startswith(
        f"error: the runs in {run.parent} cannot be read: Permission denied\nhint: run this as the user"
    )


def test_a_reader_that_is_gone_ends_it_without_a_word(tmp_path: Path) -> None:
    kept(tmp_path, "20260101-000000-1-aaaa", b"line\n" * 1_000_000)
    with subprocess.Popen(words(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(10)
        process.stdout.close()
        assert process.wait(DEADLINE_S) == 0
        assert process.stderr.read().count(b"\n") == 1


def test_a_terminal_gets_colours_and_no_other_control_characters(tmp_path: Path) -> None:
    kept(tmp_path, "20260101-000000-1-aaaa", b"\x1b[31mred\x1b[0m \x1b]0;title\x07 \xc2\x9b31m \x00\tend\n")
    ours, theirs = pty.openpty()
    with subprocess.Popen(words(tmp_path), stdout=theirs, stderr=subprocess.DEVNULL) as process:
        os.close(theirs)
        seen = b""
        with contextlib.suppress(OSError):  # EIO is a terminal's end
            while data := os.read(ours, 1000):
                seen += data
        assert process.wait(DEADLINE_S) == 0
    os.close(ours)
    assert seen == b"\x1b[31mred\x1b[0m ?]0;title? ?31m ?\tend\r\n"


# --- followed


def test_a_run_is_followed_from_before_its_start_through_its_attempts(stage: Stage) -> None:
    stage.play(Outcome(kind="kv_too_small"), ok())
    with following(stage.folder, stage.state) as follower:
        follower.says("; waiting for one")
        process = stage.launch()
        follower.shows(UP)
        assert follower.out.startswith(stage.log(1))
        assert [line.split(": /")[0].split(", ")[1] for line in follower.err.splitlines()[1:]] == [
            "attempt 1",
            "attempt 2",
        ]
        process.send_signal(signal.SIGTERM)
        assert stage.end(process).code == 0
        until(lambda: follower.out == stage.log(1) + stage.log(2), "everything that was written")
        assert follower.end() == 0
        assert "Traceback" not in follower.err
        assert "stopped" not in follower.err


def test_the_parts_of_a_log_are_followed_without_a_gap(tmp_path: Path) -> None:
    file = LogFile(log_of(kept(tmp_path, "20260101-000000-1-aaaa"), 1), Bounds(100, 200))
    lines = [f"line {n:014}\n".encode() for n in range(60)]
    file.write(lines[0])
    with following(tmp_path, tmp_path) as follower:
        for first in range(0, 60, 9):
            file.write(b"".join(lines[first : first + 9]))
            follower.shows(lines[first : first + 9][-1])
        assert follower.out == b"".join([lines[0], *lines])
        os.kill(follower.process.pid, signal.SIGSTOP)
        for line in lines:
            file.write(line)
        file.write(b"the end\n")
        os.kill(follower.process.pid, signal.SIGCONT)
        follower.shows(b"the end\n")
        late = follower.out.removeprefix(b"".join([lines[0], *lines]))
        before, gap, after = late.partition(b"[autolaunch: ")
        missing, _, newest = after.partition(b" bytes are left out here, only the newest are kept]\n")
        assert gap
        assert b"".join(lines).startswith(before)
        assert (b"".join(lines) + b"the end\n").endswith(newest)
        assert len(before) + int(missing) + len(newest) == 1208
        assert follower.end(signal.SIGTERM) == 0


def test_the_next_run_is_followed_unless_one_was_named(tmp_path: Path) -> None:
    first = kept(tmp_path, "20260101-000000-1-aaaa", b"first\n")
    with following(tmp_path, tmp_path) as follower, following(first, tmp_path, "--run", "20260101") as named:
        follower.shows(b"first\n")
        named.shows(b"first\n")
        kept(tmp_path, "20260102-000000-1-bbbb")
        kept(tmp_path, "20260103-000000-1-cccc", b"second\n")
        follower.shows(b"first\nsecond\n")
        log_of(first, 2).write_bytes(b"third\n")
        named.shows(b"third\n")
        assert named.out == b"first\nthird\n"
        assert follower.out == b"first\nsecond\n"


def test_following_begins_with_the_last_lines(tmp_path: Path) -> None:
    kept(tmp_path, "20260101-000000-1-aaaa", b"".join(b"%d\n" % n for n in range(1000)))
    with following(tmp_path, tmp_path, "--lines", "3") as follower:
        follower.shows(b"999\n")
        assert follower.out == b"997\n998\n999\n"


# --- stderr


def as_journal(stage: Stage) -> None:
    """Make the file that gets the supervisor's stderr what systemd says its stream is."""
    err = stage.folder / "err"
    err.touch()
    stage.environment["JOURNAL_STREAM"] = f"{err.stat().st_dev}:{err.stat().st_ino}"


def test_the_journal_gets_json_with_the_priority_of_each_line(stage: Stage) -> None:
    as_journal(stage)
    stage.play(Outcome(kind="kv_too_small"), ok())
    assert stage.run("--check", "--hf-token", "EMPTY").code == 0
    lines = [(line[:3], json.loads(line[3:])) for line in stage.err.splitlines()]
    assert {priority for priority, _ in lines} <= {"<3>", "<4>", "<6>"}
    assert [line["event"] for priority, line in lines if priority == "<3>"] == ["failed"]
    assert all(line["level"] == {"<3>": "error", "<4>": "warning", "<6>": "info"}[priority] for priority, line in lines)
    assert all({"run", "attempt", "phase"} <= set(line) for _, line in lines)


def test_an_end_that_is_no_success_is_an_error_to_the_journal(stage: Stage) -> None:
    as_journal(stage)
    stage.play(Outcome(kind="model_not_found"))
    assert stage.run().code != 0
    last = stage.err.splitlines()[-1]
    assert last.startswith("<3>")
    assert json.loads(last[3:])["event"] == "stopped"


def test_the_journal_gets_lines_for_people_where_they_are_asked_for(stage: Stage) -> None:
    as_journal(stage)
    (stage.folder / "state-is-a-file").write_text("")
    stage.play(Outcome(kind="kv_too_small"), ok())
    assert stage.run("--check", "--hf-token", "EMPTY", "--log-format", "console").code == 0
    lines = stage.err.splitlines()
    assert {line[:3] for line in lines} <= {"<3>", "<4>", "<6>"}
    grave = [line for line in lines if line.startswith("<3>")]
    assert ": kv_too_small" in grave[0]
    assert len(grave) > 1, "what failed, and why"
    assert any(line.startswith("<6>") and "ready" in line for line in lines)
    assert "\x1b" not in stage.err
    assert stage.run("--state-dir", str(stage.folder / "state-is-a-file")).code == 2
    assert [line[:10] for line in stage.err.splitlines()[len(lines) :]] == ["<3>error: ", "<3>hint: a"]


def test_a_variable_of_another_stream_changes_nothing(stage: Stage) -> None:
    stage.environment["JOURNAL_STREAM"] = "8:12345"
    stage.play(ok())
    assert stage.run("--check").code == 0
    assert "<6>" not in stage.err


def test_every_json_line_says_run_attempt_and_phase(stage: Stage) -> None:
    stage.play(Outcome(kind="kv_too_small"), ok())
    assert stage.run("--check", "--log-format", "json").code == 0
    lines = [json.loads(line) for line in stage.err.splitlines()]
    run = stage.lines()[0]["run"]
    told = [(line["event"], line["attempt"], line["phase"]) for line in lines if line["level"] != "warning"]
    assert {line["run"] for line in lines} == {run}
    assert [name for name, _, _ in told] == [line["event"] for line in stage.lines()]
    assert told[:2] == [("plan", 0, "planning"), ("attempt", 1, "starting")]
    assert told[-1] == ("stopped", 2, "stopped")
    assert ("ready", 2, "stopping") in told or ("ready", 2, "ready") in told


def test_an_error_that_keeps_a_run_from_beginning_is_a_json_line_too(stage: Stage) -> None:
    stage.play(ok())
    ended = stage.run("--log-format", "json", "--strategy", "nosuch")
    assert ended.code == 2
    (line,) = [json.loads(line) for line in ended.err.splitlines()]
    assert {name: line[name] for name in ("level", "attempt", "phase", "exit_code")} == {
        "level": "error", "attempt": 0, "phase": "planning", "exit_code": 2,
    }  # fmt: skip
    assert "nosuch" in line["event"]
    assert line["run"]
    assert line["hint"]


# --- the record of every run


def test_every_run_keeps_its_record_and_what_it_was(stage: Stage) -> None:
    stage.play(Outcome(kind="kv_too_small"), ok())
    assert stage.run("--check").code == 0
    folder = stage.folder_of_run()
    kept_lines = [json.loads(line) for line in (folder / "record.jsonl").read_text().splitlines()]
    strip = [{name: value for name, value in line.items() if name != "time"} for line in kept_lines]
    assert strip == [{name: value for name, value in line.items() if name != "time"} for line in stage.lines()]
    about = json.loads((folder / "run.json").read_text())
    assert (about["run"], about["engine_version"], about["strategy"]) == (folder.name, "0.24.0", "default")
    assert {file.stat().st_mode & 0o777 for file in folder.iterdir()} == {0o600}


# --- reports


def reported(stage: Stage, *args: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run `autolaunch report` in an empty folder, as somebody who has none of the run's secrets at hand."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("AUTOLAUNCH_", "HF_", "VLLM_"))}
    made = [sys.executable, "-m", "autolaunch", "report", "--state-dir", str(stage.state), *args]
    where = stage.folder / "reports"
    where.mkdir(exist_ok=True)
    return subprocess.run(
        made,
        capture_output=True,
        check=False,
        timeout=120,
        cwd=where,
        env={**ours, "PYTHONPATH": str(ROOT), **environment},
    )


def held(archive: str) -> dict[str, bytes]:
    """The files of an archive by their names."""
    with tarfile.open(archive) as opened:
        return {entry.name: opened.extractfile(entry).read() for entry in opened.getmembers()}  # type: ignore[union-attr]


def test_a_report_holds_the_run_and_none_of_its_secrets(stage: Stage) -> None:
    stage.environment |= {
        "HF_TOKEN": TOKEN,
        "MY_PASSWORD": "Planted-Password-1",
        "HTTPS_PROXY": "http://u:Planted-Proxy-2@h:1",
    }
    planted = "args: {'some_password': 'planted three', 'db_token': 'planted-four'} Authorization: Basic cGxhbnRlZA=="
    cause = (
        "ValueError: To serve at least one request with the models's max seq len (131072), (5.00 GiB KV cache is"
        " needed, which is larger than the available KV cache memory (3.00 GiB)."
    )
    stage.play(
        Outcome(kind="kv_too_small", behaviours=(b.PrintSecret(),), lines=(planted, cause)),
        ok(b.PrintSecret(), b.Spam(bytes=9_000_000)),
    )
    assert stage.run("--check", "--api-key", SECRET).code == 0
    made = reported(stage)
    assert made.returncode == 0, made.stderr
    run = stage.folder_of_run().name
    path = made.stdout.decode().strip()
    assert path == str(stage.folder / "reports" / f"autolaunch-report-{run}.tar.gz")
    assert Path(path).stat().st_mode & 0o777 == 0o600
    files = held(path)
    folder = f"autolaunch-report-{run}/"
    assert [name.removeprefix(folder) for name in files] == [
        "host.txt",
        "run.json",
        "record.jsonl",
        "diagnosis.json",
        "attempt-1.log",
        "attempt-2.head.log",
        "attempt-2.tail.log",
        "history.jsonl",
    ]
    assert all(name.removeprefix(folder) in made.stderr.decode() for name in files)
    assert json.loads(files[f"{folder}diagnosis.json"])["kind"] == "kv_too_small"
    assert len(files[f"{folder}history.jsonl"].splitlines()) == 2
    assert b"non-default args" in files[f"{folder}attempt-2.head.log"]
    assert UP in files[f"{folder}attempt-2.tail.log"]
    everything = b"".join(name.encode() + text for name, text in files.items())
    assert b"***" in everything
    secrets = (SECRET, TOKEN, "Planted-Password-1", "Planted-Proxy-2", "planted three", "planted-four", "cGxhbnRlZA")
    assert [secret for secret in secrets if secret.encode() in everything] == []


def test_a_report_hides_what_is_secret_where_it_is_made(stage: Stage) -> None:
    kept(stage.state, "20260101-000000-1-aaaa", b"the key is Correct-Horse-9\n")
    environment = {
        "MY_API_KEY": "Correct-Horse-9",
        "VLLM_API_KEY": "EMPTY",
        "AUTOLAUNCH_ENGINE": "env HF_TOKEN=abc true --api-key xyz",
        "HF_ENDPOINT": "https://me:Correct-Horse-9@hub/",
    }
    made = reported(stage, **environment)
    files = held(made.stdout.decode().strip())
    text = b"".join(files.values()).decode()
    assert "the key is ***" in text
    assert "VLLM_API_KEY='***'" in text
    assert "HF_TOKEN=*** true --api-key ***" in text
    assert [secret for secret in ("Correct-Horse", "EMPTY", "abc", "xyz") if secret in text] == []


def test_a_report_never_overwrites_and_says_what_is_not_there(stage: Stage) -> None:
    alone = reported(stage, "--output", "mine.tar.gz")
    assert alone.returncode == 0
    assert alone.stderr.decode().splitlines()[0] == (
        f"no run is kept in {stage.state}/runs: the report is on this host alone"
    )
    assert [name.split("/")[1] for name in held(alone.stdout.decode().strip())] == ["host.txt"]
    again = reported(stage, "--output", "mine.tar.gz")
    assert (again.returncode, again.stdout) == (2, b"")
    assert again.stderr.decode().splitlines()[-2:] == [
        "error: mine.tar.gz is there already",
        "hint: remove it, or name another file with --output",
    ]
    named = reported(stage, "--run", "2026")
    assert (named.returncode, named.stdout) == (2, b"")
    assert [file.name for file in (stage.folder / "reports").iterdir()] == ["mine.tar.gz"]


def test_a_real_journal_knows_what_went_wrong(stage: Stage) -> None:
    """systemd makes the stream, journald reads the priorities and takes them off the lines."""
    stage.play(Outcome(kind="kv_too_small"), ok())
    with booted() as system:
        system.share(stage.folder)
        wanted = ("PYTHONPATH", "TMPDIR", "PATH", "FAKE_ENGINE")
        variables = [f"Environment={name}={stage.environment[name]}" for name in wanted if name in stage.environment]
        start = f"ExecStart={' '.join(stage.command('--check', '--no-memory'))}".replace(ENGINE, f"'{ENGINE}'")
        unit = ["[Service]", "Type=oneshot", "Environment=HOME=/root", f"WorkingDirectory={ROOT}", *variables, start]
        system.write("/etc/systemd/system/told.service", "\n".join(unit) + "\n")
        assert system.inside("systemctl", "start", "systemd-journald").returncode == 0
        started = system.inside("systemctl", "start", "told")
        read = ("journalctl", "-u", "told", "--no-pager", "-o", "json")

        def told_so_far() -> list[tuple[str, str]]:
            lines = map(json.loads, system.inside(*read).stdout.splitlines())
            return [(line["PRIORITY"], line["MESSAGE"]) for line in lines if line.get("_TRANSPORT") == "stdout"]

        assert started.returncode == 0, (started.stderr, told_so_far())
        until(lambda: any('"event": "stopped"' in text for _, text in told_so_far()), "the last line in the journal")
        told = told_so_far()
    assert [text for priority, text in told if priority == "3" and "kv_too_small" in text]
    assert [text for priority, text in told if priority == "6" and "ready" in text]
    assert not [text for _, text in told if text.startswith("<")]
