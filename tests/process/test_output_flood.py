"""Whatever the engine prints: memory and log stay bounded, no secret passes, a full disk stops nothing."""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from autolaunch.logfile import HEAD_BYTES, OVERHANG_BYTES, TAIL_BYTES, TAILS, everything, parts
from tests.fake_engine import behaviours as b
from tests.fake_engine.noise import GARBAGE
from tests.fake_engine.scenario import Outcome
from tests.process.stage import SECRET, TOKEN, Stage, ok, state_of, until

pytestmark = pytest.mark.process

MOST_RSS_KB = 50 * 1024


def peak_kb(stage: Stage, process: subprocess.Popen[bytes]) -> int:
    """The supervisor's highest resident memory, polled to its end."""
    peak = 0

    def ended() -> bool:
        nonlocal peak
        peak = max(peak, state_of(process.pid, "VmHWM"))
        return process.poll() is not None

    until(ended, "the end", deadline_s=500)
    return peak


GIGABYTES = 2_200_000_000
MOST_DISK_BYTES = HEAD_BYTES + TAILS * TAIL_BYTES + (TAILS + 1) * OVERHANG_BYTES


def disk_bytes(stage: Stage) -> int:
    """What all parts of the only log take now."""
    sizes = []
    for file in (stage.state / "runs").glob("*/attempt-1*"):
        with contextlib.suppress(FileNotFoundError):  # the oldest part goes while it is looked at
            sizes.append(file.stat().st_size)
    return sum(sizes)


@pytest.mark.timeout(1800)  # 10 s of an idle machine, and every byte is read
@pytest.mark.parametrize("phase", ["load", "serving"])
def test_gigabytes_take_bounded_memory_and_disk_and_head_and_newest_lines_are_kept(stage: Stage, phase: str) -> None:
    stage.play(ok(b.Spam(bytes=GIGABYTES, phase=phase)))
    process = stage.launch()
    memory, disk = [0], [0]

    def flooded() -> bool:
        assert process.poll() is None, stage.err
        memory.append(state_of(process.pid, "VmHWM"))
        disk.append(disk_bytes(stage))
        return bool(stage.lines("ready")) and parts(stage.folder_of_run() / "attempt-1.log")[-1].end >= GIGABYTES

    until(flooded, "the whole flood", deadline_s=1500, every_s=0.05)
    print(f"{GIGABYTES} bytes: at most {max(memory)} kB of memory, {max(disk)} bytes of disk, {len(disk)} looks")
    assert 0 < max(memory) < MOST_RSS_KB
    assert HEAD_BYTES < max(disk) < MOST_DISK_BYTES
    stage.stop(process)
    assert stage.events == ["plan", "attempt", "ready", "stopped"]
    assert disk_bytes(stage) < MOST_DISK_BYTES
    assert HEAD_BYTES - 1000 < len(stage.log()) <= HEAD_BYTES + 100
    kept = b"".join(everything(stage.folder_of_run() / "attempt-1.log")).partition(b" bytes are left out here")
    assert b"non-default args" in kept[0]
    assert b"Application shutdown complete.\n" in kept[2]
    assert len(kept[2]) >= TAIL_BYTES


def test_one_line_of_100_mb_takes_bounded_memory_and_disk(stage: Stage) -> None:
    stage.play(ok(b.LongLine(bytes=100_000_000)))
    process = stage.launch("--check")
    peak = peak_kb(stage, process)
    assert process.returncode == 0, stage.err
    assert 0 < peak < MOST_RSS_KB
    log = stage.folder_of_run() / "attempt-1.log"
    assert parts(log)[-1].end > 100_000_000
    kept = sum(part.end - part.begin for part in parts(log))
    assert TAIL_BYTES < kept < HEAD_BYTES + TAILS * TAIL_BYTES + (TAILS + 1) * OVERHANG_BYTES
    assert b"x\n" in b"".join(everything(log, at=parts(log)[1].begin))


