"""Whole lines in bounded memory, and the same verdict on a log however it is read."""

from __future__ import annotations

import gc
import io
import os
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path

import pytest

from autolaunch.diagnosis import Scanner, diagnose
from autolaunch.logfile import LogFile
from autolaunch.output import CHUNK_BYTES, KEPT_END_BYTES, REST_S, Lines, Output, pump, read_log
from autolaunch.redaction import Secrets
from autolaunch.veil import LONG_LINE_BYTES

LOGS = sorted((Path(__file__).parents[1] / "data").rglob("*.log"))


@pytest.mark.parametrize("log", LOGS, ids=lambda log: log.name)
def test_a_log_is_judged_the_same_in_chunks_as_whole(log: Path) -> None:
    assert read_log(io.BytesIO(log.read_bytes())) == diagnose(log.read_bytes())


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8"])
def test_a_log_of_any_encoding_is_read(encoding: str) -> None:
    text = "ärger\n" * 50_000 + "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB\n"
    found = read_log(io.BytesIO(text.encode(encoding)))
    assert found == diagnose(text)
    assert found.line_number == 50_001


def test_no_log_at_all_is_judged() -> None:
    assert read_log(io.BytesIO(b"")) == diagnose(b"")


def test_of_a_line_without_an_end_head_and_end_are_kept() -> None:
    lines = Lines()
    assert lines.feed(b"first\nhead") == b"first"
    for _ in range(20):
        assert lines.feed(b"x" * LONG_LINE_BYTES) is None
    assert lines.feed(b"end") is None
    last = lines.finish()
    assert last is not None
    assert last.startswith(b"head")
    assert last.endswith(b"end")
    assert len(last) < LONG_LINE_BYTES + 3 * KEPT_END_BYTES
    assert lines.finish() is None


def test_what_an_engine_left_goes_with_its_output(tmp_path: Path) -> None:
    """A cycle once kept the shapes and evidence of some twenty engines until the garbage collector came by."""
    gc.disable()
    try:
        output = Output(LogFile(tmp_path / "log"), Scanner(), secrets=Secrets(), echo=None, warn=print)
        output.feed(b"one line\nand a half")
        output.finish()
        kept = weakref.ref(output)
        del output
        assert kept() is None
    finally:
        gc.enable()


def test_a_long_log_is_diagnosed_in_bounded_memory(tmp_path: Path) -> None:
    """353 MB once took 1.25 GB."""
    log = tmp_path / "long.log"
    block = b"x" * 200 + b"\n"
    with log.open("wb") as file:
        for _ in range(60):
            file.write(block * 5000)
        file.write(b"y" * 20_000_000)
    script = (
        "import sys; from autolaunch.output import read_log; read_log(open(sys.argv[1], 'rb'));"
        "print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))"
    )
    said = subprocess.run([sys.executable, "-c", script, str(log)], capture_output=True, check=True)
    assert int(said.stdout) < 80_000


def test_an_engine_that_logs_line_by_line_is_read_in_batches(tmp_path: Path) -> None:
    """Read at once, each of thousands of lines a second cost the engine a wake-up of its reader: 1.1 of its time."""
    reading, writing = os.pipe()
    file = LogFile(tmp_path / "log")
    output = Output(file, Scanner(), secrets=Secrets(), echo=None, warn=print)
    blocks: list[float] = []
    reader = threading.Thread(target=lambda: pump(reading, output, on_block=lambda: blocks.append(time.monotonic())))
    reader.start()
    began = time.monotonic()
    lines = 0
    while time.monotonic() < began + 0.3:
        os.write(writing, b"one line of an engine\n")
        lines += 1
    os.close(writing)
    reader.join(60)
    assert (tmp_path / "log").read_bytes() == b"one line of an engine\n" * lines
    whole = lines * len(b"one line of an engine\n") // CHUNK_BYTES  # these are read one after the other
    assert len(blocks) <= (blocks[-1] - began) / REST_S + whole + 2
