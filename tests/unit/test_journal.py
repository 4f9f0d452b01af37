"""The journal is known by its stream, not by a variable, and gets plain lines with their priority."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from autolaunch.journal import STREAM, Priority, connected, prefixed


def stream_of(descriptor: int) -> str:
    found = os.fstat(descriptor)
    return f"{found.st_dev}:{found.st_ino}"


def test_the_stream_that_systemd_made_is_the_journal(tmp_path: Path) -> None:
    with (tmp_path / "stream").open("w") as stream:
        number = stream.fileno()
        assert connected({STREAM: stream_of(number)}, number)


def test_a_variable_that_was_inherited_is_not(tmp_path: Path) -> None:
    with (tmp_path / "stream").open("w") as stream, (tmp_path / "file").open("w") as file:
        assert not connected({STREAM: stream_of(stream.fileno())}, file.fileno())


@pytest.mark.parametrize("text", ["", "8", "a:b", "8:0", "1:2:3"])
def test_other_words_in_the_variable_are_not(text: str) -> None:
    assert not connected({STREAM: text}, 2)
    assert not connected({}, 2)


def test_a_descriptor_that_is_closed_is_not() -> None:
    reading, writing = os.pipe()
    stream = stream_of(writing)
    os.close(reading)
    os.close(writing)
    assert not connected({STREAM: stream}, writing)


def test_every_line_has_its_priority_and_no_colour() -> None:
    assert prefixed("\x1b[1m\x1b[31mbroken\x1b[0m\n  <7> hint", Priority.ERROR) == "<3>broken\n<3>  <7> hint"
    assert prefixed("", Priority.WARNING) == "<4>"
    assert prefixed("\x1b[2Kplain", Priority.INFO) == "<6>plain"
