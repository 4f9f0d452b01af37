"""What a run leaves in its folder beside the logs, and what happens where it cannot."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from autolaunch import __version__, kept
from autolaunch.kept import KeptRecord, about, read_about, read_record
from autolaunch.past import Key
from autolaunch.record import Ended, Gave
from autolaunch.status import Status

STATUS = Status(run="r", model="org/m", engine_version="0.24.0", strategy="default", max_attempts=6, url="http://x")
KEY = Key("org/m@1", "", "H100", 80 << 30, name="m")


def test_a_run_says_what_it_was(tmp_path: Path) -> None:
    KeptRecord(tmp_path, about(STATUS, KEY, "an H100"), pytest.fail)
    said = read_about(tmp_path)
    assert said.pop("time").endswith("Z")
    assert said == {
        "v": 1,
        "run": "r",
        "autolaunch": __version__,
        "engine_version": "0.24.0",
        "model": "org/m",
        "remembered_as": "m",
        "stands_for": "org/m@1",
        "strategy": "default",
        "max_attempts": 6,
        "card": "an H100",
        "url": "http://x",
    }
    assert (tmp_path / "run.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("text", [b"", b"{", b"[1]", b"\xff", b'{"a":' + b"1" * (1 << 17)])
def test_what_cannot_be_read_says_nothing(tmp_path: Path, text: bytes) -> None:
    assert read_about(tmp_path) == {}
    (tmp_path / "run.json").write_bytes(text)
    assert read_about(tmp_path) == {}
    assert read_record(tmp_path) == b""


def test_every_event_is_a_line_in_the_form_of_the_record(tmp_path: Path) -> None:
    folder = tmp_path / "run-1"
    folder.mkdir()
    written = KeptRecord(folder, {}, pytest.fail)
    written.write(Gave("nothing left", ("a",)))
    written.write(Ended("exhausted", 3))
    first, second = map(json.loads, read_record(folder).splitlines())
    assert (first["v"], first["run"], first["event"], first["closest"]) == (1, "run-1", "exhausted", ["a"])
    assert (second["event"], second["reason"], second["exit_code"]) == ("stopped", "exhausted", 3)


def test_the_record_of_a_run_of_months_is_bounded_and_keeps_first_and_newest(tmp_path: Path) -> None:
    written = KeptRecord(tmp_path, {}, pytest.fail)
    for number in range(12_000):
        written.write(Gave(f"event {number} " + "x" * 400))
    text = read_record(tmp_path)
    assert sum(file.stat().st_size for file in tmp_path.glob("record*")) < 3_200_000
    assert len(text) < 3_200_000
    assert b"event 0 " in text
    assert b"event 11999 " in text
    assert text.count(b"[autolaunch: ") == 1
    for line in text.splitlines():
        assert line.startswith(b"[autolaunch: ") or json.loads(line)["event"] == "exhausted"


def test_a_record_that_cannot_be_begun_is_said_once_and_ends_nothing(tmp_path: Path) -> None:
    said: list[str] = []
    written = KeptRecord(tmp_path / "missing", {}, said.append)
    written.write(Ended("signal", 0))
    assert said == ["the run's record cannot be kept in its folder: No such file or directory"]


def test_a_disk_that_becomes_full_is_said_once_and_ends_nothing(tmp_path: Path) -> None:
    said: list[str] = []
    (tmp_path / kept.RECORD).symlink_to("/dev/full")
    written = KeptRecord(tmp_path, {}, said.append)
    written.write(Ended("signal", 0))
    written.write(Ended("signal", 0))
    assert said == ["the run's record cannot be kept in its folder: No space left on device"]