def test_a_cause_after_a_flood_is_still_found(stage: Stage) -> None:
    stage.play(Outcome(kind="kv_too_small", behaviours=(b.LongLine(bytes=300_000), b.Garbage(), b.Spam())), ok())
    assert stage.run("--check").code == 0
    (failed,) = stage.lines("failed")
    assert failed["failure"]["kind"] == "kv_too_small"


def test_garbage_reaches_the_log_as_it_was_and_the_terminal_without_control_characters(stage: Stage) -> None:
    line = "ValueError: \x1b[31mred\x1b[0m \x07 To serve at least one request with the model's max seq len (9)"
    stage.play(Outcome(kind="kv_too_small", behaviours=(b.Garbage(),), lines=(line,)))
    assert stage.run("--max-attempts", "1").code == 3
    assert GARBAGE in stage.log()
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", stage.err)


# --- disks


@pytest.fixture
def small_disk(stage: Stage) -> Iterator[Path]:
    """A tmpfs of 256 KiB."""
    folder = stage.folder / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", folder], check=False)
    if mounted.returncode != 0:
        pytest.skip("mounting a tmpfs needs root and CAP_SYS_ADMIN")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_disk_ends_the_log_not_the_engine_and_is_said_once(stage: Stage, small_disk: Path) -> None:
    stage.state = small_disk
    stage.play(ok(b.Spam(bytes=5_000_000)))
    assert stage.run("--check").code == 0
    assert stage.err.count("the engine's output is no longer kept: No space left on device") == 1
    assert len(stage.log()) > 100_000


def test_a_full_disk_ends_the_record_not_the_run_and_every_line_stays_whole(stage: Stage, small_disk: Path) -> None:
    stage.record = small_disk / "record.jsonl"
    room = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize
    (small_disk / "ballast").write_bytes(b"x" * (room - 4096))
    stage.record.write_text(json.dumps({"event": "of another run", "padding": "x" * 3500}) + "\n")
    stage.play(Outcome(kind="kv_too_small"), ok())
    assert stage.run("--check").code == 0
    assert stage.err.count("cannot be written: No space left on device") == 1
    assert [line["event"] for line in stage.lines()][:2] == ["of another run", "plan"]
    assert "ready" not in {line["event"] for line in stage.lines()}


def test_a_limit_on_file_sizes_ends_the_log_not_the_engine(stage: Stage) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    stage.play(ok(b.Spam(bytes=1_000_000)))
    assert stage.run("--check", preexec_fn=limit).code == 0
    assert stage.err.count("the engine's output is no longer kept: File too large") == 1
    assert len(stage.log()) == 100_000


# --- readers that are gone


def test_a_closed_stderr_does_not_end_the_run(stage: Stage) -> None:
    for log_format in ("console", "json"):
        reading, writing = os.pipe()
        os.close(reading)
        stage.play(Outcome(kind="kv_too_small"), ok())
        process = stage.launch("--check", "--engine-log", "inherit", "--log-format", log_format, stderr=writing)
        os.close(writing)
        assert stage.end(process).code == 0


def test_a_closed_stdout_does_not_end_the_run(stage: Stage) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    stage.play(ok())
    process = stage.launch("--check", stdout=writing)
    os.close(writing)
    assert stage.end(process).code == 0
    assert "Traceback" not in stage.err


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_streams_that_were_never_open_do_not_end_the_run(stage: Stage, closed: str) -> None:
    stage.play(Outcome(kind="kv_too_small"), ok())
    words = stage.command("--check", "--engine-log", "inherit")
    assert stage.end(stage.start(["bash", "-c", f'exec "$@" {closed}', "-", *words])).code == 0
    assert b"Application startup complete." in stage.log(2)


