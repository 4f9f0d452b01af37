"""The memory under what a host does to it: SIGKILL at any moment, a full disk, a read-only one, a file size limit."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from autolaunch.memory import Memory
from autolaunch.past import Key
from autolaunch.state import MEMORY_FILE
from tests.process.stage import ROOT, until

pytestmark = pytest.mark.process

BEGIN = """
import sys
from pathlib import Path
from autolaunch.failure import Failure, Kind
from autolaunch.figures import Effective
from autolaunch.memory import Memory
from autolaunch.past import Key, Outcome
from autolaunch.settings import Settings

def say(text):
    print("told", text, flush=True)

def start(seconds):
    failure = Failure(Kind.KV_TOO_SMALL, line="x" * 1500)
    return Outcome(Settings(0.9), failure, Effective(), seconds=seconds, wish="w")

folder = Path(sys.argv[1])
key = Key("glm-4-9b", card=sys.argv[2])
"""
WRITE_FOR_EVER = """
import time
number = int(sys.argv[3])
said = []
while True:
    number += 1
    Memory.open(folder, said.append).add(key, start(number))
    if not said:  # a busy disk costs a row, which is told: then it is not acknowledged
        print(number, flush=True)
    said.clear()
    time.sleep(0.003)  # SQLite's locks are not fair: two that never pause starve each other for seconds
"""
LAUNCH = """
memory = Memory.open(folder, say)
print("known", len(memory.past(key).outcomes), flush=True)
for number in range(int(sys.argv[3])):
    memory.add(key, start(number))
