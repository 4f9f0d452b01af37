"""What is shown of a start while it goes on."""

from __future__ import annotations

import pytest

from autolaunch.failure import Phase
from autolaunch.talk import Talk


def test_a_program_gets_a_line_as_each_phase_begins(capfd: pytest.CaptureFixture[str]) -> None:
    talk = Talk(run="r", log_format="console")
    talk.says_phases = True
    for phase, seconds in ((Phase.LOAD, 3.0), (Phase.LOAD, 4.0), (Phase.KV_CACHE, 12.4)):
        talk.show(phase, seconds)
    shown = capfd.readouterr().err.splitlines()
    assert [line.split(", ")[1] for line in shown] == ["3 s after the start", "12 s after the start"]


def test_where_no_terminal_and_no_program_looks_nothing_is_drawn(capfd: pytest.CaptureFixture[str]) -> None:
    Talk(run="r", log_format="console").show(Phase.LOAD, 3.0)
    assert capfd.readouterr().err == ""