@pytest.mark.parametrize("blocking", [False, True])
def test_a_reader_that_never_reads_stops_neither_engine_nor_run(stage: Stage, blocking: bool) -> None:
    """`2>&1 | less`: the pipe is full, and everything that is written to it waits for ever."""
    reading, writing = os.pipe()
    os.set_blocking(writing, blocking)
    stage.play(ok(b.Spam(bytes=3_000_000)))
    process = stage.launch("--check", "--engine-log", "inherit", stderr=writing)
    os.close(writing)
    assert stage.end(process).code == 0
    os.close(reading)
    assert len(stage.log()) > 3_000_000


# --- secrets


def all_that_was_told(stage: Stage) -> str:
    state = [file.read_text(errors="replace") for file in stage.state.rglob("*") if file.is_file()]
    return "\n".join([stage.out, stage.err, stage.record.read_text(), *state])


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_secrets_stand_nowhere(stage: Stage, log_format: str) -> None:
    stage.environment["HF_TOKEN"] = TOKEN
    stage.play(Outcome(kind="kv_too_small", behaviours=(b.PrintSecret(),)), ok(b.PrintSecret()))
    ended = stage.run("--check", "--engine-log", "inherit", "--log-format", log_format, "--api-key", SECRET)
    assert ended.code == 0, ended.err
    assert "Bearer" not in ended.err
    told = all_that_was_told(stage)
    assert "***" in told
    assert "startup complete" in told
    assert SECRET not in told
    assert TOKEN not in told


def test_secrets_of_an_engine_command_and_short_ones_stand_nowhere(stage: Stage) -> None:
    """`--engine "env HF_TOKEN=... vllm serve"` stood in the record, the talk and --check's command line."""
    script = stage.folder / "show.py"
    script.write_text("print(\"args: {'api_key': ['EMPTY'], 'hf_token': 'tok1'} myown-secret-99x EMPTY words\")\n")
    engine = f"env HF_TOKEN=myown-secret-99x MY_API_KEY=zzz {sys.executable} {script}"
    words = stage.command("--check", "--hf-token", "tok1", "--api-key", "EMPTY", engine=engine)
    assert stage.end(stage.start([*words, "--github-token", "abc-secret-1"])).code == 4
    told = all_that_was_told(stage)
    assert "HF_TOKEN=*** MY_API_KEY=***" in " ".join(stage.lines("attempt")[0]["argv"])
    assert [secret for secret in ("myown-secret", "zzz", "tok1", "abc-secret") if secret in told] == []
    assert stage.log() == b"args: {'api_key': ['***'], 'hf_token': '***'} *** EMPTY words\n"


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_secrets_that_the_engine_alone_knew_stand_nowhere(stage: Stage, log_format: str) -> None:
    """A token that `hf auth login` had stored stood in the journal, the record, the log and what is remembered."""
    script = stage.folder / "fail.py"
    script.write_text(
        "print('-----BEGIN PRIVATE KEY-----\\nMIIEvQIBADANBgkq\\n-----END PRIVATE KEY-----', flush=True)\n"
        "raise RuntimeError('cannot reach https://bob:S3cretPw99@mirror.corp/x with hf_FileStoredTokenXYZ123456')\n"
    )
    words = ("--check", "--engine-log", "inherit", "--log-format", log_format)
    assert stage.run(*words, "--engine", f"{sys.executable} {script}").code == 4
    told = all_that_was_told(stage)
    assert "cannot reach https://bob:***@mirror.corp/x with ***" in stage.lines("failed")[0]["failure"]["line"]
    assert stage.log().startswith(b"-----BEGIN PRIVATE KEY-----***-----END PRIVATE KEY-----\n")
    assert [secret for secret in ("S3cretPw99", "FileStoredToken", "MIIEvQIB") if secret in told] == []