print("known", len(memory.past(key).outcomes), flush=True)
print("goes on", flush=True)
"""


def python(code: str, *args: object) -> list[str]:
    return [sys.executable, "-c", BEGIN + code, *map(str, args)]


def run(words: list[str], *, before: str = "") -> list[str]:
    """Run a launch in a mount namespace of its own, after shell commands; return its lines."""
    if before:
        words = ["unshare", "--mount", "sh", "-ec", f'{before}; exec "$@"', "sh", *words]
    done = subprocess.run(words, env=ENVIRONMENT, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


def may_mount() -> bool:
    try:
        words = ["unshare", "--mount", "sh", "-ec", "mount -t tmpfs none /mnt"]
        return subprocess.run(words, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


needs_mounts = pytest.mark.skipif(not may_mount(), reason="no mount namespace is permitted here")


class Writer:
    """A process that remembers and says so in a file, whole line by whole line, until it is killed."""

    def __init__(self, file: Path, words: list[str]) -> None:
        self.file = file
        with file.open("wb") as out:
            self.process = subprocess.Popen(words, env=ENVIRONMENT, cwd=ROOT, stdout=out)

    def begun(self) -> None:
        until(lambda: self.file.stat().st_size or self.process.poll() is not None, "the first line")

    def kill(self) -> list[str]:
        """Return its whole lines: what was acknowledged."""
        self.process.kill()
        self.process.wait()
        text = self.file.read_text()
        return text[: text.rfind("\n") + 1].splitlines()


def check(folder: Path) -> None:
    """A second opinion from SQLite itself."""
    with sqlite3.connect(folder / MEMORY_FILE) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_whatever_was_remembered_outlives_sigkill_at_any_moment(tmp_path: Path) -> None:
    """Two writers at once, killed 8 times each: every row that was told is there, and at most one besides."""
    chance, state = random.Random(20260101), tmp_path / "state"
    there: dict[str, list[float]] = {"one": [], "two": []}
    warnings: list[str] = []
    for _ in range(8):
        writers = {
            card: Writer(tmp_path / card, python(WRITE_FOR_EVER, state, card, int(max(known, default=0)) + 1))
            for card, known in there.items()
        }
        for writer in writers.values():
            writer.begun()
        time.sleep(chance.uniform(0, 0.15))  # a random moment, not a wait for anything
        for card, writer in writers.items():
            told = {float(line) for line in writer.kill()}  # a warning is no number
            outcomes = Memory(state, warnings.append).past(Key("glm-4-9b", card=card)).outcomes
            found = [outcome.seconds for outcome in outcomes]
            assert {number for number in told if number >= min(found)} <= set(found), "acknowledged, and gone"
            assert len({*found} - told - {*there[card]}) <= 1
            assert len(set(found)) == len(found)
            there[card] = found
        check(state)
    assert warnings == []
    assert min(len(known) for known in there.values()) >= 8
    assert [path.name for path in state.iterdir() if "damaged" in path.name] == []


def test_a_beginning_that_is_killed_at_any_moment_is_no_damage(tmp_path: Path) -> None:
    """Its own alarm ends it: a killer in another process may come too late each time."""
    code = "print(0, flush=True); Memory.open(folder, say); print(1, flush=True); import time; time.sleep(600)"
    chance, told = random.Random(20260102), []
    for n in range(200):
        if n >= 12 and ["0"] in told:
            break
        folder = tmp_path / f"state {n}"
        alarm = f"import signal; signal.setitimer(signal.ITIMER_REAL, {chance.uniform(0.0002, 0.006)}); "
        writer = Writer(tmp_path / "out", python(alarm + code, folder, "card"))
        assert writer.process.wait(300) == -signal.SIGALRM
        told.append(writer.kill())
        assert run(python(LAUNCH, folder, "card", 1)) == ["known 0", "known 1", "goes on"]
        check(folder)
    assert ["0"] in told, "none was killed in time"


@needs_mounts
@pytest.mark.parametrize("pages", [0, 3, 8, 16])
def test_a_full_disk_costs_the_memory_and_not_the_launch(tmp_path: Path, pages: int) -> None:
    full = f"mount -t tmpfs -o size=96k none {tmp_path}; dd if=/dev/zero of={tmp_path}/full bs=4k count={23 - pages}"
    full += f" 2>/dev/null; mkdir {tmp_path}/state"
    lines = run(python(LAUNCH, tmp_path / "state", "card", 40), before=full)
    told = [line for line in lines if line.startswith("told")]
    assert len(told) == 1
    assert told[0].startswith(f"told the memory of earlier starts cannot be written: {tmp_path}/state/{MEMORY_FILE}: ")
    assert told[0].split(": ")[-1] in ("database or disk is full", "disk I/O error", "No space left on device")
    assert lines[-1] == "goes on"


@needs_mounts
def test_a_disk_that_is_no_longer_full_is_written_again_and_nothing_was_lost(tmp_path: Path) -> None:
    code = """
memory = Memory.open(folder, say)
memory.add(key, start(1))
ballast = folder / "ballast"
with ballast.open("wb", buffering=0) as file:
    try:
        while file.write(bytes(4096)): pass
    except OSError: pass
for number in range(100, 140):
    memory.add(key, start(number))
