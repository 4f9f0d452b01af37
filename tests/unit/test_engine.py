"""What the operating system refuses at a start is the host's fault, and nothing is left of it."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from autolaunch import engine, warden
from autolaunch.diagnosis import Scanner
from autolaunch.engine import EngineProcess
from autolaunch.errors import HostError
from autolaunch.output import Output
from autolaunch.redaction import Secrets


def test_a_pipe_that_cannot_be_made_is_the_hosts_fault_and_leaves_no_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With all files open it once was a traceback, and a folder stayed."""

    def refuse() -> tuple[int, int]:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(os, "pipe", refuse)
    monkeypatch.setattr(engine, "LONGEST_BASE", 1000)
    monkeypatch.setattr(warden, "prctl", lambda *_: True)
    output = Output(None, Scanner(), secrets=Secrets(), echo=None, warn=print)
    with pytest.raises(HostError, match="Too many open files"):
        EngineProcess(1, output, print).start(["true"], {"TMPDIR": str(tmp_path)})
    assert list(tmp_path.iterdir()) == []