def test_a_key_that_the_engine_echoes_in_its_answer_stands_nowhere(stage: Stage) -> None:
    """The first request's answer went past all hiding: "bad header Bearer <key>" stood in the record."""
    script = stage.folder / "echo.py"
    script.write_text(
        "import json, sys\n"
        "from http.server import BaseHTTPRequestHandler, HTTPServer\n"
        "class Echo(BaseHTTPRequestHandler):\n"
        "    def do_GET(self):\n"
        "        self.say(200, {'data': [{'id': 'm'}]})\n"
        "    def do_POST(self):\n"
        "        self.say(401, {'error': 'bad header ' + self.headers['Authorization']})\n"
        "    def say(self, code, said):\n"
        "        body = json.dumps(said).encode()\n"
        "        self.send_response(code)\n"
        "        self.send_header('Content-Length', str(len(body)))\n"
        "        self.end_headers()\n"
        "        self.wfile.write(body)\n"
        "port = int(sys.argv[sys.argv.index('--port') + 1])\n"
        "HTTPServer(('127.0.0.1', port), Echo).serve_forever()\n"
    )
    words = ("--check", "--max-attempts", "1", "--host", "127.0.0.1", "--engine", f"{sys.executable} {script}")
    assert stage.run(*words, "--api-key", "correctHorsebattery9").code in (3, 4)
    assert 'HTTP 401: {"error": "bad header Bearer ***"}' in stage.err
    assert "bad header Bearer ***" in stage.lines("failed")[0]["failure"]["line"]
    assert "correctHorse" not in all_that_was_told(stage)


def test_the_doctor_shows_no_secret(stage: Stage) -> None:
    words = [sys.executable, "-m", "autolaunch", "doctor", "--engine", "env HF_TOKEN=myown-secret-99x K_TOKEN=z true"]
    assert stage.end(stage.start(words)).code == 0
    assert "HF_TOKEN=*** K_TOKEN=*** true" in stage.out


def test_a_secret_that_is_cut_by_reads_and_long_lines_is_still_hidden(stage: Stage) -> None:
    """The engine writes byte by byte, and a line so long that it is written in parts."""
    script = stage.folder / "dribble.py"
    script.write_text(
        "import os, sys, time\n"
        f"for byte in b'key {SECRET} end\\n':\n    os.write(1, bytes([byte])); time.sleep(0.001)\n"
        f"block = b'{SECRET}' * 3000 + b'.'\n"
        "for _ in range(20): os.write(2, block)\n"
        f"os.write(1, b'\\nlast words {SECRET}')\n"
    )
    ended = stage.run("--check", "--api-key", SECRET, "--engine", f"{sys.executable} {script}")
    assert ended.code == 4
    log = stage.log()
    assert b"key *** end\n" in log
    assert log.count(b"***") == 20 * 3000 + 2
    assert SECRET.encode()[:8] not in log


def test_a_model_in_a_folder_whose_name_is_no_text_is_recorded(stage: Stage) -> None:
    folder = os.fsdecode(os.fsencode(stage.folder) + b"/mod\xffel")
    Path(folder).mkdir()
    Path(folder, "config.json").write_text("{}")
    words = stage.command("--check", engine="/bin/false")
    words[words.index("glm-4-9b")] = folder
    assert stage.end(stage.start(words)).code == 4
    assert folder in stage.lines("attempt")[0]["argv"]
    assert "Traceback" not in stage.err


def test_a_log_folder_is_for_its_owner_only(stage: Stage) -> None:
    stage.play(ok())
    assert stage.run("--check").code == 0
    (run,) = (stage.state / "runs").iterdir()
    assert run.stat().st_mode & 0o777 == 0o700
    assert (run / "attempt-1.log").stat().st_mode & 0o777 == 0o600


def test_the_supervisor_imports_neither_torch_nor_vllm(stage: Stage) -> None:
    stage.play(ok())
    process = stage.launch()
    stage.line("ready")
    with contextlib.suppress(OSError):
        maps = Path(f"/proc/{process.pid}/maps").read_text(encoding="utf-8")
        assert "torch" not in maps
    assert state_of(process.pid, "VmRSS") < MOST_RSS_KB
    process.send_signal(signal.SIGTERM)
    assert stage.end(process).code == 0