kept = len(memory.past(key).outcomes)
ballast.unlink()
memory.add(key, start(2))
seconds = [outcome.seconds for outcome in memory.past(key).outcomes]
print(seconds[0], seconds[-1], len(seconds) == kept + 1, kept < 41)
"""
    lines = run(python(code, tmp_path, "card"), before=f"mount -t tmpfs -o size=256k none {tmp_path}")
    assert lines[0].startswith("told the memory of earlier starts cannot be written")
    assert lines[1:] == ["2.0 1.0 True True"]


@needs_mounts
def test_a_read_only_disk_is_read_and_told_once(tmp_path: Path) -> None:
    assert run(python(LAUNCH, tmp_path, "card", 3)) == ["known 0", "known 3", "goes on"]
    lines = run(python(LAUNCH, tmp_path, "card", 3), before=f"mount --bind -o ro {tmp_path} {tmp_path}")
    said = f"{tmp_path}/{MEMORY_FILE}: Read-only file system"
    assert lines == [f"told the memory of earlier starts cannot be written: {said}", "known 3", "known 3", "goes on"]


@needs_mounts
def test_what_cannot_be_forgotten_is_an_error_and_not_no_start(tmp_path: Path) -> None:
    """`forgot 0 starts` stood there, with exit code 0."""
    run(python(LAUNCH, tmp_path, "card", 3))
    ended = told(tmp_path, "history", "--forget")
    assert (ended.returncode, ended.stdout) == (5, "")
    assert "error: nothing was forgotten\n" in ended.stderr
    assert f"cannot be written: {tmp_path}/{MEMORY_FILE}: Read-only file system" in ended.stderr


@needs_mounts
def test_the_doctor_says_that_no_launch_can_keep_its_logs(tmp_path: Path) -> None:
    said = f"state    {tmp_path} cannot be used: Read-only file system; every launch will end with exit code 5"
    assert told(tmp_path, "doctor", "--engine", "true").stdout.splitlines()[-1] == said


def told(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run autolaunch with a state folder that is read-only."""
    command = [sys.executable, "-m", "autolaunch", *words, "--state-dir", str(folder)]
    read_only = ["unshare", "-m", "sh", "-c", f'mount --bind -o ro {folder} {folder} && exec "$@"', "sh"]
    return subprocess.run(
        [*read_only, *command], env=ENVIRONMENT, cwd=ROOT, capture_output=True, text=True, check=False
    )


@needs_mounts
def test_a_read_only_disk_without_a_memory_is_told_once(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    lines = run(python(LAUNCH, folder, "card", 3), before=f"mount --bind -o ro {tmp_path} {tmp_path}")
    said = f"told the memory of earlier starts cannot be written: {folder}/{MEMORY_FILE}: Read-only file system"
    assert lines == [said, "known 0", "known 0", "goes on"]


@needs_mounts
def test_a_damaged_file_on_a_read_only_disk_stays_and_is_told_once(tmp_path: Path) -> None:
    (tmp_path / MEMORY_FILE).write_text("garbage" * 1000)
    lines = run(python(LAUNCH, tmp_path, "card", 3), before=f"mount --bind -o ro {tmp_path} {tmp_path}")
    said = f"told the memory of earlier starts cannot be written: {tmp_path}/{MEMORY_FILE}: Read-only file system"
    assert lines == [said, "known 0", "known 0", "goes on"]


def test_a_limit_on_the_size_of_files_costs_the_memory_and_not_the_launch(tmp_path: Path) -> None:
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (40960, 40960))\n"
    lines = run(python(limit + LAUNCH, tmp_path, "card", 40))
    assert lines[0] == "known 0"
    assert lines[1].startswith("told the memory of earlier starts cannot be written: ")
    assert 0 < int(lines[2].split()[1]) < 40
    assert lines[3:] == ["goes on"]
    check(tmp_path)


def test_a_writer_that_is_stopped_in_its_write_is_waited_for_a_few_seconds(tmp_path: Path) -> None:
    """The lock of a process that lives stands; the launch goes on without its row."""
    hold = """
import time
memory = Memory.open(folder, say)
def work(db):
    print("writing", flush=True)
    time.sleep(600)
memory._database.write(work)
"""
    Memory.open(tmp_path, print)
    writer = Writer(tmp_path / "out", python(hold, tmp_path, "card"))
    writer.begun()
    writer.process.send_signal(signal.SIGSTOP)
    hurried = "from autolaunch import database; database.BUSY_S = 0.2\n"
    lines = run(python(hurried + LAUNCH, tmp_path, "card", 1))
    said = f"told the memory of earlier starts cannot be written: {tmp_path}/{MEMORY_FILE}: database is locked"
    assert lines == [said, "known 0", "known 0", "goes on"]
    assert writer.kill() == ["writing"]
    assert run(python(LAUNCH, tmp_path, "card", 1)) == ["known 0", "known 1", "goes on"]
